package gateway

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
)

// line is the hub's connection to the leader of one term. The hub's mu guards it, but for what
// belongs to the goroutine that reads, and the connection itself.
type line struct {
	u    *upstream
	view *health.View // by which the leader was found

	channels map[string]*channel
	out      []byte        // to be sent
	more     chan struct{} // of capacity 1: there is something in out
	trips    []*trip       // in the order of the answers to come
	mark     *trip         // an empty question in out
	lost     bool

	ctx  context.Context // ends when it is lost
	stop context.CancelFunc
}

func newLine(ctx context.Context, u *upstream, view *health.View) *line {
	l := &line{u: u, view: view, channels: map[string]*channel{}, more: make(chan struct{}, 1)}
	l.ctx, l.stop = context.WithCancel(ctx)
	return l
}

// askLocked has a text sent, whose answer ends t.
func (l *line) askLocked(text string, t *trip) *trip {
	t.over = make(chan struct{})
	l.out = appendText(l.out, msgQuery, text)
	l.trips = append(l.trips, t)
	select {
	case l.more <- struct{}{}:
	default:
	}
	return t
}

// leaveLocked has an ear hear a channel no longer.
func (l *line) leaveLocked(name string, e *ear) {
	ch := l.channels[name]
	delete(ch.ears, e)
	l.dropLocked(name, ch)
}

// dropLocked ends a channel that nobody is left for.
func (l *line) dropLocked(name string, ch *channel) {
	if len(ch.ears) == 0 && ch.pending == 0 {
		delete(l.channels, name)
		l.askLocked("UNLISTEN "+quoteName(name), &trip{})
	}
}

// serve has a line used until it is lost.
func (h *hub) serve(l *line) {
	s := h.server
	defer context.AfterFunc(l.ctx, func() { h.lose(l) })() // Close ends it, too
	s.spawn("listening: questions", func() { h.send(l) })
	s.spawn("listening: view", func() { h.follow(l) })
	err := s.safely("notifications", func() error { return h.read(l) })
	h.lose(l)
	_ = l.u.Close() // nothing more is expected of it
	s.log.Info("the connection by which clients listen has ended", "database", h.source.key, "error", err)
}

// send sends what is put together.
func (h *hub) send(l *line) {
	for {
		select {
		case <-l.more:
		case <-l.ctx.Done():
			return
		}
		h.mu.Lock()
		b := l.out
		l.out, l.mark = nil, nil
		h.mu.Unlock()
		if _, err := l.u.conn.Write(b); err != nil {
			h.lose(l)
			return
		}
	}
}

// follow gives the line up when another leads.
func (h *hub) follow(l *line) {
	if h.source.engine.Succeeded(l.ctx, l.view) {
		h.lose(l)
	}
}

// read takes what the leader says until the line is lost.
func (h *hub) read(l *line) error {
	in := &l.u.in
	for {
		typ, body, err := in.next()
		if err != nil {
			return l.u.broken(err)
		}
		switch typ {
		case msgNotification:
			h.notify(l, body)
		case msgReady:
			h.answered(l)
		case msgError: // what it has to do with which channel is not to be guessed
			pe := errorOf(body)
			h.failed(l, pe)
			return l.u.broken(pe)
		}
	}
}

// notify hands a notification to those who hear its channel.
func (h *hub) notify(l *line, body []byte) {
	if len(body) < 4 {
		return
	}
	name, _, ok := cstring(body[4:])
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	ch := l.channels[string(name)]
	if l.lost || ch == nil {
		return
	}
	n := news{channel: string(name), message: appendMessage(nil, msgNotification, body)}
	if owner := h.owns[binary.BigEndian.Uint32(body)]; owner != nil {
		binary.BigEndian.PutUint32(n.message[headerSize:], owner.c.id)
	}
	for e := range ch.ears {
		e.push(n)
	}
}

// answered ends the oldest trip.
func (h *hub) answered(l *line) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.lost || len(l.trips) == 0 {
		return
	}
	t := l.trips[0]
	l.trips = l.trips[1:]
	for _, name := range t.channels {
		ch := l.channels[name]
		ch.pending--
		if t.ear != nil {
			ch.ears[t.ear] = struct{}{}
			t.ear.hears[name] = true
		}
		l.dropLocked(name, ch)
	}
	close(t.over)
}

// failed notes the leader's error for the oldest trip.
func (h *hub) failed(l *line, pe *pgconn.PgError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(l.trips) > 0 {
		l.trips[0].failed = pe
	}
}

// lose gives a line up: who listens by it is told so.
func (h *hub) lose(l *line) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.lost {
		return
	}
	l.lost = true
	l.stop()
	_ = l.u.conn.SetDeadline(time.Unix(1, 0)) // whoever reads or writes ends
	if h.line == l {
		h.line = nil
	}
	clear(h.owns)
	for _, t := range l.trips {
		t.lost = true
		close(t.over)
	}
	l.trips = nil
	for _, ch := range l.channels {
		for e := range ch.ears {
			clear(e.hears)
			if e.held { // else it has not been told that it listens
				e.end(deafened())
			}
		}
	}
}
