package gateway

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgdist/pgdist/classify"
)

// portal is what a Bind made.
type portal struct {
	st   *statement
	at   int  // its Bind's place in the pipeline, -1 if it is from an earlier one
	seen bool // an Execute of it is in the pipeline
	ran  bool // by the session: it cannot be run once more
	here bool // no server has it
	made bool // its Bind was answered
	// to is whom a signal is for, nil if it is none or a server's affair; binary is how the
	// client wants to hear of it.
	to     *client
	binary bool
	// channels are what an Execute returns, nil if a server knows better; listed of them have
	// been.
	channels []string
	listed   int
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
			c.chain(i)
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
		if c.ear != nil {
			c.bindChannels(o)
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
			if o.st = c.lookup(string(name), i); o.st == nil && c.unknownStatement(string(name)) != nil {
				o.st = noStatement // else the server may know it, by SQL
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
			if c.aborted() && c.session.Held() == nil { // it has gone with its server
				o.st = noStatement
			}
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
			if len(name) == 0 && !leaves(o.st) && c.aborted() {
				o.err = abortedError()
			}
		} else if len(name) == 0 {
			o.err = noPortal()
		}
	}
}

// aborted tells whether the transaction is an aborted one when the op is reached that is being resolved. What its
// portals hear there is not left to the server, which has others under the name "" meanwhile.
func (c *client) aborted() bool { return c.session.Status() == 'E' && !c.leaving }

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
		return cursorExists(portal)
	}
	return nil
}

func cursorExists(name string) *pgconn.PgError {
	return &pgconn.PgError{Severity: "ERROR", Code: "42P03", Message: `cursor "` + name + `" already exists`}
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

// lookup finds a statement by the client's name as of the op at i. It follows the ops that
// concern that name, and not all: a pipeline may have hundreds of thousands.
func (c *client) lookup(name string, i int) *statement {
	k, dropped := c.lastBefore(c.about[name], i), 0
	if name != "" {
		dropped = c.lastBefore(c.dropped, i)
	}
	switch {
	case k == 0 && dropped == 0:
		return c.statements[name]
	case k > dropped && c.ops[k-1].typ == msgParse:
		return c.ops[k-1].st
	}
	return nil
}

// lastBefore follows a chain of ops about one name, numbered from 1, to the last one before the
// op at i; 0 is none. A Parse that failed gives its name no meaning.
func (c *client) lastBefore(k, i int) int {
	for k > i || k > 0 && c.ops[k-1].typ == msgParse && c.ops[k-1].err != nil {
		k = c.ops[k-1].prev
	}
	return k
}

// chain notes that the op at i, which has been resolved, gives a statement's name a meaning, or
// takes it away; and that it ends an aborted transaction.
func (c *client) chain(i int) {
	o := &c.ops[i]
	c.leaving = c.leaving || o.typ == msgExecute && leaves(o.st)
	if o.st == nil || o.st == noStatement || o.typ == msgParse && o.err != nil {
		return
	}
	name := o.st.name
	switch {
	case o.typ == msgExecute && o.st.deallocates:
		if name = o.st.verdict.Statements[0].Prepared.Name; name == "" {
			o.prev, c.dropped = c.dropped, i+1
			return
		}
	case o.typ != msgParse && o.typ != msgClose:
		return
	}
	if c.about == nil {
		c.about = map[string]int{}
	}
	o.prev, c.about[name] = c.about[name], i+1
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
