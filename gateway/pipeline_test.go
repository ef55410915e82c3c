package gateway

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// TestLongPipeline: a pipeline may have any number of messages.
func TestLongPipeline(t *testing.T) {
	s := newSet(t, nil)
	conn := connect(t, s.url(""))
	ctx := context.Background()
	if _, err := conn.Prepare(ctx, "one", "SELECT $1::int"); err != nil {
		t.Fatal(err)
	}
	const n = 80000 // for which it took most of a minute to look through all before each
	b, sum := &pgx.Batch{}, 0
	for i := range n {
		b.Queue("one", i).QueryRow(func(r pgx.Row) error {
			var v int
			err := r.Scan(&v)
			sum += v
			return err
		})
	}
	if err := conn.SendBatch(ctx, b).Close(); err != nil || sum != n*(n-1)/2 {
		t.Errorf("the sum is %d, %v", sum, err)
	}
}

// TestTransactionsInPipeline: nor does it matter how many transactions one begins and ends.
func TestTransactionsInPipeline(t *testing.T) {
	s := newSet(t, nil)
	conn := connect(t, s.url(""))
	ctx := context.Background()
	for name, sql := range map[string]string{"begin": "BEGIN", "one": "SELECT $1::int", "commit": "COMMIT"} {
		if _, err := conn.Prepare(ctx, name, sql); err != nil {
			t.Fatal(err)
		}
	}
	const n = 20000 // each of which looked through all that followed
	b, sum := &pgx.Batch{}, 0
	for i := range n {
		b.Queue("begin")
		b.Queue("one", i).QueryRow(func(r pgx.Row) error {
			var v int
			err := r.Scan(&v)
			sum += v
			return err
		})
		b.Queue("commit")
	}
	if err := conn.SendBatch(ctx, b).Close(); err != nil || sum != n*(n-1)/2 {
		t.Errorf("the sum is %d, %v", sum, err)
	}
}

// TestStops: a client that stops in the middle of a pipeline hears at once what is wrong with
// what it has sent, as from a server; of what is well it hears by its Sync.
func TestStops(t *testing.T) {
	plain := pgtest.Start(t, pgtest.Options{})
	s := newSet(t, nil)
	for who, addr := range map[string]string{"server": plain.Addr(), "gateway": s.addr} {
		c := talk(t, addr, nil)
		c.run(`
			Q CREATE TABLE once (id int PRIMARY KEY)
			Z 1
			P ins|INSERT INTO once VALUES ($1)|
			S
			Z 1
			B |ins|1
			E |0
			R`)
		if last := c.log[len(c.log)-1]; last != "ready I" {
			t.Errorf("%s: %q before Sync", who, last)
		}
		c.run(`
			B |ins|1
			E |0
			R`)
		if last := c.log[len(c.log)-1]; !strings.Contains(last, "23505") {
			t.Errorf("%s: %q after an error", who, last)
		}
		if got := c.run("S\nQ SELECT count(*) FROM once\nZ 2"); !slices.Contains(got, `data ["0"]`) {
			t.Errorf("%s: %q in the end", who, got)
		}
	}
}
