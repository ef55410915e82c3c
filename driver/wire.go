package driver

import (
	"encoding/binary"
	"errors"
)

// A transaction of the engine's begins with the statement that comes next: BEGIN
// is written in front of it, and its answer is taken out of what the server
// sends. That saves a round trip for every write.

// Ahead takes a statement to be sent with what is written next.
func (c *holdConn) Ahead(sql string) {
	b := append(make([]byte, 0, len(sql)+6), 'Q')
	b = binary.BigEndian.AppendUint32(b, uint32(len(sql)+5))
	b = append(append(b, sql...), 0)
	c.ahead.Store(&b)
}

// Unsent takes the statement back and tells whether it was still there.
func (c *holdConn) Unsent() bool {
	return c.ahead.Swap(nil) != nil
}

// Write sends p, behind the statement that goes ahead.
func (c *holdConn) Write(p []byte) (int, error) {
	c.said(p)
	ahead := c.ahead.Swap(nil)
	if ahead == nil {
		return c.Conn.Write(p)
	}
	c.swallow.Store(true)
	n, err := c.Conn.Write(append(*ahead, p...))
	return max(0, n-len(*ahead)), err
}

// errAhead: the statement that went ahead failed, so what followed did not run
// as it was meant to.
var errAhead = errors.New("pgdist: the server refused BEGIN")

// without appends b to out without the answer to the statement that went ahead:
// a CommandComplete and a ReadyForQuery. Anything else the server sends among
// them (notices, a farewell) passes. The rest of b passes once that is over.
func (c *holdConn) without(out, b []byte) ([]byte, error) {
	if !c.swallowing {
		c.swallowing, c.passed, c.failed = true, c.have%len(c.head), false
	}
	for len(b) > 0 && c.swallowing {
		if c.have < len(c.head) {
			k := copy(c.head[c.have:], b)
			c.have += k
			b = b[k:]
			if c.have < len(c.head) {
				break
			}
			c.left = int(binary.BigEndian.Uint32(c.head[1:])) - 4
			c.dropping = c.head[0] == commandComplete || c.head[0] == readyForQuery
			c.failed = c.failed || c.head[0] == errorResponse
			if !c.dropping {
				out = append(out, c.head[c.passed:]...)
			}
			c.passed = 0
		}
		k := min(c.left, len(b))
		if !c.dropping {
			out = append(out, b[:k]...)
		}
		c.left -= k
		b = b[k:]
		if c.left > 0 {
			break
		}
		c.have = 0
		if c.head[0] == readyForQuery {
			c.swallowing, c.dropping = false, false
			c.swallow.Store(false)
			if c.failed {
				return out, errors.Join(errAhead, c.Conn.Close())
			}
		}
	}
	if !c.swallowing {
		c.scan(b)
		out = append(out, b...)
	}
	return out, nil
}
