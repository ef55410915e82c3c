package gateway

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/engine"
)

// runLocal answers ops that no server hears of as they are.
func (c *client) runLocal(g *group, x *engine.Script) (failed bool) {
	for i := g.from; i < g.to; i++ {
		o := &c.ops[i]
		if o.err == nil && c.session.Status() == 'E' && o.typ != msgClose && o.typ != msgDescribe && !leaves(o.st) {
			o.err = abortedError()
		}
		if o.err != nil {
			if o.typ == msgParse && o.st != nil {
				c.failedParse(o.st)
			}
			c.fail(c.session.Abort(c.ctx, o.err))
			return true
		}
		switch o.typ {
		case msgParse:
			c.register(o.st)
			c.warnCut(&o.st.verdict.Statements[0], o.st.sql)
			c.out = appendMessage(c.out, msgParseComplete, nil)
		case msgBind:
			if err := c.heldCursor(o); err != nil {
				c.fail(c.session.Abort(c.ctx, err))
				return true
			}
			o.portal.made = true
			c.out = appendMessage(c.out, msgBindComplete, nil)
		case msgDescribe:
			if o.portal != nil && c.gone(o.portal) {
				return c.failPortal(o, "34000", "does not exist")
			}
			if c.body(o)[0] == 'S' {
				c.out = appendMessage(c.out, msgParameterDescription, o.st.rest)
			}
			c.out = appendMessage(c.out, msgNoData, nil)
		case msgClose:
			c.closeStatement(o.st)
		case msgExecute:
			if failed := c.runPortal(i, x); failed {
				return true
			}
		}
	}
	return false
}

// heldCursor is what a Bind hears whose portal has the name of a cursor WITH HOLD, which only the
// server knows of that has it.
func (c *client) heldCursor(o *op) error {
	name, _, _ := cstring(c.body(o))
	if len(name) == 0 || c.session.Pins()&classify.PinHoldCursor == 0 || c.session.Held() == nil || c.session.Status() == 'E' {
		return nil
	}
	rows, err := c.session.Held().Rows(c.ctx, "SELECT 1 FROM pg_catalog.pg_cursors WHERE name = $1", string(name))
	if err == nil && len(rows) > 0 {
		err = cursorExists(string(name))
	}
	return err
}

// runPortal has the session carry out what an Execute asks for.
func (c *client) runPortal(i int, x *engine.Script) (failed bool) {
	o := &c.ops[i]
	switch {
	case c.gone(o.portal):
		return c.failPortal(o, "34000", "does not exist")
	case c.session.Status() == 'E' && !leaves(o.st):
		c.fail(abortedError())
		return true
	case o.portal.channels != nil:
		c.executeChannels(o)
		return false
	case o.portal.ran && c.session.Status() != 'E':
		return c.failPortal(o, "55000", "cannot be run")
	}
	o.portal.ran = true
	if o.portal.to != nil {
		c.send(o.st.signal, o.portal.to)
		c.signalled(o.portal.binary)
		return false
	}
	only := &o.st.verdict.Statements[0]
	before := c.before(false)
	tag, err := c.execute(o.st, x)
	if only.Tx != nil && (only.Tx.Kind == classify.TxCommit || only.Tx.Kind == classify.TxRollback) || only.Set != nil && only.Set.Kind == classify.SetDiscardAll {
		c.ended = i + 1
	}
	if err != nil {
		c.warnCommit(only, before)
		c.fail(inPipeline(err, x != nil && !before.in))
		return true
	}
	c.warn(only, before)
	c.relaying.complete = c.at()
	c.complete(tag)
	return false
}

// inPipeline has an error say where its statement cannot run.
func inPipeline(err error, is bool) error {
	var pe *pgconn.PgError
	if !is || !errors.As(err, &pe) || pe.Code != "25001" {
		return err
	}
	told := *pe
	told.Message = strings.Replace(pe.Message, "cannot run inside a transaction block", "cannot be executed within a pipeline", 1)
	return &told
}

func (c *client) failPortal(o *op, code, what string) bool {
	name := c.body(o)
	if o.typ == msgDescribe {
		name = name[1:]
	}
	name, _, _ = cstring(name)
	c.fail(c.session.Abort(c.ctx, &pgconn.PgError{Severity: "ERROR", Code: code, Message: `portal "` + string(name) + `" ` + what}))
	return true
}

// gone tells a portal that has gone with its transaction. It is asked for, and not noted in each portal
// when a transaction ends: a pipeline may have tens of thousands of either.
func (c *client) gone(p *portal) bool { return c.ended > 0 && p.at < c.ended }

// leaves tells the statements that a transaction takes after an error.
func leaves(st *statement) bool {
	if st == nil || st.verdict == nil || len(st.verdict.Statements) != 1 || st.verdict.Statements[0].Tx == nil {
		return false
	}
	switch st.verdict.Statements[0].Tx.Kind {
	case classify.TxCommit, classify.TxRollback, classify.TxRollbackTo:
		return true
	}
	return false
}

func (c *client) closeStatement(st *statement) {
	if st != noStatement {
		c.forget(st)
	}
	c.out = appendMessage(c.out, msgCloseComplete, nil)
}

// execute has the session carry out a special statement.
func (c *client) execute(st *statement, x *engine.Script) (tag string, err error) {
	only := &st.verdict.Statements[0]
	if st.deallocates {
		c.deallocate(only.Prepared)
		return only.Tag, nil
	}
	began := c.mark()
	if x != nil {
		tag, err = x.Exec(c.ctx, only, only.Text(st.sql))
	} else {
		tag, err = c.session.Exec(c.ctx, engine.Call{SQL: st.sql, Verdict: st.verdict})
	}
	c.carried(st.sql, st.verdict, began, err)
	c.after(only, err)
	return tag, err
}

// after follows what a special statement means for the client's view of its session.
func (c *client) after(st *classify.Statement, err error) {
	if err == nil && st.Set != nil && (st.Set.Kind == classify.SetResetAll || st.Set.Kind == classify.SetReset && st.Set.Name == paramReadOnly) {
		c.parameter(paramReadOnly, c.first[paramReadOnly]) // connections for reads do not tell
	}
	if err == nil && st.Set != nil && st.Set.Kind == classify.SetDiscardAll {
		for name, value := range c.first {
			c.parameter(name, value)
		}
		for _, s := range c.statements {
			c.forget(s)
		}
	}
}
