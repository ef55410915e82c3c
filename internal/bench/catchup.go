//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

const (
	chunkRows     = 1000 // rows a statement changes while the follower is down
	catchupTarget = 30_000
	catchupReps   = 3 // at most
)

// catchup measures how long a follower that was killed takes, from when it
// accepts connections again, to be in sync. Half of what it missed are updates
// of the first half of the table, half are inserts.
func (b *bench) catchup(ctx context.Context) (err error) {
	f := &fleet{}
	defer func() { err = errors.Join(err, f.close()) }()
	updated := b.catchupRows / 2
	inserted := b.catchupRows - updated
	m, err := f.mirror(ctx, []string{
		"CREATE TABLE missed (id int PRIMARY KEY, n int NOT NULL, filler text NOT NULL)",
		fmt.Sprintf("INSERT INTO missed SELECT g, 0, repeat('x', 80) FROM generate_series(1, %d) AS g", updated),
	})
	if err != nil {
		return err
	}
	idle, err := b.away(ctx, m, func() error { return m.update(ctx, 1, 1) })
	if err != nil {
		return err
	}
	b.note("catch-up: with one row missed, a killed follower is in sync %.2f s after it accepts connections", idle.took.Seconds())
	var rates []float64
	var last *absence
	for rep := range min(b.reps, catchupReps) {
		last, err = b.away(ctx, m, func() error {
			return errors.Join(m.update(ctx, 1, updated), m.insert(ctx, updated+rep*inserted+1, inserted))
		})
		if err != nil {
			return err
		}
		b.say("catch-up of %d rows took %.2f s", b.catchupRows, last.took.Seconds())
		rates = append(rates, float64(b.catchupRows)/last.took.Seconds())
	}
	b.verdict(verdict{What: fmt.Sprintf("catch-up of %d rows", b.catchupRows), Value: median(rates), Unit: "rows/s",
		Low: quantile(rates, 0.25), High: quantile(rates, 0.75), Target: catchupTarget}.judged())
	for _, who := range []string{"go", "leader", "follower"} {
		b.note("catch-up: %s used %.1f µs of processor time per row", who, micros(last.used[who])/float64(b.catchupRows))
	}
	return b.alike(ctx, m, "catch-up")
}

// absence is what a follower's return took.
type absence struct {
	took time.Duration
	used map[string]time.Duration // processor time by consumer
}

// away kills a follower, changes rows meanwhile and times its return, at the end
// of which it must hold what the leader does.
func (b *bench) away(ctx context.Context, m *mirrored, change func() error) (*absence, error) {
	c, err := m.cast(ctx)
	if err != nil {
		return nil, err
	}
	if len(c.followers) == 0 {
		return nil, errNoFollower
	}
	gone := c.followers[0]
	if err := gone.Kill(); err != nil {
		return nil, err
	}
	err = m.wait(ctx, "the killed follower to be excluded", func(c *cast) bool { return len(c.followers) == setSize-2 })
	if err != nil {
		return nil, err
	}
	if err := change(); err != nil {
		return nil, err
	}
	if err := gone.StartAgain(); err != nil {
		return nil, err
	}
	began := time.Now()
	observed := &contender{consumers: []consumer{ofBench(), ofServers("leader", c.leader), ofServers("follower", gone)}}
	before, err := observed.used()
	if err != nil {
		return nil, err
	}
	if err := m.wait(ctx, "the follower to be in sync", (*cast).complete); err != nil {
		return nil, err
	}
	a := &absence{took: time.Since(began)}
	if a.used, err = observed.used(); err != nil {
		return nil, err
	}
	for name := range a.used {
		a.used[name] -= before[name]
	}
	return a, sameCount(ctx, c.leader, gone)
}

// update and insert change rows through pgdist, chunk by chunk.
func (m *mirrored) update(ctx context.Context, first, n int) error {
	return m.chunks(ctx, "UPDATE missed SET n = n + 1 WHERE id BETWEEN $1 AND $2", first, n)
}

func (m *mirrored) insert(ctx context.Context, first, n int) error {
	return m.chunks(ctx, "INSERT INTO missed SELECT g, 0, repeat('x', 80) FROM generate_series($1::int, $2::int) AS g", first, n)
}

func (m *mirrored) chunks(ctx context.Context, query string, first, n int) error {
	for end := first + n; first < end; first += chunkRows {
		result, err := m.db.ExecContext(ctx, query, first, min(first+chunkRows, end)-1)
		if err != nil {
			return err
		}
		changed, err := result.RowsAffected()
		if err != nil {
			return err
		}
		if want := min(chunkRows, end-first); changed != int64(want) {
			return fmt.Errorf("%s changed %d rows from %d on, want %d", query, changed, first, want)
		}
	}
	return nil
}

// sameCount is a quick check on the servers themselves.
func sameCount(ctx context.Context, servers ...*pgtest.Server) error {
	var first int64
	for i, s := range servers {
		n, err := count(ctx, s, "SELECT count(*) * 1000 + sum(n) FROM missed")
		if err != nil {
			return err
		}
		if i == 0 {
			first = n
		}
		if n != first {
			return fmt.Errorf("a member is said to be in sync but lacks rows: checksum %d, the leader's is %d", n, first)
		}
	}
	return nil
}

// alike closes the set's connections and notes whether its servers hold the
// same bytes.
func (b *bench) alike(ctx context.Context, m *mirrored, after string) error {
	if err := m.db.Close(); err != nil {
		return err
	}
	difference, err := sameBytes(ctx, m.servers)
	if err != nil {
		return err
	}
	if difference != "" {
		return fmt.Errorf("after the %s the servers differ: %s", after, difference)
	}
	b.note("after the %s all three servers hold the same bytes", after)
	return nil
}
