package simulation

// Most of what can go wrong does so by chance, sooner or later; some of it takes a dozen steps
// in one order, which chance does not find in a hundred thousand schedules. A script leads there: it
// says who is stopped and when, which messages take long, who gets its turn, and leaves the rest to
// chance. Nothing of that is more than what a network and a scheduler may do by themselves.

// guide is what a script has taken hold of.
type guide struct {
	script []stage            // what is to come, the present stage first
	since  int                // the step in which that began
	got    int                // stages gone through
	favour *dist              // who has nearly every turn
	hold   func(c *call) bool // which calls take long
	lose   func(c *call) bool // … get lost
}

// stage is a part of a script.
type stage struct {
	begin func()
	over  func() bool
	// limit is how many steps it may take; if it takes longer, the rest is left to chance.
	limit int
}

// guided goes on in the script.
func (w *world) guided() {
	if len(w.script) == 0 {
		return
	}
	if w.calm {
		w.release()
		return
	}
	for s := &w.script[0]; ; s = &w.script[0] {
		if s.begin != nil {
			s.begin()
			s.begin = nil
			w.since = w.step
		}
		if !s.over() {
			if w.step-w.since > s.limit {
				w.note("the script is left")
				w.release()
			}
			return
		}
		if w.script = w.script[1:]; len(w.script) == 0 {
			w.release()
			return
		}
	}
}

// after is how many steps there are after a script.
const after = 200

// release leaves everything to chance.
func (w *world) release() {
	w.guide = guide{}
	if !w.calm {
		w.Steps = min(w.Steps, w.step+after)
	}
	w.speed, w.eager, w.leap = quiet.speed, quiet.eager, 0
	for _, d := range w.dists {
		d.stopped, d.cut = false, 0
	}
}

// everybody are all members.
func (w *world) everybody() bits { return bits(1)<<len(w.members) - 1 }

// lasted tells whether so many steps of this stage are over.
func (w *world) lasted(steps int) func() bool {
	return func() bool { return w.step-w.since >= steps }
}

// serves tells whether a distributor goes by the newest view and may read.
func (w *world) serves(d *dist) bool {
	return d.view != nil && d.view.Epoch == w.newest && d.cur == d.view && d.holds()
}

// shuffled are the members, in any order.
func (w *world) shuffled() []id {
	out := list(w.everybody(), nil)
	for i := range out {
		j := w.rng.between(i, len(out)-1)
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// missed tells whether a member lacks what was acknowledged.
func (w *world) missed(m id) bool { return w.told&^w.members[m-1].rows != 0 }

// leaveOut has a distributor go on without a member until something is acknowledged that the member lacks.
func (w *world) leaveOut(x **dist, c *id, meanwhile ...func()) stage {
	return stage{limit: 400, begin: func() {
		w.favour = *x
		w.note("%s is to do without member %d", *x, *c)
	}, over: func() bool {
		d := *x
		switch {
		case d.cur == nil:
			w.speed = 2
		case d.cur.Has(*c):
			w.speed = 1
			if d.poll != nil { // it hesitates
				w.speed = 4
			}
			if !d.busy {
				d.suspects |= bit(*c)
			}
		case d.drained < d.cur.Epoch && d.clock()-d.since < lease*3/4:
			w.speed, w.leap = 10, 20
		case d.drained < d.cur.Epoch:
			w.speed, w.leap = 3, 3
			if !w.idle() { // at the last moment what is asked takes no time
				w.speed = 1
			}
		default:
			w.speed, w.leap = 1, 1
		}
		for _, do := range meanwhile {
			do()
		}
		return w.missed(*c)
	}}
}

// readBehind has a distributor go on that reaches one member only.
func (w *world) readBehind(r **dist, c *id) stage {
	return stage{limit: 60, begin: func() {
		d := *r
		d.stopped, d.cut = false, w.everybody()&^bit(*c)
		w.favour, w.hold = d, nil
		w.speed, w.leap, w.eager = 1, 1, 24
		w.note("%s goes on, and reaches member %d", d, *c)
	}, over: w.lasted(40)}
}

// again has everybody reach everybody.
func (w *world) again() stage {
	return stage{limit: 1, begin: func() {
		for _, d := range w.dists {
			d.stopped, d.cut = false, 0
		}
		w.favour, w.hold = nil, nil
		w.speed, w.eager, w.leap = quiet.speed, quiet.eager, quiet.leap
	}, over: func() bool { return true }}
}

// short tells whether a distributor that is not alone has one lease at a time, and every member knows it.
func (w *world) short(d *dist) bool { return d.others > 0 && d.length == lease && w.written(d) }

// written tells whether every member has it that a distributor takes one lease at a time.
func (w *world) written(d *dist) bool {
	for _, m := range w.members {
		if e := m.list[d.slot]; !e.on || e.lease != lease {
			return false
		}
	}
	return true
}
