package engine

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Limits bound the connections of all tenants to one server, beyond the size of each one's pools.
// The Config's own user is not counted: without it nobody could log in.
type Limits struct {
	// Connections is the greatest number over all users; 0 is none.
	Connections int
	// User tells the greatest number of a user's, 0 for none. nil is none for all.
	User func(user string) int
}

func (l *Limits) user(name string) int {
	if l.User == nil {
		return 0
	}
	return l.User(name)
}

// Limit puts limits in force, at once for what is leased from now on.
func (e *Engine) Limit(l Limits) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.limits = l
	for _, m := range e.all() {
		m.gate.set(l)
	}
}

// gate lets sessions lease connections to a server while fewer are leased than may be. Who has to
// wait queues behind others of the same user, and users take turns: one with a thousand sessions
// that wait holds up another's by one of its own. Connections that are free count as well, but
// they are closed when somebody else needs room.
type gate struct {
	on atomic.Bool // there are limits

	mu      sync.Mutex // guards what follows
	limits  Limits
	leased  int
	made    int
	lines   map[string]*line // by user
	turns   []*line          // those in which somebody waits, the next to be served first
	changed chan struct{}    // closed when made has become less
}

// line is one user's.
type line struct {
	user         string
	leased, made int
	waiting      []*waiter
}

type waiter struct{ admitted chan struct{} }

func (g *gate) set(l Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits = l
	g.on.Store(l.Connections > 0 || l.User != nil)
	g.admitLocked()
}

func (g *gate) lineLocked(user string) *line {
	if g.lines == nil {
		g.lines = map[string]*line{}
	}
	l := g.lines[user]
	if l == nil {
		l = &line{user: user}
		g.lines[user] = l
	}
	return l
}

// fitsLocked tells whether one more of a user's is within limits.
func (g *gate) fitsLocked(l *line) bool {
	most := g.limits.user(l.user)
	return (g.limits.Connections == 0 || g.leased < g.limits.Connections) && (most == 0 || l.leased < most)
}

// enter waits until a session of a user's may lease a connection.
func (g *gate) enter(ctx context.Context, user string) error {
	g.mu.Lock()
	l := g.lineLocked(user)
	if len(l.waiting) == 0 && g.fitsLocked(l) {
		g.leased++
		l.leased++
		g.mu.Unlock()
		return nil
	}
	w := &waiter{admitted: make(chan struct{})}
	if l.waiting = append(l.waiting, w); len(l.waiting) == 1 {
		g.turns = append(g.turns, l)
	}
	g.mu.Unlock()
	select {
	case <-w.admitted:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(l.waiting, w); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
		if len(l.waiting) == 0 {
			g.turns = slices.DeleteFunc(g.turns, func(o *line) bool { return o == l })
		}
	} else { // it was admitted in this moment
		g.leaveLocked(l)
	}
	return ctx.Err()
}

// force counts a lease that does not wait.
func (g *gate) force(user string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leased++
	g.lineLocked(user).leased++
}

// leave ends what enter or force began.
func (g *gate) leave(user string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leaveLocked(g.lineLocked(user))
}

func (g *gate) leaveLocked(l *line) {
	g.leased--
	l.leased--
	g.admitLocked()
}

// admitLocked lets in who fits, in turns.
func (g *gate) admitLocked() {
	for i := 0; i < len(g.turns); {
		l := g.turns[i]
		if !g.fitsLocked(l) {
			i++
			continue
		}
		w := l.waiting[0]
		l.waiting = slices.Delete(l.waiting, 0, 1)
		g.turns = slices.Delete(g.turns, i, i+1)
		if len(l.waiting) > 0 {
			g.turns = append(g.turns, l)
		}
		g.leased++
		l.leased++
		close(w.admitted)
		i = 0
	}
}

// evictPause bounds how long a connection that was told to close is waited for before the next
// look.
const evictPause = 100 * time.Millisecond

// make counts a connection that is about to be made for a user, after free ones were closed if
// there would be too many else. What is leased is within limits, so one of the rest is free, or
// about to be.
func (m *member) make(ctx context.Context, user string) error {
	g := &m.gate
	for {
		g.mu.Lock()
		l := g.lineLocked(user)
		most := g.limits.user(user)
		own := most > 0 && l.made >= most
		if !own && (g.limits.Connections == 0 || g.made < g.limits.Connections) {
			g.made++
			l.made++
			g.mu.Unlock()
			return nil
		}
		if g.changed == nil {
			g.changed = make(chan struct{})
		}
		changed := g.changed
		g.mu.Unlock()
		m.evict(user, own)
		pause := time.NewTimer(evictPause)
		select {
		case <-changed:
			pause.Stop()
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		}
	}
}

// unmake counts a connection that is gone.
func (m *member) unmake(user string) {
	g := &m.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.made--
	g.lineLocked(user).made--
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// evict closes a free connection, of who has most: a user's, if own, else anybody's.
func (m *member) evict(user string, own bool) {
	var from *pool
	most := 0
	for _, ps := range *m.all.Load() {
		for _, pl := range ps {
			if pl.user == "" || own && pl.user != user {
				continue
			}
			if n := pl.idle(); n > most {
				from, most = pl, n
			}
		}
	}
	if from != nil {
		from.closeOne()
	}
}

// idle counts the free connections; those that are being made are none.
func (pl *pool) idle() int {
	n := int(pl.p.Stat().IdleResources())
	pl.mu.Lock()
	defer pl.mu.Unlock()
	for _, c := range pl.free {
		if c.state.Load() == parked {
			n++
		}
	}
	return n
}

// closeOne closes a free connection, one that was not used for long.
func (pl *pool) closeOne() {
	if idle := pl.p.AcquireAllIdle(); len(idle) > 0 { // given back to somebody who did not wait for it any more
		idle[0].Destroy()
		for _, r := range idle[1:] {
			r.ReleaseUnused()
		}
		return
	}
	pl.mu.Lock()
	defer pl.mu.Unlock()
	for i, c := range pl.free {
		if c.take() {
			c.listed.Store(false)
			pl.free = slices.Delete(pl.free, i, i+1)
			c.res.Destroy()
			return
		}
	}
}
