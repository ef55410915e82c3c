package gateway

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
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
