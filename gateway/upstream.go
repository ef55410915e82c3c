package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/engine"
)

var (
	_ engine.ServerConn = (*upstream)(nil)
	_ engine.Owned      = (*upstream)(nil)
)

// upstream is a connection to a server. Its bytes are relayed; only what the
// engine itself runs is read here.
type upstream struct {
	conn net.Conn
	sock *socket // the same, if a loop can use it
	in   reader
	out  []byte // being put together
	pid  uint32
	key  []byte // for cancel requests
	// cancel sends a cancel request for what the connection is doing.
	cancel func(ctx context.Context) error
	origin origin

	params map[string]string
	writes bool // on the leader; the others have default_transaction_read_only on
	status byte
	busy   bool // an answer is still to come
	closed atomic.Bool
	shared atomic.Bool // it is the one by which clients listen
	done   chan struct{}

	owner     *client
	laid      []string // names of the owner's statements that are laid out
	muted     bool     // notices are not for the owner's client, who has had them
	ahead     string   // to be sent with what comes next, its answer swallowed
	hasAhead  bool
	prepared  map[uint64]*prepared
	unnamed   *statement // what the server has as its unnamed statement
	uses      uint64     // a clock for prepared
	farewells []uint64   // prepared statements to close
}

// paramReadOnly differs between connections for reads and others; a client sees
// what its session says.
const paramReadOnly = "default_transaction_read_only"

// errConn: nothing more can be done over the connection.
var errConn = errors.New("the connection to the server was lost")

func newUpstream(conn net.Conn, pid uint32, key []byte, params map[string]string, status byte) *upstream {
	sock, _ := conn.(*socket)
	return &upstream{
		conn: conn, sock: sock, in: newKeepingReader(conn), pid: pid, key: key, params: params, status: status,
		done: make(chan struct{}), prepared: map[uint64]*prepared{},
	}
}

// PID is engine.ServerConn's.
func (u *upstream) PID() uint32 { return u.pid }

// TxStatus is engine.ServerConn's.
func (u *upstream) TxStatus() byte { return u.status }

// ParameterStatus is engine.ServerConn's.
func (u *upstream) ParameterStatus(name string) string { return u.params[name] }

// IsClosed is engine.ServerConn's.
func (u *upstream) IsClosed() bool { return u.closed.Load() }

// IsBusy is engine.ServerConn's.
func (u *upstream) IsBusy() bool { return u.busy }

// CleanupDone is engine.ServerConn's.
func (u *upstream) CleanupDone() chan struct{} { return u.done }

// farewell bounds the time that saying goodbye may take.
const farewell = time.Second

// Close is engine.ServerConn's.
func (u *upstream) Close() error {
	if u.closed.Swap(true) {
		select {
		case <-u.done:
			return nil
		default:
		}
	} else {
		_ = u.conn.SetWriteDeadline(time.Now().Add(farewell))
		_, _ = u.conn.Write(appendMessage(nil, msgTerminate, nil)) // the server notices the end all the same
	}
	if u.origin.gone != nil {
		u.origin.gone()
	}
	close(u.done)
	return u.conn.Close()
}

// broken notes that the connection is lost and says why.
func (u *upstream) broken(err error) error {
	u.closed.Store(true)
	return fmt.Errorf("%w: %w", errConn, err)
}

// Own is engine.Owned's.
func (u *upstream) Own(owner any) {
	u.owner, _ = owner.(*client)
}

// Ahead has a statement sent with what comes next and its answer swallowed.
func (u *upstream) Ahead(sql string) { u.ahead, u.hasAhead = sql, true }

// Unsent takes it back and tells whether it was still there.
func (u *upstream) Unsent() bool {
	was := u.hasAhead
	u.hasAhead = false
	return was
}

// start begins to put together what is sent next; the answers to n of the
// commands in it are to be swallowed.
func (u *upstream) start() (swallow int) {
	u.out = u.out[:0]
	if u.hasAhead {
		u.hasAhead, u.unnamed = false, nil // a simple query ends the unnamed statement
		u.out = appendText(u.out, msgQuery, u.ahead)
		return 1
	}
	return 0
}

// send writes what was put together.
func (u *upstream) send() error {
	u.busy = true
	if _, err := u.conn.Write(u.out); err != nil {
		return u.broken(err)
	}
	if cap(u.out) > 4*largeBuffer {
		u.out = nil
	}
	return nil
}

// watch breaks off waiting when ctx ends: what the server still sends cannot be
// told apart from what is asked for next, so the connection is closed. Whoever waited
// calls stop in the end, which tells whether the connection is still of use; nothing
// happens to it afterwards, however late ctx's end is heard of.
func (u *upstream) watch(ctx context.Context) (stop func() bool) {
	if ctx.Done() == nil {
		return func() bool { return true }
	}
	var over atomic.Bool
	forget := context.AfterFunc(ctx, func() {
		if over.CompareAndSwap(false, true) {
			u.closed.Store(true)
			_ = u.conn.SetDeadline(time.Unix(1, 0))
		}
	})
	return func() bool {
		forget()
		fine := over.CompareAndSwap(false, true)
		if !fine {
			u.closed.Store(true) // the other has yet to say so, perhaps
		}
		return fine
	}
}

// Run is engine.ServerConn's.
func (u *upstream) Run(ctx context.Context, text string) (tag string, err error) {
	if err := u.fit(ctx); err != nil {
		return "", err
	}
	swallow := u.start()
	u.unnamed = nil
	if text == "DISCARD ALL" { // the engine's own: the client's are followed
		clear(u.prepared)
		u.farewells = u.farewells[:0]
	}
	u.out = appendText(u.out, msgQuery, text)
	err = u.converse(ctx, swallow, func(typ byte, body []byte) {
		if typ == msgCommandComplete {
			tag = strings.TrimSuffix(string(body), "\x00")
		}
	})
	if err != nil {
		return "", err
	}
	return tag, nil
}

// Rows is engine.ServerConn's.
func (u *upstream) Rows(ctx context.Context, text string, args ...string) (rows [][][]byte, err error) {
	if err := u.fit(ctx); err != nil {
		return nil, err
	}
	swallow := u.start()
	u.unnamed = nil
	u.out = appendParse(u.out, "", text)
	b, at := begin(u.out, msgBind)
	b = append(b, 0, 0, 0, 0) // unnamed portal and statement, parameters as text
	b = binary.BigEndian.AppendUint16(b, uint16(len(args)))
	for _, a := range args {
		b = binary.BigEndian.AppendUint32(b, uint32(len(a)))
		b = append(b, a...)
	}
	b = append(b, 0, 0) // results as text
	b = end(b, at)
	b = appendMessage(b, msgExecute, []byte{0, 0, 0, 0, 0})
	u.out = appendMessage(b, msgSync, nil)
	err = u.converse(ctx, swallow, func(typ byte, body []byte) {
		if typ == msgDataRow {
			rows = append(rows, rowOf(body))
		}
	})
	return rows, err
}

// fit tells whether the connection can be spoken to.
func (u *upstream) fit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if u.closed.Load() {
		return engine.ErrNotSent
	}
	return nil
}

// converse sends and reads to the end of the answer.
func (u *upstream) converse(ctx context.Context, swallow int, see func(typ byte, body []byte)) error {
	stop := u.watch(ctx)
	defer stop()
	if c := u.owner; c != nil {
		defer c.leave(c.enter(u))
	}
	var failed error
	err := u.send()
	for err == nil {
		var typ byte
		var body []byte
		if typ, body, err = u.in.next(); err != nil {
			err = u.broken(err)
			break
		}
		switch typ {
		case msgError:
			pe := errorOf(body)
			if failed == nil {
				failed = pe
			}
			if fatal(pe) {
				_ = u.broken(pe)
				return pe
			}
		case msgCopyIn, msgCopyBoth: // what the engine runs never copies
			u.out = appendText(u.out[:0], msgCopyFail, "not expected")
			err = u.send()
		case msgReady:
			if swallow > 0 && failed != nil { // what followed did not run as it was meant to
				_ = u.broken(failed)
				return failed
			}
			if swallow > 0 {
				swallow--
				continue
			}
			u.ready(body)
			return failed
		default:
			if !u.aside(typ, body) && swallow == 0 {
				see(typ, body)
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if failed != nil {
		return failed
	}
	return err
}

// ready notes that an answer is complete.
func (u *upstream) ready(body []byte) {
	u.busy = false
	if len(body) == 1 {
		u.status = body[0]
	}
}

var debugSeverity = []byte("\x00VDEBUG")

// ofMirroring tells a notice by which a server that is asked for DEBUG messages tells of pgdist's
// own event triggers and objects. Those of the client's event triggers are like them but for a
// number, and go, too.
func ofMirroring(body []byte) bool {
	if !bytes.Contains(body, debugSeverity) {
		return false
	}
	e := errorOf(body)
	return e.Routine == "EventTriggerInvoke" || strings.Contains(e.Message, "pgdist") || strings.Contains(e.Where, "pgdist.")
}

// aside deals with what a server may send at any time, and tells whether it was that.
func (u *upstream) aside(typ byte, body []byte) bool {
	switch typ {
	case msgNotice:
		if c := u.owner; c != nil && !u.muted && !ofMirroring(body) {
			c.notice(body)
		}
		return true
	case msgNotification:
		if u.owner != nil {
			u.owner.late = appendMessage(u.owner.late, typ, body)
		}
		return true
	case msgParameterStatus:
		name, rest, ok := cstring(body)
		if !ok {
			return true
		}
		value, _, _ := cstring(rest)
		u.params[string(name)] = string(value)
		if u.owner != nil && (u.writes || string(name) != paramReadOnly) {
			u.owner.parameter(string(name), string(value))
		}
		return true
	}
	return false
}

func fatal(pe *pgconn.PgError) bool {
	s := pe.SeverityUnlocalized
	if s == "" {
		s = pe.Severity
	}
	return s == "FATAL" || s == "PANIC"
}

// rowOf splits a DataRow; the values are copies.
func rowOf(body []byte) [][]byte {
	if len(body) < 2 {
		return nil
	}
	row := make([][]byte, 0, binary.BigEndian.Uint16(body))
	for b := body[2:]; len(b) >= 4; {
		n := int32(binary.BigEndian.Uint32(b))
		b = b[4:]
		if n < 0 {
			row = append(row, nil)
			continue
		}
		if int(n) > len(b) {
			break
		}
		row = append(row, append([]byte{}, b[:n]...))
		b = b[n:]
	}
	return row
}

// appendParse appends a Parse without parameter types.
func appendParse(b []byte, name, text string) []byte {
	b, at := begin(b, msgParse)
	b = append(append(b, name...), 0)
	b = append(append(b, text...), 0)
	return end(append(b, 0, 0), at)
}
