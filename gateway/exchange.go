package gateway

import (
	"errors"
	"slices"
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
	id      uint64 // of what a Parse prepares, or a Close of ours closes, on the server; 0 is the unnamed one
	portal  *portal
}

// at is how far what the client gets has come, sent or not.
func (c *client) at() uint64 { return c.sent + uint64(len(c.out)) }

// cut takes back what was not sent of what came after at.
func (c *client) cut(at uint64) {
	c.out = c.out[:max(0, int(at-c.sent))]
	for n := len(c.known); n > 0 && c.known[n-1].to > c.at(); n-- {
		c.known = c.known[:n-1]
	}
}

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
	next      int   // in client.expected
	partial   bool  // the client has got the beginning of a message
	elsewhere bool  // the answer is of no use: it is to be asked of the leader
	pump      *pump // while it goes on
	pumped    *pump // the latest
	// oids translate a follower's numbers, if looked is set; nil: they are the leader's.
	oids   *engine.OIDs
	looked bool
	// digest is of the answer, nil unless the transaction is kept; skip is how many bytes
	// of the answer the client has already, of a run on a server that is lost.
	digest  *engine.Digest
	skip    uint64
	noticed bool // what the client gets has notices in it
	// herald tells notices early, if heralds is set; mute is how many the client has heard already.
	herald  *herald
	heralds bool
	mute    int
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
		if c.server.tracer != nil {
			now := engine.Now()
			c.span(call.SQL, call.Verdict, min(now, c.mark()), now, nil, e)
		}
		c.fail(e)
		return false, true, nil
	}
	c.relaying = relaying{lease: lease, u: u, begun: begun, complete: begun, failedAt: begun, limit: streamLimit}
	if lease.BufferRows() {
		c.relaying.limit = c.source.resultBuffer
	}
	c.relaying.digest, c.relaying.skip, c.relaying.mute = lease.Digest(), c.told, c.heard
	if u.IsClosed() { // by a cancel request that came when it had just been made ready
		return c.conclude(&call, engine.ErrNotSent)
	}
	return c.conclude(&call, run(lease, u))
}

// conclude ends what attempt began, with the error that it met.
func (c *client) conclude(call *engine.Call, e error) (again, failed bool, err error) {
	r := &c.relaying
	lease, u, begun := r.lease, r.u, r.begun
	r.heralds = false
	c.hush()
	if errors.Is(e, errGone) {
		_ = u.broken(e)
	}
	c.served(lease)
	if r.digest != nil && r.pumped == nil && !r.noticed && !r.partial {
		lease.Resumable()
	}
	if r.digest != nil { // a transaction may be run again before Done returns
		c.await(true)
	}
	ended := c.at()
	again, result := lease.Done(c.ctx, e)
	if r.digest != nil {
		c.await(false)
	}
	if again {
		c.told += max(c.sent, begun) - begun // what came before it may not even be sent
	} else {
		c.told, c.heard = 0, 0
		c.measure(call, lease.Began(), result)
	}
	switch {
	case errors.Is(e, errGone):
		return false, true, e
	case again:
		c.cut(begun)
		return true, false, nil
	case result == nil:
		if !r.extended {
			c.committed(ended, true)
		}
		return false, false, nil
	case r.partial: // the client waits for the rest of a message
		return false, true, errGone
	case r.failed != nil && result == error(r.failed):
		c.failure, c.failedAt = result, r.failedAt // reported, byte for byte
		c.server.measures.errors.add(r.failed.Code)
		return false, true, nil
	case e == nil && r.extended: // of COMMIT, which is Sync's there
	case e == nil:
		c.committed(ended, false)
	default:
		if r.failed == nil && r.extended && c.sent <= begun {
			c.unregister()
		}
		c.cut(r.failedAt)
	}
	c.fail(result)
	return false, true, nil
}

// committed puts what a server has said during a COMMIT around a statement of the simple protocol, the notices
// of deferred triggers, where PostgreSQL says it: before the CommandComplete, which if the
// COMMIT failed there is none of. ended is where the answer ended before it.
func (c *client) committed(ended uint64, ok bool) {
	at := c.relaying.complete
	switch {
	case ok && c.at() == ended:
	case c.sent > at || at > ended:
		if !ok {
			c.cut(at)
		}
	default:
		from, to := int(at-c.sent), int(ended-c.sent)
		tag := slices.Clone(c.out[from:to])
		c.out = append(c.out[:from], c.out[to:]...)
		if ok {
			c.out = append(c.out, tag...)
		}
	}
}

// exchange sends a group's messages over the connection and relays the answers.
func (c *client) exchange(_ *engine.Lease, u *upstream, g *group) error {
	c.relaying.extended = true
	u.uses++
	if c.shows(g) {
		return c.laidOut(u, func() error { return c.exchangeNow(u, g) })
	}
	return c.exchangeNow(u, g)
}

func (c *client) exchangeNow(u *upstream, g *group) error {
	if err := c.prepareDescribed(u, g); err != nil {
		return err
	}
	c.translateAll(u, g)
	err := c.exchanged(u, g, c.relay())
	c.keepGroup(g)
	return err
}

// translateAll puts a group's messages together as the server is to get them.
func (c *client) translateAll(u *upstream, g *group) {
	c.expected = c.expected[:0]
	c.relaying.swallow = u.start()
	for i := g.from; i < g.to; i++ {
		c.translate(u, &c.ops[i])
	}
	u.out = appendMessage(u.out, msgSync, nil)
}

// exchanged follows what an error in the answers means for prepared statements.
func (c *client) exchanged(u *upstream, g *group, err error) error {
	if err != nil {
		c.unprepared(u)
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		switch {
		case pe.Code == "26000" && strings.Contains(pe.Message, serverPrefix):
			clear(u.prepared) // something deallocated all
		case pe.Code == "0A000" && pe.Routine == "RevalidateCachedQuery":
			c.stale(u, g)
		}
	}
	return err
}

// unprepared forgets what the server has not prepared because of an error before it, and
// keeps in mind what it has not closed.
func (c *client) unprepared(u *upstream) {
	left := c.expected[min(c.relaying.next, len(c.expected)):]
	if len(left) > 0 && left[0].kind == msgParse && left[0].st != nil {
		c.failedParse(left[0].st)
	}
	u.missed(left)
}

// missed undoes what was noted of messages that the server has skipped.
func (u *upstream) missed(left []expected) {
	for _, e := range left {
		switch {
		case e.kind == msgParse && !e.fake && e.id == 0:
			u.unnamed = nil
		case e.kind == msgParse && !e.fake:
			delete(u.prepared, e.id)
		case e.kind == msgClose && e.swallow:
			u.farewells = append(u.farewells, e.id)
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
				u.part(st.key.id)
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
	if o.err != nil { // behind a COPY, which it ends: nothing in it counts
		u.out = appendMessage(u.out, o.typ, body)
		c.expected = append(c.expected, expected{kind: o.typ})
		return
	}
	switch o.typ {
	case msgParse:
		if st.name == "" {
			u.unnamed = st
			u.out = appendMessage(u.out, msgParse, body)
			c.expected = append(c.expected, expected{kind: msgParse, st: st})
			return
		}
		c.rescope(st)
		st.moment = c.session.Moment()
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
			u.out = appendBind(u.out, body, u.nameOf(st))
		}
		c.expected = append(c.expected, expected{kind: msgBind, st: st, portal: o.portal})
	case msgDescribe:
		if body[0] == 'S' && st != nil {
			c.ensure(u, st)
			b, at := begin(u.out, msgDescribe)
			b = append(append(b, 'S'), u.nameOf(st)...)
			u.out = end(append(b, 0), at)
			c.expected = append(c.expected, expected{kind: msgDescribe, st: st})
			return
		}
		u.out = appendMessage(u.out, msgDescribe, body)
		c.expected = append(c.expected, expected{kind: msgDescribe, portal: o.portal})
	case msgExecute:
		u.out = appendMessage(u.out, msgExecute, body)
		c.expected = append(c.expected, expected{kind: msgExecute, st: st})
		if st.deallocatesAll() {
			u.partAll()
		}
	case msgClose:
		if st != nil {
			c.expected = append(c.expected, expected{kind: msgClose, st: st, fake: true})
			return
		}
		u.out = appendMessage(u.out, msgClose, body)
		c.expected = append(c.expected, expected{kind: msgClose})
	}
}

// nameOf is a statement's name on the connection.
func (u *upstream) nameOf(st *statement) string {
	if u.isLaid(st) {
		return st.name
	}
	return st.serverName()
}

func (st *statement) serverName() string {
	if st.key == nil {
		return ""
	}
	return serverName(st.key.id)
}

// has tells whether the server has a named statement prepared, and not from before its client
// prepared it: DDL may have changed since what it returns, of which the client knows.
func (c *client) has(u *upstream, st *statement) bool {
	p := u.prepared[st.key.id]
	switch {
	case p == nil:
		return false
	case p.moment < st.moment:
		u.part(st.key.id)
		return false
	}
	p.used = u.uses
	return true
}

// part has a prepared statement closed before the next one is prepared.
func (u *upstream) part(id uint64) {
	delete(u.prepared, id)
	u.farewells = append(u.farewells, id)
}

// partAll follows a DEALLOCATE ALL of a client's, by which the server forgets what all clients
// share. It may also be skipped, because of an error before it: whatever is left then is closed.
func (u *upstream) partAll() {
	for id := range u.prepared {
		u.part(id)
	}
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
	if u.isLaid(st) || c.has(u, st) {
		return
	}
	if c.rescope(st); !c.has(u, st) {
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
		c.expected = append(c.expected, expected{kind: msgClose, swallow: true, id: id})
	}
	u.farewells = u.farewells[:0]
	u.prepared[st.key.id] = &prepared{used: u.uses, moment: c.session.Moment()}
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
		u.part(oldest)
	}
}
