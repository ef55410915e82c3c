package engine

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ServerConn is a connection to one server as the front door wants it. The
// engine runs its own few statements over it; the front door knows what else its
// connections can do. OverPgConn makes most of one of a pgx connection.
type ServerConn interface {
	// Run executes text, one statement or several, by the simple protocol and
	// returns the command tag of the last.
	Run(ctx context.Context, text string) (tag string, err error)
	// Rows executes one statement with text arguments by the extended protocol
	// and returns its rows as text.
	Rows(ctx context.Context, text string, args ...string) ([][][]byte, error)
	// PID is the server process's.
	PID() uint32
	// TxStatus is the byte of the server's latest ReadyForQuery: I, T or E.
	TxStatus() byte
	// ParameterStatus is the latest value the server reported, "" if none.
	ParameterStatus(name string) string
	// IsClosed tells a connection that is of no use any more, IsBusy one with
	// an answer still to come.
	IsClosed() bool
	IsBusy() bool
	// Close ends the connection. CleanupDone is closed once nothing of it is left.
	Close() error
	CleanupDone() chan struct{}
}

// OverPgConn does what the engine wants of a ServerConn over pgx.
type OverPgConn struct{ *pgconn.PgConn }

// Run is ServerConn's.
func (o OverPgConn) Run(ctx context.Context, text string) (string, error) {
	mrr := o.PgConn.Exec(ctx, text)
	tag := ""
	for mrr.NextResult() {
		if t, err := mrr.ResultReader().Close(); err == nil { // the error comes again from mrr.Close
			tag = t.String()
		}
	}
	return tag, mrr.Close()
}

// Rows is ServerConn's.
func (o OverPgConn) Rows(ctx context.Context, text string, args ...string) ([][][]byte, error) {
	var values [][]byte
	for _, a := range args {
		values = append(values, []byte(a))
	}
	r := o.PgConn.ExecParams(ctx, text, values, nil, nil, nil).Read()
	return r.Rows, r.Err
}

// Owned is a ServerConn that wants to know which session it serves, nil for none:
// what the server says unasked for is meant for that session's client.
type Owned interface{ Own(owner any) }

func (c *conn) own(owner any) {
	if c.owned != nil {
		c.owned.Own(owner)
	}
}

// DialFunc connects to a server. It must not keep or change config.
type DialFunc func(ctx context.Context, config *pgx.ConnConfig) (ServerConn, error)

// purpose is what a pool's connections are for.
type purpose int

const (
	// readOnly connections have default_transaction_read_only on, so that
	// nothing taken for a read can write.
	readOnly purpose = iota
	// readWrite connections are used on the leader only.
	readWrite
	purposes
)

func (p purpose) String() string {
	if p == readWrite {
		return "rw"
	}
	return "ro"
}

// conn is one pooled connection to a server.
type conn struct {
	ServerConn
	owned   Owned // ServerConn, if it wants to know
	member  *member
	purpose purpose
	// token is the value of pgdist.conn, by which capture marks what this
	// connection wrote and Mirror.Resolve finds it; started its backend_start.
	token, started string
	// applied are the settings in force on it, nil if none. meaning is the scope that what it
	// has prepared by itself was prepared under.
	applied *settings
	meaning string
	// stamp counts leases; plainDefaults tells that the server's default
	// isolation level is READ COMMITTED and its default access READ WRITE.
	stamp         uint64
	plainDefaults bool

	// waiting is another number for every answer that is awaited, 0 while none
	// is; delivering is set while rows are already with the client. Both are
	// read by whoever decides to kill, who alone uses seen and since.
	waiting     atomic.Int64
	delivering  atomic.Bool
	seen, since int64

	// The pool's: res is set while leased or parked; made and parkedAt are
	// times on nanotime's clock; listed tells that the pool's list has it.
	pool     *pool
	res      *resource
	state    atomic.Int32
	spoiled  atomic.Bool
	listed   atomic.Bool
	made     int64
	parkedAt int64
	admitted bool // by the member's gate, while leased

	mu      sync.Mutex // guards what follows
	sockets []net.Conn // of this connection and of cancel requests for it
	killed  bool
}

// dialFor connects to member for a purpose.
func dialFor(ctx context.Context, dial DialFunc, m *member, config *pgx.ConnConfig, p purpose) (*conn, error) {
	config = config.Copy()
	c := &conn{member: m, purpose: p}
	if config.RuntimeParams == nil {
		config.RuntimeParams = map[string]string{}
	}
	if p == readOnly {
		config.RuntimeParams["default_transaction_read_only"] = "on"
	} else {
		c.token = uuid.NewString()
		config.RuntimeParams["pgdist.conn"] = c.token
	}
	base := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := base(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if m.wrap != nil && p == readOnly && config.TLSConfig == nil {
			nc = m.wrap(nc)
		}
		return nc, c.track(nc)
	}
	sc, err := dial(ctx, config)
	if err != nil {
		return nil, &Error{Op: "connect", Member: m.id, Host: m.host, Err: err}
	}
	c.ServerConn = sc
	c.owned, _ = sc.(Owned)
	err = c.readStart(ctx)
	if err == nil {
		err = m.vouch(ctx)
	}
	if err != nil {
		return nil, &Error{Op: "connect", Member: m.id, Host: m.host, Err: errors.Join(err, sc.Close())}
	}
	return c, nil
}

// startSQL tells when the connection's backend started, as Attempt wants it, and
// whether BEGIN without options means what it usually means.
const startSQL = `SELECT pg_catalog.to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),
  pg_catalog.current_setting('default_transaction_isolation') IN ('read committed', 'read uncommitted')
  FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid())`

func (c *conn) readStart(ctx context.Context) error {
	rows, err := c.Rows(ctx, startSQL)
	if err == nil && len(rows) == 1 {
		c.started, c.plainDefaults = string(rows[0][0]), string(rows[0][1]) == "t"
	}
	return err
}

// exec runs text, one statement or several, by the simple protocol and returns
// the tag of the last.
func (c *conn) exec(ctx context.Context, sql string) (string, error) {
	return c.Run(ctx, sql)
}

// aheader is a ServerConn that can send a statement together with what is sent
// next, whose answer it then swallows.
type aheader interface {
	// Ahead takes the statement; Unsent takes it back and tells whether it
	// was still there.
	Ahead(sql string)
	Unsent() bool
}

// begin begins a transaction: at once, or, if it may, with the statement that
// comes next, which saves a round trip. Nothing may look at the transaction's
// state before; and who has state on the connection learns of its loss at once.
func (c *conn) begin(ctx context.Context, sql string, later bool) error {
	if a, ok := c.ServerConn.(aheader); ok && later {
		a.Ahead(sql)
		return nil
	}
	_, err := c.exec(ctx, sql)
	return err
}

// unsent takes back a BEGIN that no statement followed.
func (c *conn) unsent() bool {
	a, ok := c.ServerConn.(aheader)
	return ok && a.Unsent()
}

// usable tells whether the connection can go back to its pool.
func (c *conn) usable() bool {
	if c.purpose == readWrite { // nothing goes ahead of reads
		c.unsent()
	}
	if c.spoiled.Load() || c.IsClosed() || c.IsBusy() || c.TxStatus() != 'I' {
		return false
	}
	// A function may have changed it behind our back (reported from PostgreSQL 14 on).
	return c.purpose == readWrite || c.ParameterStatus("default_transaction_read_only") != "off"
}

func (c *conn) inTransaction() bool { return c.TxStatus() != 'I' }

func (c *conn) track(nc net.Conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.killed {
		return errors.Join(net.ErrClosed, nc.Close())
	}
	c.sockets = append(c.sockets, nc)
	return nil
}

// kill breaks the connection under whoever uses it; safe from any goroutine.
func (c *conn) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.killed = true
	for _, nc := range c.sockets {
		_ = nc.Close() // its reader reports what matters
	}
}

// spoil ends a connection that has committed something of which nobody knows whether it
// will last. It is by its connection and time that the outcome of a transaction is found
// again (Attempt): what came of this one would be taken for what a later one had left.
func (c *conn) spoil() {
	c.spoiled.Store(true)
	c.kill()
}

// closeTimeout bounds the farewell to a server that may not answer, a request
// to cancel what it was doing included.
const closeTimeout = 2 * time.Second

// destroy closes the connection and waits until nothing of it is left running.
func (c *conn) destroy() {
	timer := time.AfterFunc(closeTimeout, c.kill)
	defer timer.Stop()
	_ = c.Close() // a connection that fails to say farewell is closed all the same
	<-c.CleanupDone()
}

// killGrace is how long a statement whose first rows are with the client may
// keep it waiting for the next once its member is excluded.
const killGrace = 2 * time.Second

// stuck tells whether the connection, whose member is excluded, should be
// killed: at once while its statement can still be run elsewhere unseen.
func (c *conn) stuck(now int64) bool {
	token := c.waiting.Load()
	switch {
	case token == 0:
		c.seen = 0
		return false
	case !c.delivering.Load():
		return true
	case token != c.seen:
		c.seen, c.since = token, now
	}
	return time.Duration(now-c.since) > killGrace
}

// Writes tells a DialFunc whether the connection is to write: one on the leader,
// whose commands are acknowledged. Others only read.
func Writes(config *pgx.ConnConfig) bool { return config.RuntimeParams["pgdist.conn"] != "" }
