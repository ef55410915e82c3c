package gateway

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgdist/pgdist/internal/engine"
)

// collector tells Prometheus what a server counts. Nothing is kept in Prometheus' own
// types: statements then touch counters of their client's only, and a scrape adds up.
type collector struct{ server *Server }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("pgdist_"+name, help, labels, nil)
}

var (
	descInfo       = desc("info", "Version of the gateway.", "version")
	descReady      = desc("ready", "1 if there is a usable leader and the gateway takes clients.")
	descPaused     = desc("paused", "1 during PAUSE.")
	descClients    = desc("clients", "Clients by state.", "state")
	descPinned     = desc("clients_pinned", "Clients that keep a connection for themselves beyond transactions.")
	descMaxWait    = desc("clients_longest_wait_seconds", "How long the client has waited that waits longest for a connection.")
	descLogins     = desc("logins_total", "Clients that logged in.")
	descRefused    = desc("refused_total", "Connections that were turned away.")
	descStarting   = desc("connections_starting", "Connections that have not logged in.")
	descStatements = desc("statements_total", "Statements that were carried out.")
	descFlown      = desc("loop_statements_total", "Statements among them that an event loop carried out, without a goroutine of their client's.")
	descTx         = desc("transactions_total", "Commands that left no transaction open.")
	descReceived   = desc("received_bytes_total", "Bytes from clients.")
	descSent       = desc("sent_bytes_total", "Bytes to clients.")
	descErrors     = desc("errors_total", "Errors told to clients, by the class of their SQLSTATE.", "class")
	descPanics     = desc("panics_total", "Panics that were caught; each has ended one client at most.")
	descSlow       = desc("slow_statements_total", "Statements that took as long as slow_statement or longer.")
	descPrepared   = desc("prepared_statements", "Different texts that clients have prepared.")
	descDuration   = desc("statement_duration_seconds", "Duration of statements, waiting included.", "kind")
	descWait       = desc("connection_wait_seconds", "Waits of more than a millisecond for a connection to a server.")
	descEpoch      = desc("view_epoch", "Number of the present view.", "database")
	descTerm       = desc("view_term", "Epoch in which the leader took office.", "database")
	descViews      = desc("views_total", "Changes of the view that this gateway has seen.")
	descFailovers  = desc("failovers_total", "Changes of the leader that this gateway has seen.")
	descReplays    = desc("replays_total", "Transactions that were lost with their server while they were kept to be run again, by what came of it.", "database", "outcome")
	descInSync     = desc("member_in_sync", "1 if the member holds every acknowledged write.", "database", "member", "host")
	descLeader     = desc("member_leader", "1 if the member leads.", "database", "member", "host")
	descUsable     = desc("member_usable", "1 if the member's breaker lets statements through.", "database", "member", "host")
	descRan        = desc("member_statements_total", "Statements that ran on the member.", "database", "member", "host", "kind")
	descLost       = desc("member_errors_total", "Statements that a broken connection ended.", "database", "member", "host")
	descDiffer     = desc("differences_total", "What this gateway has found to differ on the member from the leader: rows, sequences, definitions.", "database", "member", "host")
	descChecked    = desc("check_rows_total", "Rows that this gateway has read from all members to compare them in the background.", "database")
	descThrough    = desc("check_round_timestamp_seconds", "When everything was last compared in the background, by any program; 0: never.", "database")
	descRunning    = desc("member_outstanding", "Statements that run on the member now.", "database", "member", "host")
	descLatency    = desc("member_read_latency_seconds", "Moving average over the member's reads.", "database", "member", "host")
	descPool       = desc("pool_connections", "Connections to the member by purpose and state.", "database", "member", "host", "purpose", "state")
	descPoolMax    = desc("pool_max", "Most connections to the member by purpose, over all users.", "database", "member", "host", "purpose")
	descPoolWait   = desc("pool_waiting", "Statements that wait for a connection to the member.", "database", "member", "host", "purpose")
)

// Describe is prometheus.Collector's.
func (c collector) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, to) }

// Collect is prometheus.Collector's.
func (c collector) Collect(to chan<- prometheus.Metric) {
	_ = c.server.safely("metrics", func() error { c.collect(to); return nil }) // it is in the log; the registry has goroutines of its own
}

func (c collector) collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	s := c.server
	m := &s.measures
	gauge(descInfo, 1, version())
	gauge(descReady, float64(number(s.Ready())))
	gauge(descPaused, float64(number(s.paused.Load() != nil)))
	n := s.census()
	for state, k := range n.states {
		gauge(descClients, float64(k), state)
	}
	gauge(descPinned, float64(n.pinned))
	gauge(descMaxWait, n.longest.Seconds())
	gauge(descStarting, float64(n.starting))
	gauge(descPrepared, float64(n.prepared))
	count(descLogins, m.clients.Load())
	count(descRefused, m.refused.Load())
	t := s.totals()
	count(descStatements, t.Statements)
	count(descFlown, s.loops.flown())
	count(descTx, t.Transactions)
	count(descReceived, t.Received)
	count(descSent, t.Sent)
	count(descSlow, m.slow.Load())
	count(descPanics, m.panics.Load())
	m.errors.each(func(class string, n uint64) { count(descErrors, n, class) })
	for i := range m.latency {
		to <- m.latency[i].read().metric(descDuration, workNames[i])
	}
	to <- m.waits.read().metric(descWait)
	for _, src := range s.sources() {
		view := src.engine.View()
		gauge(descEpoch, float64(view.Epoch), src.key)
		gauge(descTerm, float64(view.Term), src.key)
		checks, through := src.engine.Checks(), 0.0
		if !checks.Through.IsZero() {
			through = float64(checks.Through.UnixMilli()) / 1000
		}
		count(descChecked, checks.Rows, src.key)
		gauge(descThrough, through, src.key)
		r := src.engine.Replays()
		count(descReplays, r.Done, src.key, "done")
		count(descReplays, r.Differed, src.key, "differed")
		count(descReplays, r.Failed, src.key, "failed")
		count(descReplays, r.Unfit, src.key, "unfit")
	}
	count(descViews, m.views.Load())
	count(descFailovers, m.failovers.Load())
	s.eachMember(func(src *source, ms engine.MemberStats) {
		db, id := src.key, strconv.Itoa(int(ms.ID))
		gauge(descInSync, float64(number(ms.InSync)), db, id, ms.Host)
		gauge(descLeader, float64(number(ms.Leader)), db, id, ms.Host)
		gauge(descUsable, float64(number(ms.Usable)), db, id, ms.Host)
		count(descRan, ms.Reads, db, id, ms.Host, "read")
		count(descRan, ms.Writes, db, id, ms.Host, "write")
		count(descLost, ms.Errors, db, id, ms.Host)
		count(descDiffer, ms.Differences, db, id, ms.Host)
		gauge(descRunning, float64(ms.Outstanding), db, id, ms.Host)
		gauge(descLatency, ms.Latency.Seconds(), db, id, ms.Host)
		for purpose, p := range map[string]engine.PoolStats{"read": ms.ReadPool, "write": ms.WritePool} {
			gauge(descPool, float64(p.InUse), db, id, ms.Host, purpose, "in_use")
			gauge(descPool, float64(p.Idle), db, id, ms.Host, purpose, "idle")
			gauge(descPoolMax, float64(p.Max), db, id, ms.Host, purpose)
			gauge(descPoolWait, float64(p.Waiting), db, id, ms.Host, purpose)
		}
	})
}

func (c counted) metric(d *prometheus.Desc, labels ...string) prometheus.Metric {
	buckets, n := map[float64]uint64{}, uint64(0)
	for i := range histogramSteps {
		n += c.counts[i]
		buckets[(histogramUnit << i).Seconds()] = n
	}
	return prometheus.MustNewConstHistogram(d, c.total, c.sum.Seconds(), buckets, labels...)
}

// census counts clients.
type census struct {
	states                     map[string]int
	all                        int
	pinned, starting, prepared int
	longest                    time.Duration
}

func (s *Server) census() census {
	n := census{states: map[string]int{stateActive: 0, stateWaiting: 0, stateInTx: 0, stateIdle: 0}}
	for _, i := range s.infos() {
		n.all++
		n.states[i.state]++
		if i.pins != 0 {
			n.pinned++
		}
		n.longest = max(n.longest, i.wait)
	}
	s.mu.Lock()
	n.starting = s.starting
	s.mu.Unlock()
	s.keys.mu.Lock()
	n.prepared = len(s.keys.all)
	s.keys.mu.Unlock()
	return n
}
