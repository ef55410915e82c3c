package gateway

import (
	"bytes"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/engine"
)

// expected is an answer that is to come, in its order.
type expected struct {
	kind    byte // the message that asks for it
	fake    bool // given here, without asking the server
	swallow bool // asked for by us, not for the client
	st      *statement
	id      uint64 // of what a Parse prepares on the server; 0 is the unnamed one
}

// at is how far what the client gets has come, sent or not.
func (c *client) at() uint64 { return c.sent + uint64(len(c.out)) }

// cut takes back what was not sent of what came after at.
func (c *client) cut(at uint64) { c.out = c.out[:max(0, int(at-c.sent))] }

// relaying is the state of one exchange.
type relaying struct {
	lease     *engine.Lease
	u         *upstream
	swallow   int // answers of statements that went ahead
	extended  bool
	limit     int // bytes kept back before they are sent
	begun     uint64
	delivered bool
	waits     int64
	complete  uint64 // where the latest CommandComplete is
	failed    *pgconn.PgError
	failedAt  uint64
	next      int  // in client.expected
	partial   bool // the client has got the beginning of a message
	elsewhere bool // the answer is of no use: it is to be asked of the leader
	pump      *pump
}

// streamLimit is how much of a read is kept back: until then it can be run on
// another server unseen.
const streamLimit = 16 << 10

// attempt leases a connection for call and has run use it. If again is true the
// call is to be attempted once more; err ends the client.
func (c *client) attempt(call engine.Call, run func(*engine.Lease, *upstream) error) (again, failed bool, err error) {
	begun := c.at()
	lease, u, e := c.acquire(call)
	if e != nil {
		c.fail(e)
		return false, true, nil
	}
	r := &c.relaying
	*r = relaying{lease: lease, u: u, begun: begun, complete: begun, failedAt: begun, limit: streamLimit}
	if lease.BufferRows() {
		r.limit = c.server.resultBuffer
	}
	e = run(lease, u)
	if errors.Is(e, errGone) {
		_ = u.broken(e)
	}
	c.served(lease)
	again, result := lease.Done(c.ctx, e)
	switch {
	case errors.Is(e, errGone):
		return false, true, e
	case again:
		c.cut(begun)
		return true, false, nil
	case result == nil:
		return false, false, nil
	case r.partial: // the client waits for the rest of a message
		return false, true, errGone
	case r.failed != nil && result == error(r.failed):
		c.failure, c.failedAt = result, r.failedAt // reported, byte for byte
		return false, true, nil
	case e == nil && r.extended: // of COMMIT, which is Sync's there
	case e == nil:
		c.cut(r.complete)
	default:
		c.cut(r.failedAt)
	}
	c.fail(result)
	return false, true, nil
}

// exchange sends a group's messages over the connection and relays the answers.
func (c *client) exchange(_ *engine.Lease, u *upstream, g *group) error {
	r := &c.relaying
	r.extended = true
	u.uses++
	if err := c.prepareDescribed(u, g); err != nil {
		return err
	}
	c.expected = c.expected[:0]
	r.swallow = u.start()
	for i := g.from; i < g.to; i++ {
		c.translate(u, &c.ops[i])
	}
	u.out = appendMessage(u.out, msgSync, nil)
	err := c.relay()
	if err != nil {
		c.unprepared(u)
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		switch {
		case pe.Code == "26000" && strings.Contains(pe.Message, `"pgdist_`):
			clear(u.prepared) // something deallocated all
		case strings.Contains(pe.Message, staleMessage):
			c.stale(u, g)
		}
	}
	return err
}

// unprepared forgets what the server has not prepared because of an error before it.
func (c *client) unprepared(u *upstream) {
	for i, e := range c.expected[min(c.relaying.next, len(c.expected)):] {
		if i == 0 && e.kind == msgParse && e.st != nil {
			c.failedParse(e.st)
		}
		if e.kind == msgParse && !e.fake {
			if e.id == 0 {
				u.unnamed = nil
			} else {
				delete(u.prepared, e.id)
			}
		}
	}
}

// stale has statements prepared anew whose results DDL has changed.
func (c *client) stale(u *upstream, g *group) {
	fresh := false
	for i := g.from; i < g.to; i++ {
		fresh = fresh || c.ops[i].typ == msgParse // it is still to be described
		if st := c.ops[i].st; st != nil && st.key != nil {
			if _, has := u.prepared[st.key.id]; has {
				delete(u.prepared, st.key.id)
				u.farewells = append(u.farewells, st.key.id)
			}
		}
	}
	u.unnamed = nil
	if !fresh {
		c.relaying.lease.Final()
	}
}

// translate puts a message as the server is to get it.
func (c *client) translate(u *upstream, o *op) {
	body := c.body(o)
	st := o.st
	switch o.typ {
	case msgParse:
		if st.name == "" {
			u.unnamed = st
			u.out = appendMessage(u.out, msgParse, body)
			c.expected = append(c.expected, expected{kind: msgParse, st: st})
			return
		}
		if st.key == nil {
			st.key = c.server.keys.take(st.sql, st.rest)
		}
		if c.has(u, st) {
			c.expected = append(c.expected, expected{kind: msgParse, st: st, fake: true})
			return
		}
		c.prepare(u, st, false)
	case msgBind:
		if st == nil {
			u.out = appendMessage(u.out, msgBind, body)
		} else {
			c.ensure(u, st)
			portal, rest, _ := cstring(body)
			_, rest, _ = cstring(rest)
			b, at := begin(u.out, msgBind)
			b = append(append(b, portal...), 0)
			b = append(append(b, st.serverName()...), 0)
			u.out = end(append(b, rest...), at)
		}
		c.expected = append(c.expected, expected{kind: msgBind, st: st})
	case msgDescribe:
		if body[0] == 'S' && st != nil {
			c.ensure(u, st)
			b, at := begin(u.out, msgDescribe)
			b = append(append(b, 'S'), st.serverName()...)
			u.out = end(append(b, 0), at)
			c.expected = append(c.expected, expected{kind: msgDescribe, st: st})
			return
		}
		u.out = appendMessage(u.out, msgDescribe, body)
		c.expected = append(c.expected, expected{kind: msgDescribe})
	case msgExecute:
		u.out = appendMessage(u.out, msgExecute, body)
		c.expected = append(c.expected, expected{kind: msgExecute, st: st})
	case msgClose:
		if st != nil {
			c.expected = append(c.expected, expected{kind: msgClose, st: st, fake: true})
			return
		}
		u.out = appendMessage(u.out, msgClose, body)
		c.expected = append(c.expected, expected{kind: msgClose})
	}
}

func (st *statement) serverName() string {
	if st.key == nil {
		return ""
	}
	return serverName(st.key.id)
}

// has tells whether the server has a named statement prepared.
func (c *client) has(u *upstream, st *statement) bool {
	p := u.prepared[st.key.id]
	if p == nil {
		return false
	}
	p.used = u.uses
	return true
}

// ensure has the server prepare a statement that it lacks.
func (c *client) ensure(u *upstream, st *statement) {
	if st.key == nil {
		if u.unnamed == st {
			return
		}
		u.unnamed = st
		b, at := begin(u.out, msgParse)
		b = append(b, 0)
		b = append(append(b, st.sql...), 0)
		u.out = end(append(b, st.rest...), at)
		c.expected = append(c.expected, expected{kind: msgParse, swallow: true})
		return
	}
	if !c.has(u, st) {
		c.prepare(u, st, true)
	}
}

// prepare has the server prepare a named statement, and drop others to make room.
func (c *client) prepare(u *upstream, st *statement, swallow bool) {
	if len(u.prepared) >= c.server.maxPrepared {
		u.dropOldest()
	}
	for _, id := range u.farewells {
		u.out = appendText(u.out, msgClose, "S"+serverName(id))
		c.expected = append(c.expected, expected{kind: msgClose, swallow: true})
	}
	u.farewells = u.farewells[:0]
	u.prepared[st.key.id] = &prepared{used: u.uses}
	b, at := begin(u.out, msgParse)
	b = append(append(b, serverName(st.key.id)...), 0)
	b = append(append(b, st.sql...), 0)
	u.out = end(append(b, st.rest...), at)
	e := expected{kind: msgParse, swallow: swallow, id: st.key.id}
	if !swallow {
		e.st = st
	}
	c.expected = append(c.expected, e)
}

// dropOldest chooses the prepared statement that was not used for longest, but none
// that the pipeline being put together uses.
func (u *upstream) dropOldest() {
	var oldest uint64
	least := u.uses
	for id, p := range u.prepared {
		if p.used < least {
			oldest, least = id, p.used
		}
	}
	if least < u.uses {
		delete(u.prepared, oldest)
		u.farewells = append(u.farewells, oldest)
	}
}

// asyncWrite is the size from which on a request is written while its answers are
// already being read: neither side may wait for the other.
const asyncWrite = 64 << 10

// relay sends what was put together and passes what the server answers on, up to
// its ReadyForQuery. It returns the server's error, errConn or errGone.
func (c *client) relay() (err error) {
	r := &c.relaying
	if len(r.u.out) < asyncWrite {
		if err := r.u.send(); err != nil {
			return err
		}
		return c.answers()
	}
	u, out := r.u, r.u.out
	u.busy, u.out = true, nil
	wrote := make(chan error, 1)
	go func() {
		_, err := u.conn.Write(out)
		wrote <- err
	}()
	err = c.answers()
	if u.closed.Load() {
		_ = u.conn.Close()
	}
	if e := <-wrote; e != nil && err == nil {
		err = u.broken(e)
	}
	return err
}

// answers passes on what the server says, up to its ReadyForQuery.
func (c *client) answers() error {
	r := &c.relaying
	u := r.u
	in := &u.in
	for {
		typ, size, err := in.head()
		if err != nil {
			return c.lost(err)
		}
		if size > largeBuffer-headerSize && (typ == msgDataRow || typ == msgCopyData) && r.swallow == 0 {
			if err := c.large(); err != nil {
				return err
			}
			continue
		}
		typ, body, err := in.next()
		if err != nil {
			return c.lost(err)
		}
		if r.swallow > 0 {
			if done, err := c.swallowed(typ, body); done || err != nil {
				return err
			}
			continue
		}
		switch typ {
		case msgDataRow, msgCopyData:
			c.out = append(c.out, in.buf[in.last:in.r]...)
			if len(c.out) > r.limit {
				if err := c.deliver(); err != nil {
					return err
				}
			}
		case msgReady:
			if err := c.stopPump(); err != nil {
				return err
			}
			c.fakes()
			u.ready(body)
			switch {
			case r.elsewhere:
				return engine.ErrNotHere
			case r.failed != nil:
				return r.failed
			}
			return nil
		default:
			if err := c.answer(typ, body); err != nil {
				return err
			}
		}
	}
}

// lost notes that the server is gone.
func (c *client) lost(err error) error {
	err = c.relaying.u.broken(err)
	if e := c.stopPump(); e != nil {
		return e
	}
	return err
}

// swallowed takes the answer to a statement that went ahead; done ends the exchange.
func (c *client) swallowed(typ byte, body []byte) (done bool, err error) {
	r := &c.relaying
	switch typ {
	case msgError:
		r.failed = errorOf(body)
		return true, r.u.broken(r.failed)
	case msgReady:
		r.swallow--
	default:
		r.u.aside(typ, body)
	}
	return false, nil
}

// answer deals with a message other than a row.
func (c *client) answer(typ byte, body []byte) error {
	r := &c.relaying
	if r.u.aside(typ, body) {
		return nil
	}
	if r.extended {
		c.fakes()
	}
	switch typ {
	case msgError:
		pe := errorOf(body)
		if fatal(pe) {
			if r.failed != nil && r.failed.Code == "08P01" { // it was the client that broke the protocol
				_ = r.u.broken(pe)
				return c.outOfStep(nil)
			}
			return c.lost(pe)
		}
		if r.pump != nil && pe.Code == "57014" && strings.HasSuffix(pe.Message, outOfPlace) {
			return c.misplaced()
		}
		r.failed, r.failedAt = pe, c.at()
		if told := c.inClientsNames(pe); told != nil {
			c.out = appendError(c.out, msgError, told)
		} else {
			c.out = appendMessage(c.out, typ, body)
		}
		return c.failedCopy()
	case msgCopyIn:
		c.out = appendMessage(c.out, typ, body)
		return c.copyIn()
	case msgCopyBoth:
		return c.lost(errors.New("replication is not supported"))
	case msgRowDescription, msgParameterDescription:
		if err := c.describe(typ, body); err != nil {
			return err
		}
		if typ == msgRowDescription {
			c.answered(msgDescribe)
		}
		return nil
	case msgCommandComplete:
		r.complete = c.at()
	}
	if r.extended && c.skipAnswer(typ) {
		return nil
	}
	c.out = appendMessage(c.out, typ, body)
	return nil
}

// inClientsNames is an error with the client's name of a statement in place of the
// server's, nil if it has none.
func (c *client) inClientsNames(pe *pgconn.PgError) *pgconn.PgError {
	r := &c.relaying
	if !strings.Contains(pe.Message, `"`+serverPrefix) || r.next >= len(c.expected) {
		return nil
	}
	st := c.expected[r.next].st
	if st == nil || st.key == nil {
		return nil
	}
	told := *pe
	told.Message = strings.ReplaceAll(pe.Message, `"`+st.serverName()+`"`, `"`+st.name+`"`)
	return &told
}

// skipAnswer follows the answers expected and tells whether this one is not the
// client's.
func (c *client) skipAnswer(typ byte) bool {
	switch typ {
	case msgParseComplete:
		return c.answered(msgParse)
	case msgBindComplete:
		return c.answered(msgBind)
	case msgCloseComplete:
		return c.answered(msgClose)
	case msgNoData:
		return c.answered(msgDescribe)
	case msgCommandComplete, msgEmptyQuery, msgPortalSuspended:
		return c.answered(msgExecute)
	}
	return false
}

// answered takes the next expected answer, if it is of that kind.
func (c *client) answered(kind byte) (swallow bool) {
	r := &c.relaying
	if r.next >= len(c.expected) || c.expected[r.next].kind != kind {
		return false
	}
	e := &c.expected[r.next]
	r.next++
	if kind == msgParse && e.st != nil {
		c.register(e.st)
	}
	return e.swallow
}

// fakes gives the answers that are next and need no server.
func (c *client) fakes() {
	r := &c.relaying
	for r.failed == nil && r.next < len(c.expected) && c.expected[r.next].fake {
		e := &c.expected[r.next]
		r.next++
		if e.kind == msgParse {
			c.register(e.st)
			c.out = appendMessage(c.out, msgParseComplete, nil)
			continue
		}
		c.closeStatement(e.st)
	}
}

// deliver sends what there is to the client: from here on the statement cannot be
// run again unseen.
func (c *client) deliver() error {
	r := &c.relaying
	if r.elsewhere { // too long to be read to its end for nothing
		_ = r.u.broken(engine.ErrNotHere)
		return engine.ErrNotHere
	}
	if !r.delivered {
		if err := r.lease.Delivered(c.ctx); err != nil {
			return err
		}
		r.delivered = true
	}
	r.lease.Waiting(0)
	if err := c.flush(); err != nil {
		return err
	}
	r.waits++
	r.lease.Waiting(r.waits)
	return nil
}

// large passes a message on piece by piece that is too long to be kept.
func (c *client) large() error {
	r := &c.relaying
	gone := false
	_, err := r.u.in.stream(func(b []byte) error {
		r.partial = true
		c.out = append(c.out, b...)
		if len(c.out) > r.limit {
			if err := c.deliver(); err != nil {
				gone = true
				return err
			}
		}
		return nil
	})
	switch {
	case gone:
		return err
	case err != nil:
		return c.lost(err)
	}
	r.partial = false
	return nil
}

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
	if st := c.statements[""]; st != nil {
		c.forget(st)
	}
	c.failure = nil
	if err := c.runQuery(sql); err != nil {
		return err
	}
	c.endQuery(c.failure != nil)
	return nil
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
		} else if err = x.End(c.ctx); err != nil {
			c.cut(c.relaying.complete)
			c.fail(err)
		}
	}
	if !c.session.InTransaction() {
		clear(c.portals)
	}
	c.ready()
}

// simple runs a text on one connection by the simple protocol.
func (c *client) simple(call engine.Call, each func(u *upstream)) (failed bool, err error) {
	for {
		again, failed, err := c.attempt(call, func(_ *engine.Lease, u *upstream) error {
			r := &c.relaying
			c.expected = c.expected[:0]
			u.unnamed = nil
			r.swallow = u.start()
			u.out = appendText(u.out, msgQuery, call.SQL)
			err := c.relay()
			if each != nil {
				each(u)
			}
			return err
		})
		if !again {
			return failed, err
		}
	}
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
	call := engine.Call{Verdict: writeVerdict}
	for {
		again, _, err := c.attempt(call, func(_ *engine.Lease, u *upstream) error {
			r := &c.relaying
			c.expected = c.expected[:0]
			r.swallow = u.start()
			u.out = appendMessage(u.out, msgFunctionCall, body)
			return c.relay()
		})
		if err != nil {
			return err
		}
		if !again {
			c.ready()
			return nil
		}
	}
}
