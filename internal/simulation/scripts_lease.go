package simulation

import "slices"

// leftBehind: a reader sleeps, or is cut off, while another distributor leaves out a member
// that it can read; then once more, when it has come back.
func leftBehind(w *world) []stage {
	r, x := w.dists[0], w.dists[1]
	var c id
	var how int // 0 it is cut off, 1 it sleeps, 2 it sleeps until its lease has nearly run out
	if w.rng.oneIn(2) {
		r.rate, x.rate = slowest, fastest
	}
	once := []stage{
		{limit: 250, over: func() bool { return w.serves(r) && w.serves(x) && w.short(r) && w.short(x) && len(r.view.InSync) > 1 }},
		{limit: 100, begin: func() {
			v := w.views[w.newest].view
			for c = 0; c == 0 || c == v.Leader && !w.rng.oneIn(8); c = v.InSync[w.rng.n(len(v.InSync))] {
			}
			w.favour, how = r, w.rng.n(3)
			if how > 0 {
				w.hold = func(call *call) bool { return call.d == r && call.answered }
			}
		}, over: func() bool {
			if how == 0 {
				w.speed = 2
				if r.running { // its lease is to be as good as new
					w.speed = 1
				}
				return r.clock()-r.from < 3 && w.serves(r)
			}
			n := 0
			for _, call := range w.calls {
				if call.d == r && call.answered && call.name == "confirm" {
					n++
				}
			}
			return n > 1
		}},
		{limit: 1, begin: func() {
			if how > 0 {
				r.stopped = true
			} else {
				r.cut = w.everybody() &^ bit(c)
			}
		}, over: func() bool { return true }},
		w.leaveOut(&x, &c, func() {
			if left := r.until - r.clock(); how == 2 && r.stopped && left < lease/2 && w.speed > 3 {
				w.speed, w.leap = 3, 3
			} else if how == 2 && r.stopped && left < lease/8 {
				r.stopped, r.cut, w.hold = false, w.everybody()&^bit(c), nil
				for i := len(w.calls) - 1; i >= 0; i-- {
					if w.calls[i].d == r && w.calls[i].answered && w.calls[i].name == "confirm" {
						call := w.calls[i]
						w.drop(i)
						call.then(&call.ans)
					}
				}
			}
		}),
		w.readBehind(&r, &c),
		w.again(),
	}
	return append(once, once...)
}

// wasAlone: a reader that has a long lease, for it was alone, has to do with a shorter one, and sleeps.
func wasAlone(w *world) []stage {
	r := w.dists[0]
	var x *dist
	var c id
	return []stage{
		{limit: 60, over: func() bool { return w.serves(r) && r.length == aloneLeases*lease }},
		{limit: 60, begin: func() { x = w.newDist(); w.favour = x }, over: func() bool { return x.view != nil }},
		{limit: 80, begin: func() { w.favour, w.speed, w.leap = r, 4, 20 }, over: func() bool {
			return w.written(r)
		}},
		{limit: 1, begin: func() {
			r.stopped = true
			c = w.views[w.newest].view.InSync[w.rng.n(len(w.views[w.newest].view.InSync))]
		}, over: func() bool { return true }},
		w.leaveOut(&x, &c),
		w.readBehind(&r, &c),
	}
}

// struckOffLate: a distributor was not heard of for long and is taken off the lists, but in one
// place that takes until it is there again.
func struckOffLate(w *world) []stage {
	r, x := w.dists[0], w.dists[1]
	three := w.shuffled()
	c, far, late := three[0], three[1], three[2]
	return []stage{
		{limit: 150, over: func() bool { return w.serves(r) && w.serves(x) && w.short(r) && w.short(x) }},
		{limit: 300, begin: func() {
			r.stopped = true
			w.favour, w.speed, w.leap = x, 16, 30
			w.hold = func(call *call) bool { return call.name == "dismiss" && call.m.id == late }
		}, over: func() bool {
			return !w.members[c-1].list[r.slot].on && !w.members[far-1].list[r.slot].on && w.members[late-1].list[r.slot].on
		}},
		{limit: 150, begin: func() {
			r.stopped, r.cut = false, bit(far)
			w.favour, w.speed, w.leap = r, 2, 6
		}, over: func() bool {
			return r.holds() && w.members[c-1].list[r.slot].on && r.clock()-r.from < lease/3
		}},
		{limit: 1, begin: func() {
			r.stopped = true
			w.hold = nil
			x.cut = bit(c)
		}, over: func() bool { return true }},
		w.leaveOut(&x, &c),
		w.readBehind(&r, &c),
	}
}

// shortLeaseLate: the request of a short lease, from when there was somebody else, reaches a member
// when the reader is alone and has a long one.
func shortLeaseLate(w *world) []stage {
	r, other := w.dists[0], w.dists[1]
	three := w.shuffled()
	c, far, late := three[0], three[1], three[2]
	var x *dist
	return []stage{
		{limit: 150, over: func() bool { return w.serves(r) && w.serves(other) && w.short(r) && w.short(other) }},
		{limit: 100, begin: func() {
			w.favour, w.speed = r, 6
			w.hold = func(call *call) bool {
				return call.d == r && call.name == "confirm" && call.m.id == late && !call.answered
			}
		}, over: func() bool {
			i := slices.IndexFunc(w.calls, w.hold)
			if i < 0 {
				return false
			}
			stuck := w.calls[i]
			w.giveUp(i, true)
			w.hold = func(c *call) bool { return c == stuck }
			return true
		}},
		{limit: 300, begin: func() {
			other.dead = true
			r.cut = bit(far)
			w.speed, w.leap = 12, 20
		}, over: func() bool {
			return r.others == 0 && r.length == aloneLeases*lease && w.members[late-1].list[r.slot].lease == aloneLeases*lease && w.members[far-1].list[r.slot].lease == lease
		}},
		{limit: 1, begin: func() {
			r.stopped = true
			w.hold = nil
			x = w.newDist()
			x.cut = bit(c)
			w.speed, w.leap = 2, 6
		}, over: func() bool { return true }},
		w.leaveOut(&x, &c),
		w.readBehind(&r, &c),
	}
}
