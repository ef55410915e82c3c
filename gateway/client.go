package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/engine"
)

// client is one connection of a client's, with its session. Everything in it
// belongs to the goroutine that serves it, or, while it is parked, to that of a loop, but
// for what mu guards and what is atomic.
type client struct {
	server  *Server
	source  *source
	conn    net.Conn
	sock    *socket // below conn, if a loop can use it
	flight  flight  // what the loop does for the client
	in      reader
	out     []byte
	late    []byte // goes before the next ReadyForQuery
	sent    uint64 // bytes of out that were sent so far
	id      uint32
	key     []byte
	user    string
	db      string
	app     string
	since   time.Time
	secured string // the TLS version and cipher, "" is none

	ctx      context.Context // ends when the client, or its statement, is cancelled
	session  *engine.Session
	params   map[string]string // as the client has been told
	settings []parameter       // what it is to be told next, if it is news
	first    map[string]string // at log-in

	statements map[string]*statement
	made       uint64         // how many of them there have been
	ops        []op           // of the pipeline that is being collected
	text       []byte         // their bodies
	about      map[string]int // one more than the place of the last of ops that concerns a statement's name
	dropped    int            // the same of the last DEALLOCATE ALL
	leaving    bool           // one of ops ends the transaction, if it is an aborted one
	ended      int            // one more than the place of the last of ops that has ended a transaction
	groups     []group
	portals    map[string]*portal
	script     *engine.Script // of a pipeline that was run in part
	skip       bool           // an error was reported: all up to Sync is passed over
	copied     bool           // a COPY has taken the pipeline's Sync
	silent     bool           // the wait for its rest was ended for that to be run which has come
	withheld   bool           // what has been answered of it waits for the client's next message
	failure    error          // what the latest group failed with
	failedAt   uint64         // where it is reported
	relaying   relaying
	told       uint64 // bytes of the statement's answer that the client has from servers that were lost
	heard      int    // notices that it has from there, or has been told ahead of the rest
	known      []span // of those, what c.out still has
	expected   []expected

	ear *ear // what it listens with, nil until it does

	tally   tally
	shown   shown
	whole   string // the string of statements that is taken apart, if there is a tracer
	asked   int64  // when the statement began to wait for a connection, on engine.Now's clock
	txBegan int64  // when the transaction's first statement did; 0 is no transaction
	txLast  int64  // when its latest statement was over

	busySince atomic.Int64 // on engine.Now's clock; 0 while it waits for its client
	closing   atomic.Bool
	killed    atomic.Bool // it may not even finish its transaction
	atGate    atomic.Bool // it waits for RESUME

	mu           sync.Mutex // guards what follows
	stop         context.CancelFunc
	serving      *upstream      // what the client waits for
	cancelled    bool           // it asked to cancel that
	cancels      sync.WaitGroup // cancel requests under way
	waiting      bool           // for a connection to a server, or for RESUME
	waitingSince int64
}

// parameter is a setting that clients are told of.
type parameter struct{ name, value string }

// errGone: the client has left, or is sent away.
var errGone = errors.New("the client is gone")

// errParked: a loop serves the client from here on, and nobody else may touch it.
var errParked = errors.New("the client is served by a loop")

// run serves the client until it leaves, or is parked.
func (c *client) run() error {
	for {
		if c.closing.Load() && c.idle() {
			return c.dismiss()
		}
		if c.ear != nil {
			if err := c.tell(); err != nil {
				return err
			}
		}
		if c.parkable() {
			c.withheld = false
			if err := c.flush(); err != nil {
				return err
			}
			if c.park() {
				return errParked
			}
		}
		typ, body, err := c.receive()
		if err != nil {
			if errors.Is(err, errType) {
				return c.message(typ, nil)
			}
			if c.closing.Load() && !c.killed.Load() && !c.idle() && errors.Is(err, os.ErrDeadlineExceeded) {
				_ = c.conn.SetReadDeadline(time.Time{}) // it may finish its transaction
				continue
			}
			if c.silent && errors.Is(err, os.ErrDeadlineExceeded) {
				if err := c.runSilent(); err != nil {
					return err
				}
				continue
			}
			return c.inputError(err)
		}
		c.withheld = false
		c.begun()
		if c.server.paused.Load() != nil {
			pass, err := c.gate(typ)
			if err != nil {
				return err
			}
			if !pass {
				continue
			}
		}
		if len(c.out) > 0 && runs(typ) { // of commands before: the client need not wait for this one
			if err := c.flush(); err != nil {
				return err
			}
		}
		if err := c.message(typ, body); err != nil {
			return err
		}
		if err := c.wanted(); err != nil {
			return err
		}
	}
}

// runs tells the messages that may take long to be answered. Those of a pipeline that come before
// its Sync are only kept.
func runs(typ byte) bool { return typ == msgQuery || typ == msgSync || typ == msgFunctionCall }

// wanted sends the client away after a command if it is to leave.
func (c *client) wanted() error {
	switch {
	case c.killed.Load():
		if !c.relaying.partial {
			c.out = c.out[:0] // what it was doing has been cancelled
		}
		return c.dismiss()
	case c.closing.Load() && c.idle():
		return c.dismiss()
	}
	return nil
}

// parkable tells whether nothing of the client's is under way or kept for it, so that its
// next message finds everything in the server and the session.
func (c *client) parkable() bool {
	return c.sock != nil && c.idle() && c.in.skip == 0 && !c.skip && c.script == nil && len(c.late) == 0 && c.session.Pins() == 0
}

// receive returns the next message. Data that is still sent to a COPY which failed is
// passed over without being kept, however much it is.
func (c *client) receive() (typ byte, body []byte, err error) {
	for {
		typ, size, err := c.in.head()
		if err != nil || typ != msgCopyData || size <= largeBuffer-headerSize || len(c.ops) > 0 && !c.skip {
			break
		}
		c.in.skip = headerSize + size
	}
	return c.in.next()
}

// message deals with one message.
func (c *client) message(typ byte, body []byte) error {
	switch typ {
	case msgQuery:
		return c.query(body)
	case msgParse, msgBind, msgDescribe, msgExecute, msgClose:
		return c.collect(typ, body)
	case msgSync:
		if len(body) > 0 {
			return c.syncBroken()
		}
		return c.sync()
	case msgFlush:
		return c.flushPipeline(body)
	case msgFunctionCall:
		return c.functionCall(body)
	case msgCopyData, msgCopyDone, msgCopyFail:
		if len(c.ops) > 0 && !c.skip && c.copies() { // sent on together with the Execute that it is for
			c.in.back()
			return c.runOpen() // what comes before Sync may undo it yet
		}
		return nil // what follows a COPY that failed
	case msgTerminate:
		return io.EOF
	}
	if err := c.flushPipeline(nil); err != nil {
		return err
	}
	return c.fatal("08P01", "invalid frontend message type "+itoa(int(typ)))
}

// inputError makes of an error of reading what the client, if it is there, should hear.
func (c *client) inputError(err error) error {
	if c.closing.Load() {
		return c.dismiss()
	}
	if errors.Is(err, errLength) {
		_ = c.flush() // the connection ends in any case
	}
	return err // errLength too: PostgreSQL tells its log only
}

// dismiss says farewell to a client that is sent away, unless it can go on elsewhere.
func (c *client) dismiss() error {
	if h := c.server.departing.Load(); h != nil && c.idle() && c.movable() {
		return c.depart(h)
	}
	return c.end(adminShutdown())
}

// fatal reports an error after which the connection ends.
func (c *client) fatal(code, message string) error {
	return c.end(&pgconn.PgError{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message})
}

// end is fatal for any error.
func (c *client) end(e *pgconn.PgError) error {
	c.out = appendError(c.out, msgError, e)
	_ = c.conn.SetWriteDeadline(time.Now().Add(farewell))
	_ = c.flush() // the connection ends in any case
	return errGone
}

// report sends an error of a statement's.
func (c *client) report(err error) {
	e := c.sqlError(err)
	c.server.measures.errors.add(e.Code)
	c.out = appendError(c.out, msgError, e)
}

// sqlError is err as a server would put it.
func (c *client) sqlError(err error) *pgconn.PgError {
	var pe *pgconn.PgError
	switch {
	case errors.As(err, &pe):
		if fatal(pe) { // the connection that it ended was not the client's
			e := *pe
			e.Severity, e.SeverityUnlocalized = "ERROR", "ERROR"
			return &e
		}
		return pe
	case errors.Is(err, context.Canceled):
		return &pgconn.PgError{Severity: "ERROR", Code: "57014", Message: "canceling statement due to user request"}
	case errors.Is(err, engine.ErrPoolWait):
		return &pgconn.PgError{Severity: "ERROR", Code: "53300", Message: err.Error()}
	case errors.Is(err, engine.ErrClosed):
		return &pgconn.PgError{Severity: "ERROR", Code: "57P01", Message: "the gateway is shutting down"}
	}
	return &pgconn.PgError{Severity: "ERROR", Code: "08006", Message: err.Error()}
}

// ready ends the answer to a command.
func (c *client) ready() {
	if len(c.late) > 0 {
		c.out, c.late = append(c.out, c.late...), c.late[:0]
	}
	if c.ear != nil && !c.session.InTransaction() {
		c.out = c.ear.take(c.out)
	}
	slices.SortFunc(c.settings, func(a, b parameter) int { return strings.Compare(strings.ToLower(a.name), strings.ToLower(b.name)) }) // as PostgreSQL does
	for _, p := range c.settings {
		if old, ok := c.params[p.name]; !ok || old != p.value {
			c.params[p.name] = p.value
			c.out = appendText(c.out, msgParameterStatus, p.name, p.value)
			if p.name == "application_name" {
				c.named(p.value)
			}
		}
	}
	c.settings = c.settings[:0]
	status := c.session.Status()
	if status == 'I' {
		c.settled()
	}
	c.out = append(c.out, msgReady, 0, 0, 0, 5, status)
}

// complete tells that a statement is done.
func (c *client) complete(tag string) { c.out = appendText(c.out, msgCommandComplete, tag) }

// parameter notes the value of a setting that the client is told of. It is told with the next
// ReadyForQuery, if it is news then.
func (c *client) parameter(name, value string) {
	for i := range c.settings {
		if c.settings[i].name == name {
			c.settings[i].value = value
			return
		}
	}
	c.settings = append(c.settings, parameter{name, value})
}

// flush sends what there is for the client.
func (c *client) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	c.hush()
	out := c.out
	if len(c.known) > 0 {
		out = c.unheard()
	}
	if err := c.write(out); err != nil {
		return err
	}
	c.sent += uint64(len(c.out))
	if cap(c.out) > 2*largeBuffer {
		c.out = nil
	}
	c.out = c.out[:0]
	return nil
}

func (c *client) write(b []byte) error {
	if _, err := c.conn.Write(b); err != nil {
		return errors.Join(errGone, err)
	}
	return nil
}

// beforeWait is called before the goroutine waits for its client.
func (c *client) beforeWait() error {
	if c.ear != nil {
		return c.beforeListening()
	}
	return c.sendAll()
}

// sendAll sends what there is for the client, which is then waited for.
func (c *client) sendAll() error {
	if !c.withheld {
		if err := c.flush(); err != nil {
			return err
		}
	}
	if cap(c.out) > smallBuffer && len(c.out) == 0 && c.idle() {
		c.out = nil
	}
	c.show()
	c.busySince.Store(0)
	if c.session.Listening() && c.in.woken == nil {
		c.overhear()
	}
	if len(c.ops) > 0 {
		c.awaitRest()
	}
	return nil
}

// idle tells whether nothing of the client's is under way.
func (c *client) idle() bool {
	return len(c.ops) == 0 && !c.session.InTransaction() && c.in.r == c.in.w
}

// begun notes that a command begins.
func (c *client) begun() {
	if c.busySince.Load() == 0 {
		c.busySince.Store(engine.Now())
	}
}

func (c *client) quit() {
	if c.ear != nil {
		c.ear.hub.leave(c.ear)
	}
	c.server.leave(c)
	_ = rawConn(c.conn).Close() // it may be closed already
}

func (c *client) String() string { return "client " + itoa(int(c.id)) + " of " + c.user }
