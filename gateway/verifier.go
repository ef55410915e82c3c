package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
	"github.com/xdg-go/stringprep"
)

// verifier is what pg_authid keeps of a password:
// SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey> (PostgreSQL docs, "pg_authid").
type verifier struct {
	iterations int
	salt       []byte
	stored     []byte
	server     []byte
	password   string // if it was given as such
	md5        string // as pg_authid has it; then nothing else is set
}

// scramIterations is PostgreSQL's default, scram_iterations.
const scramIterations = 4096

// verifierOf reads a verifier, or makes one of a password.
func verifierOf(secret string) (*verifier, error) {
	rest, ok := strings.CutPrefix(secret, mechanism+"$")
	if !ok {
		if isMD5(secret) {
			return &verifier{md5: secret}, nil
		}
		salt := make([]byte, 16)
		_, _ = rand.Read(salt) // never fails (crypto/rand)
		return newVerifier(secret, salt, scramIterations)
	}
	bad := errors.New("this SCRAM verifier is not as pg_authid has them")
	head, keys, ok1 := strings.Cut(rest, "$")
	count, salt64, ok2 := strings.Cut(head, ":")
	stored64, server64, ok3 := strings.Cut(keys, ":")
	n, err := strconv.Atoi(count)
	if !ok1 || !ok2 || !ok3 || err != nil || n < 1 {
		return nil, bad
	}
	v := &verifier{iterations: n}
	for _, field := range []struct {
		to   *[]byte
		text string
	}{{&v.salt, salt64}, {&v.stored, stored64}, {&v.server, server64}} {
		if *field.to, err = base64.StdEncoding.DecodeString(field.text); err != nil {
			return nil, bad
		}
	}
	if len(v.stored) != sha256.Size || len(v.server) != sha256.Size {
		return nil, bad
	}
	return v, nil
}

func newVerifier(password string, salt []byte, iterations int) (*verifier, error) {
	prepared, err := stringprep.SASLprep.Prepare(password)
	if err != nil {
		prepared = password // as PostgreSQL does with what is no proper text
	}
	salted, err := pbkdf2.Key(sha256.New, prepared, salt, iterations, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	client := mac(salted, []byte("Client Key"))
	stored := sha256.Sum256(client)
	return &verifier{iterations: iterations, salt: salt, stored: stored[:], server: mac(salted, []byte("Server Key")), password: password}, nil
}

// mock is a verifier that no password fits, the same each time for one name: nobody
// learns from it whether there is such a user.
func (s *Server) mock(user string) *verifier {
	return &verifier{
		iterations: scramIterations, salt: mac(s.secret, []byte(user))[:16],
		stored: mac(s.secret, []byte("stored "+user)), server: mac(s.secret, []byte("server "+user)),
	}
}

// verifierFor finds what a user is to prove. ok is false if nothing that is proved
// lets the user in. md5 tells that a hash of that kind will do.
func (s *Server) verifierFor(ctx context.Context, src *source, user string, md5 bool) (v *verifier, ok bool, err error) {
	if secret, named := s.conf().Users[user]; named {
		if v, err = verifierOf(secret); err != nil || v.md5 == "" || md5 {
			return v, err == nil, err
		}
		return s.mock(user), false, nil // a rule that asks for SCRAM
	}
	rows, err := src.engine.Ask(ctx, `SELECT rolpassword, rolcanlogin AND (rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.now())
		FROM pg_catalog.pg_authid WHERE rolname = $1`, user)
	if err != nil {
		return nil, false, fmt.Errorf("looking up user %q: %w", user, err)
	}
	if len(rows) != 1 || rows[0][0] == nil || string(rows[0][1]) != "t" {
		return s.mock(user), false, nil
	}
	if v, err = verifierOf(string(rows[0][0])); err != nil || v.password != "" || v.md5 != "" && !md5 {
		s.log.Warn("a user's password is not stored as a SCRAM verifier: set it anew with password_encryption = 'scram-sha-256'", "user", user)
		return s.mock(user), false, nil
	}
	return v, true, nil
}

// scramTalk runs the exchange; say sends a challenge and returns the answer. It returns
// the keys by which the gateway can log in at the servers.
func scramTalk(v *verifier, chosen string, first []byte, binding []byte, say func(challenge []byte) ([]byte, error)) (cred *credential, final []byte, err error) {
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) {
		return scram.StoredCredentials{
			KeyFactors: scram.KeyFactors{Salt: string(v.salt), Iters: v.iterations}, StoredKey: v.stored, ServerKey: v.server,
		}, nil
	})
	if err != nil {
		return nil, nil, err
	}
	conv := server.NewConversation()
	if binding != nil {
		conv = server.NewConversationWithChannelBinding(scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: binding})
	}
	if err := gs2(chosen, first, binding != nil); err != nil {
		return nil, nil, err
	}
	challenge, err := conv.Step(string(first))
	if err != nil {
		return nil, nil, err
	}
	answer, err := say([]byte(challenge))
	if err != nil {
		return nil, nil, err
	}
	result, err := conv.Step(string(answer))
	if err != nil || !conv.Valid() {
		return nil, nil, errors.Join(errProof, err)
	}
	key, err := clientKey(v, string(first), challenge, string(answer))
	if err != nil {
		return nil, nil, err
	}
	return &credential{clientKey: key, serverKey: v.server, password: v.password}, []byte(result), nil
}

// errProof: the password is not the user's.
var errProof = errors.New("password authentication failed")

// gs2 checks what the client says of channel binding against the mechanism that it
// chose and what was offered (RFC 5802, section 6).
func gs2(chosen string, first []byte, offered bool) error {
	if len(first) == 0 {
		return errors.New("malformed SCRAM message")
	}
	plus := chosen == mechanism+"-PLUS"
	switch first[0] {
	case 'p':
		if !plus {
			return errors.New("malformed SCRAM message: channel binding without its mechanism")
		}
	case 'y':
		if offered {
			return errors.New("SCRAM channel binding negotiation error: somebody between here and the client may have hidden the offer")
		}
	}
	if plus && first[0] != 'p' {
		return errors.New("malformed SCRAM message: the mechanism asks for channel binding")
	}
	return nil
}

// clientKey is what a proof that was right gives away: with it, and the verifier,
// who verified can log in elsewhere as the same user.
func clientKey(v *verifier, first, challenge, answer string) ([]byte, error) {
	parts := strings.SplitN(first, ",", 3) // the GS2 header: flag, name, and then the message
	cut := strings.LastIndex(answer, ",p=")
	if len(parts) != 3 || cut < 0 {
		return nil, errors.New("malformed SCRAM message")
	}
	proof, err := base64.StdEncoding.DecodeString(answer[cut+3:])
	if err != nil || len(proof) != sha256.Size {
		return nil, errors.New("malformed SCRAM message")
	}
	signature := mac(v.stored, []byte(parts[2]+","+challenge+","+answer[:cut]))
	for i := range proof {
		proof[i] ^= signature[i]
	}
	if stored := sha256.Sum256(proof); !hmac.Equal(stored[:], v.stored) {
		return nil, errProof
	}
	return proof, nil
}
