package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/pgdist/pgdist/internal/engine"
)

// HandoverFormat is the version of what a Handover writes. A program that reads another one does
// not know the clients' sessions, and can only tell them that they end.
const HandoverFormat = 1

// ErrHandoverFormat is what ReadHandover returns for clients of another format.
var ErrHandoverFormat = errors.New("gateway: clients were handed over in another format than this program's")

// Handover are clients between two Servers: their connections, and their sessions in writing. Who
// has one calls Close in the end.
type Handover struct {
	mu    sync.Mutex // guards what follows
	conns []int      // descriptors, in the order of state.Clients; -1 once taken
	state handoverState
}

// handoverState is all of a Handover but the connections. In gob, fields are found by their names:
// HandoverFormat goes up when one that is needed comes, goes, or means something else.
type handoverState struct {
	Last    uint32 // number of the latest client
	Paused  movedPause
	Keys    []movedKey
	Clients []movedClient

	keys map[*tenant]int // places in Keys
}

// movedPause is what PAUSE has wait.
type movedPause struct {
	All   bool
	Names map[string]bool
}

// movedKey is what the gateway logs in to the servers by as a user.
type movedKey struct {
	ClientKey, ServerKey []byte
	Password, MD5        string
}

// movedClient is a client.
type movedClient struct {
	ID         uint32
	Key        []byte // of cancel requests
	User, DB   string
	App        string
	Since      time.Time
	Told       map[string]string // parameters, as it was told last
	First      map[string]string // at log-in
	Credential int               // a place in Keys
	Session    engine.SessionState
	Statements []movedStatement
	Unread     []byte // from its connection, and not looked at yet
}

// movedStatement is a prepared statement.
type movedStatement struct {
	Name, SQL  string
	Rest       []byte // of its Parse
	Scope      string
	Row        []byte // nil if it was not described
	OfPortal   bool
	Term       int64
	LeaderOnly bool
}

// errDeparted: the client goes on with another Server.
var errDeparted = errors.New("the client is handed over")

// movable tells whether the client's session is all in what departing writes down.
func (c *client) movable() bool {
	if c.secured != "" || c.killed.Load() || c.skip || c.copied || c.script != nil || len(c.ops) > 0 || len(c.late) > 0 || len(c.portals) > 0 || c.in.skip > 0 ||
		c.ear != nil && c.ear.pending() {
		return false
	}
	_, ok := c.session.State()
	return ok
}

// depart hands a client over that can be, and is at the beginning of a message.
func (c *client) depart(h *Handover) error {
	if err := c.flush(); err != nil {
		return err
	}
	session, _ := c.session.State()
	fd, err := duplicate(rawConn(c.conn))
	if err != nil {
		return errors.Join(errGone, err)
	}
	m := movedClient{
		ID: c.id, Key: c.key, User: c.user, DB: c.db, App: c.info().app, Since: c.since, Told: c.params, First: c.first, Session: session,
		Unread: bytes.Clone(c.in.buf[c.in.r:c.in.w]),
	}
	for _, st := range c.statements {
		m.Statements = append(m.Statements, movedStatement{Name: st.name, SQL: st.sql, Rest: st.rest, Scope: st.scope, Row: st.row, OfPortal: st.ofPortal, Term: st.term, LeaderOnly: st.leaderOnly})
	}
	t := c.server.tenantOf(c.source, c.user)
	h.mu.Lock()
	defer h.mu.Unlock()
	at, known := h.state.keys[t]
	if !known {
		at = len(h.state.Keys)
		h.state.keys[t] = at
		cred := t.credential()
		h.state.Keys = append(h.state.Keys, movedKey{ClientKey: cred.clientKey, ServerKey: cred.serverKey, Password: cred.password, MD5: cred.md5})
	}
	m.Credential = at
	h.state.Last = max(h.state.Last, c.id)
	h.state.Clients, h.conns = append(h.state.Clients, m), append(h.conns, fd)
	return errDeparted
}

// duplicate returns another descriptor of a connection, which stays open when that is closed.
func duplicate(conn any) (int, error) {
	if s, ok := conn.(interface{ duplicate() (int, error) }); ok {
		return s.duplicate()
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("%T: %w", conn, errors.ErrUnsupported)
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var failed error
	err = rc.Control(func(have uintptr) { fd, failed = unix.FcntlInt(have, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, failed)
}

// Settle waits until the transactions that are open at the call are over, while clients go on and
// others come. It returns ctx's error if they are not by its end.
func (s *Server) Settle(ctx context.Context) error {
	open := map[*client]uint64{}
	s.each(func(c *client) {
		if !c.quiet() {
			open[c] = c.tally.transactions.Load()
		}
	})
	for {
		left := false
		s.each(func(c *client) {
			before, was := open[c]
			left = left || was && !c.quiet() && c.tally.transactions.Load() == before
		})
		if !left {
			return nil
		}
		if !sleep(ctx, 10*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// HandOver is Shutdown for a Server that another one takes the place of: clients without TLS that
// have nothing under way, no state on a connection to a server and listen to nothing are kept for
// that one, as soon as that is so. Others are sent away as Shutdown does. What is left when ctx
// ends is closed.
func (s *Server) HandOver(ctx context.Context) (*Handover, error) {
	h := &Handover{state: handoverState{keys: map[*tenant]int{}}}
	s.refuse()
	s.departing.Store(h)
	s.each(func(c *client) { c.closing.Store(true) })
	h.state.Paused = s.repause()
	for s.inside() > 0 && ctx.Err() == nil {
		s.each(func(c *client) { // time and again: it may have begun to wait since
			if status := byte(c.shown.state.Load()); (status == 0 || status == 'I') && (c.secured == "" || !c.fresh()) {
				c.wake() // who is in a transaction looks at its end
			}
		})
		sleep(ctx, 10*time.Millisecond)
	}
	err := s.Close()
	h.state.keys = nil
	return h, err
}

// repause has who waits for RESUME look whether to wait on, and tells what is paused.
func (s *Server) repause() (m movedPause) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.paused.Load(); p != nil {
		s.paused.Store(&pausing{all: p.all, names: p.names, over: make(chan struct{})})
		close(p.over)
		m = movedPause{All: p.all, Names: p.names}
	}
	return m
}

// inside is how many clients there are, who have logged in.
func (s *Server) inside() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients)
}

// Len is how many clients nobody has taken yet.
func (h *Handover) Len() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, fd := range h.conns {
		if fd >= 0 {
			n++
		}
	}
	return n
}

// handoverMagic begins what a Handover writes; the format's number, that of the clients, and their
// descriptors follow in any format, so that whoever cannot read the rest can tell the clients so.
const handoverMagic = "pgdist\x00C"

// maxMoved bounds how many clients are believed to have been handed over.
const maxMoved = 1 << 20

// File writes everything down in memory that has no name and goes with the process, and lets the
// clients' descriptors, and the file's, stay open in a program that is executed in its place.
func (h *Handover) File() (*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b bytes.Buffer
	b.WriteString(handoverMagic)
	head := binary.BigEndian.AppendUint32(nil, HandoverFormat)
	head = binary.BigEndian.AppendUint32(head, uint32(len(h.conns)))
	for _, fd := range h.conns {
		head = binary.BigEndian.AppendUint32(head, uint32(fd))
	}
	b.Write(head)
	if err := gob.NewEncoder(&b).Encode(&h.state); err != nil {
		return nil, fmt.Errorf("writing clients down: %w", err)
	}
	f, err := memory("pgdist clients")
	if err != nil {
		return nil, err
	}
	_, err = f.Write(b.Bytes())
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	for _, fd := range append(h.conns, int(f.Fd())) {
		if err == nil {
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("writing clients down: %w", err), f.Close())
	}
	return f, nil
}

// ReadHandover reads what File has written, in the program that was executed. With an error there
// may be a Handover all the same: of clients who can only be told that they end, by Close.
func ReadHandover(f io.Reader) (*Handover, error) {
	head := make([]byte, len(handoverMagic)+8)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, fmt.Errorf("clients that were handed over: %w", err)
	}
	format, n := binary.BigEndian.Uint32(head[len(handoverMagic):]), binary.BigEndian.Uint32(head[len(handoverMagic)+4:])
	if string(head[:len(handoverMagic)]) != handoverMagic || n > maxMoved {
		return nil, errors.New("clients that were handed over: this is something else")
	}
	list := make([]byte, 4*n)
	if _, err := io.ReadFull(f, list); err != nil {
		return nil, fmt.Errorf("clients that were handed over: %w", err)
	}
	h := &Handover{}
	for ; len(list) > 0; list = list[4:] {
		fd := int(binary.BigEndian.Uint32(list))
		unix.CloseOnExec(fd)
		h.conns = append(h.conns, fd)
	}
	if format != HandoverFormat {
		return h, fmt.Errorf("%w: %d, and not %d", ErrHandoverFormat, format, HandoverFormat)
	}
	if err := gob.NewDecoder(f).Decode(&h.state); err != nil {
		return h, fmt.Errorf("clients that were handed over: %w", err)
	}
	if len(h.state.Clients) != len(h.conns) {
		return h, fmt.Errorf("clients that were handed over: %d sessions and %d connections", len(h.state.Clients), len(h.conns))
	}
	return h, nil
}

// Close ends the clients that nobody has taken, and tells them.
func (h *Handover) Close() error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for i, fd := range h.conns {
		if fd < 0 {
			continue
		}
		h.conns[i] = -1
		_, _ = unix.Write(fd, appendError(nil, msgError, adminShutdown())) // it does not wait: the connection ends in any case
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}

// adminShutdown is what clients hear that are sent away.
func adminShutdown() *pgconn.PgError {
	return errStarting("57P01", "terminating connection due to administrator command")
}
