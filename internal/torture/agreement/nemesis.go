//go:build unix

package agreement

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pgdist/pgdist/internal/failpoint"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// nemesis breaks things, one at a time of each kind, until it is told to stop.
type nemesis struct {
	c    *cluster
	seed uint64
	// brief: nothing is begun that takes a copy, for which a busy machine takes its time.
	brief bool

	mu   sync.Mutex     // guards what follows
	done map[string]int // faults, by what they were
	todo []change       // what is being done to the list of members, or to a member's data
	err  error
}

func newNemesis(c *cluster, seed uint64) *nemesis {
	return &nemesis{c: c, seed: seed, done: map[string]int{}}
}

// run breaks servers, links and programs at once, each in a sequence of its own that
// depends on the seed, until ctx ends, and puts each thing right that it broke. What
// it could not put right is its error.
func (n *nemesis) run(ctx context.Context) error {
	var wg sync.WaitGroup
	for i, breakOne := range []func(context.Context, *rand.Rand) error{n.server, n.link, n.program, n.operator, n.changes} {
		rng := rand.New(rand.NewPCG(n.seed, 100+uint64(i)))
		wg.Go(func() {
			for pass(ctx, time.Duration(rng.Int64N(int64(3*time.Second)))) {
				if err := breakOne(ctx, rng); err != nil {
					n.fail(err)
					return
				}
			}
		})
	}
	wg.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

func (n *nemesis) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err = errors.Join(n.err, err)
}

// note counts a fault and says so.
func (n *nemesis) note(kind, format string, args ...any) {
	n.mu.Lock()
	n.done[kind]++
	n.mu.Unlock()
	n.c.t.Logf("nemesis: "+kind+" "+format, args...)
}

// pass waits; false: ctx ended first.
func pass(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// while is how long things stay broken.
func while(rng *rand.Rand) time.Duration { return time.Duration(100+rng.IntN(2900)) * time.Millisecond }

// server disturbs one server, now and then all of them at once.
func (n *nemesis) server(ctx context.Context, rng *rand.Rand) error {
	i := rng.IntN(len(n.c.servers))
	s := n.c.servers[i]
	switch what := rng.IntN(17); {
	case what < 3:
		n.note("kill -9 of a server", "%d", i)
		if err := s.Kill(); err != nil {
			return err
		}
		pass(ctx, while(rng))
		return s.StartAgain()
	case what < 5:
		n.note("crash of a server that is back at once", "%d", i)
		return crash(s)
	case what < 8:
		n.note("freeze of a server", "%d", i)
		if err := s.SigStop(); err != nil {
			return ended(s, err)
		}
		pass(ctx, while(rng))
		return s.SigCont()
	case what < 10:
		n.note("restart of a server", "%d", i)
		return s.Restart()
	case what < 11:
		n.note("kill -9 of all servers", "")
		var wg sync.WaitGroup
		errs := make([]error, len(n.c.servers))
		for j, s := range n.c.servers {
			wg.Go(func() { errs[j] = s.Kill() })
		}
		wg.Wait()
		for j, s := range n.c.servers {
			wg.Go(func() { errs[j] = errors.Join(errs[j], s.StartAgain()) })
		}
		wg.Wait()
		return errors.Join(errs...)
	case what < 12:
		n.note("immediate shutdown of a server", "%d", i)
		if err := s.Stop(pgtest.Immediate); err != nil {
			return err
		}
		pass(ctx, while(rng))
		return s.StartAgain()
	case what < 13:
		return n.lose(ctx, rng, i)
	}
	return n.trouble(ctx, rng, i)
}

// ended starts a server that is not running: PostgreSQL ends when its disk is broken or full,
// some time after that was so.
func ended(s *pgtest.Server, err error) error {
	if !errors.Is(err, pgtest.ErrNotRunning) {
		return err
	}
	return s.StartAgain()
}

// trouble is with the machine of a server: its clock, its disk.
func (n *nemesis) trouble(ctx context.Context, rng *rand.Rand, i int) error {
	s := n.c.servers[i]
	switch rng.IntN(4) {
	case 0, 1:
		shift := time.Duration(rng.Int64N(int64(4*time.Hour))) - 2*time.Hour
		if rng.IntN(2) == 0 {
			n.note("clock of a server is set", "%d, by %v", i, shift)
			return s.Trouble().ShiftClock(shift) // and stays so
		}
		n.note("clock of a server goes to and fro", "%d, by %v", i, shift)
		for range 10 {
			if err := s.Trouble().ShiftClock(shift); err != nil {
				return err
			}
			shift = -shift
			pass(ctx, 200*time.Millisecond)
		}
		return s.Trouble().ShiftClock(0)
	case 2:
		n.note("disk of a server is full", "%d", i)
		if err := s.Trouble().FillDisk(true); err != nil {
			return err
		}
		pass(ctx, 2*while(rng))
		return s.Trouble().FillDisk(false)
	}
	n.note("disk of a server is broken", "%d", i)
	if err := s.Trouble().BreakDisk(true); err != nil {
		return err
	}
	pass(ctx, while(rng))
	return s.Trouble().BreakDisk(false)
}

// link breaks links: one, all of a program, or all to a server.
func (n *nemesis) link(ctx context.Context, rng *rand.Rand) error {
	p := n.c.programs[rng.IntN(len(n.c.programs))]
	i := rng.IntN(len(n.c.servers))
	some := []*pgtest.Link{p.links[i]}
	who := fmt.Sprintf("program %d to server %d", p.n, i)
	switch rng.IntN(5) {
	case 0:
		who = fmt.Sprintf("program %d to all but server %d", p.n, i)
		some = nil
		for j, l := range p.links {
			if j != i {
				some = append(some, l)
			}
		}
	case 1:
		who = fmt.Sprintf("all programs to server %d", i)
		some = nil
		for _, q := range n.c.programs {
			some = append(some, q.links[i])
		}
	}
	var name string
	var do func(*pgtest.Link)
	switch bytesLeft := 1 + rng.IntN(20000); rng.IntN(9) {
	case 0, 1:
		name, do = "cut", (*pgtest.Link).Cut
	case 2:
		name, do = "stalled", (*pgtest.Link).Stall
	case 3:
		name, do = "deaf", func(l *pgtest.Link) { l.Hold(pgtest.ToServer) }
	case 4:
		name, do = "mute", func(l *pgtest.Link) { l.Hold(pgtest.ToClient) }
	case 5:
		name, do = "slow", func(l *pgtest.Link) { l.Trickle(2 * time.Millisecond) }
	case 6:
		name, do = "cut within a message", func(l *pgtest.Link) { l.CutAfter(bytesLeft) }
	case 7:
		name, do = "cut at the answer to COMMIT", func(l *pgtest.Link) { l.CutAt(pgtest.ToClient, isCommit, nil) }
	case 8:
		name, do = "cut at COMMIT", func(l *pgtest.Link) {
			l.CutAt(pgtest.ToServer, func(kind byte, body []byte) bool { return kind == 'Q' && bytes.HasPrefix(body, []byte("COMMIT")) }, nil)
		}
	}
	n.note("link "+name, "%s", who)
	for _, l := range some {
		do(l)
	}
	pass(ctx, while(rng))
	for _, l := range some {
		l.Heal()
	}
	return nil
}

// program kills or freezes one program, at any time or at a failpoint.
func (n *nemesis) program(ctx context.Context, rng *rand.Rand) error {
	p := n.c.programs[rng.IntN(len(n.c.programs))]
	switch rng.IntN(4) {
	case 0:
		n.note("kill -9 of a program", "%d", p.n)
		p.mu.Lock()
		proc := p.proc
		p.mu.Unlock()
		if err := proc.Kill(); err != nil {
			return err
		}
		pass(ctx, while(rng)/2)
		return n.revive(p)
	case 1:
		n.note("freeze of a program", "%d", p.n)
		if err := p.freeze(); err != nil {
			return err
		}
		pass(ctx, while(rng))
		return p.thaw()
	}
	do := []Action{Die, Freeze, Pause}[rng.IntN(3)]
	points := failpoint.All()
	point := points[rng.IntN(len(points))]
	pause := while(rng)
	n.c.drainPoints()
	armed := p.call(ctx, "Arm", []Order{{Point: point, Action: do, After: rng.IntN(5), Pause: pause}}, &struct{}{})
	came := func(at hit) error { // another, perhaps, that was told so before and did not hear that it was over
		n.note("failpoint "+at.point, "program %d: %s", at.r.n, at.does)
		if at.does == Die {
			return errors.Join(at.dead(), n.revive(at.r))
		}
		return at.recover(ctx, pause)
	}
	if armed == nil {
		select {
		case at := <-n.c.points:
			return came(at)
		case <-time.After(6 * time.Second):
		case <-ctx.Done():
		}
	}
	// It is not to come there when nobody is left to bring it back. (It may have heard of
	// the order even if nobody heard that it has.)
	told := n.c.disarm(context.WithoutCancel(ctx), p)
	select {
	case at := <-n.c.points:
		return came(at)
	default:
		return told
	}
}

// revive is the end of a fault, which must come even if the run is over.
func (n *nemesis) revive(p *runner) error {
	if err := p.bury(); err != nil {
		return err
	}
	return p.start()
}

// operator does what operators do, in the middle of it all.
func (n *nemesis) operator(ctx context.Context, rng *rand.Rand) error {
	p := n.c.programs[rng.IntN(len(n.c.programs))]
	name := fmt.Sprintf("made_%d", rng.Uint32())
	sql := func(texts ...string) error {
		for _, text := range texts {
			a := p.ask(ctx, Request{Workload: "any", F: "sql", Value: quoted(text), Timeout: opTimeout})
			n.note("DDL", "program %d: %s: %s %s", p.n, text, a.Type, a.Error)
		}
		return nil
	}
	switch rng.IntN(6) {
	case 0:
		err := p.operate(ctx, Operation{Do: Switchover, Wait: 3 * time.Second})
		n.note("switchover", "by program %d: %v", p.n, err)
	case 1:
		return sql("CREATE TABLE "+name+" (n int PRIMARY KEY, t text DEFAULT random()::text)", "INSERT INTO "+name+" SELECT generate_series(1, 3000)", "ALTER TABLE "+name+" ADD COLUMN at timestamptz DEFAULT clock_timestamp()", "DROP TABLE "+name)
	case 2:
		return sql("CREATE INDEX CONCURRENTLY "+name+" ON log (noise)", "DROP INDEX CONCURRENTLY "+name)
	case 3:
		return sql("ALTER TABLE counters ADD COLUMN "+name+" int DEFAULT 7", "ALTER TABLE counters DROP COLUMN "+name)
	case 4:
		return sql("TRUNCATE log", "INSERT INTO log (what) SELECT 'x' FROM generate_series(1, 2500)")
	default:
		return sql("INSERT INTO log (what) SELECT random()::text FROM generate_series(1, 5000)", "UPDATE log SET noise = random() WHERE random() < 0.2")
	}
	return nil
}
