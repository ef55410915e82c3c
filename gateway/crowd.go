package gateway

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// crowd bounds how many connections of one address are logging in at the same time: who
// connects and stays silent must not take what others need.
type crowd struct {
	mu     sync.Mutex // guards what follows
	gates  map[string]*turnstile
	warned time.Time
}

// warnEvery is how often the log tells of a crowd.
const warnEvery = 10 * time.Second

// warn tells whether it is time to.
func (c *crowd) warn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.warned) < warnEvery {
		return false
	}
	c.warned = time.Now()
	return true
}

// turnstile is one address's. It is dropped when nobody is left.
type turnstile struct {
	crowd   *crowd
	address string
	slots   chan struct{}
	present int // that have a slot or wait for one
}

// crowdQueue is how many more than the limit may wait, as a multiple of it.
const crowdQueue = 10

var errCrowd = errors.New("too many connections of this address are logging in")

// enter waits for a place.
func (c *crowd) enter(ctx context.Context, conn net.Conn, limit int) (*turnstile, error) {
	address := conn.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	c.mu.Lock()
	if c.gates == nil {
		c.gates = map[string]*turnstile{}
	}
	t := c.gates[address]
	if t == nil {
		t = &turnstile{crowd: c, address: address, slots: make(chan struct{}, limit)}
		c.gates[address] = t
	}
	if t.present >= (1+crowdQueue)*cap(t.slots) {
		c.mu.Unlock()
		return nil, errCrowd
	}
	t.present++
	c.mu.Unlock()
	select {
	case t.slots <- struct{}{}:
		return t, nil
	case <-ctx.Done():
		t.gone()
		return nil, errors.Join(errCrowd, ctx.Err())
	}
}

func (t *turnstile) leave() {
	<-t.slots
	t.gone()
}

func (t *turnstile) gone() {
	t.crowd.mu.Lock()
	defer t.crowd.mu.Unlock()
	if t.present--; t.present == 0 {
		delete(t.crowd.gates, t.address)
	}
}
