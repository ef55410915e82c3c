package simulation

import "slices"

// leaderOfThePast: a distributor that has slept, and does not know of another one, nor that the leader is
// another now, asks the former leader for the soft promise of a leader while a batch of the present one is put in place there.
func leaderOfThePast(w *world) []stage {
	x := w.dists[0]
	var d *dist
	was := w.members[2]
	lead, rest := w.members[0], w.members[1]
	if w.rng.oneIn(2) {
		lead, rest = rest, lead
	}
	led := func(d *dist, by *member) bool {
		return w.serves(d) && d.view.Leader == by.id && len(d.view.InSync) == 3
	}
	wish := func(d *dist, by *member) func() bool {
		return func() bool {
			if d.cur != nil && d.cur.Leader != by.id && d.cur.Has(by.id) && !d.busy {
				d.wish = by.id
			}
			return led(d, by)
		}
	}
	return []stage{
		{limit: 60, over: func() bool { return w.serves(x) }},
		{limit: 200, begin: func() { w.favour = x }, over: wish(x, was)},
		{limit: 60, begin: func() {
			x.stopped = true
			d = w.newDist()
			w.favour = d
		}, over: func() bool { return d.view != nil }},
		{limit: 400, over: func() bool {
			w.speed, w.leap, w.eager = 2, 6, 0
			if d.poll != nil {
				w.speed, w.leap = 12, 30
			}
			return wish(d, lead)()
		}},
		{limit: 60, begin: func() {
			w.speed, w.leap, w.eager = 2, 6, 20
			w.hold = func(c *call) bool { return c.name == "apply" }
		}, over: func() bool { return lead.rows&^was.rows&^rest.rows != 0 }},
		{limit: 60, begin: func() {
			w.hold = func(c *call) bool { return c.name == "apply" && (c.m == rest || c.m.apply == c) }
		}, over: func() bool { return was.apply != nil }},
		{limit: 60, begin: func() {
			d.stopped, x.stopped = true, false
			w.favour = x
			x.cut = bit(lead.id)
			x.suspects |= bit(lead.id)
			w.hold = func(c *call) bool { return c.name == "apply" || c.d == x && c.name == "confirm" }
		}, over: func() bool { return rest.leads }},
		{limit: 90, begin: func() { w.hold = nil }, over: w.lasted(60)},
	}
}

// oldServer: a member's server is replaced, copied, and in sync again; a majority goes on without
// another member; then the old server is back, and a distributor that has slept all the time
// reaches these two alone.
func oldServer(w *world) []stage {
	x, d := w.dists[0], w.dists[1]
	three := w.shuffled()
	seat, left := w.members[three[0]-1], three[1]
	far := three[2]
	return []stage{
		{limit: 90, over: func() bool { return w.serves(x) && w.serves(d) && w.short(x) && w.short(d) }},
		{limit: 1, begin: func() { x.stopped = true }, over: func() bool { return true }},
		w.leaveOut(&d, &seat.id),
		{limit: 250, begin: func() {
			w.speed, w.leap = quiet.speed, quiet.leap
			if w.complete() && w.spared(seat) {
				w.exchange(seat, disk{})
			}
		}, over: func() bool { return seat.away != nil && w.seat(seat) }},
		{limit: 250, over: func() bool { return w.serves(d) && d.view.Has(seat.id) }},
		{limit: 1, begin: func() { d.cut = bit(left) }, over: func() bool { return true }},
		w.leaveOut(&d, &left),
		{limit: 60, begin: func() {
			if w.spared(seat) {
				w.swap(seat)
			}
			d.stopped, x.stopped = true, false
			x.cut = bit(far)
			w.speed, w.leap = quiet.speed, quiet.leap
			w.favour = x
		}, over: func() bool {
			if !x.busy && w.rng.oneIn(4) {
				x.suspects |= bit(far)
			}
			return w.step-w.since > 50
		}},
	}
}

// copyByOldView: a view is chosen by two, of whom one is replaced; who knows of the view before
// only has the new server copied.
func copyByOldView(w *world) []stage {
	x, d := w.dists[0], w.dists[1]
	var left id
	three := w.shuffled()
	for three[0] == 1 {
		three = w.shuffled()
	}
	seat, far := w.members[three[0]-1], id(0)
	return []stage{
		{limit: 150, over: func() bool { return w.serves(x) && w.serves(d) && w.short(x) && w.short(d) }},
		w.leaveOut(&d, &seat.id),
		{limit: 250, begin: func() {
			w.favour = nil
			w.speed, w.leap = quiet.speed, quiet.leap
			w.hold = func(c *call) bool { return c.m == seat && c.name == "apply" }
		}, over: func() bool { return w.serves(x) && w.serves(d) && !x.view.Has(seat.id) }},
		{limit: 1, begin: func() {
			left = x.view.Leader
			far = 6 - left - seat.id
			x.stopped = true
			d.cut = bit(left)
		}, over: func() bool { return true }},
		w.leaveOut(&d, &left),
		{limit: 90, begin: func() {
			w.hold = nil
			if w.complete() && w.spared(seat) {
				w.exchange(seat, disk{})
			}
			d.stopped, x.stopped = true, false
			x.cut = bit(far)
			w.favour, w.speed, w.leap = x, quiet.speed, quiet.leap
		}, over: w.lasted(80)},
	}
}

// votersByHalves: votes are given to a witness by a view that the first member and the witness accept alone, and
// the next one, too; the others, a majority of those who voted before, know of neither.
func votersByHalves(w *world) []stage {
	d, other := w.dists[0], w.dists[1]
	deaf := func(c *call) bool { return c.name == "accept" && (c.m.id == 2 || c.m.id == 3) }
	two := id(2)
	return []stage{
		{limit: 150, over: func() bool { return w.serves(d) && w.serves(other) && d.view.Leader == 1 }},
		{limit: 150, begin: func() {
			other.stopped = true
			w.favour = d
			w.lose = deaf
		}, over: func() bool {
			if !d.busy {
				d.lists = true
			}
			last := w.views[len(w.views)-1]
			return last != nil && len(last.view.Members) == 4 && last.view.Members[3].Weight > 0 && last.voted == bit(1)|bit(4)
		}},
		{limit: 1, begin: func() {
			d.cut = bit(3)
			d.suspects = bit(2) | bit(3)
		}, over: func() bool { return true }},
		w.leaveOut(&d, &two),
	}
}

// officeAgain: the leader is put into office once more, for there is nobody else; a distributor that has not
// heard of it writes, loses the answer to its COMMIT, and hears of the new term before that is executed.
func officeAgain(w *world) []stage {
	r, x := w.dists[0], w.dists[1]
	var stuck *call
	confirms := func(c *call) bool { return c.d == r && c.name == "confirm" }
	commits := func(c *call) bool { return c.d == r && c.name == "commit" && c.m.office == w.newest }
	alone := func(d *dist) bool { return w.serves(d) && len(d.view.InSync) == 1 }
	var first int64
	return []stage{
		{limit: 150, over: func() bool { return w.serves(r) && w.serves(x) && w.views[w.newest].view.Leader == 1 }},
		{limit: 200, begin: func() { w.eager = 0; x.suspects = bit(2) | bit(3) }, over: func() bool {
			if x.cur.Leader == 1 && len(x.cur.InSync) > 1 && !x.busy {
				x.suspects = bit(2) | bit(3)
			}
			first = w.newest
			return alone(r) && alone(x)
		}},
		{limit: 100, begin: func() { w.hold = confirms; w.favour = x }, over: func() bool {
			if x.cur.Epoch == first && !x.busy {
				x.suspects = bit(1)
			}
			return w.newest > first && w.members[0].office == w.newest
		}},
		{limit: 60, begin: func() {
			x.stopped = true
			w.favour, w.eager = r, 24
			w.hold = func(c *call) bool { return confirms(c) || commits(c) }
		}, over: func() bool {
			if i := slices.IndexFunc(w.calls, commits); i >= 0 {
				stuck = w.calls[i]
			}
			return stuck != nil
		}},
		{limit: 100, begin: func() {
			r.newer, w.eager = true, 0
			w.hold = func(c *call) bool { return c == stuck }
		}, over: func() bool { return r.view.Epoch == w.newest }},
		{limit: 250, begin: func() { w.giveUp(slices.Index(w.calls, stuck), true) }, over: func() bool { return w.undone != 0 }},
		{limit: 60, begin: func() { w.hold = nil }, over: w.lasted(40)},
	}
}

// joinOfOtherTerm: a member is brought up to date with what nobody else has, the leader dies, and
// the member is to join under the next one, which lacks that.
func joinOfOtherTerm(w *world) []stage {
	d := w.dists[0]
	lead, next, back := w.members[0], w.members[1], w.members[2]
	return []stage{
		{limit: 60, over: func() bool { return w.serves(d) && d.view.Leader == lead.id }},
		{limit: 100, begin: func() { w.eager = 0; d.suspects = bit(back.id) }, over: func() bool {
			if d.cur.Has(back.id) && !d.busy {
				d.suspects = bit(back.id)
			}
			return w.serves(d) && !d.view.Has(back.id)
		}},
		{limit: 100, begin: func() {
			w.hold = func(c *call) bool { return c.m == back }
		}, over: func() bool { return d.invited&bit(back.id) != 0 }},
		{limit: 100, begin: func() {
			w.eager = 20
			w.hold = func(c *call) bool { return c.m == back || c.m == next && c.name == "apply" }
		}, over: func() bool { return lead.rows&^next.rows != 0 }},
		{limit: 100, begin: func() {
			w.hold = func(c *call) bool { return c.m == next && c.name == "apply" }
		}, over: func() bool { return back.rows&^next.rows != 0 }},
		{limit: 150, begin: func() {
			lead.crash()
			w.eager, w.hold = 0, nil
			w.lose = func(c *call) bool { return c.m == next && c.name == "apply" }
		}, over: func() bool {
			if !d.busy && d.cur.Leader == lead.id {
				d.suspects = bit(lead.id)
			}
			return next.leads
		}},
		{limit: 150, begin: func() { w.lose = nil }, over: w.lasted(100)},
		{limit: 1, begin: func() { lead.up = true }, over: func() bool { return true }},
	}
}

// promiseForNothing: a member that is left out promises an epoch to a distributor that reaches nobody else, and ends.
func promiseForNothing(w *world) []stage {
	x, d := w.dists[0], w.dists[1]
	out := w.members[2]
	return []stage{
		{limit: 150, over: func() bool { return w.serves(x) && w.serves(d) }},
		{limit: 150, begin: func() { w.eager, w.favour = 0, d }, over: func() bool {
			w.hold = func(c *call) bool { return c.m == out && c.name == "apply" }
			if d.cur.Has(out.id) && !d.busy {
				d.suspects = bit(out.id)
			}
			return w.serves(d) && !d.view.Has(out.id)
		}},
		{limit: 200, begin: func() { w.favour, x.cut = x, w.everybody()&^bit(out.id) }, over: func() bool {
			if !x.busy {
				x.suspects = bit(1) | bit(2)
			}
			return out.promised > w.newest
		}},
		{limit: 1, begin: func() { x.dead = true }, over: func() bool { return true }},
	}
}
