package simulation

import (
	"fmt"

	"github.com/pgdist/pgdist/health"
)

// place is a position: mirror.Place with a set of numbers for a snapshot.
type place struct {
	term int64
	all  bool // the member led the term
	seen mask // the numbers of transactions that are done
}

// within is mirror.Place.within.
func within(a, b place) (bool, error) {
	switch {
	case a.term != b.term:
		return a.term < b.term, nil
	case b.all:
		return true, nil
	case a.all:
		return false, nil
	}
	return a.seen&^b.seen == 0, nil
}

// termRow is a row of pgdist.terms.
type termRow struct {
	term   int64
	leader id
	prev   place
}

// listed is a row of pgdist.distributors.
type listed struct {
	on    bool
	epoch int32
	lease int32
	asked int32 // when it was put there, or last asked for a confirmation
}

// alive is pgdist.alive(): it has asked within its lease, and the twentieth that clocks may differ by.
func (e *listed) alive(now int64) bool {
	return e.on && now <= int64(e.asked+e.lease+e.lease/20)
}

// disk is what a member keeps whatever happens to it.
type disk struct {
	system   string
	promised int64 // the fence's epoch, too
	leads    bool
	office   int64
	accepted *health.View
	pos      place
	tick     int
	rows     mask
	journal  mask
	terms    []termRow // never changed in place
	list     [maxNames]listed
}

// member is one database and its server.
type member struct {
	disk
	w       *world
	id      id
	vacant  bool // to be copied: it is nobody until then
	witness bool
	up      bool
	stopped bool

	// Lost by a crash.
	boot  int64 // the sentinel: the term; -1: it never led; 0: gone
	open  mask  // transactions that have written and are not committed
	next  int   // the number of the next one
	apply *call // that has the position locked

	life    int   // numbers the lives of its server: a crash ends all connections
	claimed *dist // who brings it up to date
	copier  int   // numbers the copies made of it
	old     *disk // a copy of the disk, which may be put in its place one day
	away    *disk // the disk that was there before
}

func (m *member) booted() bool { return m.boot == m.office }

// answer is what a call returns.
type answer struct {
	err           error
	given, fenced bool
	known         bool // to confirm()
	alive         bits // … who else is
	here
}

func (a *answer) String() string {
	switch {
	case a.err != nil:
		return a.err.Error()
	case a.id == 0:
		return fmt.Sprint("given ", a.given)
	}
	role := "follower"
	if a.leads {
		role = fmt.Sprintf("leader of term %d, booted %v", a.office, a.booted)
	}
	return fmt.Sprintf("given %v, promised %d, has view %d, %s, at %v, rows %v", a.given, a.promised, epochOf(a.accepted), role, a.pos, writes(a.rows))
}

func (p place) String() string {
	if p.all {
		return fmt.Sprintf("(%d, all)", p.term)
	}
	return fmt.Sprintf("(%d, %v)", p.term, writes(p.seen))
}

// here is what a member says of itself.
type here struct {
	id       id
	life     int
	system   string
	promised int64
	leads    bool
	booted   bool
	office   int64
	accepted *health.View
	pos      place
	tick     int
	crashed  bool
	rows     mask
	journal  mask
	seen     mask // numbers of this term that are done
	terms    []termRow
	list     [maxNames]listed
}

// say fills in an answer.
func (m *member) say(a *answer) {
	a.here = here{id: m.id, life: m.life, system: m.system, promised: m.promised, leads: m.leads, booted: m.booted(), office: m.office, accepted: m.accepted,
		pos: m.pos, tick: m.tick, crashed: m.boot == 0, rows: m.rows, journal: m.journal, seen: m.done(), terms: m.terms, list: m.list}
}

func where(c *call) verdict { c.m.say(&c.ans); return done }

// done are the numbers of transactions that a snapshot taken now would not wait for. Those of
// transactions that were rolled back are among them, as pg_current_snapshot() has it.
func (m *member) done() mask {
	seen := mask(1)<<m.next - 1
	for k := range each(m.open) {
		seen &^= 1 << m.w.writes[k].num
	}
	return seen
}

// each goes through a set.
func each(s mask) func(func(int) bool) {
	return func(yield func(int) bool) {
		for k := 0; s != 0; k, s = k+1, s>>1 {
			if s&1 == 1 && !yield(k) {
				return
			}
		}
	}
}

// fresh lists the entries of a journal newer than a place.
func (w *world) fresh(journal mask, p place) mask {
	var out mask
	for k := range each(journal) {
		e := w.writes[k]
		if e.term > p.term || e.term == p.term && !p.all && p.seen>>e.num&1 == 0 {
			out |= 1 << k
		}
	}
	return out
}

// seize ends whoever writes here.
func (m *member) seize() {
	m.open = 0
	if m.apply != nil {
		m.apply.answered, m.apply.ans.err = true, errEnded
		m.apply = nil
	}
}

// promise is pgdist.promise().
func (m *member) promise(e int64, hard bool, a *answer) {
	if e <= m.promised && !(m.w.Bug == BugEpochTwice && e == m.promised) {
		m.say(a)
		return
	}
	hard = hard || !m.leads && m.w.Bug != BugSoftIsHard
	if hard {
		if m.w.Bug != BugPromiseEndsNobody {
			m.seize()
		}
		m.leads = false
	}
	m.promised = e
	m.w.dirty = true
	m.say(a)
	a.given, a.fenced = true, hard
	if m.w.Bug == BugSoftIsHard && !m.leads {
		a.fenced = true
	}
}

// accept is pgdist.accept().
func (m *member) accept(v *health.View, a *answer) {
	if m.promised != v.Epoch || epochOf(m.accepted) > v.Epoch {
		return
	}
	m.accepted = v
	a.given = true
	m.w.accepted(m, v)
}

// accepted notes that a member has a view now.
func (w *world) accepted(m *member, v *health.View) {
	w.dirty = true
	k := w.views[v.Epoch]
	if s := system(v, m.id); s != "" && s != m.system {
		return // it has no vote
	}
	k.voted |= bit(m.id)
	if !k.chosen && k.quorum>>k.voted&1 == 1 {
		k.chosen = true
		w.newest = max(w.newest, v.Epoch)
		if w.Trace {
			w.note("CHOSEN %v", v)
		}
	}
}

func system(v *health.View, m id) string {
	for _, x := range v.Members {
		if x.ID == m {
			return x.System
		}
	}
	for _, x := range v.Former {
		if x.ID == m {
			return x.System
		}
	}
	return ""
}

// adopt is pgdist.adopt().
func (m *member) adopt(v *health.View, a *answer) {
	m.promise(v.Epoch, true, a)
	if !a.given && m.promised == v.Epoch && m.leads && v.Leader != m.id {
		m.seize()
		m.leads = false
		a.given = true
	}
	if a.given {
		m.accept(v, a)
	}
	m.say(a)
}

// activate is pgdist.activate().
func (m *member) activate(v *health.View, a *answer) verdict {
	if m.promised != v.Epoch || epochOf(m.accepted) != v.Epoch && m.w.Bug != BugRoleBeforeChosen || v.Leader != m.id || v.Term != v.Epoch || m.office == v.Term {
		a.err = errRefused
		return done
	}
	if m.apply != nil {
		return wait
	}
	if was, twice := m.w.office[v.Term]; twice && was != m.id {
		m.w.fail("members %d and %d lead term %d", was, m.id, v.Term)
	}
	m.w.office[v.Term] = m.id
	m.terms = append(m.terms[:len(m.terms):len(m.terms)], termRow{term: v.Term, leader: m.id, prev: m.pos})
	m.pos = place{term: v.Term, all: true}
	m.tick++
	m.boot, m.office, m.leads, m.next = v.Term, v.Term, true, 1
	m.w.dirty = true
	m.w.Terms++
	return done
}

// batch is what an apply puts in place.
type batch struct {
	epoch   int64
	at      place // where the follower must be
	tick    int
	keys    mask // rows that are shipped
	rows    mask // … as they are at the leader
	entries mask // of the journal
	to      place
	terms   []termRow
}

// put is an apply: pgdist.enter() first, the rest when it is committed.
func (m *member) put(c *call, b *batch) verdict {
	if m.apply != c {
		switch {
		case m.w.Bug != BugNoFence && (m.promised != b.epoch || m.leads):
			c.ans.err = errFence
			m.say(&c.ans)
			return done
		case m.apply != nil:
			return wait
		case m.pos != b.at || m.tick != b.tick:
			c.ans.err = errPosition
			return done
		}
		if m.boot == 0 {
			m.boot = -1
		}
		m.apply = c
		return enter
	}
	m.apply = nil
	m.rows = m.rows&^b.keys | b.rows&b.keys
	m.journal |= b.entries
	m.pos = b.to
	m.tick++
	m.terms = b.terms
	m.w.dirty = true
	return done
}

// begin opens a client's transaction that writes.
func (m *member) begin(k int, a *answer) {
	if !m.leads || !m.booted() && m.w.Bug != BugBootIgnored || m.next > 60 || m.w.writes[k].term != 0 {
		a.err = errRefused
		return
	}
	m.w.writes[k] = write{term: m.office, num: m.next}
	m.next++
	m.open |= 1 << k
}

// commit ends it.
func (m *member) commit(k int, a *answer) {
	if m.open>>k&1 == 0 {
		a.err = errRefused
		return
	}
	m.open &^= 1 << k
	m.rows |= 1 << k
	m.journal |= 1 << k
	m.w.dirty = true
}

// crash is kill -9 of its server; what was committed is there when it is back.
func (m *member) crash() {
	m.w.Crashes++
	m.life++
	m.up, m.stopped = false, false
	m.boot = 0
	m.open = 0
	if m.apply != nil {
		m.apply.answered, m.apply.ans.err = true, errEnded
		m.apply = nil
	}
	// The number of a transaction that left nothing on disk is given out again.
	m.next = 1
	for k := range each(m.journal) {
		if e := m.w.writes[k]; e.term == m.office {
			m.next = max(m.next, e.num+1)
		}
	}
}

// enrol is pgdist.enrol().
func (m *member) enrol(who caller) {
	e := &m.list[who.slot]
	*e = listed{on: true, epoch: max(e.epoch, int32(who.epoch)), lease: int32(who.lease), asked: int32(m.w.now)}
}

// dismiss is pgdist.dismiss().
func (m *member) dismiss(slots bits, epoch int64) {
	for i := range m.list {
		if slots>>i&1 == 1 && int64(m.list[i].epoch) < epoch {
			m.list[i] = listed{}
		}
	}
}

// confirm is pgdist.confirm().
func (m *member) confirm(who caller, a *answer) {
	e := &m.list[who.slot]
	a.known = e.on
	if e.on {
		*e = listed{on: true, epoch: max(e.epoch, int32(who.epoch)), lease: int32(who.lease), asked: int32(m.w.now)}
	}
	m.say(a)
	for i := range m.list {
		if m.list[i].alive(m.w.now) {
			a.alive |= 1 << i
		}
	}
	a.known = a.known || m.w.Bug == BugUnknownReads
}
