package gateway

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// pump passes a client's COPY data on to a server while the server's answers are
// being read.
type pump struct {
	ended chan struct{}
	err   error // of the client, or of the server
	// unexpected is the type of a message that has no place in COPY.
	unexpected byte
	sync       bool // the pump has sent the Sync that ends the command
	// kept is what was written to the server, up to keep bytes: with more, keep is 0.
	kept []byte
	keep int
}

// write sends data on.
func (p *pump) write(u *upstream, b []byte) error {
	if p.keep > 0 {
		if p.kept = append(p.kept, b...); len(p.kept) > p.keep {
			p.kept, p.keep = nil, 0
		}
	}
	_, err := u.conn.Write(b)
	return err
}

// copyIn begins to pass the client's data on. The pump owns the client's input, and
// what is written to the server, until stopPump.
func (c *client) copyIn() error {
	if err := c.deliver(); err != nil {
		return err
	}
	r := &c.relaying
	if r.extended {
		c.copied = true
	}
	p := &pump{ended: make(chan struct{})}
	if r.digest != nil {
		p.keep = c.source.engine.Config().ReplayLimit
	}
	r.pump, r.pumped = p, p
	c.in.idle = nil
	u := r.u
	go func() {
		defer close(p.ended)
		p.err = c.server.safely("COPY of "+c.String(), func() error { return c.pumpAll(p) })
		if errors.Is(p.err, errGone) {
			_ = u.conn.Close() // rolls the COPY back
		}
	}()
	return nil
}

var errStopped = errors.New("stopped")

// pumpAll passes messages on up to the one that ends the COPY.
func (c *client) pumpAll(p *pump) error {
	u := c.relaying.u
	for {
		typ, _, err := c.in.head()
		if err != nil && !errors.Is(err, errType) {
			return c.pumpFailed(u, err)
		}
		if typ != msgCopyData && typ != msgCopyDone && typ != msgCopyFail && typ != msgFlush && typ != msgSync {
			// The server may have found something wrong with the data that it has got already; then it
			// says so, and the message is one like any other.
			p.unexpected, p.sync = typ, c.relaying.extended
			b := appendText(nil, msgCopyFail, outOfPlace)
			if p.sync {
				b = appendMessage(b, msgSync, nil)
			}
			if err := p.write(u, b); err != nil {
				return nil // the server's side says what happened
			}
			return nil
		}
		if typ == msgFlush || typ == msgSync { // ignored during COPY, as by the server
			if _, _, err := c.in.next(); err != nil {
				return c.pumpFailed(u, err)
			}
			continue
		}
		var lost error
		if _, err := c.in.stream(func(b []byte) error {
			lost = p.write(u, b)
			return lost
		}); err != nil {
			if lost != nil {
				return nil // the server's side says what happened; what the client still sends is passed over
			}
			c.pad(u)
			return c.pumpFailed(u, err)
		}
		if typ == msgCopyData {
			continue
		}
		if c.relaying.extended { // the one sent before was ignored
			p.sync = true
			if err := p.write(u, appendMessage(nil, msgSync, nil)); err != nil {
				return nil
			}
		}
		return nil
	}
}

// pad completes a message whose beginning the server has got already.
func (c *client) pad(u *upstream) {
	zeros := make([]byte, 4<<10)
	for left := c.in.skip; left > 0; {
		n, err := u.conn.Write(zeros[:min(left, len(zeros))])
		if err != nil {
			return
		}
		left -= n
	}
}

// pumpFailed deals with a client that can no longer be read: because its COPY is
// over, or because it left.
func (c *client) pumpFailed(u *upstream, err error) error {
	var ne net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout() {
		return errStopped
	}
	return errors.Join(errGone, err)
}

// failedCopy stops the pump after an error of the server's, which drops what is
// still sent.
func (c *client) failedCopy() error {
	r := &c.relaying
	p := r.pump
	if p == nil {
		return nil
	}
	if err := c.stopPump(); err != nil {
		return err
	}
	if r.extended && !p.sync {
		if _, err := r.u.conn.Write(appendMessage(nil, msgSync, nil)); err != nil {
			return r.u.broken(err)
		}
	}
	return nil
}

// stopPump waits until the pump has ended, which it does after the last of the data
// or when it is told to.
func (c *client) stopPump() error {
	r := &c.relaying
	p := r.pump
	if p == nil {
		return nil
	}
	r.pump = nil
	_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	<-p.ended
	_ = c.conn.SetReadDeadline(time.Time{})
	c.in.idle = c.beforeWait
	if errors.Is(p.err, errGone) {
		return p.err
	}
	return nil
}

// outOfPlace is what a COPY is ended with whose client sends something else.
const outOfPlace = "pgdist: not a message of COPY"

// misplaced ends the client whose COPY the server has ended for that reason.
func (c *client) misplaced() error {
	r := &c.relaying
	p := r.pump
	_ = r.u.broken(errGone)
	if err := c.stopPump(); err != nil {
		return err
	}
	return c.outOfStep(protocolError(fmt.Sprintf("unexpected message type 0x%02X during COPY from stdin", p.unexpected)))
}

// outOfStep ends a client that sent what has no place where it stands; first, if it is
// not nil, is the error that says so.
func (c *client) outOfStep(first *pgconn.PgError) error {
	if first != nil {
		c.report(first)
	}
	return c.fatal("08P01", "terminating connection because protocol synchronization was lost")
}
