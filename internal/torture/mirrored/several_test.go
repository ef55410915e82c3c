//go:build unix

package mirrored

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
	"github.com/pgdist/pgdist/internal/torture"
)

// doors opens the set n times more.
func doors(t *testing.T, servers []*pgtest.Server, cfg mirror.Config, n int) []*sql.DB {
	t.Helper()
	var hosts []string
	for _, s := range servers {
		hosts = append(hosts, s.Addr())
	}
	var out []*sql.DB
	for i := range n {
		out = append(out, door(t, hosts, cfg.Members[0].Conn.Database, fmt.Sprint(i+2), ""))
	}
	return out
}

// Three programs use a set at once: what one was told is done, each of them sees.
func TestSeveralDistributors(t *testing.T) {
	servers, cfg, db := set(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	o := options(t)
	o.Ops, o.Doors = 100, doors(t, servers, cfg, 2)
	h, err := torture.Run(ctx, db, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(h)
	for _, d := range append(o.Doors, db) {
		if err := h.Check(ctx, d); err != nil {
			t.Error(err)
		}
	}
	settled(ctx, t, cfg, servers, db)
}

// The same while servers are killed, frozen and restarted.
func TestSeveralDistributorsUnderFaults(t *testing.T) {
	servers, cfg, db := set(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), *long+3*time.Minute)
	defer cancel()
	o := options(t)
	o.Duration, o.Doors = *long, doors(t, servers, cfg, 2)
	faulty, stop := context.WithTimeout(ctx, *long)
	defer stop()
	done := make(chan error, 1)
	go func() {
		_, err := torture.Faults{Servers: servers, Seed: *seed, Every: time.Second, Away: time.Second, Logf: t.Logf,
			Rejoined: func(ctx context.Context, i int) error { return rejoined(ctx, cfg, i) }}.Run(faulty)
		done <- err
	}()
	h, err := torture.Run(ctx, db, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil && faulty.Err() == nil {
		t.Error(err)
	}
	t.Log(h)
	if err := rejoined(ctx, cfg, -1); err != nil {
		t.Fatal(err)
	}
	if err := h.Check(ctx, o.Doors[0]); err != nil {
		t.Error(err)
	}
	settled(ctx, t, cfg, servers, db)
}
