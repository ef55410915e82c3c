package engine

import (
	"context"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/health"
)

// Call is one string of statements as the client sent it.
type Call struct {
	SQL     string
	Verdict *classify.Verdict
	Route   Route
	// Param returns the text of the bound parameter with that number ($1 is 1),
	// false if that is not known. nil if nothing is bound.
	Param func(n int) (string, bool)
	// Portal tells that something of the call stays open in the transaction
	// after it, as a cursor does.
	Portal bool
}

// Session is one client's session. It is used by one goroutine at a time.
type Session struct {
	e      *Engine
	tenant *Tenant         // nil is the Config's own user
	had    map[*pool]*conn // what it leased last, of pools that rotate
	owner  any
	// listener hears for the session, nil if a connection does; channels are what it
	// listens to so. owned is the process whose notifications are the session's, 0 for none; heardAll counts the
	// waits for all that was committed before them.
	listener Listener
	channels []string
	owned    uint32
	heardAll uint64
	base     *settings // what the session began with
	settings *settings
	tx       transaction
	// pins say why the session stays on its connection beyond transactions.
	pins classify.Pin
	// held is the connection of the transaction or of the pins; its c is nil if
	// there is none.
	held hold
	// opening is a connection on its way to become the held one.
	opening hold
	lease   Lease
	leasing bool // Acquire is under way: the lease may have a connection already
	busy    bool // lease is out
	try     attempts
	// raw is set while the client has had direct access to held's connection
	// and what it did there has not been acknowledged.
	raw bool
	// unfollow ends what followRaw began, nil if nothing has.
	unfollow func()
	// whole sessions stay on one connection from their first statement to their end.
	whole  bool
	last   lastWrite
	near   affinity
	closed bool
	// digest is of the statement under way in a transaction that is kept, nil if none
	// ever was; expected is what the client has got of that statement's result already.
	digest   *Digest
	expected Prefix
}

// hold is a leased connection.
type hold struct {
	c    *conn
	view *health.View // by which it was chosen
}

// attempts is the memory of one call over its repetitions.
type attempts struct {
	going  bool
	tried  uint64 // bits of members that failed, by their places in view
	view   *health.View
	lost   int // connections lost under the statement
	stale  int
	fenced int
	forced bool
	hollow bool // a member held no data in a materialized view
}

// Repetitions of one call. A statement that takes servers down with it must
// not be carried from one to the next.
const (
	maxLost   = 3
	maxStale  = 2
	maxFenced = 20
)

// lastWrite remembers the connection that currval and lastval would refer to.
type lastWrite struct {
	c     *conn
	stamp uint64
}

// SessionOptions say how a session begins; the zero value is the Config's user
// without settings.
type SessionOptions struct {
	// Tenant is the user; nil is that of Config.Members.
	Tenant *Tenant
	// Settings are the session's own defaults, which RESET goes back to.
	Settings []Setting
	// Owner is handed to every connection that serves the session, if it wants
	// to know (Owned).
	Owner any
	// Listener hears notifications for the session, unless it is a whole one. nil: a session
	// that listens keeps a connection for it.
	Listener Listener
}

// NewSession begins a session. It holds no connection until it needs one.
func (e *Engine) NewSession(o SessionOptions) *Session {
	s := &Session{e: e, tenant: o.Tenant, owner: o.Owner, listener: o.Listener, base: baseSettings(o.Settings)}
	s.settings = s.base
	s.lease.s = s
	return s
}

// Status is the session's transaction status as ReadyForQuery tells it: I, T or E.
func (s *Session) Status() byte {
	switch s.tx.state {
	case txNone:
		return 'I'
	case txFailed:
		return 'E'
	case txOpen, txReading:
		if s.tx.gone || !s.tx.begun && s.held.c.TxStatus() == 'E' {
			return 'E'
		}
	}
	return 'T'
}

// Held is the connection that a transaction or a pin keeps for the session; nil
// if there is none.
func (s *Session) Held() ServerConn {
	if s.held.c == nil {
		return nil
	}
	return s.held.c.ServerConn
}

// HeldView is the view by which the connection that Held returns was chosen.
func (s *Session) HeldView() *health.View { return s.held.view }

// Acquire leases a connection for call. While the lease's Done says so, the
// front door asks again and runs the statement once more. Errors are meant for
// the client.
func (s *Session) Acquire(ctx context.Context, call Call) (*Lease, error) {
	if err := s.ready(ctx); err != nil {
		s.try = attempts{}
		return nil, err
	}
	if err := s.e.current(ctx); err != nil {
		return nil, err
	}
	if !s.try.going {
		s.try, s.expected = attempts{}, Prefix{}
	}
	s.try.going = false
	l := &s.lease
	*l = Lease{s: s, call: call}
	if err := l.judge(); err != nil {
		return nil, s.refused(ctx, err)
	}
	s.leasing = true
	err := l.acquire(ctx)
	s.leasing = false
	if err != nil {
		return nil, err
	}
	if l.inTx && s.tx.journal.keeps() {
		l.digest = s.digest
	}
	l.begun()
	return l, nil
}

// ready tells whether the session can take a statement, after settling what
// the client did over a raw connection.
func (s *Session) ready(ctx context.Context) error {
	switch {
	case s.closed:
		return ErrClosed
	case s.busy:
		return ErrBusy
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.raw {
		if err := s.settleRaw(ctx); err != nil {
			return err
		}
	}
	if s.whole && s.held.c == nil && s.tx.state == txNone {
		return s.takeWhole(ctx)
	}
	return nil
}

// Busy tells whether a lease is out.
func (s *Session) Busy() bool { return s.busy }

// InTransaction tells whether the client has begun a transaction.
func (s *Session) InTransaction() bool { return s.tx.state != txNone }

// InBlock tells whether the client itself has begun a transaction, by BEGIN.
func (s *Session) InBlock() bool { return s.tx.state != txNone && !s.tx.implicit }

// Pinned tells why the session stays on one connection to the leader; empty
// if it does not.
func (s *Session) Pinned() string { return s.pins.String() }

// Pins are the reasons behind Pinned.
func (s *Session) Pins() classify.Pin { return s.pins }

// Listening tells whether the session waits for notifications on its connection. Within a
// transaction that can be run again it does not: nothing is notified before its end.
func (s *Session) Listening() bool {
	return !s.tx.journal.keeps() && s.pins&classify.PinListen != 0 && s.held.c != nil && !s.busy && !s.held.c.IsClosed()
}

// Close ends the session: an open transaction is rolled back, and what lived
// on a pinned connection is gone. It returns an error if writes over a raw
// connection could not be acknowledged before ctx ended.
func (s *Session) Close(ctx context.Context) error {
	if s.closed {
		return nil
	}
	var err error
	switch {
	case s.raw && !s.busy:
		err = s.settleRaw(ctx)
	case s.raw:
		s.unfollow()
	}
	s.closed = true
	if s.held.c != nil && !s.giveWhole(ctx) {
		s.dropHeld()
	}
	s.tx = transaction{}
	return err
}

// Abandon ends a session in the middle of anything, after a panic of whoever used it: all
// connections that it has, on loan or held, are closed with whatever is open on them.
func (s *Session) Abandon() {
	if s.closed {
		return
	}
	s.closed = true
	if s.raw {
		s.unfollow()
	}
	lent := hold{}
	if s.busy || s.leasing {
		lent = s.lease.hold
	}
	if s.busy && lent.c != nil {
		lent.c.member.outstanding.Add(-1)
	}
	s.busy, s.leasing = false, false
	gone := map[*conn]bool{}
	for _, h := range []hold{lent, s.held, s.opening} {
		if h.c != nil && !gone[h.c] {
			gone[h.c] = true
			h.drop()
		}
	}
	s.held, s.opening, s.tx = hold{}, hold{}, transaction{}
}

// Reset makes the session ready for its next user, as database/sql does when a
// connection goes back to its pool: settings and pins stay. It reports false
// if the session has a transaction open and must be closed instead.
func (s *Session) Reset(ctx context.Context) (bool, error) {
	if s.raw && !s.busy {
		if err := s.settleRaw(ctx); err != nil {
			return false, err
		}
	}
	return !s.busy && s.tx.state == txNone, nil
}

// keep makes a leased connection the held one.
func (s *Session) keep(h hold) { s.held = h }

// letGo gives the held connection back unless pins need it.
func (s *Session) letGo() {
	if s.held.c == nil || s.tx.state == txOpen || s.tx.state == txReading || s.pins != 0 && s.held.c.usable() {
		return
	}
	if s.pins != 0 {
		s.pins = 0
		s.dropHeld()
		return
	}
	h := s.held
	s.held = hold{}
	h.give()
}

// dropHeld closes the held connection, with whatever state it has.
func (s *Session) dropHeld() {
	if h := s.held; h.c != nil {
		s.held = hold{}
		h.drop()
	}
}

// give returns the connection to its pool, or closes it if it is not usable.
func (h hold) give() { h.giveAt(nanotime()) }

func (h hold) giveAt(now int64) {
	h.c.waiting.Store(0)
	h.c.own(nil)
	h.c.pool.release(h.c, now)
}

// drop closes the connection.
func (h hold) drop() {
	h.c.waiting.Store(0)
	h.c.pool.discard(h.c)
}
