package mirror

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/pgdist/pgdist/internal/wide"
)

// A database may be in an encoding other than UTF-8, and hold what cannot be turned into it: an
// SQL_ASCII database holds any bytes at all, and of WIN1252 some are no characters. So nothing
// is converted on its way from one member to the other: all connections of the mirror's use the
// database's own encoding, which is the same on all of them. (PostgreSQL docs, "Character Set
// Support".)

const utf8Name = "UTF8"

// foreign tells that the connection's encoding is not UTF-8.
func (c *conn) foreign() bool {
	e := c.ParameterStatus("server_encoding")
	return e != "" && e != utf8Name
}

// words makes words of ours a parameter, or a statement, that the database can read: but for a few
// signs they are in ASCII.
func (c *conn) words(s string) string {
	if !c.foreign() {
		return s
	}
	return plainly.Replace(s)
}

var plainly = strings.NewReplacer("…", "...", "–", "-", "−", "-", "’", "'", "§", "section ", "≤", "<=", "≥", ">=", "→", "->", "µ", "u")

// decode reads JSON that a database wrote, in whichever encoding: the strings that it finds have the
// bytes that they have there.
func decode(data []byte, v any) error {
	if utf8.Valid(data) {
		return json.Unmarshal(data, v)
	}
	if err := json.Unmarshal([]byte(wide.Widen(string(data))), v); err != nil {
		return err
	}
	wide.Narrow(v)
	return nil
}
