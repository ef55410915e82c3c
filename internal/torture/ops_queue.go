package torture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

func enqueue(ctx context.Context, c *client, name string) {
	c.exec(ctx, name, "INSERT INTO torture.jobs (op) VALUES ($1)", nil)
}

const nextJob = "SELECT id FROM torture.jobs WHERE taken IS NULL ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1"

// take removes a job from the queue in one statement.
func take(ctx context.Context, c *client, name string) {
	op := c.newOp()
	var job string
	err := c.db.QueryRowContext(ctx, "UPDATE torture.jobs SET taken = $1 WHERE id = ("+nextJob+") RETURNING id::text", op).Scan(&job)
	if errors.Is(err, sql.ErrNoRows) {
		c.h.end(name+" nothing", op, Failed)
		return
	}
	if c.finish(name, single, op, err) == Acked {
		c.took(name, job, op)
	}
}

// takeTx does it in steps, and now and then thinks better of it.
func takeTx(ctx context.Context, c *client, name string) {
	var job string
	op, o := c.transaction(ctx, name, nil, func(tx *sql.Tx, op int64) error {
		err := tx.QueryRowContext(ctx, strings.Replace(nextJob, "SELECT id", "SELECT id::text", 1)).Scan(&job)
		if errors.Is(err, sql.ErrNoRows) {
			return errGiveUp
		}
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE torture.jobs SET taken = $2 WHERE id = $1::text::bigint", job, op); err != nil {
			return err
		}
		if c.rng.IntN(4) == 0 {
			return errGiveUp
		}
		return nil
	})
	if o == Acked {
		c.took(name, job, op)
	}
}

func (c *client) took(name, job string, op int64) {
	if other, twice := c.h.takeJob(job, op); twice {
		c.h.violate(&Violation{Kind: WrongValue, Client: c.id, Op: name, Detail: fmt.Sprintf("job %s was given to op %d and to op %d", job, other, op)})
	}
}

// insertEvents inserts duplicates into a table without a key.
func insertEvents(ctx context.Context, c *client, name string) {
	op, o := c.exec(ctx, name, `WITH e AS (INSERT INTO torture.events SELECT $1, g % 2, CASE WHEN g % 3 = 0 THEN NULL ELSE 'same' END FROM generate_series(1, $2) AS g RETURNING 1)
INSERT INTO torture.ledger (op, kind, amount) SELECT $1, 'events', count(*) FROM e`, []any{2 + c.rng.IntN(8)})
	if o == Acked {
		c.events = append(c.events, op)
	}
}

// trimEvents deletes one of several equal rows.
func trimEvents(ctx context.Context, c *client, name string) {
	if len(c.events) == 0 {
		return
	}
	of, _ := one(c, c.events)
	c.exec(ctx, name, `WITH d AS (DELETE FROM torture.events WHERE ctid = (SELECT min(ctid) FROM torture.events WHERE op = $2) RETURNING 1),
  l AS (UPDATE torture.ledger SET amount = amount - (SELECT count(*) FROM d) WHERE op = $2)
INSERT INTO torture.ledger (op, kind) VALUES ($1, 'trim')`, []any{of})
}

// changeEvents makes some of the rows equal to others and some different.
func changeEvents(ctx context.Context, c *client, name string) {
	if len(c.events) == 0 {
		return
	}
	of, _ := one(c, c.events)
	c.exec(ctx, name, `WITH u AS (UPDATE torture.events SET n = (random() * 2)::int, payload = CASE n WHEN 0 THEN 'same' ELSE payload || '+' END WHERE op = $2)
INSERT INTO torture.ledger (op, kind) VALUES ($1, 'change')`, []any{of})
}

// copyIn uses the COPY protocol on the connection that Raw lends out.
func copyIn(ctx context.Context, c *client, name string) {
	conn, err := c.db.Conn(ctx)
	if err != nil {
		c.report(name, single, err)
		return
	}
	defer conn.Close() // its error is that of the connection, told by Raw before
	op := c.newOp()
	rows := make([][]any, 1+c.rng.IntN(20))
	for i := range rows {
		rows[i] = []any{op, int32(i), "tab\t, newline\n, backslash \\N, quote \""}
	}
	err = conn.Raw(func(dc any) error {
		lender, ok := dc.(interface{ Conn() *pgx.Conn })
		if !ok {
			return fmt.Errorf("%w: %T has no method Conn() *pgx.Conn", errBroken, dc)
		}
		_, err := lender.Conn().CopyFrom(ctx, pgx.Identifier{"torture", "copied"}, []string{"op", "line", "note"}, pgx.CopyFromRows(rows))
		return err
	})
	c.finish(name, raw, op, err)
}
