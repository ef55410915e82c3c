package gateway

import (
	"bytes"
	"encoding/binary"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/engine"
)

// What a client has been told of a prepared statement's result holds for as long as
// it uses the statement: PostgreSQL raises an error when DDL has changed it. A server
// that prepares the statement later than that would not notice, so the description
// is compared before it is used there.

// staleMessage and staleRoutine are PostgreSQL's. pgJDBC tells by the routine, not by the
// code, that preparing the statement anew will help.
const (
	staleMessage = "cached plan must not change result type"
	staleRoutine = "RevalidateCachedQuery"
)

// result is how the result of a statement was described.
type result struct {
	row      []byte // its shape, nil if it was not
	ofPortal bool   // by a portal, whose modifiers depend on its parameters
	term     int64  // whose leader's numbers users' types have there, 0 if there are none
}

// holds tells, without asking the server, that its result is what the client was told.
func (r *result) holds(server *result) bool {
	return server.row != nil && (r.ofPortal || !server.ofPortal) && r.term == server.term && r.alike(server)
}

// alike tells whether a server's result, as it describes it now, is what the client was told. Numbers of users'
// types are others under another leader, and what they were there nobody can be asked.
func (r *result) alike(server *result) bool {
	if bytes.Equal(r.row, server.row) {
		return true
	}
	moved := r.term != 0 && server.term != 0 && (r.term != server.term || r.term < 0)
	a, b := r.row, server.row
	if !moved && !r.ofPortal || len(a) != len(b) || len(a) < 2 {
		return false
	}
	for a, b = a[2:], b[2:]; len(a) > 0; a, b = a[shapeTail:], b[shapeTail:] {
		name, restA, _ := cstring(a)
		other, restB, _ := cstring(b)
		a, b = restA, restB
		switch one, two := binary.BigEndian.Uint32(a), binary.BigEndian.Uint32(b); {
		case !bytes.Equal(name, other):
			return false
		case one != two && !(moved && one >= firstUserOID && two >= firstUserOID):
			return false
		case !r.ofPortal && !bytes.Equal(a[6:shapeTail], b[6:shapeTail]):
			return false
		}
	}
	return true
}

// remember keeps the description of a statement's result, whose numbers are those of term.
func (c *client) remember(typ byte, body []byte, term int64) {
	if typ != msgRowDescription || c.relaying.elsewhere || c.relaying.next >= len(c.expected) {
		return
	}
	e := &c.expected[c.relaying.next]
	st, ofPortal := e.st, false
	if e.portal != nil {
		st, ofPortal = e.portal.st, true
	}
	// Without a key it was closed further back in the pipeline than it is described. A portal of a statement whose
	// result is known has the same: that was compared. What cursors return is never known.
	if e.kind != msgDescribe || st == nil || st.key == nil || ofPortal && (st.row != nil || st.returnsAnything()) {
		return
	}
	st.result = result{row: append(st.row[:0], shape(body)...), ofPortal: ofPortal, term: term}
	if p := c.relaying.u.prepared[st.key.id]; p != nil && (!ofPortal || p.row == nil) {
		p.result = result{row: append(p.row[:0], st.row...), ofPortal: ofPortal, term: term}
	}
}

// returnsAnything tells statements whose results may be others each time, without an error.
func (st *statement) returnsAnything() bool {
	return len(st.verdict.Statements) == 1 && (st.verdict.Statements[0].Tag == "FETCH" || st.verdict.Statements[0].Tag == "EXECUTE")
}

// shapeTail is how many bytes of a column are behind its name in a shape.
const shapeTail = 10

// shape is what of a RowDescription must not change: names, types, modifiers.
func shape(body []byte) []byte {
	if len(body) < 2 {
		return nil
	}
	s := append([]byte{}, body[:2]...)
	for b, n := body[2:], int(binary.BigEndian.Uint16(body)); n > 0; n-- {
		name, rest, ok := cstring(b)
		if !ok || len(rest) < 18 {
			return nil
		}
		s = append(append(s, name...), 0)
		s = append(s, rest[6:6+shapeTail]...)
		b = rest[18:]
	}
	return s
}

// prepareDescribed has the server prepare what a group uses and it lacks, if the
// client knows what it returns, and compares.
func (c *client) prepareDescribed(u *upstream, g *group) error {
	compared := false
	for i := g.from; i < g.to; i++ {
		st := c.ops[i].st
		if !c.ops[i].compared() || u.isLaid(st) || c.has(u, st) && st.holds(&u.prepared[st.key.id].result) {
			continue
		}
		if err := c.prepareCompared(u, st); err != nil {
			return err
		}
		compared = true
		p := u.prepared[st.key.id]
		if !st.alike(&p.result) {
			return c.changed(u)
		}
		if st.term != p.term { // from here on those are the numbers
			st.row, st.term = append(st.row[:0], p.row...), p.term
		}
	}
	if compared {
		c.goesOn(u)
	}
	return nil
}

// compared tells whether what an op's statement returns has to be as its client was told.
func (o *op) compared() bool {
	return o.st != nil && o.st.key != nil && o.st.row != nil && o.typ != msgParse && o.typ != msgClose
}

func (c *client) prepareCompared(u *upstream, st *statement) error {
	r := &c.relaying
	swallow := u.start()
	c.expected = c.expected[:0]
	c.ensure(u, st)
	p := u.prepared[st.key.id]
	u.out = appendText(u.out, msgDescribe, "S"+st.serverName())
	u.out = appendMessage(u.out, msgSync, nil)
	err := u.converse(c.ctx, swallow, func(typ byte, body []byte) {
		if typ != msgRowDescription {
			return
		}
		c.out = appendMessage(c.out, typ, body)
		told := c.out[len(c.out)-len(body):]
		term := c.renumber(told, c.eachRow)
		p.result = result{row: shape(told), term: term}
		c.out = c.out[:len(c.out)-len(body)-headerSize]
	})
	switch {
	case err != nil: // the server may have it: what fails to be described was prepared
		u.part(st.key.id)
		return err
	case r.elsewhere:
		return engine.ErrNotHere
	}
	r.swallow = 0
	return nil
}

// changed is what the client hears whose statement returns something else than it was told.
func (c *client) changed(u *upstream) error {
	if u.status != 'I' { // what was begun must end as after any error
		_, _ = u.Run(c.ctx, "pgdist ends this transaction: "+staleMessage)
	}
	c.relaying.lease.Final()
	return &pgconn.PgError{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "0A000", Message: staleMessage, File: "plancache.c", Routine: staleRoutine}
}
