package gateway

import (
	"bytes"
	"encoding/binary"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/engine"
)

// A client that waits for its next message and has nothing under way needs no goroutine:
// it is parked, and a loop watches its socket. If what comes is one plain read, as a query
// or as a pipeline, and a connection to a server is free, the loop sends it there, goes on
// with others, and passes the answer on when all of it has come: a flight. It goes through
// the functions that a goroutine goes through, and calls none that may wait. Whatever is
// not so simple, or turns out not to be, is handed over to a goroutine where it stands.
//
// A client belongs to its goroutine or, from park to handOver, to the loop's.

// flight is what the loop does for a client. It rides the server's socket meanwhile.
type flight struct {
	c      *client
	under  bool // a statement is with a server
	queued bool // it waits for a connection
	call   engine.Call
	u      *upstream
	group  *group // nil for a simple query
	rest   []byte // of what the server is to get
	fits   func(engine.ServerConn) bool
}

// readable is rider's.
func (c *client) readable(l *loop) {
	if c.flight.under || c.flight.queued {
		return // it sends ahead, or has left: that is for later
	}
	n, _, err := c.sock.read(l.input) // if there is more, it is looked for at the end
	c.tally.received.Add(uint64(n))
	switch {
	case err == errNotYet:
		return
	case err != nil: // reading it again will tell the same, or that there is nothing more
		c.handOver(nil, nil)
		return
	}
	read := l.input[:n]
	c.begun()
	if c.server.paused.Load() != nil || c.closing.Load() {
		c.handOver(read, nil)
		return
	}
	switch {
	case isQuery(read):
		if !c.flyQuery(l, read[headerSize:n-1]) {
			c.handOver(read, nil)
		}
	case c.simplePipeline(read):
		c.flyPipeline(l, read)
	default:
		c.handOver(read, nil)
	}
}

// isQuery tells whether b is a whole Query message and nothing else.
func isQuery(b []byte) bool {
	return len(b) > headerSize && b[0] == msgQuery && binary.BigEndian.Uint32(b[1:]) == uint32(len(b)-1) && bytes.IndexByte(b[headerSize:], 0) == len(b)-headerSize-1
}

// flyQuery sends a simple query to a server, if that can be done without waiting.
func (c *client) flyQuery(l *loop, text []byte) bool {
	sql := string(text)
	v := c.source.engine.Known(sql)
	if v == nil || !engine.Plain(v) {
		return false
	}
	c.flight.group, c.flight.call = nil, engine.Call{SQL: sql, Verdict: v}
	c.flight.set(l)
	return true
}

// message splits the first message off b; ok is false if it is not all there.
func message(b []byte) (typ byte, body, rest []byte, ok bool) {
	if len(b) < headerSize {
		return 0, nil, nil, false
	}
	size := binary.BigEndian.Uint32(b[1:])
	if size < 4 || size > uint32(len(b)-1) {
		return 0, nil, nil, false
	}
	return b[0], b[headerSize : size+1], b[size+1:], true
}

// simplePipeline tells whether b is one pipeline, [Parse] Bind [Describe] Execute Sync, of
// a statement that is a plain read.
func (c *client) simplePipeline(b []byte) bool {
	expect := byte(0) // the type of the message before
	var parsed, bound []byte
	var v *classify.Verdict
	for len(b) > 0 {
		typ, body, rest, ok := message(b)
		if !ok {
			return false
		}
		switch {
		case typ == msgParse && expect == 0:
			name, sql, _, wrong := splitParse(body)
			if wrong != "" || len(name) > 0 && c.statements[string(name)] != nil {
				return false
			}
			if v = c.source.engine.Known(string(sql)); v == nil || !engine.Plain(v) {
				return false
			}
			parsed = name
		case typ == msgBind && (expect == 0 || expect == msgParse):
			_, after, ok := cstring(body)
			if !ok {
				return false
			}
			if bound, _, ok = cstring(after); !ok {
				return false
			}
			if expect == msgParse {
				if !bytes.Equal(bound, parsed) {
					return false
				}
				break
			}
			st := c.statements[string(bound)]
			if st == nil || !engine.Plain(st.verdict) {
				return false
			}
		case typ == msgDescribe && expect == msgBind:
		case typ == msgExecute && (expect == msgBind || expect == msgDescribe):
		case typ == msgSync && expect == msgExecute:
			return len(body) == 0 && len(rest) == 0
		default:
			return false
		}
		expect, b = typ, rest
	}
	return false
}

// flyPipeline sends a simple pipeline to a server, or has a goroutine do it.
func (c *client) flyPipeline(l *loop, b []byte) {
	for {
		typ, body, rest, _ := message(b)
		if typ == msgSync {
			break
		}
		_ = c.collect(typ, body) // it is too little for anything to be run
		b = rest
	}
	c.copied = false
	p := c.plan()
	if p.scripted || len(p.groups) != 1 || p.groups[0].local {
		c.handOver(nil, c.sync)
		return
	}
	c.flight.group = &p.groups[0]
	c.flight.call = c.callFor(c.flight.group)
	c.flight.set(l)
}

// set has the statement sent, queued until a connection is free, or run by a goroutine.
func (f *flight) set(l *loop) {
	f.c.asked = f.c.mark()
	switch f.depart(l) {
	case engine.NotNow:
		f.c.handOver(nil, f.walk)
	case engine.NowFull, engine.NowCrowded:
		l.enqueue(f)
	}
}

// depart sends the statement to a server if a connection is free.
func (f *flight) depart(l *loop) engine.Instant {
	c := f.c
	lease, now := c.session.AcquireNow(f.call, f.fits)
	if lease == nil {
		return now
	}
	u := c.takeOff(lease)
	if f.group == nil {
		c.beginSimple()
		c.ask(u, f.call.SQL)
	} else {
		c.relaying.extended = true
		u.uses++
		c.translateAll(u, f.group)
	}
	f.send(l)
	return now
}

// walk runs the statement in a goroutine from its beginning.
func (f *flight) walk() error {
	if f.group == nil {
		f.c.beginSimple()
	}
	return f.conclude(true, false, nil)
}

// beginSimple forgets what a query by the simple protocol ends.
func (c *client) beginSimple() {
	c.beginQuery()
	delete(c.portals, "")
}

// fits tells whether the loop can use a connection: nothing has to be prepared on it
// whose answer must be seen first.
func (c *client) fits(conn engine.ServerConn) bool {
	u := conn.(*upstream)
	if u.sock == nil {
		return false
	}
	g := c.flight.group
	if g == nil {
		return true
	}
	for i := g.from; i < g.to; i++ {
		if o := &c.ops[i]; o.compared() {
			if p := u.prepared[o.st.key.id]; p == nil || p.moment < o.st.moment || !o.st.holds(&p.result) {
				return false
			}
		}
	}
	return true
}

// takeOff begins what attempt begins with acquire.
func (c *client) takeOff(lease *engine.Lease) *upstream {
	u := lease.Conn().(*upstream)
	c.under(u)
	begun := c.at()
	c.relaying = relaying{lease: lease, u: u, begun: begun, complete: begun, failedAt: begun, limit: streamLimit}
	c.flight.u, c.flight.under = u, true
	return u
}

// send sends what was put together to the server, whose answer the loop then waits for.
func (f *flight) send(l *loop) {
	u := f.u
	u.busy = true
	u.in.room(largeBuffer)
	n := 0
	err := u.sock.board(l, f)
	if err == nil {
		n, _, err = u.sock.write(u.out)
	}
	if err != nil {
		f.rest = u.out[n:]
		f.c.handOver(nil, f.finish)
	}
}

// disturbed is rider's: somebody has closed the connection to the server.
func (f *flight) disturbed(*loop) { f.c.handOver(nil, f.finish) }

// readable is rider's: the server has sent something.
func (f *flight) readable(l *loop) {
	in := &f.u.in
	for more := true; more; {
		var n int
		var err error
		if n, more, err = f.u.sock.read(in.buf[in.w:]); err == errNotYet {
			return
		}
		in.w += n
		whole, strange := f.whole(in.buf[in.r:in.w])
		switch {
		case err != nil || strange:
			f.c.handOver(nil, f.finish)
			return
		case whole:
			f.land(l)
			return
		}
	}
}

// whole tells whether b has all of the answer. strange tells that a goroutine is to deal
// with it: it is large, or an error, or has what cannot be passed on without waiting.
func (f *flight) whole(b []byte) (whole, strange bool) {
	const slack = 256 // for answers that no server gives
	for at := 0; ; {
		if at > streamLimit-slack {
			return false, true
		}
		typ, body, rest, ok := message(b[at:])
		if !ok {
			return false, len(b) > streamLimit-slack
		}
		switch typ {
		case msgDataRow, msgCommandComplete, msgParseComplete, msgBindComplete, msgNoData, msgEmptyQuery, msgPortalSuspended,
			msgCloseComplete, msgNotice, msgParameterStatus:
		case msgRowDescription:
			if !f.knows(body, f.c.eachRow) {
				return false, true
			}
		case msgParameterDescription:
			if !f.knows(body, f.c.eachParameter) {
				return false, true
			}
		case msgReady:
			return true, f.c.relaying.swallow > 0
		default:
			return false, true
		}
		at = len(b) - len(rest)
	}
}

// knows tells whether all numbers in a description can be told to the client at once.
func (f *flight) knows(body []byte, each func([]byte, func([]byte, int, bool) bool) bool) bool {
	r := &f.c.relaying
	known := true
	each(body, func(oid []byte, format int, relation bool) bool {
		n := binary.BigEndian.Uint32(oid)
		if n < firstUserOID {
			return true
		}
		if !r.looked {
			if r.oids, r.looked = r.lease.KnownOIDs(); !r.looked {
				known = false
				return false
			}
		}
		if r.oids == nil {
			return false
		}
		_, known = translateOID(r.oids, n, format, relation)
		return known
	})
	return known
}

// land passes the answer on, which is all there, and ends the statement.
func (f *flight) land(l *loop) {
	c, u := f.c, f.u
	if limit := c.server.measures.slowFrom.Load(); limit > 0 && engine.Now()-c.asked >= limit {
		c.handOver(nil, f.finish) // it is logged
		return
	}
	c.mu.Lock()
	cancelled := c.cancelled
	if !cancelled { // from here on no cancel request reaches the server
		c.serving = nil
	}
	c.mu.Unlock()
	if cancelled { // which is waited for
		c.handOver(nil, f.finish)
		return
	}
	u.sock.alight()
	f.under = false
	c.out = l.answers[:0]
	err := c.answers()
	if f.group != nil {
		err = c.exchanged(u, f.group, err)
	}
	again, failed, err := c.conclude(&f.call, err)
	if again || err != nil {
		c.out = bytes.Clone(c.out)
		c.handOver(nil, func() error { return f.conclude(again, failed, err) })
		return
	}
	f.end(failed)
	l.flown.Add(1)
	if c.killed.Load() || c.closing.Load() {
		c.out = bytes.Clone(c.out)
		c.handOver(nil, func() error { return nil })
		return
	}
	c.reply(l)
}

// reply sends the answer to the client, which then waits for its next message.
func (c *client) reply(l *loop) {
	n, more, err := c.sock.write(c.out)
	c.tally.sent.Add(uint64(n))
	c.sent += uint64(n)
	if err != nil {
		c.out = bytes.Clone(c.out[n:])
		c.handOver(nil, nil)
		return
	}
	if cap(c.out) <= 4*streamLimit {
		l.answers = c.out[:0]
	}
	c.out = nil
	c.show()
	c.busySince.Store(0)
	switch {
	case c.closing.Load(): // whoever set that may have taken it for busy
		c.handOver(nil, nil)
	case more:
		l.again = append(l.again, c.sock)
	}
}

// end ends the command of which the statement was all.
func (f *flight) end(failed bool) {
	c := f.c
	if f.group == nil {
		c.endQuery(c.failure != nil)
		return
	}
	c.endPipeline(failed)
	c.endSync()
}

// finish does in a goroutine what is left of a flight: the rest of the request is sent,
// and the answer, of which some may be there, passed on.
func (f *flight) finish() error {
	c, u := f.c, f.u
	c.relaying.oids, c.relaying.looked = nil, false
	c.relaying.heralds = true
	var err error
	if rest := f.rest; len(rest) > 0 {
		f.rest = nil
		if _, e := u.conn.Write(rest); e != nil {
			err = u.broken(e)
		}
	}
	if err == nil {
		err = c.answers()
	}
	if f.group != nil {
		err = c.exchanged(u, f.group, err)
	}
	return f.conclude(c.conclude(&f.call, err))
}

// conclude runs the statement again, if need be, and ends the command. The error ends
// the client.
func (f *flight) conclude(again, failed bool, err error) error {
	c := f.c
	switch {
	case again && f.group == nil:
		failed, err = c.simple(f.call)
	case again:
		failed, err = c.runGroup(f.group)
	}
	if err != nil {
		return err
	}
	f.end(failed)
	return nil
}
