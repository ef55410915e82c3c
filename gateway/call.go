package gateway

import (
	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/engine"
)

// callFor is what the engine is told of a group.
func (c *client) callFor(g *group) engine.Call {
	call := engine.Call{}
	leaderOnly := false
	var first *statement
	merged := false
	open, named := 0, false
	for i := g.from; i < g.to; i++ {
		o := &c.ops[i]
		if o.err != nil { // behind a COPY, whose server has something to say first
			continue
		}
		leaderOnly = leaderOnly || o.st != nil && o.st.leaderOnly
		switch o.typ {
		case msgBind:
			open++
			named = named || c.body(o)[0] != 0
		case msgDescribe, msgClose:
			body := c.body(o)
			named = named || body[0] == 'P' && body[1] != 0 || o.typ == msgClose && o.st == nil // portals, and what SQL has prepared
		case msgExecute:
			open--
			body := c.body(o)
			named = named || body[0] != 0
			if tail := body[len(body)-4:]; tail[0]|tail[1]|tail[2]|tail[3] != 0 {
				call.Portal = true
			}
			switch {
			case o.st == nil:
			case first == nil:
				first = o.st
			default:
				merged = true
			}
		}
	}
	call.Portal = (call.Portal || open > 0) && c.session.InTransaction() || named && c.session.Held() != nil // cursors are portals, too
	if leaderOnly {
		call.Route = engine.RouteLeader
	}
	switch {
	case first == nil:
		call.SQL, call.Verdict = c.prepareOnly(g)
	case !merged:
		call.SQL, call.Verdict = first.sql, first.verdict
		c.bindParameters(&call, g)
	default:
		call.Verdict = c.merge(g)
	}
	return call
}

// bindParameters lets the engine see what a set_config is given.
func (c *client) bindParameters(call *engine.Call, g *group) {
	if len(call.Verdict.Statements) != 1 || len(call.Verdict.Statements[0].Sets) == 0 {
		return
	}
	for i := g.from; i < g.to; i++ {
		if c.ops[i].typ == msgBind {
			call.Param = textParams(c.body(&c.ops[i]))
		}
	}
}

// readVerdict and lookVerdict are for groups that only parse or describe: one of
// reads may do so anywhere, any other where its tables are the newest.
var (
	readVerdict = &classify.Verdict{Class: classify.Read, Because: "prepares a read", Statements: []classify.Statement{{Class: classify.Read, Tag: "SELECT", End: -1}}}
	lookVerdict = &classify.Verdict{Class: classify.LeaderRead, Because: "prepares a statement", Statements: []classify.Statement{{Class: classify.LeaderRead, Tag: "SELECT", Catalog: true, End: -1}}}
)

func (c *client) prepareOnly(g *group) (string, *classify.Verdict) {
	for i := g.from; i < g.to; i++ {
		st := c.ops[i].st
		if c.ops[i].typ == msgClose {
			continue
		}
		if st == nil || st.verdict == nil || st.verdict.Class != classify.Read {
			return "", lookVerdict
		}
	}
	return "", readVerdict
}

// merge makes one verdict of those of all that is executed.
func (c *client) merge(g *group) *classify.Verdict {
	v := &classify.Verdict{}
	for i := g.from; i < g.to; i++ {
		o := &c.ops[i]
		if o.typ != msgExecute || o.st == nil || o.st.verdict == nil {
			continue
		}
		w := o.st.verdict
		if len(v.Statements) == 0 || v.Class.Stronger(w.Class) != v.Class {
			v.Class, v.Because = w.Class, w.Because
		}
		if len(v.Statements) == 0 || c.ops[i].st != c.lastExecuted(g, i) { // the same one over and over counts once or twice
			v.Statements = append(v.Statements, w.Statements...)
		}
	}
	if len(v.Statements) == 1 {
		v.Statements = append(v.Statements, v.Statements[0])
	}
	return v
}

func (c *client) lastExecuted(g *group, i int) *statement {
	for i--; i >= g.from; i-- {
		if c.ops[i].typ == msgExecute {
			return c.ops[i].st
		}
	}
	return nil
}
