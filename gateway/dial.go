package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgdist/pgdist/internal/engine"
)

// dialOwn connects as the set's own user, whose password the DSN gives.
func dialOwn(ctx context.Context, config *pgx.ConnConfig) (engine.ServerConn, error) {
	pc, err := pgconn.ConnectConfig(ctx, &config.Config)
	if err != nil {
		return nil, err
	}
	// pgx reads ahead in the background when a write took long; what it read is lost
	// with Hijack unless that has ended.
	if err := pc.SyncConn(ctx); err != nil {
		return nil, errors.Join(err, pc.Close(ctx))
	}
	h, err := pc.Hijack()
	if err != nil {
		return nil, errors.Join(err, pc.Close(ctx))
	}
	u := newUpstream(h.Conn, h.PID, h.SecretKey, maps.Clone(h.ParameterStatuses), h.TxStatus)
	u.writes = engine.Writes(config)
	to := target{network: h.Conn.RemoteAddr().Network(), address: h.Conn.RemoteAddr().String(), tls: h.TLSConfig}
	u.cancel = func(ctx context.Context) error { return to.cancel(ctx, config.DialFunc, u.pid, u.key) }
	return u, nil
}

// dialOwn is dialOwn for the set's own user, noting what it makes.
func (l *servers) dialOwn(ctx context.Context, set string, config *pgx.ConnConfig) (engine.ServerConn, error) {
	return l.note(set, config)(l.safely(func() (engine.ServerConn, error) { return dialOwn(ctx, config) }))
}

// dial is dialAs, noting what it makes.
func (l *servers) dial(ctx context.Context, set string, config *pgx.ConnConfig, cred *credential) (engine.ServerConn, error) {
	return l.note(set, config)(l.safely(func() (engine.ServerConn, error) { return dialAs(ctx, config, cred) }))
}

func (l *servers) note(set string, config *pgx.ConnConfig) func(engine.ServerConn, error) (engine.ServerConn, error) {
	return func(conn engine.ServerConn, err error) (engine.ServerConn, error) {
		if u, ok := conn.(*upstream); ok && err == nil {
			l.keep(u, origin{set: set, user: config.User, database: config.Database, host: config.Host, port: config.Port})
		}
		return conn, err
	}
}

// target is an address with what secures the way to it; tls is nil for none.
type target struct {
	network, address string
	tls              *tls.Config
}

// targets are the ways to a member, in the order in which they are tried.
func targets(config *pgx.ConnConfig) []target {
	list := []*pgconn.FallbackConfig{{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}}
	var to []target
	for _, f := range append(list, config.Fallbacks...) {
		network, address := pgconn.NetworkAddress(f.Host, f.Port)
		to = append(to, target{network, address, f.TLSConfig})
	}
	return to
}

// Requests that come instead of a start-up message (PostgreSQL docs, "Message Formats").
const (
	requestCancel = 80877102
	requestSSL    = 80877103
	requestGSS    = 80877104
)

// errNoTLS: the server does not do TLS.
var errNoTLS = errors.New("the server refuses TLS")

// dial opens a connection and secures it.
func (t target) dial(ctx context.Context, dial pgconn.DialFunc) (net.Conn, error) {
	conn, err := dial(ctx, t.network, t.address)
	if err != nil || t.tls == nil {
		return conn, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var answer [1]byte
	if _, err = conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err == nil {
		_, err = io.ReadFull(conn, answer[:]) // exactly one byte: nothing unencrypted may follow it
	}
	if err == nil && answer[0] != 'S' {
		err = errNoTLS
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	secure := tls.Client(conn, t.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secure, nil
}

// cancel sends a cancel request and waits until the server has taken it.
func (t target) cancel(ctx context.Context, dial pgconn.DialFunc, pid uint32, key []byte) error {
	conn, err := t.dial(ctx, dial)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	b := binary.BigEndian.AppendUint32(nil, uint32(12+len(key)))
	b = binary.BigEndian.AppendUint32(b, requestCancel)
	b = binary.BigEndian.AppendUint32(b, pid)
	if _, err := conn.Write(append(b, key...)); err != nil {
		return err
	}
	if _, err := conn.Read(b[:1]); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// credential is what a user can be recognized by: keys of SCRAM, as they come out
// of a log-in that succeeded, or a password.
type credential struct {
	clientKey, serverKey []byte
	password             string
	md5                  string // a hash, see isMD5
}

// empty tells that nothing is known by which to log in.
func (c *credential) empty() bool { return c.clientKey == nil && c.password == "" && c.md5 == "" }

// dialAs connects as a user of the clients', by the keys that the log-in gave: every
// server has the same verifier for it. A password that the configuration has comes before: the keys
// that a client proved it by are made with a salt of this program's.
func dialAs(ctx context.Context, config *pgx.ConnConfig, cred *credential) (engine.ServerConn, error) {
	if cred == nil || cred.password != "" || cred.clientKey == nil && cred.md5 == "" {
		if cred != nil {
			config = config.Copy()
			config.Password = cred.password
		}
		return dialOwn(ctx, config)
	}
	if config.ConnectTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, config.ConnectTimeout)
		defer cancel()
	}
	var errs []error
	for _, to := range targets(config) {
		u, err := login(ctx, config, to, cred)
		if err == nil {
			return u, nil
		}
		errs = append(errs, err)
		var pe *pgconn.PgError
		if errors.As(err, &pe) && pe.Code != "28000" { // 28000: pg_hba.conf has no entry for this way
			break
		}
	}
	return nil, errors.Join(errs...)
}

// login starts a session on a server.
func login(ctx context.Context, config *pgx.ConnConfig, to target, cred *credential) (u *upstream, err error) {
	conn, err := to.dial(ctx, config.DialFunc)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			u, err = nil, errors.Join(err, conn.Close())
		}
	}()
	front := pgproto3.NewFrontend(conn, conn)
	params := maps.Clone(config.RuntimeParams)
	params["user"], params["database"] = config.User, config.Database
	front.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: params})
	u = newUpstream(conn, 0, nil, map[string]string{}, 0)
	u.writes = engine.Writes(config)
	proof := &prover{cred: cred}
	for {
		if err := front.Flush(); err != nil {
			return nil, err
		}
		m, err := front.Receive()
		if err != nil {
			return nil, err
		}
		switch m := m.(type) {
		case *pgproto3.AuthenticationSASL:
			if cred.clientKey == nil {
				return nil, errors.New("the server asks for SCRAM of a user whose password it keeps as an md5 hash: use md5 in its pg_hba.conf, or set the password anew with password_encryption = 'scram-sha-256'")
			}
			front.Send(proof.first())
		case *pgproto3.AuthenticationMD5Password:
			if cred.md5 == "" {
				return nil, errAsksPassword
			}
			front.Send(&pgproto3.PasswordMessage{Password: md5Answer(cred.md5, m.Salt[:])})
		case *pgproto3.AuthenticationSASLContinue:
			final, err := proof.final(m.Data)
			if err != nil {
				return nil, err
			}
			front.Send(&pgproto3.SASLResponse{Data: final})
		case *pgproto3.AuthenticationSASLFinal:
			if !proof.verify(m.Data) {
				return nil, errors.New("the server does not know the user's verifier")
			}
		case *pgproto3.AuthenticationOk:
		case *pgproto3.AuthenticationCleartextPassword:
			return nil, errAsksPassword
		case *pgproto3.BackendKeyData:
			u.pid, u.key = m.ProcessID, append([]byte(nil), m.SecretKey...)
		case *pgproto3.ParameterStatus:
			u.params[m.Name] = m.Value
		case *pgproto3.ErrorResponse:
			return nil, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.NoticeResponse:
		case *pgproto3.ReadyForQuery:
			u.status = m.TxStatus
			dial := config.DialFunc
			u.cancel = func(ctx context.Context) error { return to.cancel(ctx, dial, u.pid, u.key) }
			return u, nil
		default:
			return nil, fmt.Errorf("the server sent %T while a session was started", m)
		}
	}
}

var errAsksPassword = errors.New("the server asks for a password, which the gateway does not know: use scram-sha-256 in pg_hba.conf, or name the user with its password in the gateway's configuration")

// prover is the client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677) for who has the
// keys instead of the password.
type prover struct {
	cred   *credential
	nonce  string
	bare   string
	signed []byte // what the server has to prove
}

const mechanism = "SCRAM-SHA-256"

func (p *prover) first() *pgproto3.SASLInitialResponse {
	raw := make([]byte, 18)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	p.nonce = base64.StdEncoding.EncodeToString(raw)
	p.bare = "n=,r=" + p.nonce
	return &pgproto3.SASLInitialResponse{AuthMechanism: mechanism, Data: []byte("n,," + p.bare)}
}

func (p *prover) final(server []byte) ([]byte, error) {
	nonce, ok := strings.CutPrefix(strings.SplitN(string(server), ",", 2)[0], "r=")
	if !ok || !strings.HasPrefix(nonce, p.nonce) || nonce == p.nonce {
		return nil, errors.New("the server's SCRAM message is not understood")
	}
	bare := "c=biws,r=" + nonce
	message := []byte(p.bare + "," + string(server) + "," + bare)
	stored := sha256.Sum256(p.cred.clientKey)
	proof := mac(stored[:], message)
	for i := range proof {
		proof[i] ^= p.cred.clientKey[i]
	}
	p.signed = mac(p.cred.serverKey, message)
	return []byte(bare + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

func (p *prover) verify(server []byte) bool {
	text, ok := strings.CutPrefix(string(server), "v=")
	sig, err := base64.StdEncoding.DecodeString(text)
	return ok && err == nil && hmac.Equal(sig, p.signed)
}

func mac(key, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return h.Sum(nil)
}

func itoa(n int) string { return strconv.Itoa(n) }
