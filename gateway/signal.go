package gateway

import (
	"encoding/binary"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// firstID is the least number of a client: no process of a server has one as high (Linux's
// PID_MAX_LIMIT is 1<<22), so pg_terminate_backend tells by it who is meant.
const firstID = 1 << 23

// signal is a call of pg_terminate_backend or pg_cancel_backend that is all of a statement.
type signal struct {
	function string
	column   string
	literal  uint32 // 0 if it is a parameter
	self     bool   // whoever says it is meant
}

// signalLength is the greatest length of such a statement: longer ones are not searched.
const signalLength = 200

var signalCall = regexp.MustCompile(`(?is)^\s*SELECT\s+(?:pg_catalog\s*\.\s*)?(pg_terminate_backend|pg_cancel_backend)\s*\(\s*(?:(\d{7,10})|\$1(?:\s*::\s*int(?:4|eger)?)?|((?:pg_catalog\s*\.\s*)?pg_backend_pid\s*\(\s*\)))\s*(?:,\s*\d+\s*)?\)(?:\s+(?:AS\s+)?([a-z_][a-z0-9_]*))?\s*;?\s*$`)

// signalOf recognises such a statement.
func signalOf(sql string) *signal {
	if len(sql) > signalLength || !strings.Contains(sql, "_backend") {
		return nil
	}
	m := signalCall.FindStringSubmatch(sql)
	if m == nil {
		return nil
	}
	s := &signal{function: strings.ToLower(m[1]), column: strings.ToLower(m[4]), self: m[3] != ""}
	if s.column == "" {
		s.column = s.function
	}
	if s.self && s.function != "pg_terminate_backend" {
		return nil // a server does that to its own process, with the same effect
	}
	if m[2] != "" {
		n, err := strconv.ParseUint(m[2], 10, 31)
		if err != nil || n < firstID {
			return nil
		}
		s.literal = uint32(n)
	}
	return s
}

// target is the client that a signal is for, if this client may send it one; a server does
// as it likes with any other number.
func (c *client) target(id uint32) *client {
	if id < firstID {
		return nil
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	to := c.server.clients[id]
	if to == nil || to.user != c.user && (c.user != c.source.owner || to.source != c.source) {
		return nil
	}
	return to
}

// send carries a signal out.
func (c *client) send(s *signal, to *client) {
	if s.function == "pg_terminate_backend" {
		to.closing.Store(true)
		to.killed.Store(true)
		to.wake()
	}
	if to != c {
		to.cancel(c.ctx)
	}
}

// runSignal answers a simple query that is such a statement; false if it is for a server.
func (c *client) runSignal(sql string) bool {
	s := signalOf(sql)
	if s == nil || s.literal == 0 && !s.self || c.session.Status() == 'E' {
		return false
	}
	to := c
	if !s.self {
		to = c.target(s.literal)
	}
	if to == nil {
		return false
	}
	b, at := begin(c.out, msgRowDescription)
	b = append(append(b, 0, 1), s.column...)
	b = append(b, 0, 0, 0, 0, 0, 0, 0) // its end; of no table
	b = binary.BigEndian.AppendUint32(b, pgtype.BoolOID)
	b = append(b, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0) // one byte, no modifier, text
	c.out = end(b, at)
	c.send(s, to)
	c.signalled(false)
	return true
}

// signalled tells that it was done.
func (c *client) signalled(inBinary bool) {
	value := byte('t')
	if inBinary {
		value = 1
	}
	c.out = appendMessage(c.out, msgDataRow, []byte{0, 1, 0, 0, 0, 1, value})
	c.complete("SELECT 1")
}

// bindSignal notes in a portal whom its statement is for.
func (c *client) bindSignal(p *portal, body []byte) {
	s := p.st.signal
	id := s.literal
	switch {
	case s.self:
		id = c.id
	case id == 0:
		values, ok := bindValues(body)
		if !ok || len(values) != 1 || values[0] == nil {
			return
		}
		if n, err := strconv.ParseUint(string(values[0]), 10, 31); err == nil {
			id = uint32(n)
		} else if len(values[0]) == 4 {
			id = binary.BigEndian.Uint32(values[0])
		}
	}
	if p.to = c.target(id); p.to != nil {
		p.binary = strings.HasSuffix(string(body), "\x00\x01\x00\x01") // one format, for its one column
	}
}
