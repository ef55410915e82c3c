//go:build linux

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgdist/pgdist/internal/bench/pgpool"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// accident is what happens to a server while a client writes.
type accident struct {
	name   string
	target float64 // seconds until the first acknowledged write, at most
	leader bool    // to the one that leads; with pgpool: its main node, the first
	do     func(*pgtest.Server) error
}

var accidents = []accident{
	{"kill -9 of the leader", 1, true, (*pgtest.Server).Kill},
	{"SIGSTOP of the leader", 3, true, (*pgtest.Server).SigStop},
	{"kill -9 of a follower", 1, false, (*pgtest.Server).Kill},
	{"SIGSTOP of a follower", 0, false, (*pgtest.Server).SigStop},
}

const (
	// writeLimit bounds one attempt to write, and recoverLimit all of them.
	writeLimit   = 20 * time.Second
	recoverLimit = 60 * time.Second
	// lull is between two accidents: breakers and pools have come to rest.
	lull = 2 * time.Second
)

var recoverySchema = []string{"CREATE TABLE beat (id int PRIMARY KEY, n bigint NOT NULL)", "INSERT INTO beat VALUES (1, 0)"}

// firstWrite does damage and tells how long it took until a write was acknowledged
// that began after it; the client tries again whatever it is told.
func firstWrite(ctx context.Context, db *sql.DB, damage func() error) (time.Duration, int, error) {
	write := func() error {
		ctx, cancel := context.WithTimeout(ctx, writeLimit)
		defer cancel()
		_, err := db.ExecContext(ctx, "UPDATE beat SET n = n + 1 WHERE id = 1")
		return err
	}
	if err := write(); err != nil {
		return 0, 0, fmt.Errorf("a write before the accident: %w", err)
	}
	if err := damage(); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	for errs := 0; ; errs++ {
		err := write()
		if took := time.Since(began); err == nil || took > recoverLimit || ctx.Err() != nil {
			return took, errs, err
		}
	}
}

// recovery measures how long writes stand still after an accident, with pgdist and
// with pgpool-II, whose node is made good by hand each time.
func (b *bench) recovery(ctx context.Context) error {
	for _, a := range accidents {
		ours, failed, err := b.pgdistRecovers(ctx, a)
		if err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		b.verdict(seconds(a.name+": pgdist's first acknowledged write", ours, a.target))
		b.note("%s: errors that the client of pgdist saw in %d accidents: %d; the longest took %.2f s", a.name, len(ours), failed, slices.Max(ours))
		theirs, failed, err := b.pgpoolRecovers(ctx, a)
		if err != nil {
			return fmt.Errorf("%s, pgpool: %w", a.name, err)
		}
		b.verdict(seconds(a.name+": pgpool's first acknowledged write", theirs, 0))
		b.note("%s: errors that the client of pgpool saw in %d accidents: %d", a.name, len(theirs), failed)
	}
	return nil
}

func seconds(what string, took []float64, target float64) verdict {
	v := verdict{What: what, Value: median(took), Unit: "s", Low: quantile(took, 0.25), High: quantile(took, 0.75), Target: target, AtMost: true}
	if target == 0 {
		return v
	}
	return v.judged()
}

func (b *bench) pgdistRecovers(ctx context.Context, a accident) (took []float64, failed int, err error) {
	f := &fleet{}
	defer func() { err = errors.Join(err, f.close()) }()
	m, err := f.mirror(ctx, recoverySchema)
	if err != nil {
		return nil, 0, err
	}
	for range b.accidents {
		c, err := m.cast(ctx)
		if err != nil {
			return nil, 0, err
		}
		victim := c.leader
		if !a.leader {
			victim = c.followers[0]
		}
		d, errs, err := firstWrite(ctx, m.db, func() error { return a.do(victim) })
		if err != nil {
			return nil, 0, fmt.Errorf("no write in %v: %w", d, err)
		}
		took, failed = append(took, d.Seconds()), failed+errs
		b.say("%s: pgdist %.2f s", a.name, d.Seconds())
		if err := mend(victim); err != nil {
			return nil, 0, err
		}
		if err := m.wait(ctx, "the set to be in sync", (*cast).complete); err != nil {
			return nil, 0, err
		}
		if !sleep(ctx, lull) {
			return nil, 0, ctx.Err()
		}
	}
	return took, failed, b.alike(ctx, m, "accidents: "+a.name)
}

// mend brings a server back.
func mend(s *pgtest.Server) error {
	if s.Running() {
		return s.SigCont()
	}
	return s.StartAgain()
}

func (b *bench) pgpoolRecovers(ctx context.Context, a accident) (took []float64, failed int, err error) {
	f := &fleet{}
	defer func() { err = errors.Join(err, f.close()) }()
	servers, err := f.launch(ctx, setSize, recoverySchema)
	if err != nil {
		return nil, 0, err
	}
	for range b.accidents {
		d, errs, err := b.onePool(ctx, a, servers)
		if err != nil {
			return nil, 0, err
		}
		took, failed = append(took, d.Seconds()), failed+errs
		b.say("%s: pgpool %.2f s", a.name, d.Seconds())
		// Its online recovery copies the whole server; here one row is enough.
		for _, s := range servers {
			if err := execAll(ctx, s, []string{"UPDATE beat SET n = 0"}); err != nil {
				return nil, 0, err
			}
		}
	}
	return took, failed, nil
}

// onePool is one accident under a pgpool of its own.
func (b *bench) onePool(ctx context.Context, a accident, servers []*pgtest.Server) (d time.Duration, errs int, err error) {
	f := &fleet{}
	defer func() { err = errors.Join(err, f.close()) }()
	pool, err := pgpool.Start(ctx, servers, pgpool.Options{Database: database, Children: poolSize, HealthCheck: true})
	if err != nil {
		return 0, 0, err
	}
	f.onClose(pool.Stop)
	db, err := f.open("pgx", pool.DSN()+"&default_query_exec_mode=simple_protocol")
	if err != nil {
		return 0, 0, err
	}
	victim := servers[0]
	if !a.leader {
		victim = servers[1]
	}
	f.onClose(func() error { return mend(victim) }) // before pgpool is stopped, which would wait for it
	d, errs, err = firstWrite(ctx, db, func() error { return a.do(victim) })
	if err != nil {
		b.note("%s: pgpool acknowledged no write within %.0f s: %v", a.name, d.Seconds(), err)
	}
	return d, errs, nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
