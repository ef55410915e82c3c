package gateway

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"strings"
)

// isMD5 tells what pg_authid keeps of a password in that form: "md5" and the hash of password and
// user's name (PostgreSQL docs, "pg_authid").
func isMD5(secret string) bool {
	rest, ok := strings.CutPrefix(secret, "md5")
	if _, err := hex.DecodeString(rest); err != nil {
		return false
	}
	return ok && len(rest) == 2*md5.Size
}

// md5Answer is what somebody who knows the hash answers to a salt (PostgreSQL docs, "Message Flow":
// AuthenticationMD5Password).
func md5Answer(secret string, salt []byte) string {
	sum := md5.Sum(append([]byte(strings.TrimPrefix(secret, "md5")), salt...))
	return "md5" + hex.EncodeToString(sum[:])
}

// md5 has the client prove that it knows the hash. The hash is all that a server asks for, so the
// gateway can log in with it as the client could.
func (st *starting) md5(secret string) (*credential, bool, error) {
	salt := make([]byte, 4)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	if err := st.send(appendAuth(nil, authMD5, salt)); err != nil {
		return nil, false, err
	}
	body, err := st.password()
	if err != nil {
		return nil, false, err
	}
	answer, rest, ok := cstring(body)
	if !ok || len(rest) != 0 {
		return nil, false, errStarting("08P01", "invalid password packet size")
	}
	return &credential{md5: secret}, hmac.Equal(answer, []byte(md5Answer(secret, salt))), nil
}
