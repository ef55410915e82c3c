package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// MemberConfig is one member to watch.
type MemberConfig struct {
	ID MemberID
	// Host is for messages.
	Host string
	// Config is the member's own, already laid over the set's ([Config.Over]).
	Config Config
}

// BoardConfig configures a [Board].
type BoardConfig struct {
	// Members are those to watch, each ID once.
	Members []MemberConfig
	// Probe asks one member whether it works; ctx ends after ProbeTimeout. It
	// must run SQL: a stopped server still accepts connections. It must return
	// soon after ctx ends, for its verdict and Close wait for it. Where it
	// keeps a connection and finds it broken, it must connect anew and ask
	// again in the same call: somebody may have terminated the backend. It
	// is called for different members at the same time, never twice for one.
	Probe func(ctx context.Context, id MemberID) error
	// Logger hears of transitions; nil discards.
	Logger *slog.Logger
}

// Validate joins everything that is wrong with c.
func (c BoardConfig) Validate() error {
	var errs []error
	if c.Probe == nil {
		errs = append(errs, errors.New("health: BoardConfig.Probe is not set"))
	}
	seen := make(map[MemberID]bool, len(c.Members))
	for _, m := range c.Members {
		if m.ID < 1 {
			errs = append(errs, fmt.Errorf("health: member %d (%s): ids count from 1", m.ID, m.Host))
		}
		if seen[m.ID] {
			errs = append(errs, fmt.Errorf("health: member %d (%s) is listed twice", m.ID, m.Host))
		}
		seen[m.ID] = true
		if err := m.Config.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("member %d (%s): %w", m.ID, m.Host, err))
		}
	}
	return errors.Join(errs...)
}

// Board watches the members of a set: it probes each of them, counts the
// results of client work, and publishes their states.
type Board struct {
	cfg     BoardConfig
	watched atomic.Pointer[[]*watched] // ordered by ID; replaced when a member is added or removed
	snap    atomic.Pointer[Snapshot]
	events  chan Event
	dirty   chan struct{} // of one: something is to be published

	mu     sync.Mutex
	ctx    context.Context    // of the probes; set by Start
	cancel context.CancelFunc // set by Start
	closed bool
	wg     sync.WaitGroup
}

// watched is one member and its breaker.
type watched struct {
	MemberConfig
	breaker *Breaker
	look    chan struct{} // of one: probe soon
	stop    context.CancelFunc
}

// NewBoard makes a board on which every member's breaker is closed and
// nothing is probed yet. Results may be reported from now on.
func NewBoard(cfg BoardConfig) *Board {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Board{
		cfg:    cfg,
		events: make(chan Event),
		dirty:  make(chan struct{}, 1),
	}
	all := make([]*watched, 0, len(cfg.Members))
	for _, m := range cfg.Members {
		all = append(all, b.newWatched(m))
	}
	slices.SortStableFunc(all, func(x, y *watched) int { return int(x.ID - y.ID) })
	b.watched.Store(&all)
	b.publish()
	return b
}

func (b *Board) newWatched(m MemberConfig) *watched {
	m.Config = m.Config.WithDefaults()
	return &watched{MemberConfig: m, breaker: NewBreaker(m.Config, func() { nudge(b.dirty) }), look: make(chan struct{}, 1), stop: func() {}}
}

// Add begins to watch one member more, whose breaker is closed. It fails for one that is
// watched already or whose configuration is not valid.
func (b *Board) Add(m MemberConfig) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := slices.Clone(*b.watched.Load())
	c := b.cfg
	c.Members = []MemberConfig{m}
	for _, w := range all {
		c.Members = append(c.Members, w.MemberConfig)
	}
	if err := c.Validate(); err != nil {
		return err
	}
	w := b.newWatched(m)
	all = append(all, w)
	slices.SortStableFunc(all, func(x, y *watched) int { return int(x.ID - y.ID) })
	b.watched.Store(&all)
	if b.ctx != nil && !b.closed {
		b.begin(w)
	}
	nudge(b.dirty)
	return nil
}

// Remove stops watching a member; one that is not watched is no error. Its probe may
// still be under way when Remove returns, and ends soon.
func (b *Board) Remove(id MemberID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := slices.Clone(*b.watched.Load())
	for _, w := range all {
		if w.ID == id {
			w.stop()
		}
	}
	all = slices.DeleteFunc(all, func(w *watched) bool { return w.ID == id })
	b.watched.Store(&all)
	nudge(b.dirty)
}

// begin starts to probe a member; under the lock.
func (b *Board) begin(w *watched) {
	var ctx context.Context
	ctx, w.stop = context.WithCancel(b.ctx)
	b.wg.Go(func() { b.watch(ctx, w) })
}

// Start begins to probe, every member at once, until ctx ends or Close. It
// returns what [BoardConfig.Validate] finds, and then starts nothing. A board
// starts once.
func (b *Board) Start(ctx context.Context) error {
	if err := b.cfg.Validate(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cancel != nil || b.closed {
		return errors.New("health: a board can be started only once")
	}
	b.ctx, b.cancel = context.WithCancel(ctx)
	for _, w := range *b.watched.Load() {
		b.begin(w)
	}
	b.wg.Go(func() { b.tell(b.ctx) })
	return nil
}

// Close ends the probes, waits for all goroutines of the board and closes
// Events. The last snapshot stays readable.
func (b *Board) Close() {
	b.mu.Lock()
	first := !b.closed
	b.closed = true
	if b.cancel != nil {
		b.cancel()
	}
	b.mu.Unlock()
	b.wg.Wait()
	if first {
		close(b.events)
	}
}

// Report counts the result of client work on a member, which took d (0:
// unknown); see [Classify] and [Breaker.Report]. It never blocks: a nil err
// costs two atomic additions, a failure a short lock. Results of members that
// the board does not know are dropped.
func (b *Board) Report(id MemberID, d time.Duration, err error) {
	w := b.find(id)
	if w == nil {
		return
	}
	if w.breaker.Report(d, err) {
		nudge(w.look)
	}
}

// Retry has a member whose breaker is open probed as soon as its open_timeout is over,
// however often it has opened lately (see [Breaker.Retry]). One that the board does not know
// is no error.
func (b *Board) Retry(id MemberID) {
	if w := b.find(id); w != nil {
		w.breaker.Retry()
		nudge(w.look)
	}
}

// Snapshot is the present state of all members; never nil. It takes no lock.
func (b *Board) Snapshot() *Snapshot { return b.snap.Load() }

// Events tells transitions. There is one channel, for one reader. A reader that
// is slow never holds the board up and never misses where a member has ended
// up: the transitions of a member that it has not yet taken become one (see
// [Change]). What is not taken before Close is in the last snapshot. A
// snapshot that shows the new state is published before its event is sent.
func (b *Board) Events() <-chan Event { return b.events }

func (b *Board) find(id MemberID) *watched {
	all := *b.watched.Load()
	if i := int(id) - 1; i >= 0 && i < len(all) && all[i].ID == id {
		return all[i]
	}
	for _, w := range all {
		if w.ID == id {
			return w
		}
	}
	return nil
}

// tell owns the snapshot and the events' channel.
func (b *Board) tell(ctx context.Context) {
	var waiting []*Event
	for {
		waiting = b.collect(waiting)
		var out chan<- Event
		var next Event
		if len(waiting) > 0 {
			out, next = b.events, *waiting[0]
		}
		select {
		case <-ctx.Done():
			b.publish()
			return
		case <-b.dirty:
		case out <- next:
			waiting = waiting[1:]
		}
	}
}

// collect merges new transitions into those that still wait for the reader and
// publishes the present states, in this order: see Events.
func (b *Board) collect(waiting []*Event) []*Event {
	for _, w := range *b.watched.Load() {
		c, has := w.breaker.Take()
		if !has {
			continue
		}
		b.log(w, c)
		if i := slices.IndexFunc(waiting, func(e *Event) bool { return e.Member == w.ID }); i >= 0 {
			waiting[i] = &Event{Member: w.ID, Change: waiting[i].Change.then(c)}
		} else {
			waiting = append(waiting, &Event{Member: w.ID, Change: c})
		}
	}
	b.publish()
	return waiting
}

func (b *Board) publish() {
	all := *b.watched.Load()
	snap := &Snapshot{Members: make([]Status, len(all))}
	for i, w := range all {
		snap.Members[i] = w.breaker.Status()
		snap.Members[i].ID, snap.Members[i].Host = w.ID, w.Host
	}
	b.snap.Store(snap)
}

func (b *Board) log(w *watched, c Change) {
	level := slog.LevelInfo
	if c.To == Open && c.From == Closed {
		level = slog.LevelWarn
	}
	attrs := []any{"member", int(w.ID), "host", w.Host, "from", c.From.String(), "to", c.To.String()}
	if c.Err != nil {
		attrs = append(attrs, "err", c.Err)
	}
	b.cfg.Logger.Log(context.Background(), level, "breaker of a database changed", attrs...)
}

// nudge leaves a note in a channel of one without waiting; a note that is
// already there does as well.
func nudge(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
