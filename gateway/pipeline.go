package gateway

import (
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/engine"
)

// A client's messages of the extended protocol are collected up to its Sync, or
// Flush, and then run together: what comes before one Sync is one transaction
// (PostgreSQL docs, "Pipelining"), so where it runs depends on all of it.

// op is one message of a pipeline.
type op struct {
	typ      byte
	from, to int        // its body in the client's text
	st       *statement // concerned; nil if it is not known here
	portal   *portal    // of an Execute, nil if it is not known here
	local    bool       // carried out here
	resolved bool
	prev     int // one more than the place of the op before that concerns the same name (chain)
	err      *pgconn.PgError
}

// maxPipeline is how many bytes of a pipeline are collected before they are run, in
// a transaction that its Sync ends.
const maxPipeline = 16 << 20

// collect takes a message into the pipeline.
func (c *client) collect(typ byte, body []byte) error {
	if c.skip {
		return nil
	}
	c.begun()
	from := len(c.text)
	c.text = append(c.text, body...)
	c.ops = append(c.ops, op{typ: typ, from: from, to: len(c.text)})
	if len(c.text) > maxPipeline && len(c.ops) > 1 {
		return c.runOpen()
	}
	return nil
}

// sync ends the pipeline.
func (c *client) sync() error {
	c.begun()
	if c.skip {
		c.skip = false
		c.ready()
		return nil
	}
	c.copied = false
	if len(c.ops) > 0 {
		if err := c.runPipeline(); err != nil {
			return err
		}
	}
	c.endSync()
	return nil
}

// endSync answers a Sync.
func (c *client) endSync() {
	c.endScript()
	c.skip = false
	if !c.copied { // a COPY has taken this Sync for itself: another one follows it
		c.ready()
	}
}

// endScript commits what a Flush had left open.
func (c *client) endScript() {
	if c.script == nil {
		return
	}
	x := c.script
	c.script = nil
	if _, err := x.End(c.ctx); err != nil {
		c.report(err)
	}
}

// flushPipeline answers what was sent so far.
func (c *client) flushPipeline(body []byte) error {
	if len(body) > 0 && !c.skip {
		if err := c.flushPipeline(nil); err != nil || c.skip {
			return err
		}
		c.skip = true
		c.failOpen(protocolError(badEnd))
		return nil
	}
	if c.skip || len(c.ops) == 0 {
		return nil
	}
	for i := range c.ops {
		if t := c.ops[i].typ; t == msgBind || t == msgExecute {
			return c.runOpen()
		}
	}
	return c.runPipeline()
}

// syncBroken ends the pipeline with a Sync that has a body: an error, and what was to be
// committed is not.
func (c *client) syncBroken() error {
	c.begun()
	if len(c.ops) > 0 && !c.skip {
		if err := c.runOpen(); err != nil {
			return err
		}
	}
	c.skip = false
	c.failOpen(protocolError(badEnd))
	if !c.session.InTransaction() {
		clear(c.portals)
	}
	c.ready()
	return nil
}

// failOpen reports an error that undoes what a pipeline has left open.
func (c *client) failOpen(e error) {
	c.fail(c.session.Abort(c.ctx, e))
	if x := c.script; x != nil {
		c.script = nil
		_, err := x.Fail(c.ctx, c.failure)
		c.refail(err)
	}
}

// runOpen runs what there is of a pipeline in a transaction that its Sync will end.
func (c *client) runOpen() error {
	if c.script == nil && !c.session.InTransaction() {
		x := c.session.NewScript()
		if err := x.Open(c.ctx); err != nil {
			c.reset()
			c.skip = true
			c.report(err)
			return nil
		}
		c.script = x
	}
	return c.runPipeline()
}

// reset forgets the pipeline.
func (c *client) reset() {
	for _, p := range c.portals {
		p.at = -1
	}
	clear(c.ops)
	if len(c.about) > 64 {
		c.about = nil // clearing it would cost every pipeline to come as much as this one
	}
	clear(c.about)
	c.ops, c.text, c.dropped, c.leaving, c.ended = c.ops[:0], c.text[:0], 0, false, 0
	if cap(c.text) > 2*largeBuffer {
		c.text = nil
	}
}

// body is an op's.
func (c *client) body(o *op) []byte { return c.text[o.from:o.to] }

// runPipeline runs the ops collected. Its error ends the client.
func (c *client) runPipeline() error {
	p := c.plan()
	var failed bool
	var err error
	if p.scripted && c.script == nil {
		failed, err = c.runScripted(p)
	} else {
		failed, err = c.runGroups(p, c.script, true)
	}
	c.endPipeline(failed)
	return err
}

// endPipeline follows what the end of a pipeline means for its portals, and forgets it.
func (c *client) endPipeline(failed bool) {
	if c.ended > 0 {
		for name, p := range c.portals {
			if c.gone(p) {
				delete(c.portals, name)
			}
		}
	}
	if failed {
		c.skip = true
		if c.script != nil {
			c.script = nil
		}
		for name, p := range c.portals { // skipped, or gone with what failed
			if p.at >= 0 && !(p.made && c.session.InBlock()) {
				delete(c.portals, name)
			}
		}
	}
	if !c.session.InTransaction() {
		clear(c.portals)
	}
	c.reset()
}

// plan is how the ops of a pipeline are run: in groups, each on one connection, or
// here.
type plan struct {
	groups   []group
	scripted bool // several groups that are one transaction
}

// group is a part of a pipeline, ops[from:to].
type group struct {
	from, to int
	local    bool
	neutral  bool // it can be answered wherever what follows is
	executes int
	binds    bool
}

// plan looks up what each op concerns and divides them.
func (c *client) plan() plan {
	c.resolveAll()
	c.refuseOutside()
	p := plan{groups: c.groups[:0]}
	executes, first, last := 0, 0, 0 // first has a Bind
	alone, copying := false, false
	for i := range c.ops {
		o := &c.ops[i]
		o.local = o.err != nil || o.st != nil && o.st.special && o.typ != msgClose || c.deallocates(i) || o.typ == msgExecute && o.portal != nil && (o.portal.to != nil || o.portal.channels != nil)
		switch {
		case o.portal == nil || o.err != nil:
		case o.typ == msgBind:
			o.portal.here = o.local
		default:
			o.local = o.local || o.portal.here
		}
		if copying {
			o.local = false // the server says that it has no place in a COPY
		}
		copying = copying || o.typ == msgExecute && !o.local && copiesIn(o.st)
		n := len(p.groups)
		neutral := o.typ == msgClose && o.st != nil && !copying
		switch {
		case n == 0:
			p.groups = append(p.groups, group{from: i, local: o.local || neutral, neutral: neutral})
			n++
		case neutral:
		case p.groups[n-1].neutral: // no server is asked for that alone: there may be none
			p.groups[n-1].local, p.groups[n-1].neutral = o.local, false
		case p.groups[n-1].local != o.local:
			p.groups = append(p.groups, group{from: i, local: o.local})
			n++
		}
		p.groups[n-1].to = i + 1
		if o.typ == msgBind {
			p.groups[n-1].binds = true
			if first == 0 {
				first = n
			}
		}
		if o.typ == msgExecute {
			p.groups[n-1].executes++
			lonely := o.local && o.err == nil && runsAlone(&o.st.verdict.Statements[0])
			if !lonely || !o.portal.seen {
				executes++
			}
			if o.portal != nil {
				o.portal.seen = true
			}
			alone = alone || lonely
			last = n
		}
	}
	c.groups = p.groups
	p.scripted = executes > 1 && (len(p.groups) > 1 || p.groups[0].local) || executes > 0 && !alone && (last < len(p.groups) || first > 0 && first < last)
	return p
}

// runScripted runs groups that are one transaction.
func (c *client) runScripted(p plan) (failed bool, err error) {
	for {
		x := c.session.NewScript()
		begun := c.at()
		failed, err := c.runGroups(p, x, false)
		if err != nil {
			return true, err
		}
		if !failed {
			again, e := x.End(c.ctx) // Sync's COMMIT
			if again && c.sent <= begun {
				c.undo(begun)
				continue
			}
			if e != nil {
				c.fail(e)
			}
			return e != nil, nil
		}
		again, e := x.Fail(c.ctx, c.failure)
		if again && c.sent <= begun {
			c.undo(begun)
			continue
		}
		c.refail(e)
		return true, nil
	}
}

// undo takes back what an attempt at a pipeline has answered, and done to its portals.
func (c *client) undo(begun uint64) {
	c.cut(begun)
	c.ended = 0
	for i := range c.ops {
		if p := c.ops[i].portal; p != nil && p.at >= 0 {
			p.ran, p.made, p.listed = false, false, 0
		}
	}
}

// refail replaces the error reported last by another one.
func (c *client) refail(err error) {
	if err != nil && err != c.failure {
		c.cut(c.failedAt)
		c.fail(err)
	}
}

// runGroups runs one group after another until one fails. report tells whether
// errors end the script, if there is one.
func (c *client) runGroups(p plan, x *engine.Script, ends bool) (failed bool, err error) {
	for i := range p.groups {
		g := &p.groups[i]
		if x != nil && !g.local && (g.executes > 0 || g.binds) {
			if e := x.Open(c.ctx); e != nil {
				c.fail(e)
				return true, nil
			}
		}
		if g.local {
			failed = c.runLocal(g, x)
		} else {
			failed, err = c.runGroup(g)
		}
		if err != nil || failed {
			if err == nil && failed && ends && x != nil { // else the session's end rolls back
				_, e := x.Fail(c.ctx, c.failure)
				c.refail(e)
			}
			return failed, err
		}
	}
	return false, nil
}

// fail reports an error and keeps it for the script.
func (c *client) fail(err error) {
	c.failure, c.failedAt = err, c.at()
	c.report(err)
}

// runGroup runs ops on one connection, again if need be.
func (c *client) runGroup(g *group) (failed bool, err error) {
	call := c.callFor(g)
	for {
		again, failed, err := c.attempt(call, func(lease *engine.Lease, u *upstream) error {
			return c.exchange(lease, u, g)
		})
		if !again {
			return failed, err
		}
	}
}
