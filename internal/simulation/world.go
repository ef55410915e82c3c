package simulation

import (
	"fmt"
	"strings"

	"github.com/pgdist/pgdist/health"
)

type (
	id   = health.MemberID
	mask = uint64 // a set of writes, or of numbers of transactions
	bits = uint32 // a set of members: bit i is member i+1
)

const (
	maxDists  = 8  // distributors that ever live in one world
	maxNames  = 16 // names that they ever have on the lists
	maxWrites = 60
	// lease is the distributors' view_lease, in ticks of the world's clock.
	lease = 120
	// forgotten is for how long a distributor must not have been heard of to be taken off the lists.
	forgotten = lease / 2
)

func bit(m id) bits { return 1 << (m - 1) }

// rng is SplitMix64 (Steele, Lea, Flood, 2014): a few instructions, and a world draws many numbers.
type rng uint64

func (r *rng) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (r *rng) n(n int) int          { return int(r.next() >> 33 % uint64(n)) }
func (r *rng) oneIn(n int) bool     { return r.n(n) == 0 }
func (r *rng) percent(p int) bool   { return r.n(100) < p }
func (r *rng) between(a, b int) int { return a + r.n(b-a+1) }

// Options are what a world begins with.
type Options struct {
	Seed  uint64
	Steps int // before the calm; a scene with a script has its own
	// Scene is the number of the scene, from 1; 0 leaves it to the seed.
	Scene int
	// Bug is the rule that is broken, if any.
	Bug Bug
	// Calm has all faults end after Steps, and demands that the set comes to rest.
	Calm bool
	// Trace keeps what happened, for people.
	Trace bool
}

// world is one run.
type world struct {
	Options
	rng     rng
	now     int64
	step    int
	members []*member // member i+1 at i
	dists   []*dist   // all that ever lived
	names   []*dist   // whose a name on the lists is, or was
	calls   []*call   // under way
	writes  [maxWrites]write
	made    int
	views   []*known // by epoch
	newest  int64    // epoch of the newest view that was chosen
	office  map[int64]id
	told    mask   // writes whose clients heard "committed"
	undone  mask   // … "rolled back"
	dirty   bool   // what check looks at has changed
	calm    bool   // nothing fails any more
	systems int    // servers that were made
	scene   *scene // nil: no special one
	mood
	guide
	arena *arena
	err   error
	log   []string
	tallies
}

// tallies show that something happened.
type tallies struct {
	Ran, Told, Undone, Reads, Views, Terms, Joins, Resyncs, Crashes, Left, Adopted, Relisted, Drains int
}

func (t *tallies) add(o tallies) {
	t.Ran += o.Ran
	t.Told += o.Told
	t.Undone += o.Undone
	t.Reads += o.Reads
	t.Views += o.Views
	t.Terms += o.Terms
	t.Joins += o.Joins
	t.Resyncs += o.Resyncs
	t.Crashes += o.Crashes
	t.Left += o.Left
	t.Adopted += o.Adopted
	t.Relisted += o.Relisted
	t.Drains += o.Drains
}

// write is a client's transaction.
type write struct {
	term int64 // in which the leader opened it; 0: not yet
	num  int   // its number in that term
}

// known is what the world knows of a view: it sees everything.
type known struct {
	view   *health.View
	inSync bits
	quorum uint64 // bit s: the set s of members is a majority
	voted  bits   // who has accepted it
	chosen bool
}

// arena has memory for calls that worlds use one after the other.
type arena struct {
	calls []*call
	used  int
}

func (a *arena) call() *call {
	if a.used == len(a.calls) {
		block := make([]call, 64)
		for i := range block {
			a.calls = append(a.calls, &block[i])
		}
	}
	c := a.calls[a.used]
	a.used++
	*c = call{}
	return c
}

// newWorld is a set that was just made: member 1 leads, everybody is in sync.
func newWorld(o Options, a *arena) *world {
	a.used = 0
	w := &world{arena: a, Options: o, rng: rng(o.Seed*0x9e3779b97f4a7c15 + 1), views: make([]*known, 2, 64), office: map[int64]id{1: 1}, newest: 1}
	w.feel()
	n := 3
	switch w.rng.n(16) {
	case 0:
		n = 2
	case 1, 2:
		n = 4
	case 3:
		n = 5
	}
	guided := w.scene != nil && w.scene.script != nil
	if guided {
		n = 3
		w.Steps = w.scene.steps
	}
	v := &health.View{Set: "s", Epoch: 1, Term: 1, Leader: 1}
	for i, votes := range health.Weights(n) {
		m := &member{w: w, id: id(i + 1), up: true, boot: -1, next: 1}
		m.disk = disk{system: w.newSystem(), promised: 1, accepted: v, pos: place{term: 1}, tick: 1}
		w.members = append(w.members, m)
		v.Members = append(v.Members, health.Member{ID: m.id, Host: host(m.id), System: m.system, Weight: votes})
		v.InSync = append(v.InSync, m.id)
	}
	if n > 2 && !guided && w.rng.oneIn(4) { // one that votes only
		w.members[n-1].witness = true
		v.Members[n-1].Witness = true
		v.InSync = v.InSync[:n-1]
	}
	lead := w.members[0]
	lead.leads, lead.office, lead.boot, lead.pos.all = true, 1, 1, true
	w.register(v)
	w.views[1].voted, w.views[1].chosen = 1<<n-1, true
	if guided {
		for range w.scene.dists {
			w.newDist()
		}
		w.script = w.scene.script(w)
		return w
	}
	for range w.rng.between(1, 3) {
		w.newDist()
	}
	return w
}

func host(m id) string { return string(rune('a' + m - 1)) }

func (w *world) newSystem() string {
	w.systems++
	return string(rune('A' + w.systems - 1))
}

// register notes a view that is about to be proposed.
func (w *world) register(v *health.View) {
	for int64(len(w.views)) <= v.Epoch {
		w.views = append(w.views, nil)
	}
	if k := w.views[v.Epoch]; k != nil {
		if !k.view.Equal(v) {
			w.fail("epoch %d has two views: %v, and %v", v.Epoch, k.view, v)
		}
		return
	}
	k := &known{view: v}
	for _, m := range v.InSync {
		k.inSync |= bit(m)
	}
	k.count(len(w.members))
	w.views[v.Epoch] = k
	w.Views++
}

// count notes which sets of so many members are a majority.
func (k *known) count(members int) {
	var ids [8]id
	k.quorum = 0
	for s := range bits(1) << members {
		if k.view.Quorum(list(s, ids[:0])) {
			k.quorum |= 1 << s
		}
	}
}

// list lists a set of members into ids.
func list(s bits, ids []id) []id {
	for i := id(1); s != 0; i, s = i+1, s>>1 {
		if s&1 == 1 {
			ids = append(ids, i)
		}
	}
	return ids
}

func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
		w.note("VIOLATED: %v", w.err)
	}
}

func (w *world) note(format string, args ...any) {
	if w.Trace {
		w.log = append(w.log, fmt.Sprintf("%5d t%-5d ", w.step, w.now)+fmt.Sprintf(format, args...))
	}
}

// Trace is what happened, one line each.
func (w *world) trace() string { return strings.Join(w.log, "\n") }

// run goes through one schedule.
func (w *world) run() error {
	for w.step = 0; w.step < w.Steps && w.err == nil; w.step++ {
		w.once()
	}
	if w.Calm && w.err == nil {
		w.settle()
	}
	w.tallies.Ran = w.step
	return w.err
}

// once is one step.
func (w *world) once() {
	w.guided()
	w.now += int64(w.rng.n(w.speed))
	r := w.rng.n(64)
	switch {
	case r < w.often && !w.calm:
		w.fault()
	case r < w.often+w.eager:
		w.anyDist().client()
	case r < 56 && w.anyCall():
	default:
		if d := w.anyDist(); !d.turn() && w.idle() {
			if w.leap > 0 {
				w.now += int64(w.rng.n(w.leap))
			} else {
				w.now += int64(w.rng.n(lease / 4))
			}
		}
	}
	if w.dirty {
		w.dirty = false
		w.check()
	}
}

// anyCall does the next thing about a call, if there is one that is not held up.
func (w *world) anyCall() bool {
	n := len(w.calls)
	if n == 0 {
		return false
	}
	i := 0
	if n > 1 && w.rng.oneIn(w.orders) {
		i = w.rng.n(n)
	}
	for range w.calls {
		if c := w.calls[i]; !w.held(c) {
			w.advance(i)
			return true
		}
		i = (i + 1) % n
	}
	return false
}

// held tells whether nothing can be done about a call: a script holds it up, or who waits for its answer is stopped.
func (w *world) held(c *call) bool {
	waits := c.answered || !c.m.up || c.d.cut&bit(c.m.id) != 0
	return waits && c.d.stopped && !c.orphan || w.hold != nil && !w.calm && w.hold(c)
}

// idle tells whether no call is under way but such as are held up.
func (w *world) idle() bool {
	for _, c := range w.calls {
		if !w.held(c) {
			return false
		}
	}
	return true
}

func (w *world) anyDist() *dist {
	if d := w.favour; d != nil && !d.dead && !w.rng.oneIn(8) {
		return d
	}
	for range 4 {
		if d := w.dists[w.rng.n(len(w.dists))]; !d.dead {
			return d
		}
	}
	return w.dists[len(w.dists)-1]
}
