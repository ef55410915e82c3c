package gateway

import (
	"context"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/engine"
)

// ear keeps what a client is notified of until it can be told: between its transactions, while
// it waits for its next message or before it is told that the next one is welcome.
type ear struct {
	c   *client
	hub *hub

	// Guarded by the hub's mu.
	hears map[string]bool // channels for which the line has the ear
	held  bool            // the client has been told that it listens

	mu    sync.Mutex // guards what follows
	where whereabouts
	rung  bool // the client is to look here
	queue []news
	size  int             // of the messages in queue, in bytes, with what they take besides
	fate  *pgconn.PgError // what ends the client once it has what is in queue; nil for nothing
}

// news is a notification. The message is shared by all who hear it.
type news struct {
	channel string
	message []byte
}

// whereabouts say how a client that is to be told something is woken.
type whereabouts byte

const (
	earBusy   whereabouts = iota // it looks by itself, later
	earReads                     // its goroutine waits for the next message
	earParked                    // a loop does
)

const (
	// earLimit bounds what is kept for a client that does not take it, in bytes.
	earLimit = 4 << 20
	// newsSize is what a notification takes besides its message, about.
	newsSize = 64
)

// overheard is what a client hears that does not take what it is notified of.
func overheard() *pgconn.PgError {
	return &pgconn.PgError{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "54000", Message: "too many notifications wait for this session, which does not take them",
		Hint: "Read notifications as they come, and keep transactions short. What was notified since is lost: connect again, LISTEN, and look for it.",
	}
}

// untranslated is what a client hears that would have to be told something in another encoding
// than the one in which it began to listen.
func untranslated() *pgconn.PgError {
	return &pgconn.PgError{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "0A000", Message: "a notification cannot be told in the encoding that this session has set since it began to listen",
		Hint: "SET client_encoding before the first LISTEN.",
	}
}

// push keeps a notification.
func (e *ear) push(n news) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fate != nil {
		return
	}
	if e.size += len(n.message) + newsSize; e.size > earLimit {
		e.fate = overheard()
	} else {
		e.queue = append(e.queue, n)
	}
	e.ringLocked()
}

// end has the client end once it has heard what it was notified of before.
func (e *ear) end(fate *pgconn.PgError) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fate == nil {
		e.fate = fate
		e.ringLocked()
	}
}

// ringLocked has a client look that waits. It must not wait itself.
func (e *ear) ringLocked() {
	if e.rung {
		return
	}
	switch e.where {
	case earReads:
		_ = e.c.conn.SetReadDeadline(time.Unix(1, 0))
	case earParked:
		e.c.disturb()
	default:
		return
	}
	e.rung = true
}

// keep forgets what came on channels that do not hold.
func (e *ear) keep(held map[string]bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	kept := e.queue[:0]
	e.size = 0
	for _, n := range e.queue {
		if held[n.channel] {
			kept = append(kept, n)
			e.size += len(n.message) + newsSize
		}
	}
	clear(e.queue[len(kept):])
	e.queue = kept
}

// take appends all that was kept to b.
func (e *ear) take(b []byte) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) > 0 {
		any := e.c.encoding() == utf8Name
		for _, n := range e.queue {
			if !any && !isASCII(n.message[headerSize+4:]) {
				e.fate = untranslated()
				break
			}
			b = append(b, n.message...)
		}
		e.queue, e.size = nil, 0
	}
	if e.where == earParked { // what comes from here on rings anew
		e.rung = false
	}
	return b
}

// pending tells whether there is something for the client.
func (e *ear) pending() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.queue) > 0 || e.fate != nil
}

// last is what the client is to hear last, nil if it goes on.
func (e *ear) last() *pgconn.PgError {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.fate
}

// settle says where the client is from here on. It reports false, and changes nothing, if
// there is something for the client, which would then not hear of it.
func (e *ear) settle(where whereabouts) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) > 0 || e.fate != nil {
		return false
	}
	e.where, e.rung = where, false
	return true
}

// busy says that the client looks by itself. It tells whether it was woken to do so.
func (e *ear) busy() (rung bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	rung, e.rung = e.rung && e.where == earReads, false
	e.where = earBusy
	if rung {
		_ = e.c.conn.SetReadDeadline(time.Time{})
	}
	return rung
}

// listener is engine.Listener for a client, which has an ear from its first LISTEN on.
type listener struct{ c *client }

var _ engine.Listener = listener{}

const utf8Name = "UTF8"

// Takes is engine.Listener's: what comes over the line is in UTF-8, and the client is told it
// byte for byte.
func (l listener) Takes(channel string) bool {
	if l.c.encoding() != utf8Name || !utf8.ValidString(channel) {
		return false
	}
	return l.c.params["server_encoding"] == utf8Name || isASCII(channel)
}

// encoding is the client's, though it may not have been told so yet.
func (c *client) encoding() string {
	const name = "client_encoding"
	for _, p := range c.settings {
		if p.name == name {
			return p.value
		}
	}
	return c.params[name]
}

func isASCII[T ~string | ~[]byte](s T) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// Listen is engine.Listener's. A request to cancel ends the wait.
func (l listener) Listen(ctx context.Context, channels []string) error {
	c := l.c
	if c.ear == nil {
		c.ear = &ear{c: c, hub: c.source.hub, hears: map[string]bool{}}
		c.in.rung = c.rung
	}
	c.await(true)
	defer c.await(false)
	return c.ear.hub.listen(ctx, c.ear, channels)
}

// Hold is engine.Listener's.
func (l listener) Hold(channels []string) {
	if e := l.c.ear; e != nil {
		e.hub.hold(e, channels)
	}
}

// Tell is engine.Listener's.
func (l listener) Tell() {
	if e := l.c.ear; e != nil {
		l.c.out = e.take(l.c.out)
	}
}

// Mark is engine.Listener's.
func (l listener) Mark() <-chan struct{} { return l.c.source.hub.mark() }

// Own is engine.Listener's.
func (l listener) Own(pid uint32) {
	if e := l.c.ear; e != nil {
		e.hub.own(pid, e)
	}
}

// Disown is engine.Listener's.
func (l listener) Disown(pid uint32) { l.c.source.hub.own(pid, nil) }

// between tells whether the client can be notified: it is in no transaction.
func (c *client) between() bool {
	return len(c.ops) == 0 && c.script == nil && !c.skip && !c.session.InTransaction()
}

// tell tells the client what it was notified of, if this is the time to, and ends it if it
// cannot go on.
func (c *client) tell() error {
	if !c.between() {
		return nil
	}
	c.out = c.ear.take(c.out)
	e := c.ear.last()
	if e == nil {
		return nil
	}
	if err := c.flush(); err != nil { // for as long as the client takes
		return err
	}
	return c.end(e)
}

// rung is called after a wait for the client, and tells whether it was ended only for the
// client to be told something.
func (c *client) rung() bool {
	if !c.ear.busy() {
		return false
	}
	if c.closing.Load() { // whoever set that has woken it, too
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
		return false
	}
	return true
}

// beforeListening is beforeWait for a client that listens: it waits once there is nothing to
// be told any more, and is woken if there is.
func (c *client) beforeListening() error {
	for {
		if err := c.tell(); err != nil {
			return err
		}
		if err := c.sendAll(); err != nil {
			return err
		}
		if !c.between() || c.ear.settle(earReads) {
			return nil
		}
	}
}
