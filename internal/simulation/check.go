package simulation

import (
	"fmt"
	"slices"
	"strings"
)

// check holds the world against the rules, after every step that changed what they are about:
//
//   - Whoever a majority may elect next has every write whose client was told "committed", and
//     none whose client was told "rolled back".
//   - Nobody who stands in the term of the newest view that was chosen has what its leader lacks.
//   - A term has one leader, an epoch one view, and nobody goes by a view that was not chosen
//     (these are looked at where they could be broken).
//   - A read shows all that was acknowledged before it began (client.go).
func (w *world) check() {
	// Whom each member could vote for, and what each has, once.
	var accepted [8]*known
	var good bits
	for i, m := range w.members {
		if m.vacant || m.accepted == nil {
			continue
		}
		accepted[i] = w.views[m.accepted.Epoch]
		if w.told&^m.rows == 0 && w.undone&m.rows == 0 {
			good |= 1 << i
		}
	}
	all := bits(1)<<len(w.members) - 1
	for s := bits(1); s <= all; s++ {
		var base *known
		ok := true
		for i, rest := 0, s; rest != 0; i, rest = i+1, rest>>1 {
			if rest&1 == 0 {
				continue
			}
			k := accepted[i]
			if k == nil {
				if w.members[i].vacant {
					ok = false
					break
				}
				continue
			}
			if base == nil || k.view.Epoch > base.view.Epoch {
				base = k
			}
		}
		if !ok || base == nil || base.quorum>>s&1 == 0 {
			continue
		}
		if bad := base.inSync & s &^ good; bad != 0 && w.seated(s, base) {
			for _, m := range list(bad, nil) {
				x := w.members[m-1]
				w.fail("majority %v may elect %d by %v: it lacks %v, which are acknowledged, and has %v, which were rolled back",
					list(s, nil), m, base.view, writes(w.told&^x.rows), writes(w.undone&x.rows))
			}
			return
		}
	}
	k := w.views[w.newest]
	lead := w.members[k.view.Leader-1]
	if lead.vacant || !lead.leads || lead.office != k.view.Term || system(k.view, lead.id) != lead.system {
		return
	}
	for _, m := range w.members {
		if m != lead && !m.vacant && m.pos.term == k.view.Term && m.rows&^lead.rows != 0 && system(k.view, m.id) == m.system {
			w.fail("member %d is in term %d and has %v, which its leader %d lacks", m.id, m.pos.term, writes(m.rows&^lead.rows), lead.id)
		}
	}
}

// seated tells whether all in s are the servers that the view names.
func (w *world) seated(s bits, k *known) bool {
	for _, m := range list(s, nil) {
		if x := system(k.view, m); x != "" && x != w.members[m-1].system {
			return false
		}
	}
	return true
}

// writes names a set of them.
func writes(s mask) string {
	var out []string
	for k := range each(s) {
		out = append(out, fmt.Sprint(k))
	}
	return "{" + strings.Join(out, " ") + "}"
}

// settle lets all faults end, and demands that the set comes to rest: everybody in sync,
// and equal.
func (w *world) settle() {
	w.calm, w.speed, w.orders = true, 2, 16
	w.note("CALM")
	for _, m := range w.members {
		m.up, m.stopped = true, false
		if m.away != nil && !w.seat(m) {
			w.swap(m)
		}
	}
	live := 0
	for _, d := range w.dists {
		d.stopped, d.cut = false, 0
		if !d.dead {
			live++
		}
	}
	if live == 0 {
		w.newDist()
	}
	for limit := w.step + 20000; w.step < limit && w.err == nil; w.step++ {
		if w.deserted() {
			return
		}
		w.once()
		if w.step%16 == 0 && w.rested() {
			w.restedWell()
			return
		}
	}
	if w.err == nil {
		w.fail("the set does not come to rest: %s", w.state())
	}
}

// deserted tells whether there is no distributor left, for the world has run out of names for them.
func (w *world) deserted() bool {
	return len(w.names) == maxNames && !slices.ContainsFunc(w.dists, func(d *dist) bool { return !d.dead })
}

// rested tells whether there is nothing left to do.
func (w *world) rested() bool {
	for _, d := range w.dists {
		if d.dead {
			continue
		}
		if d.view == nil || d.view.Epoch != w.newest || d.cur != d.view || len(d.waiting) > 0 || !d.holds() || d.drained < d.view.Epoch {
			return false
		}
		for _, m := range d.view.Members {
			if !m.Witness && !d.view.Has(m.ID) {
				return false
			}
		}
		if len(d.view.Former) > 0 {
			return false
		}
	}
	v := w.views[w.newest].view
	lead := w.members[v.Leader-1]
	for _, m := range v.InSync {
		if w.members[m-1].rows != lead.rows {
			return false
		}
	}
	return true
}

func (w *world) restedWell() {
	lead := w.members[w.views[w.newest].view.Leader-1]
	if lost := w.told &^ lead.rows; lost != 0 {
		w.fail("acknowledged writes %v are nowhere", writes(lost))
	}
	if back := w.undone & lead.rows; back != 0 {
		w.fail("writes %v were rolled back, and are everywhere", writes(back))
	}
}

func (w *world) state() string {
	var b strings.Builder
	for _, m := range w.members {
		fmt.Fprintf(&b, "\nmember %d system %s up %v vacant %v promised %d leads %v office %d boot %d accepted %v at %v rows %v", m.id, m.system, m.up, m.vacant, m.promised, m.leads, m.office, m.boot, m.accepted, m.pos, writes(m.rows))
	}
	for _, d := range w.dists {
		fmt.Fprintf(&b, "\n%s dead %v view %v cur %v busy %v waiting %d others %d drained %d holds %v invited %b joins %v poll %v", d, d.dead, d.view, d.cur, d.busy, len(d.waiting), d.others, d.drained, d.holds(), d.invited, d.joins, d.poll != nil)
	}
	return b.String()
}
