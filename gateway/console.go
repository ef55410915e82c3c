package gateway

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// consoleName is the database that leads to the console, unless it is the set's own name.
const consoleName = "pgdist"

// console is one administrator's connection. It asks no server for anything, so it also
// answers when none does.
type console struct {
	server *Server
	conn   net.Conn
	in     reader
	out    []byte
	id     uint32
	key    []byte
	user   string

	ctx   context.Context // ends when the command is cancelled
	stop  context.CancelCauseFunc
	hold  chan struct{} // of one: guards ctx and stop
	skip  bool
	texts map[string]*consoleStatement // prepared
	binds map[string]*consoleBound     // portals
}

// consoleStatement is what a Parse gave.
type consoleStatement struct {
	cmd  *command // nil is an empty text
	arg  string
	text string
}

// consoleBound is a statement with the formats that its columns are wanted in.
type consoleBound struct {
	*consoleStatement
	formats []byte
	rows    [][]any // still to come; only after a suspension
	tag     string
	ran     bool
}

func (s *Server) isConsole(db string) bool { return db == consoleName && s.database != consoleName }

// console makes a console of a connection whose user has proved who it is.
func (st *starting) console(user string) (guest, error) {
	s := st.server
	trusted := st.trusted && local(st.conn) && user == s.owner
	if !slices.Contains(st.config.Admins, user) && !trusted {
		return nil, errStarting("42501", fmt.Sprintf("user %q is not allowed to use the console: name it in admins", user))
	}
	k := &console{
		server: s, conn: st.conn, in: newReader(st.conn), user: user, key: make([]byte, 4), hold: make(chan struct{}, 1),
		texts: map[string]*consoleStatement{}, binds: map[string]*consoleBound{},
	}
	_, _ = rand.Read(k.key) // never fails (crypto/rand)
	k.in.limits = limit
	k.renew()
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return nil, errStarting("57P03", "the gateway is shutting down")
	}
	k.id = s.numberLocked()
	s.consoles[k.id] = k
	s.mu.Unlock()
	for _, p := range [][2]string{
		{"server_version", "13.0 (pgdist)"}, {"server_encoding", "UTF8"}, {"client_encoding", "UTF8"}, {"DateStyle", "ISO"}, {"TimeZone", "UTC"},
		{"standard_conforming_strings", "on"}, {"integer_datetimes", "on"}, {"is_superuser", "on"}, {"session_authorization", user},
	} {
		k.out = appendText(k.out, msgParameterStatus, p[0], p[1])
	}
	k.out = append(k.out, msgBackendKey, 0, 0, 0, byte(8+len(k.key)))
	k.out = binary.BigEndian.AppendUint32(k.out, k.id)
	k.out = append(k.out, k.key...)
	k.ready()
	return k, nil
}

func (k *console) String() string { return "console of " + k.user }

func (k *console) quit() {
	k.server.mu.Lock()
	delete(k.server.consoles, k.id)
	k.server.mu.Unlock()
	k.in.release()
	k.stop(errGone)
}

// renew makes a context for the next command.
func (k *console) renew() {
	k.hold <- struct{}{}
	defer func() { <-k.hold }()
	if k.ctx == nil || k.ctx.Err() != nil {
		k.ctx, k.stop = context.WithCancelCause(k.server.ctx)
	}
}

// cancel ends the command under way.
func (k *console) cancel() {
	k.hold <- struct{}{}
	defer func() { <-k.hold }()
	k.stop(&pgconn.PgError{Severity: "ERROR", Code: "57014", Message: "canceling statement due to user request"})
}

// closeConsoles ends them all.
func (s *Server) closeConsoles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.consoles {
		_ = k.conn.SetReadDeadline(time.Unix(1, 0)) // it may still hear that its SHUTDOWN was done
	}
}

// run serves the console until its user leaves.
func (k *console) run() error {
	for {
		if !k.in.pending() {
			if err := k.flush(); err != nil {
				return err
			}
		}
		typ, body, err := k.in.next()
		if err != nil {
			return err
		}
		switch {
		case typ == msgTerminate:
			return io.EOF
		case typ == msgSync:
			k.skip = false
			clear(k.binds) // the implicit transaction ends
			k.ready()
		case k.skip:
		default:
			if err := k.message(typ, body); err != nil {
				k.fail(err)
				k.skip = typ != msgQuery && typ != msgFunctionCall
				if !k.skip {
					k.ready()
				}
			}
		}
	}
}

func (k *console) message(typ byte, body []byte) error {
	bad := protocolError("invalid message format")
	switch typ {
	case msgQuery:
		text, rest, ok := cstring(body)
		if !ok || len(rest) != 0 {
			return bad
		}
		if err := k.simple(string(text)); err != nil {
			return err
		}
		k.ready()
	case msgParse:
		return k.parse(body)
	case msgBind:
		return k.bind(body)
	case msgDescribe:
		return k.describe(body)
	case msgExecute:
		name, rest, ok := cstring(body)
		if !ok || len(rest) != 4 {
			return bad
		}
		p := k.binds[string(name)]
		if p == nil {
			return &pgconn.PgError{Severity: "ERROR", Code: "34000", Message: fmt.Sprintf("portal %q does not exist", name)}
		}
		return k.execute(p, int(binary.BigEndian.Uint32(rest)))
	case msgClose:
		name, _, ok := cstring(body[min(1, len(body)):])
		if !ok {
			return bad
		}
		if body[0] == 'S' {
			delete(k.texts, string(name))
		} else {
			delete(k.binds, string(name))
		}
		k.out = appendMessage(k.out, msgCloseComplete, nil)
	case msgFlush:
		return k.flush()
	case msgCopyData, msgCopyDone, msgCopyFail:
	default:
		return &pgconn.PgError{Severity: "ERROR", Code: "0A000", Message: "the console takes queries only"}
	}
	return nil
}

// simple runs the commands of a Query message.
func (k *console) simple(text string) error {
	list := splitCommands(text)
	if len(list) == 0 {
		k.out = appendMessage(k.out, msgEmptyQuery, nil)
	}
	for _, one := range list {
		st, err := findCommand(one)
		if err != nil {
			return err
		}
		p := &consoleBound{consoleStatement: st}
		if err := k.begin(p); err != nil {
			return err
		}
		if st.cmd.columns != nil {
			k.out = appendColumns(k.out, st.cmd.columns, nil)
		}
		if err := k.execute(p, 0); err != nil {
			return err
		}
	}
	return nil
}

func (k *console) parse(body []byte) error {
	name, rest, ok := cstring(body)
	text, _, ok2 := cstring(rest)
	if !ok || !ok2 {
		return protocolError("invalid message format")
	}
	if len(name) > 0 && k.texts[string(name)] != nil {
		return &pgconn.PgError{Severity: "ERROR", Code: "42P05", Message: fmt.Sprintf("prepared statement %q already exists", name)}
	}
	list := splitCommands(string(text))
	st := &consoleStatement{}
	switch len(list) {
	case 0:
	case 1:
		var err error
		if st, err = findCommand(list[0]); err != nil {
			return err
		}
	default:
		return &pgconn.PgError{Severity: "ERROR", Code: "42601", Message: "cannot insert multiple commands into a prepared statement"}
	}
	if len(k.texts) >= 1000 {
		return &pgconn.PgError{Severity: "ERROR", Code: "53000", Message: "too many prepared statements in the console"}
	}
	k.texts[string(name)] = st
	k.out = appendMessage(k.out, msgParseComplete, nil)
	return nil
}

func (k *console) bind(body []byte) error {
	portal, rest, ok := cstring(body)
	name, _, ok2 := cstring(rest)
	if !ok || !ok2 {
		return protocolError("invalid message format")
	}
	st := k.texts[string(name)]
	if st == nil {
		return &pgconn.PgError{Severity: "ERROR", Code: "26000", Message: fmt.Sprintf("prepared statement %q does not exist", name)}
	}
	if n := bindParams(body); n != 0 {
		return protocolError(fmt.Sprintf("bind message supplies %d parameters, but the console's commands have none", max(n, 0)))
	}
	formats, ok := resultFormats(body)
	if !ok {
		return protocolError("invalid message format")
	}
	if len(k.binds) >= 1000 {
		return &pgconn.PgError{Severity: "ERROR", Code: "53000", Message: "too many portals in the console"}
	}
	k.binds[string(portal)] = &consoleBound{consoleStatement: st, formats: formats}
	k.out = appendMessage(k.out, msgBindComplete, nil)
	return nil
}

func (k *console) describe(body []byte) error {
	if len(body) < 2 {
		return protocolError("invalid message format")
	}
	name, _, ok := cstring(body[1:])
	if !ok {
		return protocolError("invalid message format")
	}
	var st *consoleStatement
	var formats []byte
	if body[0] == 'S' {
		if st = k.texts[string(name)]; st == nil {
			return &pgconn.PgError{Severity: "ERROR", Code: "26000", Message: fmt.Sprintf("prepared statement %q does not exist", name)}
		}
		k.out = appendMessage(k.out, msgParameterDescription, []byte{0, 0})
	} else {
		p := k.binds[string(name)]
		if p == nil {
			return &pgconn.PgError{Severity: "ERROR", Code: "34000", Message: fmt.Sprintf("portal %q does not exist", name)}
		}
		st, formats = p.consoleStatement, p.formats
	}
	if st.cmd == nil || st.cmd.columns == nil {
		k.out = appendMessage(k.out, msgNoData, nil)
		return nil
	}
	k.out = appendColumns(k.out, st.cmd.columns, formats)
	return nil
}

// begin carries a command out and keeps its rows.
func (k *console) begin(p *consoleBound) error {
	if p.ran {
		return nil
	}
	p.ran = true
	k.renew()
	var err error
	p.rows, err = p.cmd.run(k, p.arg)
	return err
}

// execute gives a command's rows, limit at a time if it is not 0.
func (k *console) execute(p *consoleBound, limit int) error {
	if p.cmd == nil {
		k.out = appendMessage(k.out, msgEmptyQuery, nil)
		return nil
	}
	if err := k.begin(p); err != nil {
		return err
	}
	rows := p.rows
	if limit > 0 && len(rows) > limit {
		rows = rows[:limit]
	}
	for _, row := range rows {
		k.out = appendRow(k.out, p.cmd.columns, row, p.formats)
	}
	if p.rows = p.rows[len(rows):]; len(p.rows) > 0 {
		k.out = appendMessage(k.out, msgPortalSuspended, nil)
		return nil
	}
	k.out = appendText(k.out, msgCommandComplete, p.cmd.tag)
	return nil
}

func (k *console) ready() { k.out = append(k.out, msgReady, 0, 0, 0, 5, 'I') }

func (k *console) fail(err error) {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		pe = &pgconn.PgError{Severity: "ERROR", Code: "55000", Message: err.Error()}
	}
	k.out = appendError(k.out, msgError, pe)
}

// notice tells the administrator what no row and no error does.
func (k *console) notice(text string) {
	k.out = appendError(k.out, msgNotice, &pgconn.PgError{Severity: "NOTICE", SeverityUnlocalized: "NOTICE", Code: "00000", Message: text})
}

func (k *console) flush() error {
	if len(k.out) == 0 {
		return nil
	}
	_ = k.conn.SetWriteDeadline(time.Now().Add(30 * time.Second)) // an administrator who stopped reading is of no use
	_, err := k.conn.Write(k.out)
	k.out = k.out[:0]
	return err
}
