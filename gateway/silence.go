package gateway

import (
	"encoding/binary"
	"sync"
	"time"
)

// A server carries out each message of a pipeline when it comes, and tells of it by the next
// Sync or Flush, or at once if it has something to warn of or to complain about. Here the
// pipeline is collected. A client that stops in the middle of one may wait for just that, or
// want others to see what it has locked: what there is of it is run then.

// silence is how long a client says nothing in the middle of a pipeline until what has come
// of it is run.
const silence = 100 * time.Millisecond

// sentAtOnce is how much a server keeps at most of what it answers before Sync or Flush
// (PQ_SEND_BUFFER_SIZE).
const sentAtOnce = 8 << 10

// awaitRest has the wait for the rest of a pipeline end when the client is silent for long.
func (c *client) awaitRest() {
	var mu sync.Mutex // guards what follows
	waits, rung := true, false
	timer := time.AfterFunc(silence, func() {
		mu.Lock()
		defer mu.Unlock()
		if waits {
			rung = true
			_ = c.conn.SetReadDeadline(time.Unix(1, 0))
		}
	})
	before := c.in.woken
	c.silent = false
	c.in.woken = func() {
		c.in.woken = nil
		timer.Stop()
		mu.Lock()
		waits = false
		mu.Unlock()
		if rung {
			c.silent = true
			_ = c.conn.SetReadDeadline(time.Time{})
			if c.closing.Load() { // whoever set that has woken it, too
				_ = c.conn.SetReadDeadline(time.Unix(1, 0))
			}
		}
		if before != nil {
			before()
		}
	}
}

// runSilent runs what has come of a pipeline whose rest is not sent. It is answered as soon
// as a server would. What no transaction takes waits for its Sync.
func (c *client) runSilent() error {
	if c.server.paused.Load() != nil {
		return nil
	}
	c.resolveAll()
	for i := range c.ops {
		if st := c.ops[i].st; st != nil && len(st.verdict.Statements) == 1 && runsAlone(&st.verdict.Statements[0]) {
			return nil
		}
	}
	c.begun()
	if err := c.flushPipeline(nil); err != nil {
		return err
	}
	c.withheld = len(c.out) < sentAtOnce && !tells(c.out)
	return c.wanted()
}

// tells whether there is an error or a notice among messages.
func tells(b []byte) bool {
	for len(b) >= headerSize {
		if b[0] == msgError || b[0] == msgNotice {
			return true
		}
		b = b[1+binary.BigEndian.Uint32(b[1:]):]
	}
	return false
}
