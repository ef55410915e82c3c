package torture

import (
	"context"
	"fmt"
)

// operations returns the menu. Autocommit statements lock at most one row that
// other clients lock too, so that no deadlock, which a single statement would
// have to show, is possible; transactions are under no such rule.
func operations() []operation {
	return []operation{
		{"item", 8, 0, insertItem},
		{"bad item", 4, 0, insertBadItem},
		{"delete item", 2, 0, deleteItem},
		{"transfer", 6, 0, transfer},
		{"transfer tx", 6, 0, transferTx},
		{"counter", 6, 0, counter},
		{"grid tx", 4, 0, gridTx},
		{"nested", 4, 0, nested},
		{"latest", 4, 0, latest},
		{"slots", 3, 0, swapSlots},
		{"ranks", 3, 0, swapRanks},
		{"moving", 3, 0, moveKey},
		{"alike", 4, 0, equalKey},
		{"tally", 4, 0, tally},
		{"merge", 3, 150000, merge},
		{"merge tx", 3, 150000, mergeTx},
		{"family tx", 3, 0, newFamily},
		{"rekey family", 2, 0, rekeyFamily},
		{"delete family", 2, 0, deleteFamily},
		{"enqueue", 5, 0, enqueue},
		{"take", 3, 0, take},
		{"take tx", 3, 0, takeTx},
		{"events", 3, 0, insertEvents},
		{"trim events", 3, 0, trimEvents},
		{"change events", 2, 0, changeEvents},
		{"copy", 2, 0, copyIn},
		{"region", 3, 0, moveRegion},
		{"booking", 3, 0, book},
		{"cancel bookings", 1, 0, cancelBookings},
		{"booking tx", 2, 0, bookTx},
		{"scratch tx", 1, 0, truncateTx},
		{"savepoint tx", 4, 0, savepoints},
		{"rollback tx", 3, 0, rollback},
		{"failed commit tx", 2, 0, failedCommit},
		{"procedure", 3, 0, procedure},
		{"pair tx", 3, 0, pairTx},
		{"do", 2, 0, doBlock},
		{"zoo", 4, 0, feedZoo},
		{"read back", 6, 0, readBack},
		{"read back tx", 3, 0, readBackTx},
		{"read bank", 4, 0, readBank},
		{"read item", 3, 0, readItem},
		{"read invariant", 1, 0, readInvariant},
	}
}

// insertItem inserts what the server makes up, half the time as a SELECT.
func insertItem(ctx context.Context, c *client, name string) {
	query := "INSERT INTO torture.items (op) VALUES ($1) RETURNING id::text, rnd::text, u::text"
	if c.rng.IntN(2) == 0 {
		query = "WITH new AS (INSERT INTO torture.items (op, alt) VALUES ($1, clock_timestamp()::text) RETURNING *) SELECT id::text, rnd::text, u::text FROM new"
	}
	op := c.newOp()
	var it item
	err := c.db.QueryRowContext(ctx, query, op).Scan(&it.id, &it.rnd, &it.uuid)
	if c.finish(name, single, op, err) == Acked {
		c.items = append(c.items, op)
		c.h.addItem(op, it)
	}
}

// insertBadItem fails in one of several ways, each of which spends a serial.
func insertBadItem(ctx context.Context, c *client, name string) {
	ways := []struct{ query, code string }{
		{"INSERT INTO torture.items (op, rnd) VALUES ($1, NULL)", "23502"},
		{"INSERT INTO torture.items (op, code) SELECT $1, 'same' FROM generate_series(1, 2)", "23505"},
		{"INSERT INTO torture.items (op, alt) VALUES ($1, 'bad')", "P0001"},
		{"INSERT INTO torture.items (op, backend) VALUES ($1, (random() * 0)::int / (random() * 0)::int)", "22012"},
		{"WITH l AS (INSERT INTO torture.ledger (op, kind) VALUES ($1, 'never')) INSERT INTO torture.accounts VALUES (0, 0)", "23505"},
	}
	way, _ := one(c, ways)
	op, o := c.exec(ctx, name, way.query, nil, way.code)
	if o == Acked {
		c.h.violate(&Violation{Kind: UnexpectedError, Client: c.id, Op: name, Detail: fmt.Sprintf("op %d succeeded, want SQLSTATE %s: %s", op, way.code, way.query)})
	}
}

func deleteItem(ctx context.Context, c *client, name string) {
	if len(c.items) == 0 {
		return
	}
	victim, i := one(c, c.items)
	it := c.h.removeItem(victim)
	_, o := c.exec(ctx, name, "WITH d AS (DELETE FROM torture.items WHERE op = $2) INSERT INTO torture.ledger (op, kind) VALUES ($1, 'delete item')", []any{victim})
	switch o {
	case Acked:
		c.h.itemDeleted(victim)
	case Failed:
		c.h.addItem(victim, it)
		return
	}
	if o == Acked {
		c.items = append(c.items[:i], c.items[i+1:]...)
	}
}

// transfer is a SELECT that writes.
func transfer(ctx context.Context, c *client, name string) {
	a, b := c.twoOf(20)
	c.exec(ctx, name, "SELECT torture.transfer($1, $2, $3, $4)", []any{a, b, c.rng.IntN(300)}, "23514")
}

func counter(ctx context.Context, c *client, name string) {
	c.exec(ctx, name, `WITH u AS (UPDATE torture.counters SET n = n + $3 WHERE id = $2 RETURNING 1)
INSERT INTO torture.ledger (op, kind, amount) SELECT $1, 'counter', $3::bigint FROM u`, []any{c.rng.IntN(8), c.rng.IntN(100)})
}

func nested(ctx context.Context, c *client, name string) {
	c.exec(ctx, name, `WITH u AS (UPDATE torture.nested SET touches = touches + 1 WHERE lane = $2 AND id = $3 RETURNING 1)
INSERT INTO torture.ledger (op, kind, amount) SELECT $1, 'nested', count(*) FROM u`, []any{c.lane, 1 + c.rng.IntN(3)})
}

func latest(ctx context.Context, c *client, name string) {
	c.exec(ctx, name, "INSERT INTO torture.latest (op, lane, key) VALUES ($1, $2, $3)", []any{c.lane, []string{"k", "K", "k ", "ké"}[c.rng.IntN(4)]})
}

func swapSlots(ctx context.Context, c *client, name string) {
	a, b := c.twoOf(4)
	c.exec(ctx, name, `WITH u AS (UPDATE torture.slots s SET pos = o.pos FROM torture.slots o
  WHERE s.lane = $2 AND o.lane = $2 AND (s.item = $3 AND o.item = $4 OR s.item = $4 AND o.item = $3))
INSERT INTO torture.ledger (op, kind) VALUES ($1, 'slots')`, []any{c.lane, a + 1, b + 1})
}

func swapRanks(ctx context.Context, c *client, name string) {
	a, b := c.twoOf(4)
	c.exec(ctx, name, "INSERT INTO torture.ledger (op, kind, note) SELECT $1, 'ranks', torture.swap_ranks($2, $3, $4)::text", []any{c.lane, a + 1, b + 1})
}

func moveKey(ctx context.Context, c *client, name string) {
	c.exec(ctx, name, `WITH u AS (UPDATE torture.moving SET id = $1, op = $1 WHERE lane = $2)
INSERT INTO torture.ledger (op, kind, key) VALUES ($1, 'moving', $2::bigint::text)`, []any{c.lane})
}

// equalKey changes a key to one that is equal to it, or not, and whose bytes differ.
func equalKey(ctx context.Context, c *client, name string) {
	pick := func(from ...string) string { s, _ := one(c, from); return s }
	c.exec(ctx, name, `WITH u AS (UPDATE torture.alike SET op = $1, n = $3::text::numeric, b = $4::text::bpchar, f = $5::text::float8, i = $6::text::interval, j = $7::text::jsonb, ns = $8::text::numeric[]
  WHERE lane = $2 RETURNING *)
INSERT INTO torture.ledger (op, kind, key, note) SELECT $1, 'alike', lane::text, concat_ws('|', n, b, f, i, j, ns) FROM u`,
		[]any{c.lane, pick("1", "1.0", "1.00", "NaN"), pick("a", "a  ", "A"), pick("0", "-0", "NaN"), pick("1 mon", "30 days", "29 days 24:00"),
			pick(`{"a": 1}`, `{"a": 1.0}`, `{"a": 1.00}`), pick("{1}", "{1.0}", "[0:0]={1.0}")})
}

func tally(ctx context.Context, c *client, name string) {
	c.exec(ctx, name, `WITH u AS (INSERT INTO torture.tally VALUES ($2, 1, $1) ON CONFLICT (key) DO UPDATE SET n = tally.n + 1, last_op = excluded.last_op)
INSERT INTO torture.ledger (op, kind) VALUES ($1, 'tally')`, []any{c.rng.IntN(12)})
}

func moveRegion(ctx context.Context, c *client, name string) {
	c.exec(ctx, name, `WITH u AS (UPDATE torture.regions SET region = $3, op = $1 WHERE id = $2)
INSERT INTO torture.ledger (op, kind, key) VALUES ($1, 'region', $2::bigint::text)`, []any{c.lane, []string{"eu", "us", "asia", ""}[c.rng.IntN(4)]})
}

// book inserts a range of the lane's own, which may overlap an earlier one.
func book(ctx context.Context, c *client, name string) {
	from := c.lane*1000 + c.rng.Int64N(100)
	c.exec(ctx, name, `WITH b AS (INSERT INTO torture.bookings (op, during) VALUES ($1, int8range($2, $3)))
INSERT INTO torture.ledger (op, kind) VALUES ($1, 'booking')`, []any{from, from + 1 + c.rng.Int64N(10)}, "23P01")
}

func cancelBookings(ctx context.Context, c *client, name string) {
	c.exec(ctx, name, `WITH d AS (DELETE FROM torture.bookings WHERE during <@ int8range($2::bigint, $2::bigint + 1000))
INSERT INTO torture.ledger (op, kind) VALUES ($1, 'cancel bookings')`, []any{c.lane * 1000})
}

// doBlock writes from inside DO, which takes no parameters.
func doBlock(ctx context.Context, c *client, name string) {
	op := c.newOp()
	_, err := c.db.ExecContext(ctx, fmt.Sprintf(`DO $do$ BEGIN
  PERFORM random();
  INSERT INTO torture.ledger (op, kind, note) VALUES (%d, 'do', $x$ it's; -- not a comment $x$ || random());
END $do$`, op))
	c.finish(name, single, op, err)
}

// procedure commits, rolls back and commits within one statement.
func procedure(ctx context.Context, c *client, name string) {
	first, second, third := c.newOp(), c.newOp(), c.newOp()
	_, err := c.db.ExecContext(ctx, fmt.Sprintf("CALL torture.committing(%d, %d, %d)", first, second, third))
	o := c.finish(name, single, third, err, "08007") // if the leader is lost with a part of it
	c.h.end(name+" rolled back", second, Failed)
	if o == Failed { // its first transaction may have been committed before
		o = Unknown
	}
	c.h.end(name+" first", first, o)
}

// Names returns the names of all operations, as Options.Only and the History
// use them.
func Names() []string {
	var names []string
	for _, op := range operations() {
		names = append(names, op.name)
	}
	return names
}
