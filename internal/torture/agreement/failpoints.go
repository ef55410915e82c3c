//go:build unix

package agreement

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// occasion makes programs come to a failpoint, and returns what ends the occasion.
type occasion func(ctx context.Context, c *cluster, rng *rand.Rand) (over func(context.Context) error, err error)

// An occasion of each kind, beside clients that write.
const (
	load       = "clients write"
	lostAnswer = "the answer to a COMMIT is lost"
	anIndex    = "an index is made in several transactions"
	followers  = "a follower crashes"
	leaders    = "the leader crashes"
	frozen     = "a program is frozen while a member is lost"
	handover   = "another member is to lead"
	aCopy      = "a member is copied afresh"
)

var occasions = map[string]occasion{
	load:       func(context.Context, *cluster, *rand.Rand) (func(context.Context) error, error) { return nothing, nil },
	lostAnswer: loseAnswers,
	anIndex:    index,
	followers:  crashFollower,
	leaders:    crashLeader,
	frozen:     freezeAndLose,
	handover:   switchOver,
	aCopy:      copyOne,
}

// leadsTo says at which occasion programs come to each failpoint. One that is not here
// has none, and the run says so.
var leadsTo = map[string]string{
	"engine: COMMIT is about to be sent":                            load,
	"engine: the leader has committed":                              load,
	"engine: a write is acknowledged, its client not yet told":      load,
	"engine: a COMMIT got no answer":                                lostAnswer,
	"engine: what takes several transactions has run at the leader": anIndex,
	"mirror: it has the turn":                                       load,
	"mirror: a batch was read":                                      load,
	"mirror: a follower has applied a batch":                        load,
	"mirror: all followers have applied a batch":                    load,
	"mirror: a batch may be acknowledged":                           load,
	"mirror: a batch in pieces is about to be committed":            followers,
	"mirror: a member has promised":                                 followers,
	"mirror: all who answer have promised":                          followers,
	"mirror: a member has accepted a view":                          followers,
	"mirror: a view is chosen":                                      followers,
	"mirror: the leader has taken office":                           leaders,
	"mirror: a new view is gone by":                                 followers,
	"mirror: programs were struck off":                              frozen,
	"mirror: a member has caught up":                                followers,
	"mirror: a member that joins has the rest":                      followers,
	"mirror: the leader's fence is locked":                          handover,
	"mirror: the leader has given up its office":                    handover,
	"mirror: a copy's database was made anew":                       aCopy,
	"mirror: a copy has its indexes":                                aCopy,
	"mirror: a copy is filled":                                      aCopy,
}

// nothing ends an occasion that is over by itself.
func nothing(context.Context) error { return nil }

func crash(s *pgtest.Server) error {
	if err := s.Kill(); err != nil {
		return err
	}
	return s.StartAgain()
}

// crashFollower has a follower crash, and be back sooner than anybody looks.
func crashFollower(ctx context.Context, c *cluster, rng *rand.Rand) (func(context.Context) error, error) {
	n, err := c.follower(ctx, rng)
	if err != nil {
		return nil, err
	}
	return nothing, crash(c.servers[n])
}

func crashLeader(ctx context.Context, c *cluster, _ *rand.Rand) (func(context.Context) error, error) {
	n := c.leader(ctx)
	if n < 0 {
		return nil, fmt.Errorf("nobody knows who leads")
	}
	return nothing, crash(c.servers[n])
}

// isCommit finds the answer to a COMMIT.
func isCommit(kind byte, body []byte) bool {
	return kind == 'C' && bytes.HasPrefix(body, []byte("COMMIT"))
}

// loseAnswers cuts the links to the leader when it answers a COMMIT.
func loseAnswers(ctx context.Context, c *cluster, _ *rand.Rand) (func(context.Context) error, error) {
	n := c.leader(ctx)
	if n < 0 {
		return nil, fmt.Errorf("nobody knows who leads")
	}
	for _, p := range c.programs {
		p.links[n].CutAt(pgtest.ToClient, isCommit, nil)
	}
	return func(context.Context) error {
		for _, p := range c.programs {
			p.links[n].Heal()
		}
		return nil
	}, nil
}

// index has each program make an index in several transactions.
func index(ctx context.Context, c *cluster, rng *rand.Rand) (func(context.Context) error, error) {
	for _, p := range c.programs {
		name := fmt.Sprintf("log_%d", rng.Uint32())
		go p.ask(ctx, Request{Workload: "any", F: "sql", Value: quoted("CREATE INDEX CONCURRENTLY " + name + " ON log (noise)"), Timeout: 20 * time.Second})
	}
	return nothing, nil
}

// freezeAndLose freezes all programs but one, for which a member is lost then: it has
// to go on without asking them.
func freezeAndLose(ctx context.Context, c *cluster, rng *rand.Rand) (func(context.Context) error, error) {
	n, err := c.follower(ctx, rng)
	if err != nil {
		return nil, err
	}
	for _, p := range c.programs[1:] {
		if err := p.freeze(); err != nil {
			return nil, err
		}
	}
	if err := c.servers[n].Kill(); err != nil {
		return nil, err
	}
	return func(context.Context) error {
		for _, p := range c.programs[1:] {
			if err := p.thaw(); err != nil {
				return err
			}
		}
		return c.servers[n].StartAgain()
	}, nil
}

func switchOver(ctx context.Context, c *cluster, _ *rand.Rand) (func(context.Context) error, error) {
	for _, p := range c.programs {
		go func() {
			// It is refused while it is busy, or dies: who comes to the point matters.
			_ = p.operate(ctx, Operation{Do: Switchover, Wait: 5 * time.Second})
		}()
	}
	return nothing, nil
}

// copyOne has a follower copied afresh. Whatever becomes of it, in the end the copy is
// made.
func copyOne(ctx context.Context, c *cluster, rng *rand.Rand) (func(context.Context) error, error) {
	n, err := c.follower(ctx, rng)
	if err != nil {
		return nil, err
	}
	first := make(chan error, 1)
	go func() { first <- c.copyAfresh(ctx, n) }()
	return func(ctx context.Context) error {
		if <-first == nil {
			return nil
		}
		if err := c.heal(ctx); err != nil { // who copied may have died later than anybody waited for it
			return err
		}
		return c.copyAfresh(ctx, n)
	}, nil
}

// freeze and thaw stop the program and let it go on.
func (r *runner) freeze() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proc.SigStop()
}

func (r *runner) thaw() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proc.Ended() {
		return nil
	}
	return r.proc.SigCont()
}

// visit has programs come to failpoints that one kind of occasion leads to and do there
// as the action says, and brings all back that is broken by it. Each program has another
// of the points to look out for; on who makes a copy, the first, alone.
func (c *cluster) visit(ctx context.Context, kind string, points []string, do Action, rng *rand.Rand) error {
	began := time.Now()
	for tries := 0; len(points) > 0; tries++ {
		if tries == 5+2*len(points) {
			return fmt.Errorf("%s: %q were not reached", kind, points)
		}
		if err := c.whole(ctx); err != nil {
			return err
		}
		c.drainPoints()
		pause := time.Duration(500+rng.IntN(1500)) * time.Millisecond
		armed := 0
		for i, p := range c.programs {
			if kind == aCopy && i > 0 || i >= len(points) && kind != followers && kind != frozen {
				continue
			}
			o := Order{Point: points[(i+tries)%len(points)], Action: do, Pause: pause}
			if kind == load {
				o.After = rng.IntN(20)
			}
			err := p.call(ctx, "Arm", []Order{o}, &struct{}{})
			if errors.Is(err, errNotThere) { // it came to its point just as it was told not to any more
				if err := c.upAll(ctx); err != nil {
					return err
				}
				err = p.call(ctx, "Arm", []Order{o}, &struct{}{})
			}
			if err != nil {
				return fmt.Errorf("arm program %d: %w", p.n, err)
			}
			armed++
		}
		over, err := occasions[kind](ctx, c, rng)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		hits := c.awaitPoints(ctx, armed)
		for _, at := range hits {
			c.t.Logf("failpoint %q: program %d: %s, after %v", at.point, at.r.n, do, time.Since(began).Round(time.Millisecond))
			points = slices.DeleteFunc(points, func(p string) bool { return p == at.point })
			if err := at.recover(ctx, pause); err != nil {
				return err
			}
		}
		if err := over(ctx); err != nil {
			return fmt.Errorf("%s: after %s at %v: %w", kind, do, hits, err)
		}
		c.arm(ctx)
		if err := c.upAll(ctx); err != nil {
			return fmt.Errorf("%s: after %s at %v: %w", kind, do, hits, err)
		}
	}
	return nil
}

// drainPoints forgets what programs came to before.
func (c *cluster) drainPoints() {
	for len(c.points) > 0 {
		<-c.points
	}
}

// awaitPoints waits until as many programs are at their points, for a while, and less
// long once one is.
func (c *cluster) awaitPoints(ctx context.Context, armed int) (hits []hit) {
	limit := time.After(12 * time.Second)
	for len(hits) < armed {
		select {
		case at := <-c.points:
			hits = append(hits, at)
			limit = time.After(1500 * time.Millisecond)
		case <-limit:
			return hits
		case <-ctx.Done():
			return hits
		}
	}
	return hits
}

// recover brings a program back after what it did at a failpoint.
func (h hit) recover(ctx context.Context, pause time.Duration) error {
	switch h.does {
	case Die:
		if err := h.dead(); err != nil {
			return err
		}
		return h.r.revive(ctx)
	case Freeze:
		time.Sleep(pause)
		return h.r.thaw()
	}
	time.Sleep(pause)
	return nil
}

// dead waits until the program is, which was to die.
func (h hit) dead() error {
	select {
	case <-h.life.Done():
		return nil
	case <-time.After(20 * time.Second):
		return fmt.Errorf("program %d does not die at %q", h.r.n, h.point)
	}
}
