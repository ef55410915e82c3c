package gateway

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/engine"
)

// numberVerdict is for a function that is called by its number: no text tells which, so it is taken
// for one that writes, and leaves on its connection whatever can be left there.
var numberVerdict = &classify.Verdict{
	Class: classify.Write, Because: "calls a function by its number",
	Statements: []classify.Statement{{Class: classify.Write, Tag: "SELECT", Sequences: true, End: -1,
		Pin: classify.PinTemp | classify.PinAdvisoryLock | classify.PinHoldCursor | classify.PinPrepared | classify.PinSeed | classify.PinSequence | classify.PinSetting}},
}

// largeObjects are the functions that work on large objects, in the order of their names: lo_close,
// lo_creat, lo_create, lo_export, … (src/include/catalog/pg_proc.dat; no version has other numbers).
// libpq's lo_creat() and its like, and pgJDBC's large objects, call them so.
var largeObjects = []uint32{953, 957, 715, 765, 3457, 3458, 3459, 764, 767, 956, 3170, 952, 3460, 958, 3171, 1004, 3172, 964, 954, 955}

// largeVerdict is what SQL hears that calls one of them.
var largeVerdict = classify.Parse("SELECT pg_catalog.lo_create(0)")

// query runs a simple query.
func (c *client) query(body []byte) error {
	if c.skip {
		return nil
	}
	c.begun()
	text := string(body)
	if len(c.ops) > 0 { // without a Sync before it: both are one transaction
		if err := c.flushPipeline(nil); err != nil || c.skip {
			return err
		}
	}
	sql, rest, ok := strings.Cut(text, "\x00")
	if !ok || rest != "" {
		wrong := badEnd
		if !ok {
			wrong = badString
		}
		c.fail(c.session.Abort(c.ctx, protocolError(wrong)))
		c.endQuery(true)
		return nil
	}
	c.beginQuery()
	if err := c.runQuery(sql); err != nil {
		return err
	}
	c.endQuery(c.failure != nil)
	return nil
}

// beginQuery forgets what a simple query ends.
func (c *client) beginQuery() {
	if st := c.statements[""]; st != nil {
		c.forget(st)
	}
	c.failure = nil
}

// endQuery ends a simple query, and the transaction that a pipeline without a Sync before it
// had begun.
func (c *client) endQuery(failed bool) {
	if x := c.script; x != nil {
		c.script = nil
		var err error
		if failed {
			_, err = x.Fail(c.ctx, c.failure)
			c.refail(err)
		} else if _, err = x.End(c.ctx); err != nil {
			c.cut(c.relaying.complete)
			c.fail(err)
		}
	}
	if !c.session.InTransaction() {
		clear(c.portals)
	}
	c.ready()
}

// carryOut has a server run a text, and passes on what it answers.
func (c *client) carryOut(u *upstream, sql string) error {
	c.ask(u, sql)
	err := c.relay()
	c.keepMessage(msgQuery, append([]byte(sql), 0))
	return err
}

// simple runs a text on one connection by the simple protocol.
func (c *client) simple(call engine.Call) (failed bool, err error) {
	shows := showsPrepared(call.Verdict)
	for {
		again, failed, err := c.attempt(call, func(_ *engine.Lease, u *upstream) error {
			if shows {
				return c.laidOut(u, func() error { return c.carryOut(u, call.SQL) })
			}
			return c.carryOut(u, call.SQL)
		})
		if !again {
			return failed, err
		}
	}
}

// ask puts together a query by the simple protocol.
func (c *client) ask(u *upstream, sql string) {
	c.expected = c.expected[:0]
	u.unnamed = nil
	c.relaying.swallow = u.start()
	u.out = appendText(u.out, msgQuery, sql)
}

// functionCall relays a call of a function by its number.
func (c *client) functionCall(body []byte) error {
	if c.skip {
		return nil
	}
	c.begun()
	body = bytes.Clone(body)
	if len(c.ops) > 0 { // without a Sync before it
		if err := c.flushPipeline(nil); err != nil || c.skip {
			return err
		}
	}
	call := engine.Call{Verdict: numberVerdict}
	if len(body) >= 4 && slices.Contains(largeObjects, binary.BigEndian.Uint32(body)) {
		call.Verdict = largeVerdict
	}
	for {
		again, failed, err := c.attempt(call, func(_ *engine.Lease, u *upstream) error {
			r := &c.relaying
			c.expected = c.expected[:0]
			r.swallow = u.start()
			u.out = appendMessage(u.out, msgFunctionCall, body)
			err := c.relay()
			c.keepMessage(msgFunctionCall, body)
			return err
		})
		if err != nil {
			return err
		}
		if !again {
			c.endQuery(failed) // it ends what a simple query does
			return nil
		}
	}
}

// runQuery runs the statements of one Query message. Its error ends the client.
func (c *client) runQuery(sql string) error {
	v := c.server.engine.Classify(sql)
	if len(v.Statements) == 0 {
		c.out = appendMessage(c.out, msgEmptyQuery, nil)
		return nil
	}
	delete(c.portals, "")
	if len(v.Statements) == 1 && v.Class != classify.Refused && !c.session.InBlock() {
		if what := needsBlock(&v.Statements[0]); what != "" {
			c.fail(outsideBlock(what))
			return nil
		}
	}
	if v.Class != classify.Read && len(v.Statements) == 1 && c.runSignal(sql) {
		return nil
	}
	if c.ear != nil && v.Class != classify.Read && c.runChannels(sql, v) {
		return nil
	}
	if v.Class != classify.Refused && c.session.Runs(v) {
		if len(v.Statements) == 1 {
			c.runSpecial(sql, v)
			return nil
		}
		return c.runScript(sql, v)
	}
	if len(v.Statements) > 1 && v.Class != classify.Refused && slices.ContainsFunc(v.Statements, deallocates) {
		return c.runScript(sql, v)
	}
	if len(v.Statements) == 1 && v.Statements[0].Prepared != nil && v.Statements[0].Prepared.Kind == classify.Deallocate {
		return c.runDeallocate(sql, v)
	}
	_, err := c.simple(engine.Call{SQL: sql, Verdict: v})
	return err
}

func deallocates(st classify.Statement) bool {
	return st.Prepared != nil && st.Prepared.Kind == classify.Deallocate
}

// runSpecial has the session carry out a statement.
func (c *client) runSpecial(sql string, v *classify.Verdict) {
	st := &v.Statements[0]
	b := c.before(false)
	began := c.mark()
	var tag string
	var err error
	if c.script != nil {
		tag, err = c.script.Exec(c.ctx, st, st.Text(sql))
	} else {
		tag, err = c.session.Exec(c.ctx, engine.Call{SQL: sql, Verdict: v})
	}
	c.carried(sql, v, began, err)
	c.after(st, err)
	if err != nil {
		c.fail(err)
		return
	}
	c.warn(st, b)
	c.warnCut(st, sql)
	c.complete(tag)
}

// before is what warn is to know of how things stood before a statement.
type before struct {
	in    bool // a transaction of the client's was open
	block bool // or several statements are in one string, which is a block, too
	at    uint64
}

func (c *client) before(inString bool) before {
	in := c.session.InBlock()
	return before{in: in, block: in || inString, at: c.at()}
}

// warn says what PostgreSQL says of a statement that only makes sense in a transaction,
// or outside one, unless a server has said it.
func (c *client) warn(st *classify.Statement, b before) {
	if c.at() != b.at {
		return
	}
	warning := func(code, message, routine string) {
		c.out = appendError(c.out, msgNotice, &pgconn.PgError{Severity: "WARNING", Code: code, Message: message, File: "xact.c", Routine: routine})
	}
	outside := func(what string) {
		if !b.block {
			warning("25P01", what+" can only be used in transaction blocks", "CheckTransactionBlock")
		}
	}
	switch {
	case st.Tx == nil:
		if st.Set != nil && st.Set.Local {
			outside("SET LOCAL")
		}
	case st.Tx.Kind == classify.TxBegin && b.in:
		warning("25001", "there is already a transaction in progress", "BeginTransactionBlock")
	case st.Tx.Kind == classify.TxSetTransaction && st.Set == nil:
		outside("SET TRANSACTION")
	case st.Tx.Kind == classify.TxSetTransaction && st.Set.Local: // a plain SET transaction_read_only warns of nothing
		outside("SET LOCAL")
	case st.Tx.Kind == classify.TxCommit && !b.in:
		warning("25P01", "there is no transaction in progress", "EndTransactionBlock")
	case st.Tx.Kind == classify.TxRollback && !b.in:
		warning("25P01", "there is no transaction in progress", "UserAbortTransactionBlock")
	}
}

// warnCommit says of a COMMIT that failed what PostgreSQL says before it commits.
func (c *client) warnCommit(st *classify.Statement, b before) {
	if st.Tx != nil && st.Tx.Kind == classify.TxCommit && !st.Tx.Chain {
		c.warn(st, b)
	}
}

// runDeallocate carries out DEALLOCATE, whose name may be one that the client
// prepared by the protocol.
func (c *client) runDeallocate(sql string, v *classify.Verdict) error {
	st := &v.Statements[0]
	if c.session.Status() != 'E' && c.deallocate(st.Prepared) {
		c.complete(st.Tag)
		return nil
	}
	_, err := c.simple(engine.Call{SQL: sql, Verdict: v})
	return err
}

// runScript runs a string of statements one by one, because the session has to
// carry some of them out itself.
func (c *client) runScript(sql string, v *classify.Verdict) error {
	if c.server.tracer != nil { // its comment is every statement's
		c.whole = sql
		defer func() { c.whole = "" }()
	}
	if err := c.session.Check(c.ctx, engine.Call{SQL: sql, Verdict: v}); err != nil {
		c.fail(err)
		return nil
	}
	for {
		begun := c.at()
		x := c.session.NewScript()
		failed, err := c.runStatements(x, sql, v)
		if err != nil {
			return err
		}
		if !failed {
			ended := c.at()
			again, e := x.End(c.ctx)
			if again && c.sent <= begun {
				c.cut(begun)
				continue
			}
			if c.committed(ended, e == nil); e != nil {
				c.fail(e)
			}
			return nil
		}
		again, e := x.Fail(c.ctx, c.failure)
		if again && c.sent <= begun {
			c.cut(begun)
			continue
		}
		c.refail(e)
		return nil
	}
}

func (c *client) runStatements(x *engine.Script, sql string, v *classify.Verdict) (failed bool, err error) {
	for i := range v.Statements {
		st := &v.Statements[i]
		text := st.Text(sql)
		switch {
		case c.session.Special(st):
			b := c.before(true)
			began := engine.Now()
			c.warnCommit(st, b) // what deferred triggers say comes after it
			tag, e := x.Exec(c.ctx, st, text)
			if c.server.tracer != nil {
				c.span(text, single(st), began, engine.Now(), nil, e)
			}
			c.after(st, e)
			if e != nil {
				c.fail(engine.ShiftError(e, sql, st))
				return true, nil
			}
			c.warn(st, b)
			c.warnCut(st, sql)
			c.relaying.complete = c.at()
			c.complete(tag)
		case deallocates(*st) && c.session.Status() != 'E' && c.deallocate(st.Prepared):
			c.relaying.complete = c.at()
			c.complete(st.Tag)
		default:
			if e := x.Open(c.ctx); e != nil {
				c.fail(e)
				return true, nil
			}
			failed, err := c.simple(engine.Call{SQL: text, Verdict: single(st)})
			if err != nil {
				return true, err
			}
			if failed {
				c.refail(engine.ShiftError(c.failure, sql, st))
				return true, nil
			}
		}
	}
	return false, nil
}

// single is the verdict on a statement that is taken out of a string of several.
func single(st *classify.Statement) *classify.Verdict {
	one := &classify.Verdict{Class: st.Class, Because: st.Because, Statements: []classify.Statement{*st}}
	one.Statements[0].Start, one.Statements[0].End = 0, -1
	return one
}
