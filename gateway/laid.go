package gateway

import (
	"cmp"
	"slices"

	"github.com/pgdist/pgdist/classify"
)

// What clients prepare is known to servers under names of the gateway's, shared, and where it
// was used. A statement that reads pg_prepared_statements is to see its client's, so they are
// laid out on its connection for as long as it runs, under their own names, in place of the others.

// preparedView shows what a session has prepared.
const preparedView = "pg_prepared_statements"

// showsPrepared tells statements that read it.
func showsPrepared(v *classify.Verdict) bool {
	if v.Class == classify.Read {
		return false
	}
	for i := range v.Statements {
		if slices.ContainsFunc(v.Statements[i].Reads, func(r classify.RelRef) bool { return r.Name == preparedView }) {
			return true
		}
	}
	return false
}

// shows tells whether one of a group's statements does.
func (c *client) shows(g *group) bool {
	for i := g.from; i < g.to; i++ {
		if o := &c.ops[i]; o.typ == msgBind && o.st != nil && o.st.showsPrepared {
			return true
		}
	}
	return false
}

// laidSavepoint keeps a transaction from what fails to be prepared once more.
const laidSavepoint = "pgdist_laid"

// lay lays out what the client has prepared, in the order in which it was, but for what cannot be
// prepared any more. An open transaction goes on as it was.
func (c *client) lay(u *upstream) error {
	if u.status == 'E' {
		return nil
	}
	var list []*statement
	for name, st := range c.statements {
		if name != "" {
			list = append(list, st)
		}
	}
	slices.SortFunc(list, func(a, b *statement) int { return cmp.Compare(a.made, b.made) })
	u.partAll()
	if err := c.closeAll(u, u.farewells, nil); err != nil {
		return err
	}
	u.farewells = u.farewells[:0]
	block := (u.status == 'T' || u.hasAhead) && len(list) > 0
	if block {
		if _, err := u.Run(c.ctx, "SAVEPOINT "+laidSavepoint); err != nil {
			return err
		}
	}
	for _, st := range list {
		switch err := c.layOne(u, st); {
		case err == nil:
			u.laid = append(u.laid, st.name)
		case u.IsClosed():
			return err
		case block:
			if _, err := u.Run(c.ctx, "ROLLBACK TO SAVEPOINT "+laidSavepoint); err != nil {
				return err
			}
		}
	}
	if block {
		if _, err := u.Run(c.ctx, "RELEASE SAVEPOINT "+laidSavepoint); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) layOne(u *upstream, st *statement) error {
	swallow := u.start()
	b, at := begin(u.out, msgParse)
	b = append(append(b, st.name...), 0)
	b = append(append(b, st.sql...), 0)
	u.out = appendMessage(end(append(b, st.rest...), at), msgSync, nil)
	return u.converse(c.ctx, swallow, func(byte, []byte) {})
}

// unlay takes away what was laid out.
func (c *client) unlay(u *upstream) error {
	names := u.laid
	u.laid = nil
	if u.IsClosed() {
		return nil
	}
	return c.closeAll(u, nil, names)
}

// closeAll closes prepared statements of the gateway's by number, and others by name.
func (c *client) closeAll(u *upstream, ids []uint64, names []string) error {
	if len(ids)+len(names) == 0 {
		return nil
	}
	swallow := u.start()
	for _, id := range ids {
		u.out = appendText(u.out, msgClose, "S"+serverName(id))
	}
	for _, name := range names {
		u.out = appendText(u.out, msgClose, "S"+name)
	}
	u.out = appendMessage(u.out, msgSync, nil)
	return u.converse(c.ctx, swallow, func(byte, []byte) {})
}

// isLaid tells a statement that runs while it is laid out: it is to be seen once.
func (u *upstream) isLaid(st *statement) bool {
	return len(u.laid) > 0 && st.showsPrepared && slices.Contains(u.laid, st.name)
}

// laidOut runs what relays a statement with what its client has prepared laid out. A connection
// that does not get rid of it is nobody's any more.
func (c *client) laidOut(u *upstream, run func() error) error {
	err := c.lay(u)
	if err == nil {
		c.goesOn(u)
		err = run()
	}
	if e := c.unlay(u); e != nil {
		e = u.broken(e)
		if err == nil {
			return e
		}
	}
	return err
}
