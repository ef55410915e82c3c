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

// remember keeps the description of a statement's result.
func (c *client) remember(typ byte, body []byte) {
	st := c.describing()
	// Without a key it was closed further back in the pipeline than it is described.
	if st == nil || st.key == nil || typ != msgRowDescription || c.relaying.elsewhere {
		return
	}
	st.row = append(st.row[:0], shape(body)...)
	if p := c.relaying.u.prepared[st.key.id]; p != nil {
		p.row = append(p.row[:0], st.row...)
	}
}

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
		s = append(s, rest[6:16]...)
		b = rest[18:]
	}
	return s
}

// prepareDescribed has the server prepare what a group uses and it lacks, if the
// client knows what it returns, and compares.
func (c *client) prepareDescribed(u *upstream, g *group) error {
	for i := g.from; i < g.to; i++ {
		st := c.ops[i].st
		if !c.ops[i].compared() {
			continue
		}
		has := c.has(u, st)
		if has && bytes.Equal(u.prepared[st.key.id].row, st.row) {
			continue
		}
		if !has || u.prepared[st.key.id].row == nil {
			if err := c.prepareCompared(u, st); err != nil {
				return err
			}
		}
		if !bytes.Equal(u.prepared[st.key.id].row, st.row) {
			return c.changed(u)
		}
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
		if !u.writes {
			c.renumber(told, c.eachRow)
		}
		p.row = shape(told)
		c.out = c.out[:len(c.out)-len(body)-headerSize]
	})
	switch {
	case err != nil:
		delete(u.prepared, st.key.id)
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
