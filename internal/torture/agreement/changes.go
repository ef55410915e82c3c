//go:build unix

package agreement

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Members come and go, and lose their data, one at a time: a set that waits for one
// member's copy can do without no other.

// change is one step of what is done to the list of members, or to a member's data.
type change struct {
	do      Command // Resync, Add or Remove
	server  int
	witness bool          // of Add
	votes   int           // of Add; -1 are the usual ones
	wait    time.Duration // of Remove, for transactions; of Resync, for a program that copies unasked
	by      int           // the program that does it, if it may be any
}

func (d change) String() string { return string(d.do) + " " + d.of() }

func (d change) of() string {
	text := fmt.Sprintf("of server %d", d.server)
	if d.do == Add {
		text += fmt.Sprintf(", votes %d, witness %v", d.votes, d.witness)
	}
	return text
}

// plan makes up what is done next to the list of members.
func (c *cluster) plan(rng *rand.Rand, brief bool) []change {
	in, spare := c.roll.members(), c.spare()
	one := in[rng.IntN(len(in))]
	wait := time.Duration(rng.IntN(3)) * time.Second
	by := rng.IntN(len(c.programs))
	out := func(server int) change { return change{do: Remove, server: server, wait: wait, by: by} }
	add := func(server, votes int) change { return change{do: Add, server: server, votes: votes} }
	what := rng.IntN(6)
	if brief {
		what = 5
	}
	switch what {
	case 0: // another takes its place
		return []change{out(one), add(spare, -1)}
	case 1: // or is there before
		return []change{add(spare, -1), out(one)}
	case 2: // the same one comes back
		return []change{out(one), add(one, -1)}
	case 3: // votes of a new member: none, then its share; two
		return []change{add(spare, 0), add(spare, -1), out(one)}
	case 4:
		return []change{add(spare, 2), out(spare)}
	}
	return []change{{do: Add, server: spare, witness: true, votes: -1, by: by}, out(spare)}
}

// make has one step done. It can be done again, whatever became of it.
func (c *cluster) make(ctx context.Context, d change) error {
	c.copying.Add(1)
	defer c.copying.Add(-1)
	switch d.do {
	case Resync:
		return c.fill(ctx, d)
	case Add:
		p := c.programs[0]
		if d.witness {
			p = c.programs[d.by]
		}
		if err := p.operate(ctx, Operation{Do: Add, Host: c.host(d.server), Witness: d.witness, Votes: d.votes}); err != nil || d.witness {
			return err
		}
		c.roll.add(d.server)
		return nil
	}
	c.roll.doubt(d.server, true)
	err := c.programs[d.by].operate(ctx, Operation{Do: Remove, Host: c.host(d.server), Wait: d.wait})
	if err != nil {
		// Perhaps it is done, and only its end was not heard of.
		v, lerr := c.view(ctx)
		if lerr != nil {
			return errors.Join(err, lerr)
		}
		if _, listed := c.seat(v, d.server); listed {
			return err
		}
	}
	c.roll.drop(d.server)
	return nil
}

// fill waits for a program to copy the member unasked, for a while, and then has it
// copied.
func (c *cluster) fill(ctx context.Context, d change) error {
	for began := time.Now(); ; {
		if v, err := c.view(ctx); err == nil && c.inSync(v, d.server) {
			c.roll.doubt(d.server, false)
			return nil
		}
		if time.Since(began) > d.wait || !pass(ctx, 200*time.Millisecond) {
			break
		}
	}
	return c.copyAfresh(ctx, d.server)
}

// take makes changes the only ones that are under way. false: there are others.
func (n *nemesis) take(changes ...change) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.todo) > 0 {
		return false
	}
	n.todo = changes
	return true
}

// changes does to the list of members, and to their data, what operators do, step by
// step. A step that fails is tried again next time.
func (n *nemesis) changes(ctx context.Context, rng *rand.Rand) error {
	if !pass(ctx, time.Duration(rng.Int64N(int64(3*time.Second)))) {
		return nil
	}
	next := n.c.plan(rng, n.brief)
	if !n.brief && rng.IntN(4) == 0 {
		i, err := n.c.follower(ctx, rng)
		if err != nil {
			return nil
		}
		next = []change{{do: Resync, server: i, wait: -1}}
	}
	n.take(next...)
	n.step(ctx)
	return nil
}

// step makes the next step of what is under way, and tells whether nothing is left.
func (n *nemesis) step(ctx context.Context) (done bool) {
	n.mu.Lock()
	if len(n.todo) == 0 {
		n.mu.Unlock()
		return true
	}
	next := n.todo[0]
	n.mu.Unlock()
	// It goes on when the run is over: what it does is not to be met by what comes then.
	limited, over := context.WithTimeout(context.WithoutCancel(ctx), operationTimeout+20*time.Second)
	defer over()
	err := n.c.make(limited, next)
	n.note(string(next.do), "%s: %v", next.of(), err)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil {
		n.todo = n.todo[1:]
	}
	return len(n.todo) == 0
}

// lose has a member's data be lost, if all others hold what is acknowledged.
func (n *nemesis) lose(ctx context.Context, rng *rand.Rand, i int) error {
	wait := time.Duration(rng.IntN(10)) * time.Second
	v, err := n.c.view(ctx)
	if err != nil || n.brief || len(v.InSync) < len(n.c.roll.members()) || !n.c.inSync(v, i) {
		return nil
	}
	if !n.take(change{do: Resync, server: i, wait: wait}) {
		return nil
	}
	n.note("loss of a server's data", "%d", i)
	n.c.roll.doubt(i, true)
	return n.c.servers[i].LoseData()
}

// finish ends the changes that were broken off, when nothing else is broken any more.
func (n *nemesis) finish(ctx context.Context) error {
	if err := n.c.heal(ctx); err != nil {
		return err
	}
	for _, p := range n.c.programs {
		if err := n.c.disarm(ctx, p); err != nil {
			return err
		}
	}
	if err := n.c.heal(ctx); err != nil { // whoever came to one meanwhile
		return err
	}
	limited, over := context.WithTimeout(ctx, 3*time.Minute)
	defer over()
	for !n.step(limited) {
		if !pass(limited, time.Second) {
			return fmt.Errorf("with nothing else broken, it could not be done: %v", n.todo)
		}
	}
	return nil
}
