//go:build unix

package agreement

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/pgdist/pgdist/internal/torture/history"
)

// accident is something that happened to others, or would happen to pgdist if one of
// its rules were missing. All is mended when it returns.
type accident struct {
	name string
	run  func(ctx context.Context, r *round, rng *rand.Rand) error
	long bool // only if all is asked for, or it by name: a busy machine takes its time to copy
}

// accidents are run one after the other while clients write and read.
var accidents = []accident{
	{name: "a program sleeps with a batch in its hands, and wakes when others have applied it", run: sleeper},
	{name: "a program sleeps before COMMIT, and wakes when another member leads", run: zombie},
	{name: "a program loses a follower that others still read", run: apart},
	{name: "a follower crashes and is back before anybody looks", run: crashes(crashFollower)},
	{name: "the leader crashes and is back before anybody looks", run: crashes(crashLeader)},
	{name: "the leader is lost with what no follower has yet", run: alone},
	{name: "all servers lose their power at once", run: outage},
	{name: "the leader's disk is full", run: fullLeader},
	{name: "a follower's disk is full", run: fullFollower},
	{name: "clocks go wrong", run: clocks},
	{name: "a disk fails", run: brokenDisk},
	{name: "a member's data is lost", run: lostData, long: true},
	{name: "a member leaves and another takes its place", run: replaced, long: true},
}

// sleeping has one program freeze at a point, runs meanwhile, and wakes it.
func (c *cluster) sleeping(ctx context.Context, point string, meanwhile func(awake *runner) error) error {
	for range 5 {
		c.drainPoints()
		c.arm(ctx, Order{Point: point, Action: Freeze})
		var at hit
		select {
		case at = <-c.points:
		case <-time.After(8 * time.Second):
			continue
		}
		// Only that one: whoever sleeps, too, is woken first.
		var awake *runner
		for _, p := range c.programs {
			if p != at.r {
				awake = p
			}
		}
		time.Sleep(100 * time.Millisecond) // a second one may be on its way to the point
		if err := awake.thaw(); err != nil {
			return err
		}
		err := errors.Join(awake.call(ctx, "Arm", []Order{}, &struct{}{}), awake.thaw())
		if err == nil {
			err = meanwhile(awake)
		}
		return errors.Join(err, at.r.thaw())
	}
	return fmt.Errorf("nobody came to %q", point)
}

// sleeper: what it applies then was applied by others; tables without a key would show
// it twice.
func sleeper(ctx context.Context, r *round, _ *rand.Rand) error {
	for range 2 {
		if err := r.c.sleeping(ctx, "mirror: a batch was read", func(*runner) error {
			pass(ctx, 2500*time.Millisecond) // the turn is taken from it after a second and a half
			return nil
		}); err != nil {
			return err
		}
		pass(ctx, 300*time.Millisecond)
	}
	return nil
}

// zombie: its transaction has written at the old leader, and ends after that one's time,
// when it is a follower like any. Nobody else touches what it wrote: whoever waited for
// its locks would have it ended.
func zombie(ctx context.Context, r *round, _ *rand.Rand) error {
	c := r.c
	one, other := c.programs[0], c.programs[1]
	r.resting.Store(one)
	defer r.resting.Store(nil)
	pass(ctx, 300*time.Millisecond) // what its clients have begun is done
	c.drainPoints()
	point := "engine: COMMIT is about to be sent"
	if err := one.call(ctx, "Arm", []Order{{Point: point, Action: Freeze}}, &struct{}{}); err != nil {
		return err
	}
	number, aside := r.id(), r.n+1<<30 // a set of its own
	told := make(chan Answer, 1)
	for there := false; !there; {
		go func() {
			told <- one.ask(ctx, Request{Workload: "set", F: "add", Value: quoted(number), Round: aside, Tx: true, Timeout: time.Minute})
		}()
		select {
		case <-c.points:
			there = true
		case <-told: // it failed before it came so far
		case <-ctx.Done():
			return fmt.Errorf("nobody came to %q", point)
		}
	}
	var err error
	for range 5 {
		if err = other.operate(ctx, Operation{Do: Switchover}); err == nil {
			break
		}
		pass(ctx, 300*time.Millisecond)
	}
	if err := errors.Join(err, c.whole(ctx), one.thaw()); err != nil {
		return err
	}
	if a := <-told; a.Type != history.OK {
		return nil
	}
	return reads(ctx, other, number, aside)
}

// reads demands that a program reads a number of a set that another has acknowledged.
func reads(ctx context.Context, p *runner, number, set int64) error {
	var list []int64
	a := p.ask(ctx, Request{Workload: "set", F: "read", Round: set, Timeout: opTimeout})
	if a.Type != history.OK {
		return nil
	}
	if err := json.Unmarshal(a.Value, &list); err != nil {
		return err
	}
	if !slices.Contains(list, number) {
		return fmt.Errorf("program %d read a set without %d, which another program has acknowledged", p.n, number)
	}
	return nil
}

// apart: the link of one program to a follower breaks. What that program acknowledges
// without it the other, whose link is whole, must not miss. The other has nothing to
// write meanwhile: its own flushes would bring everything to the follower.
func apart(ctx context.Context, r *round, rng *rand.Rand) error {
	n, err := r.c.follower(ctx, rng)
	if err != nil {
		return err
	}
	one, other := r.c.programs[1], r.c.programs[0]
	r.resting.Store(other)
	defer r.resting.Store(nil)
	one.links[n].Cut()
	defer one.links[n].Heal()
	aside := r.n + 1<<30 // a set of its own
	for began := time.Now(); time.Since(began) < 4*time.Second; {
		number := r.id()
		if a := one.ask(ctx, Request{Workload: "set", F: "add", Value: quoted(number), Round: aside, Timeout: opTimeout}); a.Type != history.OK {
			continue
		}
		for range 6 {
			if err := reads(ctx, other, number, aside); err != nil {
				return err
			}
		}
	}
	return nil
}

// alone: a program has read a batch and handed it to nobody when the leader is lost, until
// another member leads. What its clients were told by then is with the followers. The
// other program has nothing to write meanwhile: its own flushes would bring it to them.
func alone(ctx context.Context, r *round, _ *rand.Rand) error {
	c := r.c
	one, other := c.programs[0], c.programs[1]
	r.resting.Store(other)
	defer r.resting.Store(nil)
	for range 2 {
		n := c.leader(ctx)
		if n < 0 {
			return errors.New("nobody knows who leads")
		}
		c.drainPoints()
		o := Order{Point: "mirror: a batch was read", Action: Freeze, After: 50} // by then the other one rests
		if err := one.call(ctx, "Arm", []Order{o}, &struct{}{}); err != nil {
			return err
		}
		select {
		case <-c.points:
		case <-ctx.Done():
			return fmt.Errorf("nobody came to %q", o.Point)
		}
		if err := c.servers[n].Kill(); err != nil {
			return err
		}
		for led := false; !led; {
			a := other.ask(ctx, Request{Workload: "any", F: "sql", Value: quoted("INSERT INTO log (what) VALUES ('led')"), Timeout: opTimeout})
			led = a.Type == history.OK
			if ctx.Err() != nil {
				return fmt.Errorf("nobody leads in its place: %s", a.Error)
			}
		}
		if err := errors.Join(c.servers[n].StartAgain(), one.thaw(), c.whole(ctx)); err != nil {
			return err
		}
	}
	return nil
}

func crashes(o occasion) func(context.Context, *round, *rand.Rand) error {
	return func(ctx context.Context, r *round, rng *rand.Rand) error {
		_, err := o(ctx, r.c, rng)
		return err
	}
}

// outage: what was acknowledged is on every disk by then.
func outage(ctx context.Context, r *round, _ *rand.Rand) error {
	pass(ctx, 500*time.Millisecond) // for there to be something that may be lost
	c := r.c
	errs := make([]error, len(c.servers))
	var wg sync.WaitGroup
	for j, s := range c.servers {
		wg.Go(func() { errs[j] = s.Kill() })
	}
	wg.Wait()
	for j, s := range c.servers {
		wg.Go(func() { errs[j] = errors.Join(errs[j], s.StartAgain()) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func fullLeader(ctx context.Context, r *round, _ *rand.Rand) error {
	c := r.c
	n := c.leader(ctx)
	if n < 0 {
		return errors.New("nobody knows who leads")
	}
	return full(ctx, c, n)
}

func fullFollower(ctx context.Context, r *round, rng *rand.Rand) error {
	c := r.c
	n, err := c.follower(ctx, rng)
	if err != nil {
		return err
	}
	return full(ctx, c, n)
}

// full has writes come that need space, on a server that has none for a while. They may
// fail, or succeed without that server.
func full(ctx context.Context, c *cluster, n int) error {
	s := c.servers[n]
	if err := s.Trouble().FillDisk(true); err != nil {
		return err
	}
	a := c.programs[0].ask(ctx, Request{Workload: "any", F: "sql", Value: quoted("INSERT INTO log (what) SELECT repeat('x', 500) FROM generate_series(1, 3000)"), Timeout: opTimeout})
	c.t.Logf("a write that needs space while server %d has none: %s %s", n, a.Type, a.Error)
	return s.Trouble().FillDisk(false)
}

// clocks: each server's goes another way.
func clocks(ctx context.Context, r *round, rng *rand.Rand) error {
	c := r.c
	for range 6 {
		for _, s := range c.servers {
			if err := s.Trouble().ShiftClock(time.Duration(rng.Int64N(int64(4*time.Hour))) - 2*time.Hour); err != nil {
				return err
			}
		}
		pass(ctx, 300*time.Millisecond)
	}
	for _, s := range c.servers {
		if err := s.Trouble().ShiftClock(0); err != nil {
			return err
		}
	}
	return nil
}

// brokenDisk: PostgreSQL panics rather than trust what an fsync has failed for.
func brokenDisk(ctx context.Context, r *round, rng *rand.Rand) error {
	c := r.c
	in := c.roll.members()
	n := in[rng.IntN(len(in))]
	if err := c.servers[n].Trouble().BreakDisk(true); err != nil {
		return err
	}
	pass(ctx, 500*time.Millisecond)
	return c.servers[n].Trouble().BreakDisk(false)
}

// lostData: nobody may take the server that answers there for the member, nor may its
// vote count, until it has been copied.
func lostData(ctx context.Context, r *round, rng *rand.Rand) error {
	c := r.c
	if err := c.whole(ctx); err != nil { // else what only this member holds would be lost with it
		return err
	}
	n := c.roll.members()[rng.IntN(len(c.roll.members()))]
	c.roll.doubt(n, true)
	if err := c.servers[n].LoseData(); err != nil {
		return err
	}
	return c.all(ctx, change{do: Resync, server: n, wait: time.Duration(rng.IntN(5)) * time.Second})
}

// replaced: what the members before had acknowledged is safe with those after.
func replaced(ctx context.Context, r *round, rng *rand.Rand) error {
	c := r.c
	in := c.roll.members()
	return c.all(ctx, change{do: Remove, server: in[rng.IntN(len(in))], by: 1}, change{do: Add, server: c.spare(), votes: -1})
}

// all makes changes, one after the other.
func (c *cluster) all(ctx context.Context, changes ...change) error {
	for _, d := range changes {
		for {
			err := c.make(ctx, d)
			if err == nil {
				break
			}
			c.t.Logf("%v, once more: %v", d, err)
			if !pass(ctx, 200*time.Millisecond) {
				return fmt.Errorf("%v: %w", d, err)
			}
		}
	}
	return nil
}

// works demands that a write succeeds, soon.
func (c *cluster) works(ctx context.Context) error {
	for _, p := range c.programs {
		a := p.ask(ctx, Request{Workload: "any", F: "sql", Value: quoted("INSERT INTO log (what) VALUES ('works')"), Timeout: 30 * time.Second})
		if a.Type != history.OK {
			c.explain(ctx)
			return fmt.Errorf("a write through program %d, with all well again: %s: %s", p.n, a.Type, a.Error)
		}
	}
	return nil
}
