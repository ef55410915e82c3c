package driver

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgdist/pgdist/internal/engine"
)

// tap listens to what pgx says and hears, while a transaction is kept to be run again.
// What is kept are pgx's messages: whatever the arguments of a statement were, and
// whatever becomes of them later, they are in there as the server got them.
type tap struct {
	net.Conn
	// digest is told what is heard; nil while nobody listens.
	digest atomic.Pointer[engine.Digest]

	mu    sync.Mutex // guards what follows: pgx says farewell on a lost connection in a goroutine of its own
	sent  []byte     // what was said meanwhile
	limit int        // of sent, in bytes
	over  bool       // it was more
}

// heard passes on what a Read has returned.
func (t *tap) heard(p []byte, n int, err error) (int, error) {
	if d := t.digest.Load(); d != nil && n > 0 {
		_, _ = d.Write(p[:n]) // it never fails
		if d.Differs() {
			return 0, errors.Join(engine.ErrDiffers, t.Close())
		}
	}
	return n, err
}

// said notes what is about to be written.
func (t *tap) said(p []byte) {
	if t.digest.Load() == nil || string(p) == farewell {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.over:
	case len(t.sent)+len(p) > t.limit:
		t.over, t.sent = true, nil
	default:
		t.sent = append(t.sent, p...)
	}
}

// farewell is the message Terminate, which belongs to no statement.
const farewell = "X\x00\x00\x00\x04"

// start begins to note what is said, up to limit bytes.
func (t *tap) start(d *engine.Digest, limit int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent, t.over, t.limit = nil, false, limit
	t.digest.Store(d)
}

// stop ends that, and returns what was said; false if it was more than the limit.
func (t *tap) stop() ([]byte, bool) {
	t.digest.Store(nil)
	t.mu.Lock()
	defer t.mu.Unlock()
	sent := t.sent
	t.sent = nil
	return sent, !t.over
}

// Read is net.Conn's.
func (t *tap) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	return t.heard(p, n, err)
}

// Write is net.Conn's.
func (t *tap) Write(p []byte) (int, error) {
	t.said(p)
	return t.Conn.Write(p)
}

// listen begins to listen to a statement if its transaction is kept.
func (c *Conn) listen(lease *engine.Lease, sc *server) bool {
	d := lease.Digest()
	if d == nil {
		return false
	}
	sc.tap.start(d, c.e.Config().ReplayLimit)
	return true
}

// keep ends listening and hands over how the statement can be run again.
func (s *server) keep(lease *engine.Lease, query string, args []driver.NamedValue) {
	sent, whole := s.tap.stop()
	if !whole || rewrites(args) {
		return
	}
	lease.Keep(&wireStep{query, sent}, len(query)+len(sent))
}

// rewrites tells whether the text of a statement is not what the server gets.
func rewrites(args []driver.NamedValue) bool {
	for i := range options(args) {
		if _, is := args[i].Value.(pgx.QueryRewriter); is {
			return true
		}
	}
	return false
}

// wireStep is what pgx sent for a statement.
type wireStep struct {
	query string
	sent  []byte
}

// Types of a client's messages.
const (
	msgBind     = 'B'
	msgClose    = 'C'
	msgCopyData = 'd'
	msgCopyDone = 'c'
	msgCopyFail = 'f'
	msgDescribe = 'D'
	msgParse    = 'P'
	msgQuery    = 'Q'
	msgSync     = 'S'
)

// Again is engine.Step's: it sends the same over another connection, by the unnamed
// prepared statement, since pgx has its own mind about what is prepared there.
func (w *wireStep) Again(ctx context.Context, conn engine.ServerConn, d *engine.Digest) error {
	sc := conn.(*server)
	sc.tap.start(d, -1) // what is said is not noted again
	defer sc.tap.stop()
	var failed error
	parsed := false
	var out []byte
	for b := w.sent; len(b) >= 5; {
		size := int(binary.BigEndian.Uint32(b[1:])) + 1
		if size > len(b) {
			return errors.New("a message that was kept is not complete")
		}
		typ, body := b[0], b[5:size]
		b = b[size:]
		if failed != nil && (typ == msgCopyData || typ == msgCopyDone || typ == msgCopyFail) {
			continue // the server does not wait for it
		}
		out = w.translate(out, typ, body, &parsed)
		if typ == msgQuery || typ == msgSync || typ == msgCopyDone || typ == msgCopyFail {
			err := sc.converse(ctx, out)
			out = out[:0]
			var pe *pgconn.PgError
			switch {
			case errors.As(err, &pe) && pe.Severity != "FATAL" && pe.Severity != "PANIC":
				if failed == nil {
					failed = err
				}
			case err != nil:
				return err
			}
		}
	}
	return failed
}

// translate appends a message with the names of prepared statements taken out.
func (w *wireStep) translate(out []byte, typ byte, body []byte, parsed *bool) []byte {
	switch typ {
	case msgParse:
		*parsed = true
		return frame(out, typ, []byte{0}, body[after(body):])
	case msgBind, msgDescribe:
		if typ == msgDescribe && body[0] != 'S' {
			break
		}
		if !*parsed { // pgx had prepared it on the connection that is lost
			*parsed = true
			out = frame(out, msgParse, []byte{0}, []byte(w.query), []byte{0, 0, 0})
		}
		if typ == msgDescribe {
			return frame(out, typ, []byte{'S', 0})
		}
		portal := after(body)
		return frame(out, typ, body[:portal], []byte{0}, body[portal+after(body[portal:]):])
	case msgClose:
		if body[0] == 'S' {
			return out
		}
	}
	return frame(out, typ, body)
}

// after is the place behind the zero byte that ends a name.
func after(b []byte) int {
	for i, c := range b {
		if c == 0 {
			return i + 1
		}
	}
	return len(b)
}

func frame(out []byte, typ byte, parts ...[]byte) []byte {
	size := 4
	for _, p := range parts {
		size += len(p)
	}
	out = binary.BigEndian.AppendUint32(append(out, typ), uint32(size))
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// converse sends messages and reads the answer, up to where the server waits for more.
func (s *server) converse(ctx context.Context, out []byte) error {
	pc := s.PgConn()
	if pc.IsClosed() {
		return engine.ErrNotSent
	}
	if err := pc.SyncConn(ctx); err != nil {
		return err
	}
	if _, err := pc.Conn().Write(out); err != nil {
		return err
	}
	var failed error
	for {
		msg, err := pc.ReceiveMessage(ctx)
		if err != nil {
			if failed == nil {
				failed = err
			}
			return failed
		}
		switch msg := msg.(type) {
		case *pgproto3.ErrorResponse:
			if failed == nil {
				failed = pgconn.ErrorResponseToPgError(msg)
			}
		case *pgproto3.CopyInResponse, *pgproto3.ReadyForQuery:
			return failed
		}
	}
}

// resumption is what a result needs to go on, when its server is lost, on another one.
type resumption struct {
	c     *Conn
	query string
	args  []driver.NamedValue
	read  int // rows that were read
}

// constant tells whether all arguments are what they were when the statement began.
func (r *resumption) constant() bool {
	for _, a := range r.args {
		switch a.Value.(type) {
		case nil, bool, string, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, float32, float64, time.Time,
			pgx.QueryExecMode:
		default:
			return false
		}
	}
	return true
}

// resume runs the statement again and passes over what was read of its result. Its
// transaction has been run again.
func (r *rows) resume() error {
	k := r.kept
	call := k.c.call(r.ctx, k.query)
	bind(&call, k.args)
	for {
		lease, err := k.c.s.Acquire(r.ctx, call)
		if err != nil {
			return outward(err)
		}
		sc := lease.Conn().(*server)
		tapped := k.c.listen(lease, sc)
		got, err := sc.QueryContext(r.ctx, k.query, k.args)
		if err == nil {
			r.lease, r.server = lease, got.(serverRows)
			if !tapped {
				r.kept = nil
			}
			if err = lease.Delivered(r.ctx); err == nil {
				err = r.pass(k.read)
			}
			if err == nil {
				return nil
			}
			err = errors.Join(err, got.Close())
		}
		if tapped {
			sc.keep(lease, k.query, k.args)
			lease.Resumable()
		}
		again, err := lease.Done(r.ctx, cause(r.ctx, err))
		if !again {
			return outward(err)
		}
	}
}

// pass reads n rows that the program has already.
func (r *rows) pass(n int) error {
	dest := make([]driver.Value, len(r.server.Columns()))
	for range n {
		err := r.server.Next(dest)
		if errors.Is(err, io.EOF) { // there were more
			return engine.ErrDiffers
		}
		if err != nil {
			return err
		}
	}
	return nil
}
