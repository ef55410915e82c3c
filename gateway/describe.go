package gateway

import (
	"encoding/binary"

	"github.com/pgdist/pgdist/internal/engine"
)

// describe passes a description of rows or parameters on, in the leader's numbers
// of tables and types (RowDescription: name, table, column, type, size, modifier, format).
func (c *client) describe(typ byte, body []byte) {
	from := len(c.out)
	c.out = appendMessage(c.out, typ, body)
	user := false
	each := c.eachRow
	if typ == msgParameterDescription {
		each = c.eachParameter
	}
	if !each(c.out[from+headerSize:], func(oid []byte, format int, relation bool) bool {
		n := binary.BigEndian.Uint32(oid)
		if n >= firstUserOID && !relation {
			user = true
		}
		return true
	}) {
		return // not understood: as it is
	}
	if st := c.describing(); st != nil && user {
		c.learn(st, c.out[from+headerSize:], typ)
	}
	term := c.renumber(c.out[from+headerSize:], each)
	c.remember(typ, c.out[from+headerSize:], term)
}

// describing is the statement that a Describe asked for, nil if it was a portal's.
func (c *client) describing() *statement {
	r := &c.relaying
	if r.next < len(c.expected) && c.expected[r.next].kind == msgDescribe {
		return c.expected[r.next].st
	}
	return nil
}

// learn keeps a statement on the leader in whose values numbers may be hidden, now
// that its client knows them. Formats are not known before a Bind.
func (c *client) learn(st *statement, body []byte, typ byte) {
	if typ == msgParameterDescription {
		st.leaderOnly = true
		return
	}
	c.eachRow(body, func(oid []byte, _ int, relation bool) bool {
		if !relation && binary.BigEndian.Uint32(oid) >= firstUserOID {
			st.leaderOnly = true
		}
		return true
	})
}

// renumber puts the leader's numbers in place of the follower's. Where it cannot,
// the statement is to run on the leader instead. It returns the term whose numbers of users' types
// there are then, 0 if there are none.
func (c *client) renumber(body []byte, each func([]byte, func(oid []byte, format int, relation bool) bool) bool) (term int64) {
	oids, looked := c.relaying.oids, c.relaying.looked
	var failed error
	lease := c.relaying.lease
	each(body, func(oid []byte, format int, relation bool) bool {
		n := binary.BigEndian.Uint32(oid)
		if n < firstUserOID {
			return true
		}
		if c.relaying.u.writes {
			if !relation {
				term = lease.Term(nil)
			}
			return true
		}
		for fresh := false; ; fresh = true {
			if !looked || fresh {
				if oids, failed = lease.OIDs(c.ctx, fresh); failed != nil {
					return false
				}
				looked = true
			}
			if !relation {
				term = lease.Term(oids)
			}
			if oids == nil {
				return relation
			}
			to, ok := translateOID(oids, n, format, relation)
			if ok {
				binary.BigEndian.PutUint32(oid, to)
				return true
			}
			if fresh {
				failed = engine.ErrNotHere
				return false
			}
		}
	})
	if failed != nil {
		c.relaying.elsewhere = true
	}
	return term
}

func translateOID(oids *engine.OIDs, n uint32, format int, relation bool) (uint32, bool) {
	if relation {
		return oids.Relation(n)
	}
	to, plain, ok := oids.Type(n)
	return to, ok && (plain || format == 0)
}

// eachRow visits the numbers in a RowDescription's body; false if it makes no sense.
func (c *client) eachRow(b []byte, visit func(oid []byte, format int, relation bool) bool) bool {
	if len(b) < 2 {
		return false
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	for range n {
		_, rest, ok := cstring(b)
		if !ok || len(rest) < 18 {
			return false
		}
		format := int(binary.BigEndian.Uint16(rest[16:]))
		if !visit(rest[:4], format, true) || !visit(rest[6:10], format, false) {
			return true
		}
		b = rest[18:]
	}
	return true
}

// eachParameter does so for a ParameterDescription.
func (c *client) eachParameter(b []byte, visit func(oid []byte, format int, relation bool) bool) bool {
	if len(b) < 2 {
		return false
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if len(b) < 4*n {
		return false
	}
	for range n {
		if !visit(b[:4], 0, false) {
			return true
		}
		b = b[4:]
	}
	return true
}
