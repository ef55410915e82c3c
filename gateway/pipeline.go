package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgdist/pgdist/classify"
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
	err      *pgconn.PgError
}

// portal is what a Bind made.
type portal struct {
	st   *statement
	at   int  // its Bind's place in the pipeline, -1 if it is from an earlier one
	seen bool // an Execute of it is in the pipeline
	ran  bool // by the session: it cannot be run once more
	gone bool // with its transaction
	here bool // no server has it
	// to is whom a signal is for, nil if it is none or a server's affair; binary is how the
	// client wants to hear of it.
	to     *client
	binary bool
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
	c.endScript()
	c.skip = false
	if !c.copied { // a COPY has taken this Sync for itself: another one follows it
		c.ready()
	}
	return nil
}

// endScript commits what a Flush had left open.
func (c *client) endScript() {
	if c.script == nil {
		return
	}
	x := c.script
	c.script = nil
	if err := x.End(c.ctx); err != nil {
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
		c.report(c.session.Abort(c.ctx, protocolError(badEnd)))
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
	c.ops, c.text = c.ops[:0], c.text[:0]
	if cap(c.text) > 2*largeBuffer {
		c.text = nil
	}
}

// body is an op's.
func (c *client) body(o *op) []byte { return c.text[o.from:o.to] }

// runPipeline runs the ops collected. Its error ends the client.
func (c *client) runPipeline() error {
	defer c.reset()
	p := c.plan()
	var failed bool
	var err error
	if p.scripted && c.script == nil {
		failed, err = c.runScripted(p)
	} else {
		failed, err = c.runGroups(p, c.script, true)
	}
	if failed {
		c.skip = true
		if c.script != nil {
			c.script = nil
		}
		for name, p := range c.portals { // skipped, or gone with what failed
			if p.at >= 0 {
				delete(c.portals, name)
			}
		}
	}
	if !c.session.InTransaction() {
		clear(c.portals)
	}
	return err
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
		o.local = o.err != nil || o.st != nil && o.st.special && o.typ != msgClose || c.deallocates(i) || o.typ == msgExecute && o.portal != nil && o.portal.to != nil
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
		neutral := o.typ == msgClose && o.st != nil
		if n == 0 || p.groups[n-1].local != o.local && !neutral {
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

// runsAlone tells what no transaction takes.
func runsAlone(st *classify.Statement) bool {
	return st.NoTx || st.Set != nil && st.Set.Kind == classify.SetDiscardAll
}

// copiesIn tells a COPY FROM STDIN.
func copiesIn(st *statement) bool {
	if st == nil || len(st.verdict.Statements) != 1 {
		return false
	}
	c := st.verdict.Statements[0].Copy
	return c != nil && c.From && !c.Server
}

// copies tells whether the pipeline has a COPY, which what the client sends may be for.
func (c *client) copies() bool {
	c.resolveAll()
	for i := range c.ops {
		o := &c.ops[i]
		if o.typ == msgExecute && o.st != nil && len(o.st.verdict.Statements) == 1 && o.st.verdict.Statements[0].Tag == "COPY" {
			return true
		}
	}
	return false
}

// refuseOutside has those ops fail that ask for a transaction block where none is: the
// transaction that a pipeline is does not count (RequireTransactionBlock in xact.c).
func (c *client) refuseOutside() {
	in := c.session.InBlock()
	for i := range c.ops {
		o := &c.ops[i]
		if o.typ != msgExecute || o.st == nil || o.err != nil || len(o.st.verdict.Statements) != 1 {
			continue
		}
		st := &o.st.verdict.Statements[0]
		switch what := needsBlock(st); {
		case what != "" && !in:
			o.err = outsideBlock(what)
		case st.Tx == nil:
		case st.Tx.Kind == classify.TxBegin:
			in = true
		case st.Tx.Kind == classify.TxCommit || st.Tx.Kind == classify.TxRollback:
			in = in && st.Tx.Chain
		}
	}
}

// needsBlock names a command that there must be a transaction block for, "" for others.
func needsBlock(st *classify.Statement) string {
	switch {
	case st.Tx != nil:
		switch st.Tx.Kind {
		case classify.TxSavepoint:
			return "SAVEPOINT"
		case classify.TxRelease:
			return "RELEASE SAVEPOINT"
		case classify.TxRollbackTo:
			return "ROLLBACK TO SAVEPOINT"
		}
	case st.Tag == "LOCK TABLE":
		return st.Tag
	case st.Tag == "DECLARE CURSOR" && st.Cursor != nil && !st.Cursor.Hold:
		return st.Tag
	}
	return ""
}

func outsideBlock(what string) *pgconn.PgError {
	return &pgconn.PgError{Severity: "ERROR", Code: "25P01", Message: what + " can only be used in transaction blocks", File: "xact.c", Routine: "CheckTransactionBlock"}
}

// deallocates tells an op of a DEALLOCATE that concerns no server.
func (c *client) deallocates(i int) bool {
	o := &c.ops[i]
	if o.st == nil || !o.st.deallocates {
		return false
	}
	p := o.st.verdict.Statements[0].Prepared
	return p.Name == "" && c.session.Held() == nil || p.Name != "" && c.lookup(p.Name, i) != nil
}

func (c *client) resolveAll() {
	for i := range c.ops {
		if o := &c.ops[i]; !o.resolved {
			o.resolved = true
			c.resolve(i)
		}
	}
}

// resolve finds the statement that an op concerns, as of its place in the pipeline.
func (c *client) resolve(i int) {
	o := &c.ops[i]
	body := c.body(o)
	bad := func() { o.err = protocolError(badString) }
	switch o.typ {
	case msgParse:
		st, message := c.newStatement(body)
		if message != "" {
			o.err = protocolError(message)
			return
		}
		o.st, o.err = st, parseError(st)
		if st.name != "" && c.lookup(st.name, i) != nil {
			o.err = &pgconn.PgError{Severity: "ERROR", Code: "42P05", Message: `prepared statement "` + st.name + `" already exists`}
		}
	case msgBind:
		portalName, rest, ok := cstring(body)
		if !ok {
			bad()
			return
		}
		name, _, ok := cstring(rest)
		if !ok {
			bad()
			return
		}
		o.st = c.lookup(string(name), i)
		if o.st == nil {
			o.err = c.unknownStatement(string(name))
			return
		}
		if o.st.special && bindParams(body) > 0 && strings.Contains(o.st.sql, "$") {
			o.st.special = false
		}
		if o.st.special || c.deallocates(i) {
			o.err = c.bindError(o.st, string(portalName), body)
		}
		if o.err != nil {
			return
		}
		o.portal = &portal{st: o.st, at: i}
		if o.st.signal != nil {
			c.bindSignal(o.portal, body)
		}
		c.portals[string(portalName)] = o.portal
	case msgDescribe, msgClose:
		if len(body) < 1 {
			o.err = protocolError(badByte)
			return
		}
		name, rest, ok := cstring(body[1:])
		switch {
		case !ok:
			bad()
		case len(rest) != 0:
			o.err = protocolError(badEnd)
		case body[0] != 'S' && body[0] != 'P':
			o.err = protocolError(fmt.Sprintf("invalid %s message subtype %d", map[byte]string{msgDescribe: "DESCRIBE", msgClose: "CLOSE"}[o.typ], body[0]))
		case body[0] == 'S' && o.typ == msgClose:
			if o.st = c.lookup(string(name), i); o.st == nil {
				o.st = noStatement
			}
		case body[0] == 'S':
			if o.st = c.lookup(string(name), i); o.st == nil {
				o.err = c.unknownStatement(string(name))
			}
		case o.typ == msgDescribe:
			if o.portal = c.portals[string(name)]; o.portal != nil {
				o.st = o.portal.st
			} else if len(name) == 0 {
				o.err = noPortal()
			}
		default:
			delete(c.portals, string(name))
		}
	case msgExecute:
		name, rest, ok := cstring(body)
		switch {
		case !ok:
			bad()
			return
		case len(rest) < 4:
			o.err = protocolError(badData)
			return
		case len(rest) > 4:
			o.err = protocolError(badEnd)
			return
		}
		if o.portal = c.portals[string(name)]; o.portal != nil {
			o.st = o.portal.st
		} else if len(name) == 0 {
			o.err = noPortal()
		}
	}
}

// noPortal is what a message hears that means an unnamed portal which there is none of: what
// the server has as such is the engine's own.
func noPortal() *pgconn.PgError {
	return &pgconn.PgError{Severity: "ERROR", Code: "34000", Message: `portal "" does not exist`}
}

// unknownStatement is what a message hears that names no statement of the client's. One
// that it prepared by SQL is known to its server only; what the server has under other
// names, and under none, is other clients'.
func (c *client) unknownStatement(name string) *pgconn.PgError {
	message := `prepared statement "` + name + `" does not exist`
	switch {
	case name == "":
		message = "unnamed prepared statement does not exist"
	case c.session.Held() != nil && !strings.HasPrefix(name, serverPrefix):
		return nil
	}
	return &pgconn.PgError{Severity: "ERROR", Code: "26000", Message: message}
}

// bindError is what a server would say to the Bind of a statement that none hears of.
func (c *client) bindError(st *statement, portal string, body []byte) *pgconn.PgError {
	formats, n := bindCounts(body)
	want := int(binary.BigEndian.Uint16(st.rest))
	switch {
	case n < 0:
		return protocolError(badData)
	case formats > 1 && formats != n:
		return protocolError(fmt.Sprintf("bind message has %d parameter formats but %d parameters", formats, n))
	case n != want:
		return protocolError(fmt.Sprintf("bind message supplies %d parameters, but prepared statement \"%s\" requires %d", n, st.name, want))
	case portal != "" && c.portals[portal] != nil && c.session.Status() != 'E':
		return &pgconn.PgError{Severity: "ERROR", Code: "42P03", Message: `cursor "` + portal + `" already exists`}
	}
	return nil
}

// parseError is the same for a Parse.
func parseError(st *statement) *pgconn.PgError {
	if !st.special || strings.Contains(st.sql, "$") {
		return nil
	}
	for i := 2; i+4 <= len(st.rest); i += 4 {
		if oid := binary.BigEndian.Uint32(st.rest[i:]); oid == 0 || oid == pgtype.UnknownOID {
			return &pgconn.PgError{Severity: "ERROR", Code: "42P18", Message: fmt.Sprintf("could not determine data type of parameter $%d", (i+2)/4)}
		}
	}
	return nil
}

// noStatement is closed where there is none, which is no error.
var noStatement = &statement{}

// lookup finds a statement by the client's name as of the op at i.
func (c *client) lookup(name string, i int) *statement {
	for i--; i >= 0; i-- {
		o := &c.ops[i]
		switch {
		case o.typ == msgParse && o.st != nil && o.err == nil && o.st.name == name:
			return o.st
		case o.typ == msgClose && o.st != nil && o.st != noStatement && o.st.name == name:
			return nil
		case o.typ == msgExecute && o.st != nil && o.st.deallocates && name != "":
			if p := o.st.verdict.Statements[0].Prepared; p.Name == "" || p.Name == name {
				return nil
			}
		}
	}
	return c.statements[name]
}

func abortedError() *pgconn.PgError {
	return &pgconn.PgError{Severity: "ERROR", Code: "25P02", Message: "current transaction is aborted, commands ignored until end of transaction block"}
}

// What PostgreSQL says of messages that are too short or too long (pqformat.c).
const (
	badByte   = "no data left in message"
	badString = "invalid string in message"
	badData   = "insufficient data left in message"
	badEnd    = "invalid message format"
)

func protocolError(message string) *pgconn.PgError {
	return &pgconn.PgError{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "08P01", Message: message}
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
			if e := x.End(c.ctx); e != nil { // Sync's COMMIT
				c.fail(e)
				failed = true
			}
			return failed, nil
		}
		again, e := x.Fail(c.ctx, c.failure)
		if again && c.sent <= begun {
			c.cut(begun)
			continue
		}
		c.refail(e)
		return true, nil
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
			if failed && ends && x != nil {
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
			c.out = appendMessage(c.out, msgParseComplete, nil)
		case msgBind:
			c.out = appendMessage(c.out, msgBindComplete, nil)
		case msgDescribe:
			if o.portal != nil && o.portal.gone {
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

// runPortal has the session carry out what an Execute asks for.
func (c *client) runPortal(i int, x *engine.Script) (failed bool) {
	o := &c.ops[i]
	switch {
	case o.portal.gone:
		return c.failPortal(o, "34000", "does not exist")
	case c.session.Status() == 'E' && !leaves(o.st):
		c.fail(abortedError())
		return true
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
		c.endPortals(i)
	}
	if err != nil {
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

// endPortals follows the end of a transaction by the op at i: portals made before it are gone.
func (c *client) endPortals(i int) {
	for k := range c.ops[i:] {
		if p := c.ops[i+k].portal; p != nil && p.at <= i {
			p.gone = true
		}
	}
	for name, p := range c.portals {
		if p.at <= i {
			delete(c.portals, name)
		}
	}
}

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
	c.carried(st.sql, st.verdict, began)
	c.after(only, err)
	return tag, err
}

// after follows what a special statement means for the client's view of its session.
func (c *client) after(st *classify.Statement, err error) {
	if err == nil && st.Set != nil && st.Set.Kind == classify.SetDiscardAll {
		for name, value := range c.first {
			c.parameter(name, value)
		}
		for _, s := range c.statements {
			c.forget(s)
		}
	}
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

// callFor is what the engine is told of a group.
func (c *client) callFor(g *group) engine.Call {
	call := engine.Call{}
	leaderOnly := false
	var first *statement
	merged := false
	open, named := 0, false
	for i := g.from; i < g.to; i++ {
		o := &c.ops[i]
		leaderOnly = leaderOnly || o.st != nil && o.st.leaderOnly
		switch o.typ {
		case msgBind:
			open++
			named = named || c.body(o)[0] != 0
		case msgExecute:
			open--
			body := c.body(o)
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
