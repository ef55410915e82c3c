package gateway

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// What each message of a long pipeline costs must not grow with what stands before it: names are
// looked up for each.
func TestLongPipeline(t *testing.T) {
	s := newSet(t, nil)
	conn := connect(t, s.url(""))
	ctx := context.Background()
	if _, err := conn.Prepare(ctx, "one", "SELECT $1::int"); err != nil {
		t.Fatal(err)
	}
	run := func(n int) time.Duration {
		t.Helper()
		begun := time.Now()
		b := &pgx.Batch{}
		for range n {
			b.Queue("one", 1)
		}
		if err := conn.SendBatch(ctx, b).Close(); err != nil {
			t.Fatal(err)
		}
		return time.Since(begun)
	}
	run(1000)
	short, long := run(5000), run(80000)
	t.Logf("5000: %v, 80000: %v", short, long)
	if long > 60*short+time.Second { // 16 times as many; 256 times as long if each looks at all
		t.Errorf("a pipeline of 5000 took %v, one of 80000 %v", short, long)
	}
}
