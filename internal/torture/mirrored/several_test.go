//go:build unix

package mirrored

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"sync"
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
	o := options(t)
	o.Doors = doors(t, servers, cfg, 2)
	underFaults(t, servers, cfg, db, o)
}

// Each of three programs sees another part of the network, which changes all the time:
// links to single servers break, or stand still, for one of them alone.
func TestSeveralDistributorsApart(t *testing.T) {
	servers, cfg, db := set(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), *long+3*time.Minute)
	defer cancel()
	o := options(t)
	o.Duration = *long
	var links []*pgtest.Link
	for i := range 3 {
		var hosts []string
		for _, s := range servers {
			l := pgtest.NewLink(t, s.Addr())
			host, port := l.Addr()
			hosts, links = append(hosts, fmt.Sprintf("%s:%d", host, port)), append(links, l)
		}
		o.Doors = append(o.Doors, door(t, hosts, cfg.Members[0].Conn.Database, fmt.Sprint(i+2), ""))
	}
	for _, d := range o.Doors { // who is cut off from the leader cannot begin to use the set
		if err := d.PingContext(ctx); err != nil {
			t.Fatal(err)
		}
	}
	faulty, stop := context.WithTimeout(ctx, *long)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { disturbLinks(faulty, t, links) })
	h, err := torture.Run(ctx, db, o)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	wg.Wait()
	t.Log(h)
	if err := rejoined(ctx, cfg, -1); err != nil {
		t.Fatal(err)
	}
	for _, d := range append(o.Doors, db) {
		if err := h.Check(ctx, d); err != nil {
			t.Error(err)
		}
	}
	settled(ctx, t, cfg, servers, db)
}

// disturbLinks breaks links, one or two at a time, until ctx ends; all are whole then.
func disturbLinks(ctx context.Context, t *testing.T, links []*pgtest.Link) {
	s := *seed
	if s == 0 {
		s = rand.Int64()
	}
	t.Logf("links with seed %d", s)
	rng := rand.New(rand.NewPCG(uint64(s), 1))
	pause := func(most time.Duration) bool {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Duration(rng.Int64N(int64(most)))):
			return true
		}
	}
	for pause(time.Second) {
		var broken []*pgtest.Link
		for range 1 + rng.IntN(2) {
			i := rng.IntN(len(links))
			l := links[i]
			if rng.IntN(2) == 0 {
				t.Logf("links: program %d loses server %d", i/3+2, i%3)
				l.Cut()
			} else {
				t.Logf("links: program %d hears nothing of server %d", i/3+2, i%3)
				l.Stall()
			}
			broken = append(broken, l)
		}
		pause(3 * time.Second)
		for _, l := range broken {
			l.Heal()
		}
	}
}
