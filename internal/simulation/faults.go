package simulation

// kinds is how many kinds of faults there are.
const kinds = 26

// fault is something that goes wrong, or is mended.
func (w *world) fault() {
	m := w.members[w.rng.n(len(w.members))]
	d := w.anyDist()
	kind := w.rng.n(kinds)
	for range 8 {
		if w.mute>>kind&1 == 0 {
			break
		}
		kind = w.rng.n(kinds)
	}
	if w.mute>>kind&1 == 1 {
		return
	}
	switch kind {
	case 0, 1: // a server crashes, or comes back
		if m.up {
			w.note("member %d crashes", m.id)
			m.crash()
		} else {
			m.up = true
		}
	case 2, 3, 4, 5:
		for _, x := range w.members {
			if !x.up {
				x.up = true
				break
			}
		}
	case 6: // … and back at once: nobody may have seen it
		if m.up {
			w.note("member %d crashes, and is back", m.id)
			m.crash()
			m.up = true
		}
	case 7:
		w.note("member %d is stopped: %v", m.id, !m.stopped)
		m.stopped = m.up && !m.stopped
	case 8:
		for _, x := range w.members {
			x.stopped = false
		}
	case 9:
		w.note("%s is stopped: %v", d, !d.stopped)
		d.stopped = !d.stopped
	case 10:
		for _, x := range w.dists {
			x.stopped = false
		}
	case 11: // a distributor ends, another one starts
		if len(w.dists) < maxDists {
			w.note("%s ends", d)
			d.dead, d.stopped = true, false
			w.newDist()
		}
	case 12: // … in addition
		if len(w.dists) < maxDists {
			w.newDist()
		}
	case 13, 14:
		w.note("%s and member %d are cut off: %v", d, m.id, d.cut&bit(m.id) == 0)
		d.cut ^= bit(m.id)
	case 15, 16:
		for _, x := range w.dists {
			x.cut = 0
		}
	case 17, 18, 19: // somebody believes so, rightly or not
		d.suspects |= bit(m.id)
	case 20:
		d.wish = m.id
	case 21, 24, 25:
		w.replace(m)
	case 22:
		d.lists = true
	case 23:
		w.now += int64(w.rng.n(3 * lease))
	}
}

// replace puts another server in a member's place: an old copy of itself under another
// identity, an empty one, or the one that was there before. One member at a time: two that
// forget their votes are a majority that does.
func (w *world) replace(m *member) {
	if m.away != nil && w.rng.oneIn(2) {
		if !w.seat(m) || w.spared(m) {
			w.swap(m)
		}
		return
	}
	if !w.complete() || m.witness || m.accepted == nil || system(w.views[w.newest].view, m.id) == "" {
		return
	}
	if m.old == nil {
		old := m.disk
		m.old = &old
		return
	}
	if !w.spared(m) {
		return
	}
	old := *m.old
	m.old = nil
	if w.rng.oneIn(3) {
		old = disk{}
	}
	w.exchange(m, old)
}

// exchange puts a new server with these data in a member's place; an empty one is nobody yet.
func (w *world) exchange(m *member, data disk) {
	m.crash()
	was := m.disk
	m.away = &was
	m.disk = data
	m.system = w.newSystem()
	m.vacant = data.accepted == nil
	m.up = true
	w.dirty = true
	w.note("member %d was replaced: system %s, vacant %v, promised %d", m.id, m.system, m.vacant, m.promised)
}

// swap brings the server back that was there before.
func (w *world) swap(m *member) {
	m.crash()
	was := m.disk
	m.disk, m.away = *m.away, &was
	if m.vacant {
		m.away = nil
	}
	m.vacant = false
	m.up = true
	w.dirty = true
	w.note("member %d is server %s again", m.id, m.system)
}

// spared tells whether the set can do without the member for good: a majority is left, and all
// that was acknowledged is somewhere else as well, on somebody in sync.
func (w *world) spared(m *member) bool {
	if k := w.views[w.newest]; k.quorum>>(bits(1)<<len(w.members)-1&^bit(m.id))&1 == 0 {
		return false
	}
	for _, k := range w.views[w.newest:] { // of which any may be chosen yet
		if k != nil && k.inSync == bit(m.id) {
			return false
		}
	}
	for _, x := range w.views[w.newest].view.InSync {
		if x != m.id && w.told&^w.members[x-1].rows == 0 {
			return true
		}
	}
	return false
}

// seat tells whether the member is the server that the newest view names.
func (w *world) seat(m *member) bool {
	return !m.vacant && system(w.views[w.newest].view, m.id) == m.system
}

// complete tells whether nobody who has a vote was replaced.
func (w *world) complete() bool {
	for _, x := range w.views[w.newest].view.Members {
		if m := w.members[x.ID-1]; !w.seat(m) && (x.Weight > 0 || m.accepted != nil) {
			return false
		}
	}
	return true
}
