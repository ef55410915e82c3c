package engine

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/health"
)

// A member's state as far as its pools are concerned.
const (
	excluded int32 = iota // not in sync: no connection is kept
	inSync
)

// member is one database with its pools and the numbers that routing goes by.
type member struct {
	id     health.MemberID
	host   string
	config *pgx.ConnConfig
	weight int
	pools  *pools                      // the Config's user's
	all    atomic.Pointer[[]*pools]    // and every tenant's
	vouch  func(context.Context) error // see Mirror.Vouch
	wrap   func(net.Conn) net.Conn     // see Config.Wrap
	state  atomic.Int32
	gate   gate // for tenants

	outstanding atomic.Int64
	awaited     atomic.Int64 // by those who wait for one of its connections
	latency     atomic.Int64 // moving average, nanoseconds
	reads       atomic.Uint64
	writes      atomic.Uint64
	errors      atomic.Uint64
	lastError   atomic.Pointer[string]
}

// latencyShare is the part that one more statement has in the average, as a shift.
const latencyShare = 4

// observe adds a read's duration to the moving average. Concurrent updates may
// lose one another, which an average can bear.
func (m *member) observe(d time.Duration) {
	old := m.latency.Load()
	if old == 0 {
		m.latency.Store(int64(d))
		return
	}
	m.latency.Store(old + (int64(d)-old)>>latencyShare)
}

func (m *member) failed(err error) {
	m.errors.Add(1)
	text := err.Error()
	m.lastError.Store(&text)
}

// setState moves the member in or out of use and tells its pools.
func (m *member) setState(state int32) {
	if m.state.Swap(state) == state {
		return
	}
	for _, ps := range *m.all.Load() {
		for _, p := range ps {
			if state == excluded {
				p.exclude()
			} else {
				p.admit()
			}
		}
	}
}

// renew has every pool begin with new connections.
func (m *member) renew() {
	for _, ps := range *m.all.Load() {
		for _, p := range ps {
			p.renew()
		}
	}
}

func (m *member) close() {
	for _, ps := range *m.all.Load() {
		ps.close()
	}
}

// load is how much the member has to do, and will have as soon as it can.
func (m *member) load() int64 { return m.outstanding.Load() + m.awaited.Load() }

// PoolStats counts one pool's connections.
type PoolStats struct {
	// InUse are leased, Idle are the others that exist, Max may exist.
	InUse, Idle, Max int
	// Waiting are statements that wait for one.
	Waiting int
}

// MemberStats is what the engine knows of one member.
type MemberStats struct {
	ID   health.MemberID
	Host string
	// Leader and InSync are the member's part in the present view.
	Leader, InSync bool
	// Usable tells whether its breaker lets statements through.
	Usable bool
	// Weight is its weight for reads; 0 is last resort.
	Weight int
	// Reads and Writes count statements that ran there since the engine was
	// opened; Errors those that a broken connection ended.
	Reads, Writes, Errors uint64
	// Outstanding are statements running now.
	Outstanding int
	// Latency is a moving average over its reads; 0 if there were none.
	Latency time.Duration
	// ReadPool and WritePool are its connections.
	ReadPool, WritePool PoolStats
	// LastError is the text of the latest broken connection, or empty.
	LastError string
	// State is what it is doing, in a few words; "" if that is not known.
	State string
	// Differences counts what this program has found to differ there from the leader.
	Differences uint64
}

func (m *member) stats(view *health.View) MemberStats {
	s := MemberStats{
		ID: m.id, Host: m.host, Leader: view.Leader == m.id, InSync: view.Has(m.id), Weight: m.weight,
		Reads: m.reads.Load(), Writes: m.writes.Load(), Errors: m.errors.Load(),
		Outstanding: int(m.outstanding.Load()), Latency: time.Duration(m.latency.Load()),
		ReadPool: m.poolStats(readOnly), WritePool: m.poolStats(readWrite),
	}
	if text := m.lastError.Load(); text != nil {
		s.LastError = *text
	}
	return s
}

// poolStats adds up the pools of all users for one purpose.
func (m *member) poolStats(p purpose) (sum PoolStats) {
	for _, ps := range *m.all.Load() {
		s := ps[p].stats()
		sum.InUse, sum.Idle, sum.Max, sum.Waiting = sum.InUse+s.InUse, sum.Idle+s.Idle, sum.Max+s.Max, sum.Waiting+s.Waiting
	}
	return sum
}

func (pl *pool) stats() PoolStats {
	s, used := pl.p.Stat(), int(pl.inUse.Load())
	return PoolStats{InUse: used, Idle: max(0, int(s.TotalResources())-used), Max: int(s.MaxResources()), Waiting: int(pl.waiters.Load() + pl.queued.Load())}
}
