package gateway

import (
	"sync"
	"time"
)

// What a server answers is kept back while its statement can be run again unseen. Its notices are
// part of that: they are to come where they belong. But a server tells them at once, and whoever
// follows the progress of a statement by them waits for just that. So a notice is told ahead of the
// rest when the statement goes on for a while after it, as it may be in the protocol (PostgreSQL
// docs, "Asynchronous Operations"); if it is run again after that, as many are not told again.

// span is where a message is in what the client gets, in positions as of client.at.
type span struct{ from, to uint64 }

// herald tells the notices of one exchange that come before the rest of it. What it is given, and
// what is only its own, is guarded by mu: the goroutine that relays goes on meanwhile.
type herald struct {
	mu      sync.Mutex
	timer   *time.Timer
	over    bool
	pending []byte
	each    []span // of those that were told, and then of the pending ones
	told    int
}

// notice puts a server's notice where it belongs.
func (c *client) notice(body []byte) {
	r := &c.relaying
	if r.mute > 0 {
		r.mute--
		r.noticed = true
		return
	}
	if r.skip > 0 {
		return
	}
	r.noticed = true
	c.out = appendMessage(c.out, msgNotice, body)
	if r.heralds && !r.partial {
		c.announce(headerSize + len(body))
	}
}

// announce has a notice told early that has been put at the end of what the client gets.
func (c *client) announce(size int) {
	r := &c.relaying
	if r.herald == nil {
		h := &herald{}
		h.timer = time.AfterFunc(silence, func() {
			_ = c.server.safely("tell notices", func() error { return h.tell(c) })
		})
		r.herald = h
	}
	h := r.herald
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pending) == 0 && len(h.each) > 0 {
		h.timer.Reset(silence)
	}
	h.pending = append(h.pending, c.out[len(c.out)-size:]...)
	h.each = append(h.each, span{c.at() - uint64(size), c.at()})
}

// tell sends what is pending. An error meets whoever sends the rest, too.
func (h *herald) tell(c *client) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over || len(h.pending) == 0 {
		return nil
	}
	pending := h.pending
	h.told, h.pending = len(h.each), nil
	return c.write(pending)
}

// hush ends the telling of notices ahead of the rest: that is sent, or given up.
func (c *client) hush() {
	h := c.relaying.herald
	if h == nil {
		return
	}
	c.relaying.herald = nil
	h.timer.Stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	c.heard += h.told
	c.known = append(c.known, h.each[:h.told]...)
}

// unheard is what there is for the client without the notices that it has heard.
func (c *client) unheard() []byte {
	out := make([]byte, 0, len(c.out))
	at := c.sent
	for _, s := range c.known {
		out = append(out, c.out[at-c.sent:s.from-c.sent]...)
		at = s.to
	}
	c.known = c.known[:0]
	return append(out, c.out[at-c.sent:]...)
}
