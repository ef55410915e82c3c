//go:build unix

package random

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

var (
	seed     = flag.Int64("random.seed", 30, "seed of the first case; 0 picks one. Those after it have the numbers after it.")
	duration = flag.Duration("random.for", 8*time.Second, "how long each kind of run goes on")
	ops      = flag.Int("random.ops", 150, "statements of one case")
	crowdOps = flag.Int("random.steps", 0, "steps of each of the 16 clients; 0 is no limit")
	shrinkIn = flag.Duration("random.shrink", 3*time.Minute, "how long a failing case is shrunk")
)

func firstSeed(t *testing.T) int64 {
	s := *seed
	if s == 0 {
		s = rand.Int64N(1_000_000_000)
	}
	t.Logf("-random.seed=%d -random.ops=%d", s, *ops)
	return s
}

// TestAgainstOneServer: a client that is alone hears from pgdist what it would
// hear from one PostgreSQL, and all databases end with the same bytes.
func TestAgainstOneServer(t *testing.T) {
	settings := map[string]string{"autovacuum": "off", "max_prepared_transactions": "0"}
	servers := pgtest.Set(t, 3, pgtest.Options{Settings: settings})
	// What is prepared is described each time, on both sides: pgx's cache notices
	// changed definitions by errors, which depend on the connection.
	l := &lab{members: servers[:2], plain: servers[2], params: "&probe_timeout=20s&sync_timeout=60s&default_query_exec_mode=describe_exec"}
	ctx := context.Background()
	s, began, cases := firstSeed(t), time.Now(), 0
	var total tally
	for ; cases == 0 || time.Since(began) < *duration; cases++ {
		r, err := l.open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		done, err := r.generate(ctx, s+int64(cases), *ops)
		total.add(done)
		if err = errors.Join(err, r.close()); err != nil {
			report(t, l, s+int64(cases), err)
			break
		}
	}
	t.Logf("%d cases in %v: %v", cases, time.Since(began).Round(time.Second), &total)
}

// report shrinks a failing case and prints it.
func report(t *testing.T, l *lab, seed int64, err error) {
	t.Helper()
	var f *Failure
	if !errors.As(err, &f) {
		t.Fatalf("-random.seed=%d: %v", seed, err)
	}
	t.Logf("-random.seed=%d -random.ops=%d fails after %d steps: %s: %s", seed, *ops, len(f.Script), f.Kind, f.Detail)
	ctx, cancel := context.WithTimeout(context.Background(), *shrinkIn)
	defer cancel()
	short, tries, err := l.shrink(ctx, f, t.Logf)
	if err != nil {
		t.Logf("after %d tries: %v", tries, err)
	}
	t.Errorf("-random.seed=%d: %v", seed, short)
}
