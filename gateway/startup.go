package gateway

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/engine"
)

// Limits of what is read before a client has logged in, as PostgreSQL has them
// (MAX_STARTUP_PACKET_LENGTH; PG_MAX_AUTH_TOKEN_LENGTH is larger).
const (
	maxStartup  = 10000
	maxPassword = 10000
)

// starting is a connection whose client has not logged in.
type starting struct {
	server  *Server
	config  *Config // as of the beginning: it may be replaced meanwhile
	conn    net.Conn
	tls     *tls.ConnectionState
	binding []byte // tls-server-end-point
	params  map[string]string
	options []string // names of protocol options that are not known
	minor   int
	trusted bool            // no proof was asked for
	source  *source         // where the user is looked up
	session *engine.Session // once there is one
}

// errStarting is an error that ends a log-in.
func errStarting(code, message string) *pgconn.PgError {
	return &pgconn.PgError{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message}
}

// login takes a connection up to its first ReadyForQuery. It returns no client and
// no error for a cancel request and for who connects and leaves.
func (s *Server) login(conn net.Conn) (guest, error) {
	config := s.conf()
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetNoDelay(true)
	}
	deadline := time.Now().Add(config.LoginTimeout)
	_ = conn.SetDeadline(deadline)
	ctx, stop := context.WithDeadline(s.ctx, deadline)
	defer stop()
	place, err := s.crowd.enter(ctx, conn, config.MaxStarting)
	if err != nil {
		s.measures.refused.Add(1)
		if s.crowd.warn() {
			s.log.Warn("connections are closed before they log in", "address", conn.RemoteAddr(), "max_starting", config.MaxStarting, "error", err)
		}
		return nil, err
	}
	defer place.leave()
	st := &starting{server: s, config: config, conn: conn}
	g, err := st.serve(ctx)
	if g == nil {
		err = st.refuse(err)
		_ = rawConn(st.conn).Close() // it may be closed already
		return nil, err
	}
	_ = st.conn.SetDeadline(time.Time{})
	return g, nil
}

// guest is whoever has logged in: a client, or one who wants the console.
type guest interface {
	run() error
	quit()
	broke() // after run has panicked
	String() string
}

// serve takes a connection up to a guest. There is none, and no error, if the client wanted
// something else.
func (st *starting) serve(ctx context.Context) (g guest, err error) {
	err = st.server.safely("log-in", func() error {
		enters, err := st.hello(ctx)
		if err == nil && enters {
			g, err = st.enter(ctx)
		}
		return err
	})
	var m *mishap
	if errors.As(err, &m) {
		if st.session != nil {
			st.session.Abandon()
		}
		return nil, errors.Join(internalError(), err)
	}
	return g, err
}

// refuse tells the client why it is turned away, if that is a thing to say.
func (st *starting) refuse(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		st.server.measures.refused.Add(1)
		st.server.measures.errors.add(pe.Code)
		e := *pe
		e.Severity, e.SeverityUnlocalized = "FATAL", "FATAL"
		_ = st.send(appendError(nil, msgError, &e)) // the connection ends in any case
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (st *starting) send(b []byte) error {
	_, err := st.conn.Write(b)
	return err
}

// hello reads requests up to the start-up message. It reports false if the client
// wanted something else.
func (st *starting) hello(ctx context.Context) (bool, error) {
	secured, direct, gss := false, false, false
	for {
		var head [8]byte
		if _, err := io.ReadFull(st.conn, head[:1]); err != nil {
			return false, err
		}
		if head[0] == 0x16 && st.tls == nil { // a TLS handshake at once
			if err := st.secure(ctx, &prefixed{Conn: st.conn, head: []byte{0x16}}, true); err != nil {
				return false, err
			}
			direct = true
			continue
		}
		if _, err := io.ReadFull(st.conn, head[1:4]); err != nil {
			return false, err
		}
		size := int(binary.BigEndian.Uint32(head[:]))
		if size < 8 || size > maxStartup {
			return false, errors.New("invalid length of a start-up packet")
		}
		if _, err := io.ReadFull(st.conn, head[4:]); err != nil {
			return false, err
		}
		code := binary.BigEndian.Uint32(head[4:])
		body := make([]byte, size-8)
		if _, err := io.ReadFull(st.conn, body); err != nil {
			return false, err
		}
		switch code {
		case requestCancel:
			if len(body) > 4 {
				st.server.cancelRequest(ctx, binary.BigEndian.Uint32(body), body[4:])
			}
			return false, nil
		case requestSSL:
			if secured {
				return false, unsupported(code)
			}
			if st.config.TLS == nil || direct {
				secured = true
				if err := st.send([]byte{'N'}); err != nil {
					return false, err
				}
				continue
			}
			if err := st.send([]byte{'S'}); err != nil {
				return false, err
			}
			if err := st.secure(ctx, st.conn, false); err != nil {
				return false, err
			}
			secured = true
		case requestGSS:
			if gss || st.tls != nil {
				return false, unsupported(code)
			}
			gss = true
			if err := st.send([]byte{'N'}); err != nil {
				return false, err
			}
		default:
			return true, st.parse(code, body)
		}
	}
}

func unsupported(code uint32) error {
	return errStarting("0A000", fmt.Sprintf("unsupported frontend protocol %d.%d: server supports 3.0 to 3.2", code>>16, code&0xffff))
}

// prefixed is a connection of which the first bytes were read already.
type prefixed struct {
	net.Conn
	head []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// NetConn is the connection below.
func (p *prefixed) NetConn() net.Conn { return p.Conn }

// alpn is the protocol's name in TLS; who begins with TLS at once must give it
// (PostgreSQL docs, "SSL Session Encryption").
const alpn = "postgresql"

func (st *starting) secure(ctx context.Context, conn net.Conn, direct bool) error {
	if st.config.TLS == nil {
		return errors.New("TLS at once, which is not offered")
	}
	shown := &shownCertificate{from: st.config.TLS}
	config := st.config.TLS.Clone()
	config.NextProtos = []string{alpn}
	config.SessionTicketsDisabled = true // a resumed session would be as good as a certificate that has expired since
	if config.ClientCAs != nil && config.ClientAuth == tls.NoClientCert {
		config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	config.Certificates, config.GetCertificate = nil, shown.choose
	secure := tls.Server(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return err
	}
	state := secure.ConnectionState()
	if direct && state.NegotiatedProtocol != alpn {
		return errors.New("TLS at once without the ALPN protocol postgresql")
	}
	st.conn, st.tls, st.binding = secure, &state, shown.binding()
	return nil
}

// parse reads the start-up message.
func (st *starting) parse(code uint32, body []byte) error {
	major, minor := code>>16, code&0xffff
	if major != 3 {
		return unsupported(code)
	}
	st.minor = int(minor)
	st.params = map[string]string{}
	b := body
	for {
		name, rest, ok := cstring(b)
		if !ok {
			return errStarting("08P01", "invalid startup packet layout: expected terminator as last byte")
		}
		if len(name) == 0 {
			if len(rest) != 0 {
				return errStarting("08P01", "invalid startup packet layout: expected terminator as last byte")
			}
			break
		}
		value, rest, ok := cstring(rest)
		if !ok {
			return errStarting("08P01", "invalid startup packet layout: expected terminator as last byte")
		}
		if strings.HasPrefix(string(name), "_pq_.") {
			st.options = append(st.options, string(name))
		} else {
			st.params[string(name)] = string(value)
		}
		b = rest
	}
	if st.minor > 2 || len(st.options) > 0 {
		st.minor = min(st.minor, 2)
		return st.negotiate()
	}
	return nil
}

// negotiate tells which minor version and options there are.
func (st *starting) negotiate() error {
	b, at := begin(nil, msgNegotiateVersion)
	b = binary.BigEndian.AppendUint32(b, 3<<16|uint32(st.minor))
	b = binary.BigEndian.AppendUint32(b, uint32(len(st.options)))
	for _, o := range st.options {
		b = append(append(b, o...), 0)
	}
	return st.send(end(b, at))
}

// enter checks who the client is and makes a session for it.
func (st *starting) enter(ctx context.Context) (guest, error) {
	s := st.server
	user, db := st.params["user"], st.params["database"]
	if user == "" {
		return nil, errStarting("28000", "no PostgreSQL user name specified in startup packet")
	}
	if db == "" {
		db = user
	}
	if st.tls == nil && st.config.RequireTLS && st.peer(user, db).kind != viaSocket {
		return nil, errStarting("28000", "this gateway takes connections over TLS only: use sslmode=require")
	}
	if r := strings.ToLower(st.params["replication"]); r != "" && r != "false" && r != "off" && r != "no" && r != "0" {
		return nil, errStarting("0A000", "replication is not supported through pgdist: connect to a server itself")
	}
	src := s.find(db)
	st.source = src
	if src == nil || s.isConsole(db) {
		st.source = s.source
	}
	cred, err := st.authenticate(ctx, user, db)
	if err != nil {
		return nil, err
	}
	if s.isConsole(db) {
		return st.console(user)
	}
	if src == nil {
		return nil, errStarting("3D000", fmt.Sprintf("database %q does not exist", db))
	}
	settings, err := startSettings(st.params)
	if err != nil {
		return nil, err
	}
	t, err := s.tenant(src, user, cred)
	if err != nil {
		return nil, err
	}
	c := newClient(s, src, user, db)
	c.since, c.app, c.key = time.Now(), st.params["application_name"], make([]byte, 4)
	if st.tls != nil {
		c.secured = tls.VersionName(st.tls.Version) + " " + tls.CipherSuiteName(st.tls.CipherSuite)
	}
	if st.minor >= 2 {
		c.key = make([]byte, 32)
	}
	_, _ = rand.Read(c.key) // never fails (crypto/rand)
	st.adopt(ctx)
	c.attach(st.conn)
	options := c.options(t)
	options.Settings = settings
	c.session = src.engine.NewSession(options)
	st.session = c.session
	if err := c.greet(ctx, settings); err != nil {
		return nil, errors.Join(c.sqlError(err), c.session.Close(ctx))
	}
	if st.config.poolMode(db, user) == SessionPooling {
		c.session.Whole()
	}
	if err := s.enter(c); err != nil {
		return nil, errors.Join(err, c.session.Close(ctx))
	}
	c.out = append(c.out, msgBackendKey, 0, 0, 0, byte(8+len(c.key)))
	c.out = binary.BigEndian.AppendUint32(c.out, c.id)
	c.out = append(c.out, c.key...)
	c.ready()
	return c, nil
}

// adopt has a loop watch the connection, unless it is secured.
func (st *starting) adopt(ctx context.Context) {
	if st.tls != nil || !st.source.flies {
		return
	}
	st.conn = st.server.loops.adopt(st.conn)
	if deadline, ok := ctx.Deadline(); ok {
		_ = st.conn.SetDeadline(deadline)
	}
}

// greet tries the user and the settings on a server and tells the client what a
// server tells at that time.
func (c *client) greet(ctx context.Context, settings []engine.Setting) error {
	nothing := &classify.Verdict{Class: classify.Read, Because: "begins a session"}
	for {
		lease, err := c.session.Acquire(ctx, engine.Call{Verdict: nothing, Route: engine.RouteLeader})
		if err != nil {
			return err
		}
		u := lease.Conn().(*upstream)
		c.params = maps.Clone(u.params)
		c.params[paramReadOnly] = "off"
		for _, e := range settings {
			if strings.EqualFold(e.Name, paramReadOnly) {
				c.params[paramReadOnly] = onOff(e.Value)
			}
		}
		again, err := lease.Done(ctx, nil)
		if err != nil {
			return err
		}
		if !again {
			break
		}
	}
	c.settings = c.settings[:0]
	c.first = maps.Clone(c.params)
	c.out = c.out[:0]
	for name, value := range c.params {
		c.out = appendText(c.out, msgParameterStatus, name, value)
	}
	return nil
}

// onOff is how a server writes a boolean setting that it has accepted.
func onOff(value string) string {
	v := strings.ToLower(strings.TrimSpace(value))
	if v == "1" || v == "on" || v != "" && (strings.HasPrefix("true", v) || strings.HasPrefix("yes", v)) {
		return "on"
	}
	return "off"
}

// limit is the greatest length of a client's message (PostgreSQL's PQ_LARGE_MESSAGE_LIMIT
// and PQ_SMALL_MESSAGE_LIMIT), -1 if there is no such type.
func limit(typ byte) int {
	switch typ {
	case msgQuery, msgParse, msgBind, msgFunctionCall, msgCopyData:
		return 1<<30 - 1
	case msgDescribe, msgExecute, msgClose, msgSync, msgFlush, msgCopyDone, msgCopyFail, msgTerminate:
		return 10000
	}
	return -1
}
