package gateway

import (
	"encoding/binary"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/engine"
)

// What a client listens to is known here and to no server that it has statements run on. So
// pg_listening_channels() is answered here, where it is all of a statement; within another one
// it is refused to who listens.

const listeningFunction = "pg_listening_channels"

// listeningLength is the greatest length of such a statement, in bytes.
const listeningLength = 200

var listeningCall = regexp.MustCompile(`(?is)^\s*SELECT\s+(?:\*\s+FROM\s+)?(?:pg_catalog\s*\.\s*)?pg_listening_channels\s*\(\s*\)(?:\s+(?:AS\s+)?([a-z_][a-z0-9_]*))?\s*;?\s*$`)

// asksChannels tells whether a statement asks what the session listens to, and, if that is all
// of it, the name of the column that it returns.
func asksChannels(sql string, v *classify.Verdict) (asks bool, column string) {
	if v.Class == classify.Read || !strings.Contains(strings.ToLower(sql), listeningFunction) {
		return false, ""
	}
	if len(sql) > listeningLength || len(v.Statements) != 1 {
		return true, ""
	}
	m := listeningCall.FindStringSubmatch(sql)
	if m == nil {
		return true, ""
	}
	if m[1] == "" {
		return true, listeningFunction
	}
	return true, strings.ToLower(m[1])
}

func channelsRefused() *pgconn.PgError {
	return &pgconn.PgError{
		Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "0A000", Message: listeningFunction + "() is not supported within other statements in a session that listens",
		Hint: "SELECT " + listeningFunction + "() alone, or use pool_mode session.",
	}
}

// runChannels answers a simple query that asks what the client listens to; false if a server
// can do so.
func (c *client) runChannels(sql string, v *classify.Verdict) bool {
	channels := c.session.Channels()
	if len(channels) == 0 || c.session.Status() == 'E' {
		return false
	}
	asks, column := asksChannels(sql, v)
	switch {
	case !asks:
		return false
	case column == "":
		c.fail(c.session.Abort(c.ctx, channelsRefused()))
		return true
	}
	b, at := begin(c.out, msgRowDescription)
	b = append(append(b, 0, 1), column...)
	b = append(b, 0, 0, 0, 0, 0, 0, 0) // its end; of no table
	b = binary.BigEndian.AppendUint32(b, pgtype.TextOID)
	b = append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0) // any length, no modifier, text
	c.out = end(b, at)
	c.listChannels(channels)
	c.complete("SELECT " + itoa(len(channels)))
	return true
}

// listChannels appends a row for each, which looks the same as text and in binary.
func (c *client) listChannels(channels []string) {
	for _, name := range channels {
		b, at := begin(c.out, msgDataRow)
		b = append(b, 0, 1)
		b = binary.BigEndian.AppendUint32(b, uint32(len(name)))
		c.out = end(append(b, name...), at)
	}
}

// bindChannels has an Execute of the portal answered here that an op binds, or fail.
func (c *client) bindChannels(o *op) {
	asks, column := asksChannels(o.st.sql, o.st.verdict)
	switch channels := c.session.Channels(); {
	case !asks || len(channels) == 0:
	case column == "":
		o.err = channelsRefused()
	default:
		o.portal.channels = channels
	}
}

// executeChannels answers an Execute of such a portal.
func (c *client) executeChannels(o *op) {
	p, body := o.portal, c.body(o)
	n := len(p.channels) - p.listed
	limit := int(binary.BigEndian.Uint32(body[len(body)-4:]))
	suspended := limit > 0 && n >= limit
	if suspended {
		n = limit
	}
	c.listChannels(p.channels[p.listed : p.listed+n])
	p.listed += n
	if suspended {
		c.out = appendMessage(c.out, msgPortalSuspended, nil)
		return
	}
	c.complete("SELECT " + itoa(n))
}

// nameSize is the greatest length of a name, in bytes (NAMEDATALEN - 1); in UTF-8 one that was
// cut is at most three shorter.
const nameSize = 63

// warnCut says what PostgreSQL's parser says of the name of a channel that it cuts.
func (c *client) warnCut(st *classify.Statement, sql string) {
	if len(st.Channel) < nameSize-3 || !engine.Listens(st) || c.session.Pins()&classify.PinListen != 0 { // else a server has said it
		return
	}
	if whole := wholeName(st.Text(sql), st.Channel); len(whole) > nameSize {
		c.out = appendError(c.out, msgNotice, &pgconn.PgError{
			Severity: "NOTICE", Code: "42622", Message: `identifier "` + whole + `" will be truncated to "` + st.Channel + `"`, File: "scansup.c", Routine: "truncate_identifier",
		})
	}
}

// wholeName is a name of which text has the beginning, as it stands there; "" if it does not.
func wholeName(text, beginning string) string {
	if _, rest, ok := strings.Cut(text, `"`+strings.ReplaceAll(beginning, `"`, `""`)); ok {
		const quote = "\x00" // which no statement has
		rest, _, _ = strings.Cut(strings.ReplaceAll(rest, `""`, quote), `"`)
		return beginning + strings.ReplaceAll(rest, quote, `"`)
	}
	_, rest, ok := strings.Cut(folded(text), beginning)
	if !ok {
		return ""
	}
	n := strings.IndexFunc(rest, func(r rune) bool {
		return r < 0x80 && r != '_' && r != '$' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
	})
	if n >= 0 {
		rest = rest[:n]
	}
	return beginning + rest
}

// folded is text as PostgreSQL folds what is not quoted in UTF-8: ASCII only.
func folded(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, text)
}
