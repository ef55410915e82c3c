package gateway

import (
	"context"
	"fmt"
	"net"
	"time"
)

// freshGrace is how long a client that has just logged in, and has said nothing since, is not sent
// away by Shutdown: it would hear of an end in place of its first answer.
const freshGrace = time.Second

// Hold has Serve return without closing its listeners, and waits until nobody is logging in any
// more. Whoever connects from then on waits in the kernel's queue: for another Server, if
// somebody hands the sockets over, who must have a copy of their descriptors before Shutdown.
func (s *Server) Hold(ctx context.Context) error {
	s.mu.Lock()
	s.holding = true
	var list []net.Listener
	for l := range s.listeners {
		list = append(list, l)
	}
	s.mu.Unlock()
	for _, l := range list {
		d, ok := l.(interface{ SetDeadline(time.Time) error })
		if !ok {
			return fmt.Errorf("a listener at %s cannot be held: %T", l.Addr(), l)
		}
		if err := d.SetDeadline(time.Unix(1, 0)); err != nil { // Accept returns
			return err
		}
	}
	s.accepting.Wait()
	for {
		s.mu.Lock()
		starting := s.starting
		s.mu.Unlock()
		if starting == 0 {
			return nil
		}
		if !sleep(ctx, 10*time.Millisecond) {
			return ctx.Err()
		}
	}
}

func (s *Server) isHolding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holding
}

// fresh tells that a client has just logged in, and has said nothing since.
func (c *client) fresh() bool {
	return c.tally.transactions.Load() <= 1 && time.Since(c.since) <= freshGrace // the log-in counts as one
}

// endAll ends all clients, also those that have something under way, and gives them a moment to
// hear of it.
func (s *Server) endAll() {
	ctx, stop := context.WithTimeout(s.ctx, farewell)
	defer stop()
	s.each(func(c *client) {
		c.killed.Store(true)
		c.closing.Store(true)
		s.spawn("close", func() { c.cancel(ctx) })
	})
	for s.inside() > 0 {
		s.each((*client).wake) // time and again: it may have gone on to its next message
		if !sleep(ctx, 10*time.Millisecond) {
			return
		}
	}
}

// sendAway has clients leave as soon as they have nothing under way; it returns when all have.
func (s *Server) sendAway() {
	s.each(func(c *client) { c.closing.Store(true) })
	woken := map[*client]bool{}
	for {
		s.each(func(c *client) {
			if !woken[c] && !c.fresh() {
				woken[c] = true
				c.wake()
			}
		})
		if s.count() == 0 || !sleep(s.ctx, 20*time.Millisecond) {
			return
		}
	}
}
