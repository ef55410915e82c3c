package driver

import (
	"encoding/binary"
	"sync/atomic"
)

// holdConn can keep back the server's word that a command is over until a hook
// agrees. It is how what a program does over the raw pgx connection is
// acknowledged before pgx returns: CopyFrom comes back when every database has
// the rows. It follows the frames of the protocol (PostgreSQL docs, "Message
// Formats") and touches nothing else.
type holdConn struct {
	tap
	hook atomic.Pointer[func() error]

	head   [5]byte // type and length of the message being read
	have   int     // bytes of head so far
	left   int     // bytes of the body still to come
	held   []byte  // read, not yet delivered
	asking bool    // held begins with the last byte of a ReadyForQuery

	listens atomic.Bool // a LISTEN was answered while there was a hook

	ahead      atomic.Pointer[[]byte] // a statement to be sent with what is written next; nil is none
	swallow    atomic.Bool            // its answer is to be taken out
	swallowing bool                   // that has begun
	dropping   bool                   // the message being read is part of it
	failed     bool                   // it is an error
	passed     int                    // bytes of head that were delivered before
}

// Types of messages (PostgreSQL docs, "Message Formats").
const (
	readyForQuery   = 'Z'
	commandComplete = 'C'
	errorResponse   = 'E'
)

// Read delivers what the server sent. An error of the hook ends the connection.
func (c *holdConn) Read(p []byte) (int, error) {
	n, err := c.read(p)
	return c.heard(p, n, err)
}

func (c *holdConn) read(p []byte) (int, error) {
	for len(c.held) == 0 {
		n, err := c.Conn.Read(p)
		if n == 0 || err != nil {
			return n, err
		}
		if c.swallow.Load() {
			if c.held, err = c.without(c.held[:0], p[:n]); err != nil {
				return 0, err
			}
			continue
		}
		before := c.scan(p[:n])
		if before == n {
			return n, nil
		}
		c.held = append(c.held[:0], p[before:n]...)
		c.asking = true
		if before > 0 {
			return before, nil
		}
	}
	if c.asking {
		c.asking = false
		if hook := c.hook.Load(); hook != nil {
			if err := (*hook)(); err != nil {
				c.held = nil
				return 0, err
			}
		}
	}
	n := copy(p, c.held)
	c.held = c.held[n:]
	return n, nil
}

// scan follows the frames in b and returns how much of it may be delivered: all,
// or what comes before the last byte of a ReadyForQuery outside a transaction.
// That is the end of what a server sends unasked for, so nothing is looked for
// behind it.
func (c *holdConn) scan(b []byte) int {
	hooked := c.hook.Load() != nil
	deliver := len(b)
	for i := 0; i < len(b); {
		if c.have < len(c.head) {
			k := copy(c.head[c.have:], b[i:])
			c.have += k
			i += k
			if c.have == len(c.head) {
				c.left = int(binary.BigEndian.Uint32(c.head[1:])) - 4
			}
		}
		if c.have < len(c.head) {
			break
		}
		if hooked && c.head[0] == commandComplete && c.left == len("LISTEN\x00") && i < len(b) && b[i] == 'L' { // no other tag is like that
			c.listens.Store(true)
		}
		k := min(c.left, len(b)-i)
		c.left -= k
		i += k
		if c.left > 0 {
			break
		}
		if hooked && c.head[0] == readyForQuery && k > 0 && b[i-1] == 'I' && deliver == len(b) {
			deliver = i - 1
		}
		c.have = 0
	}
	return deliver
}
