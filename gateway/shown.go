package gateway

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/engine"
)

// shown is what others may see of a client while it waits for its next message. Its
// goroutine stores what has changed; the last… are its own copies, to compare with.
type shown struct {
	state    atomic.Uint32 // transaction status, and pins << 8
	prepared atomic.Int64
	channels atomic.Int64 // that it listens to by the shared connection
	held     atomic.Pointer[upstream]
	app      atomic.Pointer[string]

	lastState uint32
	lastCount int
	lastHeld  *upstream
}

// show publishes the client's state.
func (c *client) show() {
	status, pins := c.session.Status(), c.session.Pins()
	sh := &c.shown
	if state := uint32(status) | uint32(pins)<<8; state != sh.lastState {
		sh.lastState = state
		sh.state.Store(state)
	}
	if n := len(c.statements); n != sh.lastCount {
		sh.lastCount = n
		sh.prepared.Store(int64(n))
	}
	if c.ear != nil {
		sh.channels.Store(int64(len(c.session.Channels())))
	}
	var held *upstream
	if status != 'I' || pins != 0 {
		held, _ = c.session.Held().(*upstream)
	}
	if held != sh.lastHeld {
		sh.lastHeld = held
		sh.held.Store(held)
	}
}

// named publishes a new application_name.
func (c *client) named(value string) {
	v := value
	c.shown.app.Store(&v)
}

// Client states, in PgBouncer's words where it has one.
const (
	stateActive  = "active"  // a statement is under way
	stateWaiting = "waiting" // for a connection, or for RESUME
	stateInTx    = "idle in transaction"
	stateIdle    = "idle"
)

// clientInfo is a client at one moment.
type clientInfo struct {
	c        *client
	app      string
	state    string
	tx       bool
	pins     classify.Pin
	wait     time.Duration // for a connection
	busy     time.Duration // since the command began
	prepared int
	channels int
	link     *upstream
}

func (c *client) info() clientInfo {
	i := clientInfo{c: c, app: c.app, prepared: int(c.shown.prepared.Load()), channels: int(c.shown.channels.Load())}
	if app := c.shown.app.Load(); app != nil {
		i.app = *app
	}
	state := c.shown.state.Load()
	i.tx, i.pins = byte(state) != 0 && byte(state) != 'I', classify.Pin(state>>8)
	i.link = c.shown.held.Load()
	busy := c.busySince.Load()
	c.mu.Lock()
	serving, waiting, since := c.serving, c.waiting, c.waitingSince
	c.mu.Unlock()
	if serving != nil {
		i.link = serving
	}
	switch {
	case waiting:
		i.state, i.wait = stateWaiting, time.Duration(engine.Now()-since)
	case busy != 0:
		i.state = stateActive
	case i.tx:
		i.state = stateInTx
	default:
		i.state = stateIdle
	}
	if busy != 0 {
		i.busy = time.Duration(engine.Now() - busy)
	}
	return i
}

// infos are all clients, by number.
func (s *Server) infos() []clientInfo {
	var list []clientInfo
	s.each(func(c *client) { list = append(list, c.info()) })
	slices.SortFunc(list, func(a, b clientInfo) int { return int(int64(a.c.id) - int64(b.c.id)) })
	return list
}

// servers are the connections to servers that exist.
type servers struct {
	mu   sync.Mutex // guards what follows
	all  map[*upstream]struct{}
	last uint64
	// caught is Server.caught: the pools connect in goroutines of their own.
	caught func(where string, value any) *mishap
}

// safely makes an error of a panic while a connection is made.
func (l *servers) safely(dial func() (engine.ServerConn, error)) (conn engine.ServerConn, err error) {
	defer func() {
		if value := recover(); value != nil {
			_ = l.caught("connecting", value)
			conn, err = nil, &pgconn.PgError{Severity: "ERROR", Code: "XX000", Message: "internal error of the gateway while it connected to a server", Hint: "The gateway's log says where."}
		}
	}()
	return dial()
}

// origin is what is known of a connection from its beginning.
type origin struct {
	number         uint64
	set            string // by what it is called
	user, database string
	host           string
	port           uint16
	since          time.Time
	from           net.Addr
	gone           func()
}

// keep notes a new connection until it is closed.
func (l *servers) keep(u *upstream, o origin) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	o.number, o.since = l.last, time.Now()
	o.from = u.conn.LocalAddr()
	o.gone = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.all, u)
	}
	u.origin = o
	l.all[u] = struct{}{}
}

func (l *servers) list() []*upstream {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]*upstream, 0, len(l.all))
	for u := range l.all {
		list = append(list, u)
	}
	slices.SortFunc(list, func(a, b *upstream) int { return int(int64(a.origin.number) - int64(b.origin.number)) })
	return list
}

// metered counts a client's bytes.
type metered struct {
	net.Conn
	tally *tally
}

// NetConn is the connection below.
func (m *metered) NetConn() net.Conn { return m.Conn }

func (m *metered) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	m.tally.received.Add(uint64(n))
	return n, err
}

func (m *metered) Write(b []byte) (int, error) {
	n, err := m.Conn.Write(b)
	m.tally.sent.Add(uint64(n))
	return n, err
}
