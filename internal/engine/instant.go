package engine

import "github.com/pgdist/pgdist/classify"

// A front door that serves many sessions from one goroutine must not wait in the
// name of one of them. What can be had without waiting is here; whatever cannot is
// asked for again in the ordinary way, by a goroutine that may wait.

// Plain tells a call of one SELECT that depends on nothing in its session and leaves
// nothing behind in it.
func Plain(v *classify.Verdict) bool {
	if v.Class != classify.Read || len(v.Statements) != 1 || v.BadHint != "" {
		return false
	}
	st := &v.Statements[0]
	return st.Tag == "SELECT" && st.Pin == 0 && st.Unpin == 0 && !st.NoTx && !st.Sequences && !st.Temp &&
		st.Tx == nil && len(st.Sets) == 0 && st.Prepared == nil && st.Cursor == nil && st.Copy == nil && st.Explain == nil
}

// Instant tells what came of AcquireNow.
type Instant uint8

const (
	// NotNow: Acquire is to be asked instead.
	NotNow Instant = iota
	// NowLeased: there is a lease.
	NowLeased
	// NowFull: all connections are in use. One that is given back can be had by asking again.
	NowFull
	// NowCrowded: they are, and others wait in Acquire, who get the next ones.
	NowCrowded
)

// AcquireNow is Acquire for a plain call outside transactions, if a connection is free on
// which the session's settings hold and for which fits is true. Otherwise there is no lease,
// and nothing has changed that Acquire depends on. It does no I/O and waits for nobody.
// Neither does Done, unless it is handed an error.
func (s *Session) AcquireNow(call Call, fits func(ServerConn) bool) (*Lease, Instant) {
	if !s.e.currentNow() {
		return nil, NotNow
	}
	if s.closed || s.busy || s.raw || s.whole || s.tx.state != txNone || s.pins != 0 || s.held.c != nil || s.try.going || !Plain(call.Verdict) {
		return nil, NotNow
	}
	r := s.e.routes.Load()
	if r.view != s.e.mirror.View() { // to move pools in or out of use takes time
		return nil, NotNow
	}
	s.try = attempts{view: r.view}
	l := &s.lease
	*l = Lease{s: s, call: call}
	if l.judge() != nil || l.sit.strict() {
		return nil, NotNow
	}
	var c *conn
	var now Instant
	switch l.at = route(l.sit); l.at {
	case anywhere:
		c, now = s.readerNow(r)
	case leaderRead:
		if r.leader != nil {
			c, now = r.leader.poolsOf(s.tenant)[readOnly].leaseNow(nil, s)
		}
	}
	if c == nil {
		return nil, now
	}
	if c.applied != s.settings && !s.settings.same(c.applied, readOnly) || !fits(c.ServerConn) {
		c.pool.release(c, nanotime())
		return nil, NotNow
	}
	l.hold = hold{c, r.view}
	l.begun()
	return l, NowLeased
}

// readerNow leases a free connection of the member that acquireReader would choose, or, if
// all of its are in use, of another one.
func (s *Session) readerNow(r *routes) (c *conn, now Instant) {
	for tried := uint64(0); ; {
		m, i := s.e.chooseNear(r, tried, &s.near)
		if m == nil {
			return nil, now
		}
		c, next := m.poolsOf(s.tenant)[readOnly].leaseNow(s.near.c, s)
		switch {
		case c != nil:
			s.near.c = c
			return c, next
		case next == NotNow: // there may be another one: dialled, it is as good
			return nil, next
		}
		now = max(now, next)
		tried |= 1 << i
	}
}

// leaseNow leases a connection that is free, or tells why there is none.
func (pl *pool) leaseNow(near *conn, by *Session) (*conn, Instant) {
	if pl.user != "" && pl.member.gate.on.Load() {
		return nil, NotNow // others may be before it in a line
	}
	switch c := pl.acquireNow(near, by); {
	case c != nil:
		if pl.config.Rotate {
			by.note(c)
		}
		return c, NowLeased
	case pl.exist.Load() < int64(pl.config.Size) || pl.config.Rotate:
		return nil, NotNow
	case pl.waiters.Load() > 0:
		return nil, NowCrowded
	}
	return nil, NowFull
}

// KnownOIDs is OIDs if that is known already; ok tells whether it is.
func (l *Lease) KnownOIDs() (oids *OIDs, ok bool) {
	e := l.s.e
	r := e.routes.Load()
	m := l.c.member
	switch {
	case r.view != e.mirror.View() || r.leader == nil:
		return nil, false
	case m == r.leader:
		return nil, true
	}
	e.oids.mu.Lock()
	t := e.oids.all[m.id]
	e.oids.mu.Unlock()
	if t == nil || !t.mu.TryLock() {
		return nil, false
	}
	defer t.mu.Unlock()
	return t.oids, t.oids != nil && t.leader == r.leader.id && t.oids.term == r.view.Term
}
