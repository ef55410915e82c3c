package simulation

import (
	"errors"

	"github.com/pgdist/pgdist/health"
)

// Errors of calls.
var (
	errLost     = errors.New("no answer")
	errRefused  = errors.New("refused")
	errFence    = errors.New("another epoch")
	errPosition = errors.New("another position")
	errEnded    = errors.New("ended by the server")
)

// verdict is what executing a request comes to.
type verdict int

const (
	done  verdict = iota
	wait          // somebody holds a lock
	enter         // a transaction is open, and is to be committed
)

// call is a request to a member, and its answer.
type call struct {
	d    *dist
	m    *member
	name string
	exec func(c *call) verdict // at the member
	then func(a *answer)       // at the distributor

	answered bool
	orphan   bool // nobody waits for the answer
	ans      answer
}

// askAs is ask of a member as the view has it: another server under its address is not listened to.
func (d *dist) askAs(v *health.View, m *member, name string, exec func(c *call) verdict, then func(a *answer)) {
	d.ask(m, name, func(c *call) verdict {
		if s := system(v, m.id); s != "" && s != c.m.system && d.w.Bug != BugNoIdentity {
			c.ans.err = errRefused
			return done
		}
		return exec(c)
	}, then)
}

// ask sends a request.
func (d *dist) ask(m *member, name string, exec func(c *call) verdict, then func(a *answer)) {
	c := d.w.arena.call()
	c.d, c.m, c.name, c.exec, c.then = d, m, name, exec, then
	d.w.calls = append(d.w.calls, c)
}

func (w *world) drop(i int) {
	copy(w.calls[i:], w.calls[i+1:])
	w.calls[len(w.calls)-1] = nil
	w.calls = w.calls[:len(w.calls)-1]
}

// advance does the next thing about a call.
func (w *world) advance(i int) {
	c := w.calls[i]
	if c.orphan && (c.answered || !c.m.up || c.d.dead && w.rng.oneIn(4)) {
		w.drop(i)
		return
	}
	if c.answered {
		w.deliver(i)
		return
	}
	cut := (c.d.cut&bit(c.m.id) != 0 || c.m.vacant && c.name != "restore") && !c.orphan
	switch {
	case cut, !c.m.up:
		if c.m.apply == c {
			c.m.apply = nil // the connection is gone
		}
		w.giveUp(i, false)
		return
	case c.m.stopped:
		if w.rng.oneIn(6) {
			w.giveUp(i, true)
		}
		return
	case w.lose != nil && !w.calm && !c.orphan && w.lose(c):
		w.giveUp(i, false)
		return
	case w.deaf > 0 && !w.calm && c.name == "accept" && w.rng.percent(w.deaf):
		w.giveUp(i, w.rng.oneIn(2))
		return
	case !w.calm && w.loss > 0 && w.rng.oneIn(w.loss):
		if c.m.apply != c || w.rng.oneIn(2) {
			w.giveUp(i, w.rng.oneIn(2))
		}
		return
	}
	entered := c.m.apply == c
	switch c.exec(c) {
	case wait:
		if w.rng.oneIn(8) {
			w.giveUp(i, false)
		}
		return
	case enter:
		return
	}
	if w.Trace {
		w.note("%s at %d for %s: %v", c.name, c.m.id, c.d, &c.ans)
	}
	if c.orphan {
		w.drop(i)
		return
	}
	if !w.calm && !entered && w.rng.oneIn(200) {
		x := w.arena.call()
		x.d, x.m, x.name, x.exec, x.orphan = c.d, c.m, c.name, c.exec, true
		w.calls = append(w.calls, x)
	}
	c.answered = true
	if !w.rng.oneIn(4) && !w.held(c) {
		w.deliver(i)
	}
}

// deliver brings an answer back.
func (w *world) deliver(i int) {
	c := w.calls[i]
	switch {
	case c.d.stopped:
		return
	case c.d.cut&bit(c.m.id) != 0, !w.calm && w.loss > 0 && w.rng.oneIn(w.loss):
		w.giveUp(i, false)
		return
	}
	w.drop(i)
	if !c.d.dead {
		c.then(&c.ans)
	}
}

// giveUp tells whoever asked that there is no answer; the request may be under way still.
func (w *world) giveUp(i int, later bool) {
	c := w.calls[i]
	if c.orphan {
		if !later {
			w.drop(i)
		}
		return
	}
	if c.d.stopped {
		return // it will find out
	}
	if w.Trace {
		w.note("%s at %d for %s: no answer", c.name, c.m.id, c.d)
	}
	if later && !c.answered {
		c.orphan = true
	} else {
		if c.m.apply == c {
			c.m.apply = nil
		}
		w.drop(i)
	}
	if !c.d.dead {
		c.then(&answer{err: errLost})
	}
}
