package gateway

import (
	"context"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// Clients that listen share one connection to the leader, which listens to all that any of
// them does. What it hears goes to the ears of those who want it, in the order in which the
// leader tells it, which is that of the commits.
//
// Whatever is asked of the leader on that connection is answered in its order, too: once it
// has answered, all that was committed before the question has been heard. A LISTEN holds from
// the leader's answer to it on, even if others listen to the channel already: then it is an
// empty question.

// hub is what is shared by the clients of one set.
type hub struct {
	server *Server
	source *source
	dial   chan struct{} // of capacity 1; full while somebody connects

	mu   sync.Mutex // guards what follows; taken before any ear's
	line *line      // nil for none
	owns map[uint32]*ear
}

func newHub(s *Server, src *source) *hub {
	return &hub{server: s, source: src, dial: make(chan struct{}, 1), owns: map[uint32]*ear{}}
}

// channel is one that the leader notifies the line of.
type channel struct {
	ears    map[*ear]struct{}
	pending int // trips that will add some
}

// trip is a question to the leader, which over is closed to answer. If ear is not nil, it
// hears channels from the answer on.
type trip struct {
	over     chan struct{}
	ear      *ear
	channels []string
	// Valid once over is closed.
	lost   bool // with the line
	failed *pgconn.PgError
}

// deafened is what a client hears whose notifications do not come any more: it may wait for
// them without ever sending a statement that could tell it, and what was missed meanwhile only
// a client that begins anew looks for.
func deafened() *pgconn.PgError {
	return &pgconn.PgError{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P01", Message: "the leader's connection was lost, and with it what this session listens for",
		Hint: "Connect again, LISTEN, and look for what was missed.",
	}
}

// open returns the line, after connecting if there is none.
func (h *hub) open(ctx context.Context) (*line, error) {
	select {
	case h.dial <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-h.dial }()
	h.mu.Lock()
	l := h.line
	h.mu.Unlock()
	if l != nil {
		return l, nil
	}
	l, err := h.connect(ctx)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.line = l
	h.mu.Unlock()
	h.server.spawn("listening", func() { h.serve(l) })
	return l, nil
}

// listen has an ear hear channels from the leader's answer on.
func (h *hub) listen(ctx context.Context, e *ear, channels []string) error {
	for {
		l, err := h.open(ctx)
		if err != nil {
			return err
		}
		t := h.ask(l, e, channels)
		if t == nil {
			continue
		}
		select {
		case <-t.over:
		case <-ctx.Done():
			h.mu.Lock()
			t.ear = nil // and hold, which follows, has it not hear what it may hear already
			h.mu.Unlock()
			return ctx.Err()
		}
		switch {
		case t.failed != nil:
			return t.failed
		case !t.lost:
			return nil
		}
	}
}

// ask sends what listen waits for; nil if the line is lost.
func (h *hub) ask(l *line, e *ear, channels []string) *trip {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.lost {
		return nil
	}
	var text strings.Builder
	for _, name := range channels {
		ch := l.channels[name]
		if ch == nil {
			ch = &channel{ears: map[*ear]struct{}{}}
			l.channels[name] = ch
			text.WriteString("LISTEN " + quoteName(name) + ";")
		}
		ch.pending++
	}
	return l.askLocked(text.String(), &trip{ear: e, channels: channels})
}

// mark returns what is closed once all is heard that was committed before the call.
func (h *hub) mark() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.line == nil {
		nothing := make(chan struct{})
		close(nothing)
		return nothing
	}
	if h.line.mark == nil { // else it is not even sent yet
		h.line.mark = h.line.askLocked("", &trip{})
	}
	return h.line.mark.over
}

// hold has an ear hear these channels and no others.
func (h *hub) hold(e *ear, channels []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := map[string]bool{}
	missing := false
	for _, name := range channels {
		held[name] = true
		missing = missing || !e.hears[name]
	}
	for name := range e.hears {
		if !held[name] {
			delete(e.hears, name)
			h.line.leaveLocked(name, e) // there is a line: with it, e.hears is emptied
		}
	}
	e.held = len(channels) > 0
	e.keep(held)
	if missing { // heard before COMMIT, and lost since
		e.end(deafened())
	}
}

// leave ends an ear.
func (h *hub) leave(e *ear) {
	h.hold(e, nil)
	h.mu.Lock()
	defer h.mu.Unlock()
	for pid, owner := range h.owns {
		if owner == e {
			delete(h.owns, pid)
		}
	}
}

// own says whose doing a server process's notifications are; nil is nobody's in particular.
func (h *hub) own(pid uint32, e *ear) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e == nil {
		delete(h.owns, pid)
		return
	}
	h.owns[pid] = e
}

// quoteName is a name as an identifier.
func quoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// connect makes a line.
func (h *hub) connect(ctx context.Context) (*line, error) {
	conn, view, err := h.source.engine.DialLeader(ctx, map[string]string{"client_encoding": utf8Name})
	if err != nil {
		return nil, err
	}
	u := conn.(*upstream)
	// Since PostgreSQL 14; it would end what waits for long.
	if _, err := u.Rows(ctx, "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'idle_session_timeout'"); err != nil {
		_ = u.Close() // the error tells more
		return nil, err
	}
	u.shared.Store(true)
	return newLine(h.server.ctx, u, view), nil
}
