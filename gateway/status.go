package gateway

import (
	"time"

	"github.com/pgdist/pgdist/internal/engine"
)

// status is what /status.json tells. Durations are in milliseconds.
type status struct {
	At         time.Time      `json:"at"`
	Version    string         `json:"version"`
	Since      time.Time      `json:"since"`
	Ready      bool           `json:"ready"`
	Paused     bool           `json:"paused"`
	Draining   bool           `json:"draining"`
	Epoch      int64          `json:"epoch"`
	Term       int64          `json:"term"`
	Leader     string         `json:"leader"`
	Acked      string         `json:"acked"`
	Members    []memberStatus `json:"members"`
	Clients    map[string]int `json:"clients"`
	Pinned     int            `json:"pinned"`
	MaxClients int            `json:"max_clients"`
	Prepared   int            `json:"prepared"`
	Rates      rates          `json:"rates"`
	Errors     []errorStatus  `json:"errors"`
	Events     []event        `json:"events"`
}

type memberStatus struct {
	Database  string     `json:"database"`
	ID        int        `json:"id"`
	Host      string     `json:"host"`
	Role      string     `json:"role"`
	InSync    bool       `json:"in_sync"`
	Usable    bool       `json:"usable"`
	Weight    int        `json:"weight"`
	Running   int        `json:"running"`
	Latency   float64    `json:"latency_ms"`
	Reads     uint64     `json:"reads"`
	Writes    uint64     `json:"writes"`
	Errors    uint64     `json:"errors"`
	Read      poolStatus `json:"read_pool"`
	Write     poolStatus `json:"write_pool"`
	LastError string     `json:"last_error,omitempty"`
	State     string     `json:"state,omitempty"`
	Differ    uint64     `json:"differences"`
}

type poolStatus struct {
	InUse   int `json:"in_use"`
	Idle    int `json:"idle"`
	Max     int `json:"max"`
	Waiting int `json:"waiting"`
}

type errorStatus struct {
	Class string `json:"class"`
	Count uint64 `json:"count"`
}

// rates are per second, and durations in milliseconds, over the latest second or two.
type rates struct {
	Statements   float64            `json:"statements"`
	Transactions float64            `json:"transactions"`
	Received     float64            `json:"received"`
	Sent         float64            `json:"sent"`
	Work         map[string]quickly `json:"work"`
}

// quickly is how one kind of work went.
type quickly struct {
	Rate   float64 `json:"rate"`
	Mean   float64 `json:"mean_ms"`
	Median float64 `json:"p50_ms"` // an upper bound, as is the next
	Slow   float64 `json:"p99_ms"`
}

// reading is the counters at one moment.
type reading struct {
	totals totals
	work   [works]counted
}

func (s *Server) read() (r reading) {
	r.totals = s.totals()
	for i := range r.work {
		r.work[i] = s.measures.latency[i].read()
	}
	return r
}

// rateWindow is the shortest time that rates are taken over: several readers share them.
const rateWindow = 900 * time.Millisecond

// rates are those of the latest window that has ended.
func (a *admin) rates() rates {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if a.at.IsZero() {
		a.at, a.last = a.server.began, reading{}
	}
	d := now.Sub(a.at)
	if d < rateWindow && a.rate.Work != nil {
		return a.rate
	}
	next := a.server.read()
	per := func(n uint64) float64 { return float64(n) / max(d.Seconds(), 0.001) }
	t := next.totals.less(a.last.totals)
	a.rate = rates{
		Statements: per(t.Statements), Transactions: per(t.Transactions), Received: per(t.Received), Sent: per(t.Sent), Work: map[string]quickly{},
	}
	for i, name := range workNames {
		c := next.work[i].less(a.last.work[i])
		q := quickly{Rate: per(c.total), Median: milliseconds(c.quantile(0.5)), Slow: milliseconds(c.quantile(0.99))}
		if c.total > 0 {
			q.Mean = milliseconds(c.sum / time.Duration(c.total))
		}
		a.rate.Work[name] = q
	}
	a.at, a.last = now, next
	return a.rate
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func poolOf(p engine.PoolStats) poolStatus { return poolStatus{p.InUse, p.Idle, p.Max, p.Waiting} }

// report is the whole of it.
func (a *admin) report() status {
	s := a.server
	view, n := s.engine.View(), s.census()
	st := status{
		At: time.Now(), Version: version(), Since: s.began, Ready: s.Ready(), Paused: s.paused.Load() != nil, Draining: s.isClosing(),
		Epoch: view.Epoch, Term: view.Term, Leader: hostOf(view, view.Leader), Acked: s.engine.Acked().Snapshot, Clients: n.states, Pinned: n.pinned, MaxClients: s.conf().MaxClients,
		Prepared: n.prepared, Rates: a.rates(), Errors: []errorStatus{}, Events: s.history.latest(),
	}
	s.measures.errors.each(func(class string, n uint64) { st.Errors = append(st.Errors, errorStatus{class, n}) })
	s.eachMember(func(src *source, m engine.MemberStats) {
		st.Members = append(st.Members, memberStatus{
			Database: src.key, ID: int(m.ID), Host: m.Host, Role: roleOf(m), InSync: m.InSync, Usable: m.Usable, Weight: m.Weight, Running: m.Outstanding,
			Latency: milliseconds(m.Latency), Reads: m.Reads, Writes: m.Writes, Errors: m.Errors, Read: poolOf(m.ReadPool), Write: poolOf(m.WritePool), LastError: m.LastError,
			State: m.State, Differ: m.Differences,
		})
	})
	return st
}
