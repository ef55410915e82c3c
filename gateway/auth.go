package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

// Authentication requests (PostgreSQL docs, "Message Formats").
const (
	authOK       = 0
	authMD5      = 5
	authSASL     = 10
	authContinue = 11
	authFinal    = 12
)

func appendAuth(b []byte, code uint32, data []byte) []byte {
	b, at := begin(b, msgAuthentication)
	b = binary.BigEndian.AppendUint32(b, code)
	return end(append(b, data...), at)
}

// authenticate has the client prove who it is and returns what the gateway can log
// in by at the servers as that user.
func (st *starting) authenticate(ctx context.Context, user, database string) (*credential, error) {
	r, err := st.rule(ctx, user, database)
	if err != nil {
		return nil, err
	}
	st.trusted = r.method == Trust
	var cred *credential
	switch r.method {
	case Trust, Cert:
		cred = st.server.credentialOf(user)
	case Peer:
		if err := st.isPeer(ctx, r, user); err != nil {
			return nil, err
		}
		cred = st.server.credentialOf(user)
	default:
		if cred, err = st.prove(ctx, r, user); err != nil {
			return nil, err
		}
	}
	if err := st.certified(ctx, r, user); err != nil {
		return nil, err
	}
	return cred, st.send(appendAuth(nil, authOK, nil))
}

// credentialOf is what the configuration knows of a user who proves nothing that servers take.
func (s *Server) credentialOf(user string) *credential {
	if secret, named := s.conf().Users[user]; named {
		if v, err := verifierOf(secret); err == nil {
			return &credential{password: v.password, md5: v.md5}
		}
	}
	return &credential{}
}

func local(conn net.Conn) bool {
	switch a := rawConn(conn).RemoteAddr().(type) {
	case *net.UnixAddr:
		return true
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	}
	return false
}

// prove has the client prove that it knows the password.
func (st *starting) prove(ctx context.Context, r *hbaRule, user string) (*credential, error) {
	v, known, err := st.server.verifierFor(ctx, st.source, user, r.method == MD5)
	if err != nil {
		return nil, refusedLookup(err)
	}
	if v.md5 == "" {
		return st.scram(r, user, v, known)
	}
	cred, right, err := st.md5(v.md5)
	if err == nil && !right {
		err = r.failed(user)
	}
	return cred, err
}

// scram has the client prove it by SCRAM-SHA-256; known is false if it cannot.
func (st *starting) scram(r *hbaRule, user string, v *verifier, known bool) (*credential, error) {
	offer := mechanism + "\x00\x00"
	if st.binding != nil {
		offer = mechanism + "-PLUS\x00" + offer
	}
	if err := st.send(appendAuth(nil, authSASL, []byte(offer))); err != nil {
		return nil, err
	}
	body, err := st.password()
	if err != nil {
		return nil, err
	}
	chosen, rest, ok := cstring(body)
	if !ok || len(rest) < 4 || int(int32(binary.BigEndian.Uint32(rest))) != len(rest)-4 {
		return nil, errStarting("08P01", "malformed SASLInitialResponse")
	}
	if m := string(chosen); m != mechanism && (m != mechanism+"-PLUS" || st.binding == nil) {
		return nil, errStarting("08P01", "client selected an invalid SASL authentication mechanism")
	}
	cred, final, err := scramTalk(v, string(chosen), rest[4:], st.binding, func(challenge []byte) ([]byte, error) {
		if err := st.send(appendAuth(nil, authContinue, challenge)); err != nil {
			return nil, err
		}
		return st.password()
	})
	var ne net.Error
	switch {
	case errors.As(err, &ne), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, err
	case errors.Is(err, errProof), err == nil && !known:
		return nil, r.failed(user)
	case err != nil:
		var pe *pgconn.PgError
		if errors.As(err, &pe) {
			return nil, pe
		}
		return nil, errStarting("08P01", err.Error())
	}
	return cred, st.send(appendAuth(nil, authFinal, final))
}

// refusedLookup is what a client hears whose user could not be looked up.
func refusedLookup(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "42501" {
		e := errStarting("28000", "the gateway may not look up users")
		e.Hint = "Let the DSN's user read pg_authid (a superuser may), or name the users in the gateway's configuration."
		return errors.Join(e, err)
	}
	return errors.Join(errStarting("57P03", "the gateway cannot look up users now"), err)
}

// password reads a message of the log-in.
func (st *starting) password() ([]byte, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(st.conn, head[:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(head[1:])) - 4
	if head[0] != msgPassword || size < 0 || size > maxPassword {
		return nil, errStarting("08P01", fmt.Sprintf("expected SASL response, got message type %d", head[0]))
	}
	body := make([]byte, size)
	_, err := io.ReadFull(st.conn, body)
	return body, err
}
