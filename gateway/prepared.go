package gateway

import (
	"encoding/binary"
	"strconv"
	"sync"

	"github.com/pgdist/pgdist/classify"
)

// statement is what a Parse made. It is not changed once it is registered, but
// for leaderOnly.
type statement struct {
	name    string // the client's
	sql     string
	rest    []byte // of the Parse behind the text: the parameters' types
	verdict *classify.Verdict
	scope   string // what its names and constants mean, as the session had it when a server prepared it last
	key     *key   // nil if it is the unnamed one
	moment  int64  // engine.Session.Moment when the client prepared it
	// special statements are carried out by the session.
	special bool
	// leaderOnly: a type is involved whose number may differ between servers
	// within values.
	leaderOnly bool
	// showsPrepared: it reads pg_prepared_statements.
	showsPrepared bool
	made          uint64 // numbers the client's in the order in which they were prepared
	// signal is set if it may be for another client.
	signal *signal
	result // as it was described to the client
	// deallocates is set for DEALLOCATE, which concerns the client's names.
	deallocates bool
}

// key is a text with parameter types, under one number for all clients: servers
// prepare it once for all of them.
type key struct {
	id   uint64
	text string // of the map
	used int
}

// keys are the texts that clients have prepared.
type keys struct {
	mu   sync.Mutex // guards what follows
	all  map[string]*key
	next uint64
}

// take returns the key of a statement. Clients with different search paths, time zones and the
// like do not share one: what a name, or a constant, means to one of them need not be what it does to another.
func (k *keys) take(st *statement) *key {
	text := st.sql + "\x00" + st.scope + "\x00" + string(st.rest)
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.all[text]
	if e == nil {
		k.next++
		e = &key{id: k.next, text: text}
		k.all[text] = e
	}
	e.used++
	return e
}

// rescope gives a named statement that a server is about to prepare the key that others with
// the settings in force share: it will mean what these say.
func (c *client) rescope(st *statement) {
	scope := c.session.Scope()
	if st.key != nil && scope == st.scope {
		return
	}
	if st.key != nil {
		c.server.keys.give(st.key)
	}
	st.scope = scope
	st.key = c.server.keys.take(st)
}

func (k *keys) give(e *key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.used--; e.used == 0 {
		delete(k.all, e.text)
	}
}

// serverPrefix begins the names of prepared statements on the servers.
const serverPrefix = "pgdist_"

// serverName is a prepared statement's name on the servers.
func serverName(id uint64) string { return serverPrefix + strconv.FormatUint(id, 36) }

// prepared is a statement that a server connection has.
type prepared struct {
	used   uint64 // the connection's clock when it was used last
	moment int64  // engine.Session.Moment before it was prepared
	result        // as the server describes it
}

// newStatement takes a Parse's body apart: a name, a text, the number of
// parameter types, the types.
func (c *client) newStatement(body []byte) (st *statement, wrong string) {
	name, sql, rest, wrong := splitParse(body)
	if wrong != "" {
		return nil, wrong
	}
	st = &statement{name: string(name), sql: string(sql), rest: rest}
	if st.name != "" {
		st.scope = c.session.Scope()
	}
	st.verdict = c.server.engine.Classify(st.sql)
	v := st.verdict
	st.special = len(v.Statements) == 1 && v.Class != classify.Refused && c.session.Runs(v)
	if len(v.Statements) == 1 && v.Statements[0].Prepared != nil {
		st.deallocates = v.Statements[0].Prepared.Kind == classify.Deallocate
	}
	st.showsPrepared = showsPrepared(v)
	if v.Class != classify.Read {
		st.signal = signalOf(st.sql)
	}
	for b := rest[2:]; len(b) >= 4; b = b[4:] {
		st.leaderOnly = st.leaderOnly || binary.BigEndian.Uint32(b) >= firstUserOID
	}
	return st, ""
}

// splitParse takes a Parse's body apart, or tells what is wrong with it.
func splitParse(body []byte) (name, sql, rest []byte, wrong string) {
	name, rest, ok := cstring(body)
	if ok {
		sql, rest, ok = cstring(rest)
	}
	switch {
	case !ok:
		return nil, nil, nil, badString
	case len(rest) < 2 || len(rest) < 2+4*int(binary.BigEndian.Uint16(rest)):
		return nil, nil, nil, badData
	case len(rest) > 2+4*int(binary.BigEndian.Uint16(rest)):
		return nil, nil, nil, badEnd
	}
	return name, sql, rest, ""
}

// firstUserOID is FirstNormalObjectId of the server's transam.h: types and tables
// from there on may have other numbers on other servers.
const firstUserOID = 16384

// register makes a statement the client's, after the server took it.
func (c *client) register(st *statement) {
	if st.name != "" {
		st.rest = append([]byte(nil), st.rest...)
		if st.key == nil {
			st.key = c.server.keys.take(st)
		}
	} else {
		st.rest = append([]byte(nil), st.rest...)
	}
	if old := c.statements[st.name]; old != nil && old != st { // st, if it is run again
		c.forget(old)
	}
	c.made++
	st.made = c.made
	c.statements[st.name] = st
}

// unregister takes back what the client has not been told of: its Parse is answered with an
// error that is not the server's.
func (c *client) unregister() {
	for _, e := range c.expected[:min(c.relaying.next, len(c.expected))] {
		if e.kind == msgParse && e.st != nil && !e.swallow {
			c.forget(e.st)
		}
	}
}

// failedParse follows what a Parse does that fails: there is no unnamed statement any more.
func (c *client) failedParse(st *statement) {
	if old := c.statements[""]; st.name == "" && old != nil {
		c.forget(old)
	}
}

// forget drops a statement of the client's.
func (c *client) forget(st *statement) {
	if c.statements[st.name] == st {
		delete(c.statements, st.name)
	}
	if st.key != nil {
		c.server.keys.give(st.key)
		st.key = nil
	}
}

// deallocatesAll tells whether a statement is DEALLOCATE ALL.
func (st *statement) deallocatesAll() bool {
	return st != nil && st.deallocates && st.verdict.Statements[0].Prepared.Name == ""
}

// deallocate carries out DEALLOCATE for what the client prepared by the protocol.
// It reports whether nothing is left to do for a server.
func (c *client) deallocate(p *classify.PreparedStmt) bool {
	if p.Name == "" {
		for name, st := range c.statements {
			if name != "" {
				c.forget(st)
			}
		}
		return c.session.Held() == nil
	}
	st := c.statements[p.Name]
	if st == nil {
		return false
	}
	c.forget(st)
	return true
}

// textParams returns what an engine.Call needs of a Bind: its parameters, if they
// are sent as text (which text in binary form is, too).
func textParams(bind []byte) func(n int) (string, bool) {
	return func(n int) (string, bool) {
		values, ok := bindValues(bind)
		if !ok || n < 1 || n > len(values) || values[n-1] == nil {
			return "", false
		}
		return string(values[n-1]), true
	}
}

// bindValues takes the parameters out of a Bind's body.
func bindValues(body []byte) (values [][]byte, ok bool) {
	_, b, ok := cstring(body)
	if ok {
		_, b, ok = cstring(b)
	}
	if !ok || len(b) < 2 {
		return nil, false
	}
	formats := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) < 2*formats+2 {
		return nil, false
	}
	b = b[2*formats:]
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	for range n {
		if len(b) < 4 {
			return nil, false
		}
		size := int32(binary.BigEndian.Uint32(b))
		b = b[4:]
		switch {
		case size < 0:
			values = append(values, nil)
		case int(size) > len(b):
			return nil, false
		default:
			values = append(values, b[:size:size])
			b = b[size:]
		}
	}
	return values, true
}

// bindParams is the number of parameters in a Bind's body, -1 if it makes no sense.
func bindParams(body []byte) int {
	_, n := bindCounts(body)
	return n
}

// bindCounts are the numbers of formats and parameters in a Bind's body.
func bindCounts(body []byte) (formats, params int) {
	_, b, ok := cstring(body)
	if ok {
		_, b, ok = cstring(b)
	}
	if !ok || len(b) < 2 {
		return -1, -1
	}
	formats = int(binary.BigEndian.Uint16(b))
	if len(b) < 4+2*formats {
		return -1, -1
	}
	return formats, int(binary.BigEndian.Uint16(b[2+2*formats:]))
}
