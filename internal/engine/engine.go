package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/health"
)

// Engine is a set of mirrored databases as its clients see it: one. All of its
// methods are safe for concurrent use.
type Engine struct {
	config  Config
	mirror  Mirror
	log     *slog.Logger
	cache   *classify.Cache
	catalog *catalog
	oids    oidTables
	members atomic.Pointer[map[health.MemberID]*member]
	turn    atomic.Uint64
	// hollowUntil is until when read-only transactions begin at the leader, on
	// nanotime's clock.
	hollowUntil atomic.Int64
	// actedUntil is the same after one that did what belongs to the leader's connections for writes.
	actedUntil atomic.Int64
	routes     atomic.Pointer[routes]
	replays    replayCounts

	mu      sync.Mutex // guards changes of routes and the members' states, and closed
	closed  bool
	tenants []*Tenant
	leaving []*member // removed from the set, to be closed once nobody uses them
	limits  Limits

	ctx     context.Context // ends at Close
	stop    context.CancelFunc
	running sync.WaitGroup
	closer  func() error
}

// routes is a view with the members that it names looked up. It is immutable.
type routes struct {
	view    *health.View
	leader  *member // nil if there is none
	readers []*member
}

// New makes an Engine of members over m. config must be valid; byID tells which
// of config.Members is which member of the view. The Engine does not close m;
// closer, if not nil, is called at the end of Close.
func New(config Config, m Mirror, byID map[health.MemberID]int, closer func() error) (*Engine, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.Dial == nil {
		return nil, errors.New("pgdist: Config.Dial is not set")
	}
	config = config.withDefaults()
	e := &Engine{
		config: config, mirror: m, log: config.Logger, closer: closer,
		cache: classify.NewCache(config.CacheBytes),
	}
	members := map[health.MemberID]*member{}
	e.members.Store(&members)
	e.ctx, e.stop = context.WithCancel(context.Background())
	for id, i := range byID {
		mem, err := newMember(id, config.Members[i], config, func(ctx context.Context) error { return m.Vouch(ctx, id) })
		if err != nil {
			return nil, err
		}
		members[id] = mem
	}
	e.catalog = newCatalog(e)
	e.reroute()
	e.spawn(e.watch)
	e.spawn(e.sweep)
	return e, nil
}

func newMember(id health.MemberID, mc MemberConfig, config Config, vouch func(context.Context) error) (*member, error) {
	m := &member{vouch: vouch, wrap: config.Wrap, id: id, host: hostPort(mc.Conn), config: mc.Conn, weight: mc.effectiveWeight()}
	own, err := newPools(m, mc.Conn, config.Pool, config.Dial)
	if err != nil {
		return nil, err
	}
	m.pools = own
	m.all.Store(&[]*pools{own})
	return m, nil
}

// Close ends all connections and waits until nothing of the engine runs any
// more. Statements in flight are cut off.
func (e *Engine) Close() error {
	e.mu.Lock()
	was := e.closed
	e.closed = true
	e.mu.Unlock()
	if was {
		return nil
	}
	e.stop()
	var wg sync.WaitGroup
	for _, m := range e.all() {
		wg.Go(m.close)
	}
	e.mu.Lock()
	for _, m := range e.leaving {
		wg.Go(m.close)
	}
	e.mu.Unlock()
	wg.Wait()
	e.running.Wait()
	if e.closer != nil {
		return e.closer()
	}
	return nil
}

// Classify is the verdict on a statement, from the engine's cache.
func (e *Engine) Classify(sql string) *classify.Verdict { return e.cache.Classify(sql) }

// Known is the verdict on a statement if it is in that cache, nil otherwise.
func (e *Engine) Known(sql string) *classify.Verdict { return e.cache.Known(sql) }

// Config is what the engine was opened with, defaults filled in.
func (e *Engine) Config() Config { return e.config }

// View is the present view of the set.
func (e *Engine) View() *health.View { return e.mirror.View() }

// WaitView blocks until the view's epoch is above epoch or ctx ends.
func (e *Engine) WaitView(ctx context.Context, epoch int64) (*health.View, error) {
	return e.mirror.WaitView(ctx, epoch)
}

// Acked is a point in the leader's history that lies behind every transaction that was
// acknowledged so far.
func (e *Engine) Acked() Point { return e.mirror.Acked() }

// Ready tells whether there is a leader and its breaker lets statements through.
func (e *Engine) Ready() bool {
	view := e.mirror.View()
	return view.Leader != 0 && e.mirror.Usable(view.Leader)
}

// Stats tells about each member, in the order of the view's members.
func (e *Engine) Stats() []MemberStats {
	view := e.mirror.View()
	var list []MemberStats
	var states map[health.MemberID]string
	checks := e.Checks()
	if c, ok := e.mirror.(checker); ok {
		states = c.States()
	}
	for _, vm := range view.Members {
		if m := e.all()[vm.ID]; m != nil {
			s := m.stats(view)
			s.Usable = e.mirror.Usable(vm.ID)
			s.State, s.Differences = states[vm.ID], checks.Differences[vm.ID]
			list = append(list, s)
		}
	}
	return list
}

// route returns the routes of the present view.
func (e *Engine) route() *routes {
	if r := e.routes.Load(); r.view == e.mirror.View() {
		return r
	}
	return e.reroute()
}

// reroute looks the members of the present view up and moves their pools in or
// out of use.
func (e *Engine) reroute() *routes {
	e.mu.Lock()
	defer e.mu.Unlock()
	view := e.mirror.View()
	if r := e.routes.Load(); r != nil && (r.view == view || r.view.Epoch > view.Epoch) {
		return r
	}
	e.meetLocked(view)
	r := &routes{view: view, leader: e.all()[view.Leader]}
	for _, id := range view.InSync {
		// What a statement means, and how its result is written, may differ from
		// one major version to the next.
		if m := e.all()[id]; m != nil && (m == r.leader || e.mirror.Alike(id)) {
			r.readers = append(r.readers, m)
		}
	}
	e.oids.forget() // before anybody uses a member that is new in this view
	e.routes.Store(r)
	for id, m := range e.all() {
		state := excluded
		if view.Has(id) {
			state = inSync
		}
		if m.state.Load() != state {
			e.log.Info("member changes", "member", id, "host", m.host, "in_sync", state == inSync, "epoch", view.Epoch)
		}
		m.setState(state)
	}
	return r
}

// watch follows the view even while no statement asks for it.
func (e *Engine) watch() {
	for e.ctx.Err() == nil {
		if _, err := e.mirror.WaitView(e.ctx, e.route().view.Epoch); err != nil && !sleep(e.ctx, retryPause) {
			return
		}
	}
}

const (
	// sweepEvery is how often connections to excluded members are looked at.
	sweepEvery = 250 * time.Millisecond
	// trimEvery is how many sweeps lie between two looks at idle connections.
	trimEvery = 40
	// settingsEvery is how many lie between two looks at what roles have set, which others may
	// have changed.
	settingsEvery = 40
	// retryPause is the first pause of a statement that has to wait for a
	// member; it grows up to retryPauseMax.
	retryPause    = 10 * time.Millisecond
	retryPauseMax = 500 * time.Millisecond
)

// sweep kills what hangs on excluded members and closes idle connections.
func (e *Engine) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-e.ctx.Done():
			return
		case <-tick.C:
		}
		r := e.route()
		e.dismiss()
		for _, m := range e.all() {
			e.sweepMember(m, r, n%trimEvery == 0)
		}
		if n%settingsEvery == 0 && e.connections() > 1 { // one may be that by which it was looked last
			e.spawn(e.catalog.look)
		}
	}
}

// connections counts those of all pools.
func (e *Engine) connections() (n int64) {
	for _, m := range e.all() {
		for _, ps := range *m.all.Load() {
			for _, p := range ps {
				n += p.exist.Load()
			}
		}
	}
	return n
}

func (e *Engine) sweepMember(m *member, r *routes, trim bool) {
	for _, ps := range *m.all.Load() {
		for p, pl := range ps {
			switch {
			case m.state.Load() == excluded, purpose(p) == readWrite && m != r.leader:
				pl.killStuck()
			case trim:
				pl.trim()
			}
		}
	}
}

// spawn runs f until Close waits for it; false if the engine is closed.
func (e *Engine) spawn(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.running.Go(f)
	return true
}

// report tells the mirror how work on a member went.
func (e *Engine) report(m *member, d time.Duration, err error) {
	if err != nil {
		m.failed(err)
	}
	e.mirror.Report(m.id, d, err)
}

// sleep waits for d and tells whether ctx still goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
