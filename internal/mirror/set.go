// Package mirror keeps the databases of a set identical: it journals what
// writes did on the leader, brings followers up to it, and decides with the
// members who leads. See DESIGN.md beside this file.
package mirror

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgdist/pgdist/health"
)

// Set is an open set of mirrored databases. Its methods may be called by any
// number of goroutines.
type Set struct {
	cfg     Config
	log     *slog.Logger
	members roster
	board   *health.Board

	view    atomic.Pointer[health.View] // published: what clients go by
	acked   atomic.Pointer[Place]       // all that was acknowledged lies before it
	suspect atomic.Bool                 // a connection to the leader broke: look whether it crashed

	mu      sync.Mutex
	waiting []*waiter
	news    chan struct{}             // closed and replaced when a view is published
	down    map[health.MemberID]error // breakers that are open
	crashed map[health.MemberID]error // found to have crashed, and to lack something by it
	cancel  context.CancelCauseFunc   // ends the flush in progress
	engaged map[health.MemberID]bool  // members that flush talks to

	id          string                   // of this distributor
	grant       atomic.Pointer[grant]    // until when reads may go by view; nil: not yet
	others      atomic.Int32             // distributors beside this one that are alive
	noTurns     time.Time                // until then flushes are made out of turn
	newcomers   map[health.MemberID]bool // taken back by the view that was entered last
	listed      atomic.Pointer[listing]  // how this one stands on the lists; nil: not at all
	newer       atomic.Bool              // a member has heard of a newer view
	unsupported atomic.Bool              // no majority of those that answer has accepted the view
	proposing   atomic.Int64             // the epoch that this distributor has, or had, a view chosen for
	entered     atomic.Int64             // of cur
	changes     atomic.Int64             // see Changes
	drained     atomic.Int64             // nobody reads by a view older than that of this epoch
	leaderHeard atomic.Int64             // when the leader last answered, see monotonic; 0: not the last time
	granted     chan struct{}            // closed and replaced with each grant
	drains      chan struct{}            // closed and replaced when drained rises
	confirms    chan struct{}            // asks for a confirmation at once

	wake     chan struct{}
	joins    chan *joiner
	aligns   chan *alignment
	switches chan *switchJob
	tasks    chan *task
	lists    chan *relistJob
	given    *answer // a promise that the next proposal has already, owned by the loop

	life    context.Context // ends with Close
	stop    context.CancelFunc
	done    sync.WaitGroup
	closing sync.Once

	// Owned by the loop.
	cur        *health.View // the chosen view
	terms      []byte       // the chain of terms to ship with the next flush; nil if all followers have it
	leaderC    *conn        // reads batches
	gateC      *conn        // forces WAL to disk
	pruned     time.Time
	alarmed    int           // the percentage of the latest alarm about the journal
	marker     string        // of the shared objects that all followers of this view have; "" is unknown
	looked     time.Time     // when shared objects were last read unasked
	deep       time.Time     // when sequences that nobody has called were last read, …
	deepTook   time.Duration // … and how long that flush took
	unseen     bool          // the leader has what no event trigger was told of (unseen.go)
	troubles   int           // attempts in a row to flush that failed
	duels      int           // proposals in a row that met another's, or that met an epoch without a view
	unsettled  time.Time     // when it was last tried to end a change of votes; zero: none is under way
	complained time.Time     // when the log heard of it
	strikes    int           // repetitions of the same work in a row
	group      int           // how many commits are hoped to share the next flush
	took       time.Duration // by the last flush

	checks  checks
	copies  atomic.Bool                   // a member is being copied afresh
	journal atomic.Pointer[JournalStatus] // nil: not known yet
	evicted evictions                     // whose locks were in the way
	refill  atomic.Int64                  // when materialized views are to be looked after (see monotonic); 0: they are filled

	lastErr atomic.Pointer[error] // why writes are not acknowledged, if they are not
}

// waiter is a write that waits for its acknowledgement.
type waiter struct {
	term int64
	how  depth
	done chan error
	at   time.Time
}

// Change tells Ack what a transaction may have changed beyond rows.
type Change struct {
	Sequences bool
	Schema    bool
}

func (c Change) depth() depth {
	switch {
	case c.Schema && c.Sequences:
		return changed
	case c.Schema:
		return defined
	case c.Sequences:
		return sequences
	}
	return shallow
}

// View is the present view, immutable.
func (s *Set) View() *health.View { return s.view.Load() }

// Acked is a place behind everything acknowledged so far.
func (s *Set) Acked() Place { return *s.acked.Load() }

// Health is what the breakers and probes know.
func (s *Set) Health() *health.Snapshot { return s.board.Snapshot() }

// Usable tells whether the member's breaker lets reads through. It is asked for
// every read.
func (s *Set) Usable(id health.MemberID) bool { return s.board.Snapshot().State(id) != health.Open }

// Alike tells whether a member's server is of the leader's major version, as far as
// that is known.
func (s *Set) Alike(id health.MemberID) bool {
	m, lead := s.members.get(id), s.members.get(s.View().Leader)
	if m == nil || lead == nil {
		return false
	}
	a, b := m.major.Load(), lead.major.Load()
	return a == b || a == 0 || b == 0
}

// Report feeds the result of client work on a member to its breaker.
func (s *Set) Report(id health.MemberID, d time.Duration, err error) { s.board.Report(id, d, err) }

// Ack waits until every in-sync follower holds what was committed on the leader
// of term before the call. See [ErrTermOver].
func (s *Set) Ack(ctx context.Context, term int64, c Change) error {
	w := &waiter{term: term, how: c.depth(), done: make(chan error, 1), at: time.Now()}
	if err := s.enlist(w); err != nil {
		return err
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Flush brings the in-sync followers to the leader's present.
func (s *Set) Flush(ctx context.Context) error {
	for {
		err := s.Ack(ctx, s.View().Term, Change{Sequences: true})
		if !errors.Is(err, ErrTermOver) {
			return err
		}
	}
}

func (s *Set) enlist(w *waiter) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == nil {
		return ErrClosed
	}
	s.waiting = append(s.waiting, w)
	s.poke()
	return nil
}

func (s *Set) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// WaitView blocks until a view newer than epoch is published.
func (s *Set) WaitView(ctx context.Context, epoch int64) (*health.View, error) {
	for {
		s.mu.Lock()
		news := s.news
		s.mu.Unlock()
		if v := s.View(); v.Epoch > epoch {
			return v, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// publish makes the chosen view the one that clients go by.
func (s *Set) publish() {
	old := s.view.Load()
	s.view.Store(s.cur)
	s.duels = 0
	if old == nil || old.Epoch != s.cur.Epoch {
		s.log.Info("view", "epoch", s.cur.Epoch, "term", s.cur.Term, "leader", s.hostOf(s.cur.Leader), "in_sync", s.hosts(s.cur.InSync))
		s.warnOlder(s.cur)
	}
	for id, m := range s.members.all() {
		if isWitness(s.cur, id) {
			if n := m.note.Load(); n == nil || n.Text != textWitness {
				m.say(textWitness, nil)
			}
			continue
		}
		if n := m.note.Load(); s.cur.Has(id) && (n == nil || n.Text != textInSync) {
			m.say(textInSync, nil)
		} else if !s.cur.Has(id) && (n == nil || n.Text == textInSync) {
			m.say(textExcluded, s.downErr(id))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.news)
	s.news = make(chan struct{})
	s.confirmSoon()
}

// What a member's State.Text may be.
const (
	textInSync   = "in sync"
	textExcluded = "excluded"
	textCatchUp  = "catching up"
	textRefused  = "refused"
	textLost     = "lost its place"
	textWitness  = "votes, holds no data"
)

func (s *Set) hostOf(id health.MemberID) string {
	if m := s.members.get(id); m != nil {
		return m.host
	}
	return ""
}

func (s *Set) hosts(ids []health.MemberID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = s.hostOf(id)
	}
	return out
}

func (s *Set) downErr(id health.MemberID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down[id]
}

// isDown tells whether the member's breaker is not closed, as far as the loop has heard.
func (s *Set) isDown(id health.MemberID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, down := s.down[id]
	return down
}

// watch turns breaker events into work for the loop and ends a flush that waits
// for a member known not to answer.
func (s *Set) watch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-s.board.Events():
			s.mu.Lock()
			_, known := s.down[e.Member]
			switch {
			case e.To == health.Closed:
				delete(s.down, e.Member)
			case e.From == health.Open && e.To == health.HalfOpen && !known:
				// Another program has found it well, and so has this one since: see reconsider.
			default:
				s.down[e.Member] = e.Err
				if s.cancel != nil && s.engaged[e.Member] {
					s.cancel(&memberError{id: e.Member, err: e.Err})
				}
			}
			s.mu.Unlock()
			s.poke()
		}
	}
}

// engage makes a context that watch ends when one of ids is found dead.
func (s *Set) engage(ctx context.Context, ids []health.MemberID) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel, s.engaged = cancel, make(map[health.MemberID]bool, len(ids))
	for _, id := range ids {
		s.engaged[id] = true
		if err, dead := s.down[id]; dead {
			cancel(&memberError{id: id, err: err})
		}
	}
	return ctx, func() {
		s.mu.Lock()
		s.cancel, s.engaged = nil, nil
		s.mu.Unlock()
		cancel(nil)
	}
}

// Close stops mirroring and waits for all that runs. Writes that wait get ErrClosed.
func (s *Set) Close() {
	s.closing.Do(func() {
		s.stop()
		s.board.Close()
		s.done.Wait()
		s.deregister()
		s.mu.Lock()
		waiting := s.waiting
		s.waiting = nil
		s.mu.Unlock()
		for _, w := range waiting {
			w.done <- ErrClosed
		}
		s.closeConns()
	})
}
