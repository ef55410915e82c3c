package gateway

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/engine"
)

// tally counts what a client does. Each client has one of its own, which only who
// serves it writes to, so that counting never waits for another CPU; readers add
// them up.
type tally struct {
	statements, transactions, received, sent atomic.Uint64
	spent, waited, inTx                      atomic.Int64 // nanoseconds
}

// totals are sums of tallies.
type totals struct {
	Statements, Transactions, Received, Sent uint64
	Spent, Waited, InTx                      time.Duration
}

func (t *totals) add(o *tally) {
	t.Statements += o.statements.Load()
	t.Transactions += o.transactions.Load()
	t.Received += o.received.Load()
	t.Sent += o.sent.Load()
	t.Spent += time.Duration(o.spent.Load())
	t.Waited += time.Duration(o.waited.Load())
	t.InTx += time.Duration(o.inTx.Load())
}

func (t *totals) sum(o totals) {
	t.Statements += o.Statements
	t.Transactions += o.Transactions
	t.Received += o.Received
	t.Sent += o.Sent
	t.Spent += o.Spent
	t.Waited += o.Waited
	t.InTx += o.InTx
}

// less is what was added since o.
func (t totals) less(o totals) totals {
	return totals{
		t.Statements - o.Statements, t.Transactions - o.Transactions, t.Received - o.Received, t.Sent - o.Sent,
		t.Spent - o.Spent, t.Waited - o.Waited, t.InTx - o.InTx,
	}
}

// Kinds of work whose duration is kept.
const (
	workRead = iota
	workWrite
	workCommit
	works
)

var workNames = [works]string{"read", "write", "commit"}

// Durations are counted in powers of two of 64 µs up to about 8 s, and beyond.
const (
	histogramUnit  = 64 * time.Microsecond
	histogramSteps = 18
	histogramParts = 8 // clients are spread over these
)

// histogram counts durations. It is divided so that clients on different CPUs seldom
// write to the same cache line.
type histogram struct {
	parts [histogramParts]struct {
		counts [histogramSteps + 1]atomic.Uint64
		nanos  atomic.Int64
		_      [32]byte
	}
}

func (h *histogram) observe(client uint32, nanos int64) {
	p := &h.parts[client%histogramParts]
	p.counts[min(bits.Len64(uint64(max(nanos, 0))/uint64(histogramUnit)), histogramSteps)].Add(1)
	p.nanos.Add(nanos)
}

// counted is a histogram at one moment; counts are not cumulative.
type counted struct {
	counts [histogramSteps + 1]uint64
	total  uint64
	sum    time.Duration
}

func (h *histogram) read() (c counted) {
	for i := range h.parts {
		for j := range h.parts[i].counts {
			n := h.parts[i].counts[j].Load()
			c.counts[j] += n
			c.total += n
		}
		c.sum += time.Duration(h.parts[i].nanos.Load())
	}
	return c
}

// quantile is an upper bound of the duration that a share of the work stayed below.
func (c counted) quantile(share float64) time.Duration {
	if c.total == 0 {
		return 0
	}
	need, seen := uint64(share*float64(c.total)), uint64(0)
	for i, n := range c.counts {
		if seen += n; seen > need || seen == c.total {
			return histogramUnit << i
		}
	}
	return 0
}

func (c counted) less(o counted) counted {
	for i := range c.counts {
		c.counts[i] -= o.counts[i]
	}
	c.total, c.sum = c.total-o.total, c.sum-o.sum
	return c
}

// errorCounts count errors by the class of their SQLSTATE, its first two characters.
type errorCounts [36 * 36]atomic.Uint64

const base36 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

func digit36(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'Z':
		return int(c-'A') + 10
	}
	return 0
}

func (e *errorCounts) add(code string) {
	if len(code) < 2 {
		code = "XX"
	}
	e[36*digit36(code[0])+digit36(code[1])].Add(1)
}

func (e *errorCounts) each(f func(class string, n uint64)) {
	for i := range e {
		if n := e[i].Load(); n > 0 {
			f(string([]byte{base36[i/36], base36[i%36]}), n)
		}
	}
}

// measures are what a server counts besides its clients' tallies.
type measures struct {
	latency   [works]histogram
	waits     histogram // for a connection to a server
	errors    errorCounts
	clients   atomic.Uint64 // that ever logged in
	refused   atomic.Uint64 // connections that were turned away
	slow      atomic.Uint64
	slowFrom  atomic.Int64  // nanoseconds from which on a statement is logged, 0 is never
	panics    atomic.Uint64 // that were caught
	views     atomic.Uint64
	failovers atomic.Uint64
}

// mark is when the statement at hand began: with the client's command, or when the one
// before it was over. It saves a look at the clock.
func (c *client) mark() int64 { return max(c.busySince.Load(), c.txLast) }

// measure notes a statement that a server has answered, with its error, if any; asked is when it
// began to wait for a connection.
func (c *client) measure(call *engine.Call, began int64, err error) {
	now, asked := engine.Now(), c.asked
	c.asked = 0
	waited, spent := began-asked, now-asked
	kind := workWrite
	if k := call.Verdict.Class; k == classify.Read || k == classify.LeaderRead {
		kind = workRead
	}
	m := &c.server.measures
	m.latency[kind].observe(c.id, spent)
	if waited > int64(time.Millisecond) { // nearly none does
		m.waits.observe(c.id, waited)
	}
	c.tally.statements.Add(1)
	c.tally.spent.Add(spent)
	c.tally.waited.Add(waited)
	if c.txBegan == 0 {
		c.txBegan = asked
	}
	c.txLast = now
	if limit := m.slowFrom.Load(); limit > 0 && spent >= limit {
		c.logSlow(call.SQL, call.Verdict, spent, waited)
	}
	if c.server.tracer != nil {
		c.span(call.SQL, call.Verdict, asked, now, c.relaying.u, err)
	}
}

// carried notes a statement that the session carried out itself.
func (c *client) carried(sql string, v *classify.Verdict, began int64, err error) {
	now := engine.Now()
	spent := now - began
	m := &c.server.measures
	switch st := &v.Statements[0]; {
	case st.Tx == nil:
		m.latency[workWrite].observe(c.id, spent)
	case st.Tx.Kind == classify.TxCommit:
		m.latency[workCommit].observe(c.id, spent)
	}
	c.tally.statements.Add(1)
	c.tally.spent.Add(spent)
	if c.txBegan == 0 {
		c.txBegan = began
	}
	c.txLast = now
	if limit := m.slowFrom.Load(); limit > 0 && spent >= limit {
		c.logSlow(sql, v, spent, 0)
	}
	if c.server.tracer != nil {
		c.span(sql, v, began, now, nil, err)
	}
}

// settled notes that a command left no transaction open.
func (c *client) settled() {
	c.tally.transactions.Add(1)
	if c.txBegan != 0 {
		c.tally.inTx.Add(c.txLast - c.txBegan)
		c.txBegan = 0
	}
}

// maxSlowText bounds a statement in the log.
const maxSlowText = 2000

// logSlow logs a statement without its values: they may be anybody's secrets.
func (c *client) logSlow(sql string, v *classify.Verdict, spent, waited int64) {
	c.server.measures.slow.Add(1)
	c.server.log.Warn("slow statement", "duration", time.Duration(spent), "waited", time.Duration(waited),
		"client", c.id, "user", c.user, "database", c.db, "statement", statementText(sql, v))
}

// statementText is a statement as others may see it: without its values.
func statementText(sql string, v *classify.Verdict) string {
	text := classify.Normalize(sql)
	if sql == "" && len(v.Statements) > 0 { // a pipeline of several
		text = v.Statements[0].Tag + " and others"
	}
	if len(text) > maxSlowText {
		text = text[:maxSlowText] + "…"
	}
	return text
}

// totals are the sums over all clients, those that left included.
func (s *Server) totals() totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.gone
	for _, c := range s.clients {
		t.add(&c.tally)
	}
	return t
}
