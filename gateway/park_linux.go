package gateway

import (
	"bytes"
	"errors"
)

// park hands an idle client over to the loop. If it returns true, its goroutine must not
// touch it any more.
func (c *client) park() bool {
	if c.flight.c == nil {
		c.flight.c = c
		c.flight.fits = c.fits
	}
	c.in.release()
	c.out = nil
	c.show()
	c.busySince.Store(0)
	l := c.sock.loop
	sock, ear := c.sock, c.ear
	if ear != nil && !ear.settle(earParked) {
		return false
	}
	c.server.work.Add(1) // for whoever it is handed over to
	if !sock.boardQuiet(c) {
		c.server.work.Done()
		if ear != nil {
			ear.busy()
		}
		return false
	}
	if c.closing.Load() { // whoever set that may have taken it for busy
		l.disturb(sock)
	}
	if ear != nil { // it may have been rung before there was somebody to hear that
		if ear.pending() {
			l.disturb(sock)
		}
	}
	return true
}

// handOver has a goroutine serve the client again, which first calls next, if it is not
// nil, to end the command under way. read is what was read from the client already.
func (c *client) handOver(read []byte, next func() error) {
	if c.flight.under {
		c.flight.under = false
		c.flight.u.sock.alight()
	}
	if c.ear != nil {
		c.ear.busy()
	}
	c.sock.alight()
	if len(read) > 0 {
		c.in.give(read)
	}
	go c.carryOn(next)
}

// carryOn serves a client that was handed over.
func (c *client) carryOn(next func() error) {
	s := c.server
	defer s.work.Done()
	if next != nil {
		err := s.safely(c.String(), func() error {
			if err := next(); err != nil {
				return err
			}
			return c.wanted()
		})
		if err != nil {
			var m *mishap
			if errors.As(err, &m) {
				c.broke()
			}
			s.log.Debug("client left", "who", c, "error", err)
			c.quit()
			return
		}
	}
	s.runGuest(c)
}

// crashed is rider's: a panic ends the client, and nobody else.
func (c *client) crashed(value any) {
	m := c.server.caught(c.String(), value)
	c.handOver(nil, func() error { return m })
}

// crashed is rider's.
func (f *flight) crashed(value any) { f.c.crashed(value) }

// disturbed is rider's: somebody has closed the client's socket, or wants it to look up.
func (c *client) disturbed(l *loop) {
	if c.flight.under || c.flight.queued { // it is looked for later
		return
	}
	if c.ear != nil && !c.closing.Load() {
		c.out = c.ear.take(l.answers[:0])
		if len(c.out) > 0 && c.ear.last() == nil {
			c.reply(l)
			return
		}
		c.out = bytes.Clone(c.out)
	}
	c.handOver(nil, nil)
}

// disturb has the loop look for what there is for a client that is parked.
func (c *client) disturb() { c.sock.loop.disturb(c.sock) }
