package engine

import (
	"context"

	"github.com/pgdist/pgdist/classify"
)

// Whole has the session keep one connection to the leader, from its next statement to its end,
// and run everything there: what "session" means as a pooling mode. What lives on a connection
// need not be recognized then. If it is lost the client hears so, once, and gets another.
func (s *Session) Whole() { s.whole = true }

// takeWhole leases the connection.
func (s *Session) takeWhole(ctx context.Context) error {
	for {
		h, err := s.e.acquireLeader(ctx, s, readWrite)
		if err != nil {
			return err
		}
		s.opening = h
		h.c.waiting.Store(nanotime())
		err = h.c.apply(ctx, s.settings)
		h.c.waiting.Store(0)
		s.opening = hold{}
		if err == nil {
			s.pins |= classify.PinSession
			s.keep(h)
			return nil
		}
		h.drop()
		if !classifyError(ctx, err).connectionGone() {
			return err
		}
	}
}

// discardSQL leaves a connection as if it were new. Other code knows that text, too.
const discardSQL = "DISCARD ALL"

// cleanse makes the connection of a whole session as if it were new.
func (s *Session) cleanse(ctx context.Context) bool {
	if !s.whole || s.busy || !s.held.c.usable() || s.stale() {
		return false
	}
	s.held.c.waiting.Store(nanotime())
	_, err := s.held.c.exec(ctx, discardSQL)
	s.held.c.waiting.Store(0)
	s.held.c.applied = nil
	return err == nil
}

// giveWhole returns the connection of a whole session that ends to its pool, so that sessions that
// come and go need not connect each time. It reports false if it must be closed.
func (s *Session) giveWhole(ctx context.Context) bool {
	if !s.cleanse(ctx) {
		return false
	}
	h := s.held
	s.held, s.pins = hold{}, 0
	h.give()
	return true
}
