package mirror

import (
	"context"

	"github.com/pgdist/pgdist/health"
)

// Vouch tells whether the member is the one that the view names, and has lost nothing by a crash since it was last as
// the others: crash recovery empties UNLOGGED tables, and a server may be back
// within a fraction of a second. It is asked of each new connection that clients
// are to use. A crash ends all connections, so if one that was opened while
// the member was sound still lives, the new one, opened before this call, is
// of the same life of that server; and if a crash comes later, the new one is
// lost, too.
func (s *Set) Vouch(ctx context.Context, id health.MemberID) error {
	m := s.members.get(id)
	if m == nil {
		return &Error{Op: "connect", Member: id, Err: errLeftOut}
	}
	// A server that is stopped answers nobody, and others wait here.
	ctx, cancel := context.WithTimeoutCause(ctx, 2*m.health.ProbeTimeout, health.ErrTimeout)
	defer cancel()
	select {
	case m.vouching <- struct{}{}:
		defer func() { <-m.vouching }()
	case <-ctx.Done():
		return m.fail("ask whether it crashed", context.Cause(ctx))
	}
	if m.witness != nil && !m.witness.IsClosed() {
		if _, err := m.witness.one(ctx, "SELECT 1"); err == nil {
			return nil
		}
	}
	m.witness.close()
	m.witness = nil
	c, err := m.connect(ctx)
	if err != nil {
		return err
	}
	sound, err := c.one(ctx, "SELECT pgdist.sound()")
	if err != nil {
		c.close()
		return m.fail("ask whether it crashed", err)
	}
	// Nor was another server put in its place.
	h, err := c.where(ctx)
	if err != nil {
		c.close()
		return m.fail("ask who it is", err)
	}
	lost := recognise(s.View(), id, m.host, h)
	if lost == nil && sound == "t" {
		m.witness = c
		return nil
	}
	c.close()
	if lost == nil {
		lost = ErrCrashed
	}
	s.mu.Lock()
	s.crashed[id] = lost
	s.mu.Unlock()
	s.poke()
	return m.fail("connect", lost)
}
