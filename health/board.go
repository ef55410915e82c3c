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
	watched []*watched // ordered by ID
	snap    atomic.Pointer[Snapshot]
	events  chan Event
	dirty   chan struct{} // of one: something is to be published

	mu     sync.Mutex
	cancel context.CancelFunc // set by Start
	closed bool
	wg     sync.WaitGroup
}

// watched is one member and its breaker.
type watched struct {
	MemberConfig
	breaker *Breaker
	look    chan struct{} // of one: probe soon
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
	for _, m := range cfg.Members {
		m.Config = m.Config.WithDefaults()
		b.watched = append(b.watched, &watched{
			MemberConfig: m,
			breaker:      NewBreaker(m.Config, func() { nudge(b.dirty) }),
			look:         make(chan struct{}, 1),
		})
	}
	slices.SortStableFunc(b.watched, func(x, y *watched) int { return int(x.ID - y.ID) })
	b.publish()
	return b
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
	ctx, b.cancel = context.WithCancel(ctx)
	for _, w := range b.watched {
		b.wg.Go(func() { b.watch(ctx, w) })
	}
	b.wg.Go(func() { b.tell(ctx) })
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

// Snapshot is the present state of all members; never nil. It takes no lock.
func (b *Board) Snapshot() *Snapshot { return b.snap.Load() }

// Events tells transitions. There is one channel, for one reader. A reader that
// is slow never holds the board up and never misses where a member has ended
// up: the transitions of a member that it has not yet taken become one (see
// [Change]). What is not taken before Close is in the last snapshot. A
// snapshot that shows the new state is published before its event is sent.
func (b *Board) Events() <-chan Event { return b.events }

func (b *Board) find(id MemberID) *watched {
	if i := int(id) - 1; i >= 0 && i < len(b.watched) && b.watched[i].ID == id {
		return b.watched[i]
	}
	for _, w := range b.watched {
		if w.ID == id {
			return w
		}
	}
	return nil
}

// tell owns the snapshot and the events' channel.
func (b *Board) tell(ctx context.Context) {
	waiting := make([]*Event, len(b.watched))
	for {
		b.collect(waiting)
		i := slices.IndexFunc(waiting, func(e *Event) bool { return e != nil })
		var out chan<- Event
		var next Event
		if i >= 0 {
			out, next = b.events, *waiting[i]
		}
		select {
		case <-ctx.Done():
			b.publish()
			return
		case <-b.dirty:
		case out <- next:
			waiting[i] = nil
		}
	}
}

// collect merges new transitions into those that still wait for the reader and
// publishes the present states, in this order: see Events.
func (b *Board) collect(waiting []*Event) {
	for i, w := range b.watched {
		c, has := w.breaker.Take()
		if !has {
			continue
		}
		b.log(w, c)
		if old := waiting[i]; old != nil {
			c = old.Change.then(c)
		}
		waiting[i] = &Event{Member: w.ID, Change: c}
	}
	b.publish()
}

func (b *Board) publish() {
	snap := &Snapshot{Members: make([]Status, len(b.watched))}
	for i, w := range b.watched {
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
