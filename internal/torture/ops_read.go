package torture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// readBack looks for what was acknowledged, to whichever client, before it began.
func readBack(ctx context.Context, c *client, name string) {
	acked, failed := c.h.sample(c.rng)
	c.report(name, single, c.look(ctx, c.db, name, acked, failed))
}

func readBackTx(ctx context.Context, c *client, name string) {
	acked, failed := c.h.sample(c.rng)
	opts := c.isolation()
	opts.ReadOnly = true
	tx, err := c.db.BeginTx(ctx, opts)
	if err != nil {
		c.report(name, explicit, err)
		return
	}
	for range 2 {
		if err = c.look(ctx, tx, name, acked, failed); err == nil {
			err = c.bank(ctx, tx, name)
		}
		if err != nil {
			break
		}
	}
	c.report(name, explicit, err)
	if err != nil {
		_ = tx.Rollback() // err told what is wrong
		return
	}
	c.report(name, explicit, tx.Commit())
}

// look reads the ledger: every op of acked must be there and none of failed.
func (c *client) look(ctx context.Context, q Queryer, name string, acked, failed []int64) error {
	if len(acked)+len(failed) == 0 {
		return nil
	}
	rows, err := q.QueryContext(ctx, "SELECT op FROM torture.ledger WHERE op = ANY ($1::text::bigint[])", arrayText(acked, failed))
	if err != nil {
		return err
	}
	defer rows.Close()
	seen := map[int64]bool{}
	for rows.Next() {
		var op int64
		if err := rows.Scan(&op); err != nil {
			return err
		}
		seen[op] = true
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, op := range acked {
		if !seen[op] {
			c.h.violate(&Violation{Kind: StaleRead, Client: c.id, Op: name, Detail: fmt.Sprintf("op %d was acknowledged before and is not there", op)})
		}
	}
	for _, op := range failed {
		if seen[op] {
			c.h.violate(&Violation{Kind: DirtyRead, Client: c.id, Op: name, Detail: fmt.Sprintf("op %d had failed before and is there", op)})
		}
	}
	return nil
}

// arrayText is PostgreSQL's text form of an array.
func arrayText(lists ...[]int64) string {
	var parts []string
	for _, list := range lists {
		for _, n := range list {
			parts = append(parts, strconv.FormatInt(n, 10))
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func readBank(ctx context.Context, c *client, name string) {
	c.report(name, single, c.bank(ctx, c.db, name))
}

func (c *client) bank(ctx context.Context, q Queryer, name string) error {
	var sum int64
	if err := q.QueryRowContext(ctx, "SELECT sum(balance)::bigint FROM torture.accounts").Scan(&sum); err != nil {
		return err
	}
	if sum != bankTotal {
		c.h.violate(&Violation{Kind: BrokenInvariant, Client: c.id, Op: name, Detail: fmt.Sprintf("bank sum %d, want %d", sum, bankTotal)})
	}
	return nil
}

// readItem compares a row with what RETURNING had told.
func readItem(ctx context.Context, c *client, name string) {
	if len(c.items) == 0 {
		return
	}
	op, _ := one(c, c.items)
	want, ok := c.h.itemOf(op)
	if !ok {
		return
	}
	var got item
	err := c.db.QueryRowContext(ctx, "SELECT id::text, rnd::text, u::text FROM torture.items WHERE op = $1", op).Scan(&got.id, &got.rnd, &got.uuid)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		c.h.violate(&Violation{Kind: StaleRead, Client: c.id, Op: name, Detail: fmt.Sprintf("item of op %d, acknowledged before, is not there", op)})
	case c.report(name, single, err) && got != want:
		c.h.violate(&Violation{Kind: WrongValue, Client: c.id, Op: name, Detail: fmt.Sprintf("op %d returned %v and reads as %v", op, want, got)})
	}
}

func readInvariant(ctx context.Context, c *client, name string) {
	inv, _ := one(c, Invariants())
	wrong, err := inv.broken(ctx, c.db)
	if c.report(name, single, err) && wrong != "" {
		c.h.violate(&Violation{Kind: BrokenInvariant, Client: c.id, Op: inv.Name, Detail: wrong})
	}
}
