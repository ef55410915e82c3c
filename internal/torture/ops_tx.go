package torture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

func transferTx(ctx context.Context, c *client, name string) {
	a, b := c.twoOf(20)
	amount := c.rng.IntN(300)
	c.transaction(ctx, name, c.isolation(), func(tx *sql.Tx, op int64) error {
		if _, err := tx.ExecContext(ctx, "SELECT FROM torture.accounts WHERE id IN ($1, $2) ORDER BY id FOR UPDATE", a, b); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE torture.accounts SET balance = balance + $2 WHERE id = $1", b, amount); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE torture.accounts SET balance = balance - $2 WHERE id = $1", a, amount); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, enter, op, "transfer", amount)
		return err
	}, "23514")
}

// gridTx locks rows in random order: deadlocks happen.
func gridTx(ctx context.Context, c *client, name string) {
	ids := c.rng.Perm(6)[:3]
	c.transaction(ctx, name, c.isolation(), func(tx *sql.Tx, op int64) error {
		for _, id := range ids {
			if _, err := tx.ExecContext(ctx, "UPDATE torture.grid SET n = n + 1 WHERE id = $1", id); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, enter, op, "grid", len(ids))
		return err
	})
}

const mergeSQL = `MERGE INTO torture.stock AS s
USING (SELECT $1::bigint AS lane, k COLLATE "C" AS key, (random() * 3)::int AS qty FROM unnest(ARRAY['a', 'b', 'ä']) AS k) AS v ON s.lane = v.lane AND s.key = v.key
WHEN MATCHED AND s.qty > 4 THEN DELETE
WHEN MATCHED AND v.qty = 0 THEN DO NOTHING
WHEN MATCHED THEN UPDATE SET qty = s.qty + v.qty
WHEN NOT MATCHED THEN INSERT VALUES (v.lane, v.key, v.qty)`

// merge has no op of its own: the log that its trigger keeps is its account.
func merge(ctx context.Context, c *client, name string) {
	_, err := c.db.ExecContext(ctx, mergeSQL, c.lane)
	c.report(name, single, err)
	if OutcomeOf(err) == Unknown {
		c.lane = 0
	}
}

func mergeTx(ctx context.Context, c *client, name string) {
	c.transaction(ctx, name, c.isolation(), func(tx *sql.Tx, op int64) error {
		for range 2 {
			if _, err := tx.ExecContext(ctx, mergeSQL, c.lane); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, enter, op, "merge", 0)
		return err
	})
}

func newFamily(ctx context.Context, c *client, name string) {
	op, o := c.transaction(ctx, name, c.isolation(), func(tx *sql.Tx, op int64) error {
		for _, query := range []string{
			"INSERT INTO torture.parents (id, lane) VALUES ($1, -1)",
			"INSERT INTO torture.children (parent) SELECT $1 FROM generate_series(1, 2)",
			"INSERT INTO torture.adopted (parent) VALUES ($1)",
			"INSERT INTO torture.ledger (op, kind) VALUES ($1, 'family')",
		} {
			if _, err := tx.ExecContext(ctx, query, op); err != nil {
				return err
			}
		}
		return nil
	})
	if o == Acked {
		c.families = append(c.families, op)
	}
}

// rekeyFamily changes a referenced key: the children follow by cascade.
func rekeyFamily(ctx context.Context, c *client, name string) {
	if len(c.families) == 0 {
		return
	}
	id, i := one(c, c.families)
	op, o := c.exec(ctx, name, `WITH u AS (UPDATE torture.parents SET id = $1 WHERE id = $2) INSERT INTO torture.ledger (op, kind) VALUES ($1, 'rekey')`, []any{id})
	if o == Acked {
		c.families[i] = op
	}
}

func deleteFamily(ctx context.Context, c *client, name string) {
	if len(c.families) == 0 {
		return
	}
	id, i := one(c, c.families)
	_, o := c.exec(ctx, name, `WITH d AS (DELETE FROM torture.parents WHERE id = $2) INSERT INTO torture.ledger (op, kind) VALUES ($1, 'delete family')`, []any{id})
	if o == Acked {
		c.families = append(c.families[:i], c.families[i+1:]...)
	}
}

// bookTx inserts a range that others want too.
func bookTx(ctx context.Context, c *client, name string) {
	from := c.rng.IntN(100)
	c.transaction(ctx, name, c.isolation(), func(tx *sql.Tx, op int64) error {
		if c.rng.IntN(3) == 0 {
			if _, err := tx.ExecContext(ctx, "DELETE FROM torture.bookings WHERE during <@ int8range(0, 200)"); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO torture.bookings (op, during) VALUES ($1, int8range($2, $3))", op, from, from+10); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, enter, op, "booking", 0)
		return err
	}, "23P01")
}

func truncateTx(ctx context.Context, c *client, name string) {
	c.transaction(ctx, name, nil, func(tx *sql.Tx, op int64) error {
		if _, err := tx.ExecContext(ctx, "TRUNCATE torture.scratch"); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO torture.scratch (n, op) SELECT g, $1 FROM generate_series(1, 5) AS g", op); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, enter, op, "scratch", 0)
		return err
	})
}

// savepoints writes around a part that is rolled back, half the time because
// of an error.
func savepoints(ctx context.Context, c *client, name string) {
	inner := c.newOp()
	fails := c.rng.IntN(2) == 0
	c.transaction(ctx, name, c.isolation(), func(tx *sql.Tx, op int64) error {
		run := func(query string, args ...any) error { _, err := tx.ExecContext(ctx, query, args...); return err }
		err := errors.Join(run("INSERT INTO torture.lefts VALUES ($1)", op), run(`SAVEPOINT "a; b"`), run(enter, inner, "savepoint", 0))
		if err != nil {
			return err
		}
		if fails {
			err := run("INSERT INTO torture.ledger (op, kind) VALUES ($1, 'twice')", inner)
			if state(err) != "23505" {
				return orWant(err, "23505")
			}
		}
		if err := run(`ROLLBACK TO SAVEPOINT "a; b"`); err != nil {
			return err
		}
		return errors.Join(run(`RELEASE SAVEPOINT "a; b"`), run("INSERT INTO torture.rights VALUES ($1)", op), run(enter, op, "savepoint", 0))
	})
	c.h.end(name+" rolled back", inner, Failed) // whatever became of the rest
}

// orWant is err, or the complaint that there was none.
func orWant(err error, code string) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: no error, want SQLSTATE %s", errBroken, code)
}

func rollback(ctx context.Context, c *client, name string) {
	c.transaction(ctx, name, c.isolation(), func(tx *sql.Tx, op int64) error {
		if _, err := tx.ExecContext(ctx, enter, op, "rollback", 0); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO torture.items (op) VALUES ($1)", -op); err != nil {
			return err
		}
		return errGiveUp
	})
}

// failedCommit commits a transaction that an error has already ended: the
// server answers ROLLBACK, and the client must not read it as success.
func failedCommit(ctx context.Context, c *client, name string) {
	op := c.newOp()
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		c.h.end(name, op, Failed)
		c.report(name, explicit, err)
		return
	}
	_, err = tx.ExecContext(ctx, enter, op, "failed commit", 0)
	if err == nil {
		_, err = tx.ExecContext(ctx, "SELECT 1 / (random() * 0)::int")
		if err == nil {
			err = orWant(nil, "22012")
		}
	}
	c.report(name, explicit, err, "22012")
	if err := tx.Commit(); err == nil {
		c.h.violate(&Violation{Kind: UnexpectedError, Client: c.id, Op: name, Detail: fmt.Sprintf("op %d: COMMIT of a failed transaction was reported as success", op)})
	}
	c.h.end(name, op, Failed)
}

// pairTx reads, writes in two tables and reads its own writes.
func pairTx(ctx context.Context, c *client, name string) {
	acked, failed := c.h.sample(c.rng)
	c.transaction(ctx, name, c.isolation(), func(tx *sql.Tx, op int64) error {
		if err := c.look(ctx, tx, name, acked, failed); err != nil {
			return err
		}
		for _, query := range []string{"INSERT INTO torture.lefts VALUES ($1)", "INSERT INTO torture.rights VALUES ($1)", "INSERT INTO torture.ledger (op, kind) VALUES ($1, 'pair')"} {
			if _, err := tx.ExecContext(ctx, query, op); err != nil {
				return err
			}
		}
		return c.look(ctx, tx, name, append(acked, op), failed)
	})
}
