package engine

import (
	"context"
	"errors"
	"time"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/health"
)

// Raw gives the client direct access to the leader's connection. The session
// stays on that connection until what was done there is acknowledged: before
// the session's next statement, or in Settle, Reset or Close.
func (s *Session) Raw(ctx context.Context) (ServerConn, error) {
	if s.closed {
		return nil, ErrClosed
	}
	if s.busy {
		return nil, ErrBusy
	}
	switch {
	case s.tx.state == txFailed:
		return nil, s.failedTx()
	case s.tx.state == txReading:
		s.leaveReader(ctx)
	}
	if s.tx.state == txPending {
		if err := s.startTx(ctx, leaderWrite, false); err != nil {
			return nil, err
		}
	}
	if s.tx.state == txOpen {
		s.tx.journal.giveUp("its client had the connection in its own hands")
		s.tx.didAnything()
		return s.held.c.ServerConn, nil
	}
	for s.held.c == nil {
		l := Lease{s: s, at: leaderBare, sit: situation{bare: true}}
		var err error
		if l.hold, err = s.e.acquireLeader(ctx, s, readWrite); err != nil {
			return nil, err
		}
		switch err := l.prepared(ctx, l.c.apply(ctx, s.settings)); {
		case errors.Is(err, errAgain):
			continue
		case err != nil:
			return nil, err
		}
		s.keep(l.hold)
	}
	if !s.raw {
		s.raw = true
		s.tx.arm(s.e, s.held)
		s.holdRaw(func() error { return s.settleCommand() })
		s.followRaw()
	}
	return s.held.c.ServerConn, nil
}

// hearer is a ServerConn that knows whether a client has listened over it directly.
type hearer interface{ Listens() bool }

func (c *conn) listens() bool {
	l, ok := c.ServerConn.(hearer)
	return ok && l.Listens()
}

// followRaw breaks a raw connection by which the client listens once another leads: the connection may
// well be as it was, but nobody notifies it any more, and the client would wait for ever.
func (s *Session) followRaw() {
	ctx, stop := context.WithCancel(s.e.ctx)
	done := make(chan struct{})
	h, pinned := s.held, s.pins&classify.PinListen != 0
	s.unfollow = func() { stop(); <-done }
	if !s.e.spawn(func() {
		defer close(done)
		for over := s.e.Succeeded(ctx, h.view); over; over = sleep(ctx, deafPause) {
			if pinned || h.c.listens() {
				h.c.kill()
				return
			}
		}
	}) {
		close(done)
	}
}

// deafPause is how long who begins to listen where nobody leads any more may wait in vain.
const deafPause = time.Second

// Succeeded waits until another leads than in view, or the same in another term; it is false
// if ctx ended before.
func (e *Engine) Succeeded(ctx context.Context, view *health.View) bool {
	for epoch := int64(0); ctx.Err() == nil; {
		v, err := e.mirror.WaitView(ctx, epoch)
		switch {
		case err != nil:
			sleep(ctx, retryPause)
		case v.Leader != view.Leader || v.Term != view.Term:
			return true
		default:
			epoch = v.Epoch
		}
	}
	return false
}

// holder is a ServerConn that can keep back the end of each command.
type holder interface{ Hold(hook func() error) }

func (s *Session) holdRaw(hook func() error) {
	if h, ok := s.held.c.ServerConn.(holder); ok {
		h.Hold(hook)
	}
}

// settleCommand acknowledges one command of the client's over the raw
// connection, before the client hears that it is over.
func (s *Session) settleCommand() error {
	ctx := s.e.ctx
	if d := s.e.config.FailoverTimeout; d != never {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	t := s.tx
	t.didAnything()
	if err := s.acknowledge(ctx, &t, s.held.c); err != nil {
		if errors.Is(err, errRolledBack) {
			return errLeaderChanged()
		}
		return err
	}
	s.tx.arm(s.e, s.held)
	return nil
}

// Unsettled tells whether there is anything for Settle to do.
func (s *Session) Unsettled() bool { return s.raw }

// Settle acknowledges what the client did over a raw connection.
func (s *Session) Settle(ctx context.Context) error {
	if !s.raw {
		return nil
	}
	return s.settleRaw(ctx)
}

func (s *Session) settleRaw(ctx context.Context) error {
	s.raw = false
	s.unfollow()
	s.holdRaw(nil)
	if s.held.c.listens() {
		s.pins |= classify.PinListen
	}
	t := s.tx
	t.didAnything()
	if !s.held.c.IsClosed() && s.held.c.inTransaction() {
		// The client left a transaction open: it goes on as the session's.
		s.tx = transaction{state: txOpen, begin: "BEGIN", saved: s.settings, attempt: t.attempt, change: t.change, redefines: t.redefines, ran: true}
		return nil
	}
	s.tx = transaction{}
	closed := s.held.c.IsClosed()
	var err error
	if closed { // what became of the last command is not known, whoever leads
		s.e.catalog.forget()
		err = s.settle(ctx, t.attempt)
	} else if _, held := s.held.c.ServerConn.(holder); !held {
		err = s.acknowledge(ctx, &t, s.held.c)
	} // else every command was acknowledged before the client heard of its end
	if closed {
		s.pins = 0
		s.dropHeld()
	} else {
		s.held.c.applied = unknownSettings
		s.letGo()
	}
	if errors.Is(err, errRolledBack) {
		return errLeaderChanged()
	}
	return err
}
