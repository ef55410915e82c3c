//go:build unix

package random

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
	"github.com/pgdist/pgdist/internal/torture"
)

// writer is the test's log for pgdist. What that takes for an error is one: above all that a member
// differs, which it puts right by itself.
type writer struct{ t *testing.T }

func (w writer) Write(b []byte) (int, error) {
	if strings.Contains(string(b), "level=ERROR") {
		w.t.Errorf("%s", b)
	} else {
		w.t.Logf("%s", b)
	}
	return len(b), nil
}

// gather starts three servers, a set of them and its first tables.
func gather(t *testing.T, define bool) *crowd {
	t.Helper()
	servers := pgtest.Set(t, 3, pgtest.Options{Settings: map[string]string{"deadlock_timeout": "50ms"}})
	l := &lab{members: servers, logger: slog.New(slog.NewTextHandler(writer{t}, &slog.HandlerOptions{Level: slog.LevelWarn})), params: "&probe_timeout=3s&sync_timeout=10s"}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	r, err := l.open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.db.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &crowd{rig: r, clients: 16, seed: firstSeed(t), define: define, logf: t.Logf}
	if *crowdOps > 0 {
		c.ops = *crowdOps
	}
	if err := c.start(ctx, 25); err != nil {
		t.Fatal(err)
	}
	return c
}

// work runs the clients and the faults, with comparisons on the way and at the end.
func work(t *testing.T, c *crowd, faults torture.Faults) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), *duration)
	defer cancel()
	faults.Seed, faults.Logf, faults.RejoinTimeout = c.seed, t.Logf, 2*time.Minute
	first := len(c.lab.members) - len(faults.Servers)
	faults.Rejoined = func(ctx context.Context, i int) error { return c.rejoined(ctx, first+i) }
	broken := make(chan error, 1)
	injected := 0
	go func() {
		done, err := faults.Run(ctx)
		injected = len(done)
		broken <- err
	}()
	compared := 0
	watched := make(chan error, 1)
	go func() {
		var err error
		for err == nil && sleep(ctx, 3*time.Second) {
			var n int
			if n, err = c.quiet(ctx); n > 1 {
				compared++
			}
		}
		if err != nil {
			cancel() // the sooner all ends, the more can be seen
		}
		watched <- err
	}()
	c.run(ctx)
	if err := <-watched; err != nil {
		t.Errorf("on the way: %v", err)
	}
	if err := <-broken; err != nil {
		t.Error(err)
	}
	end, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	if err := c.rejoined(end, -1); err != nil {
		t.Fatal(err)
	}
	if n, err := c.quiet(end); err != nil || n < 3 {
		t.Errorf("at the end, %d members: %v", n, err)
	}
	for i, err := range c.wrong {
		if i == 10 {
			t.Errorf("and %d more", len(c.wrong)-i)
			break
		}
		t.Error(err)
	}
	t.Logf("-random.seed=%d: %d faults, %d comparisons on the way, %v", c.seed, injected, compared, &c.total)
}

// TestCrowdUnderFaults: whatever 16 clients write while any server dies, freezes
// or restarts, the databases in sync are the same bytes. Definitions stay: a
// leader that dies with some that nobody else has loses its place, as documented.
func TestCrowdUnderFaults(t *testing.T) {
	c := gather(t, false)
	work(t, c, torture.Faults{Servers: c.lab.members, Every: time.Second, Away: time.Second})
}

// TestCrowdThatDefines: definitions change all the time, while followers come
// and go, and are compared as `pgdist verify` does while all work.
func TestCrowdThatDefines(t *testing.T) {
	c := gather(t, true)
	work(t, c, torture.Faults{Servers: c.lab.members[1:], Every: time.Second, Away: time.Second})
	verified(t, c)
}

// verified compares with writes going on.
func verified(t *testing.T, c *crowd) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	set, err := mirror.Open(ctx, c.config)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	report, err := set.Verify(ctx, mirror.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Differences) > 0 {
		t.Errorf("verify: %v", report.Differences)
	}
	t.Logf("verify: %d tables, %d rows", report.Tables, report.Rows)
}
