package health

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// State of a breaker. Its zero value is Closed.
type State int

const (
	// Closed: the database works, as far as anybody knows.
	Closed State = iota
	// HalfOpen: it is being tried; probes alone decide.
	HalfOpen
	// Open: it does not work.
	Open
)

func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case HalfOpen:
		return "half-open"
	case Open:
		return "open"
	default:
		return fmt.Sprintf("state %d", int(s))
	}
}

// maxRelapses bounds the growth of the open state's length: 1<<3 times.
const maxRelapses = 3

// errIgnored marks, within gobreaker, a result that counts as neither.
var errIgnored = errors.New("ignored")

// errProbePanicked is the result of a probe that did not return.
var errProbePanicked = errors.New("the probe panicked")

// Breaker is the circuit breaker of one database: gobreaker's two-step breaker
// plus a sliding window for the ratio of failures, a growing pause for
// databases that relapse, and cheap counting of successes. It is safe for
// concurrent use.
//
// It opens after Failures failures in a row, if a probe is among them, or by
// the ratio. Client work alone does not make a run: when somebody terminates
// all backends, or a firewall forgets their connections, a dozen clients fail
// in a row on a database that works. A suspicious result of theirs calls for a probe
// at once, and with a database that is gone the two together are a run.
type Breaker struct {
	cfg     Config
	changed func()

	// Successes and the sum of their latencies since the last fold. Alone on
	// their cache line: every client of the database writes them.
	_    [64]byte
	good atomic.Int64
	work atomic.Int64
	_    [64]byte

	state atomic.Int32 // State; written under mu

	mu        sync.Mutex
	gb        *gobreaker.TwoStepCircuitBreaker[struct{}]
	window    *window
	since     time.Time // of the present state
	until     time.Time // while open: when it may be tried again
	reopened  bool      // closed after having been open
	relapses  int
	failures  uint32        // consecutive, for display; gobreaker keeps its own
	confirmed bool          // a probe is among them
	lastErr   error         // of the last failure
	lastErrAt time.Time     // when it was reported
	latency   time.Duration // moving average of client work
	probed    time.Duration // of the last probe that succeeded
	pending   Change        // not yet taken
	has       bool          // pending holds something
}

// Change is a transition of a breaker.
type Change struct {
	// From is the state before the first transition that was not yet
	// delivered, To the state after the last. They are equal if the breaker
	// left a state and came back to it meanwhile.
	From, To State
	// Err is what opened the breaker last; nil if it did not open.
	Err error
	// At is when To began.
	At time.Time
}

// NewBreaker makes a closed breaker. cfg's unset fields get their defaults.
// changed, unless nil, is called without locks after whatever may have changed
// [Breaker.Status]; it must return at once, and may not block.
func NewBreaker(cfg Config, changed func()) *Breaker {
	cfg = cfg.WithDefaults()
	if changed == nil {
		changed = func() {}
	}
	now := time.Now()
	b := &Breaker{cfg: cfg, changed: changed, since: now, window: newWindow(cfg.Interval, now)}
	b.gb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:   cfg.HalfOpenRequests,
		Timeout:       cfg.OpenTimeout,
		ReadyToTrip:   b.readyToTrip,
		OnStateChange: b.onStateChange,
		IsExcluded:    func(err error) bool { return errors.Is(err, errIgnored) },
	})
	return b
}

// State is what the breaker was left in by the last result or [Breaker.Tick].
// It takes no lock.
func (b *Breaker) State() State { return State(b.state.Load()) }

// Report counts the result of client work that took d (0: unknown). It never
// waits for the database or for a reader of changes. A nil err costs two
// atomic additions and is folded into the breaker with the next probe; a
// failure counts at once. Unless the breaker is closed nothing counts, and a
// failure of work that began before it closed is of the time before.
//
// The result says whether a probe should have a look now.
func (b *Breaker) Report(d time.Duration, err error) (suspicious bool) {
	if err == nil {
		b.good.Add(1)
		b.work.Add(int64(d))
		return false
	}
	if Classify(err) != Failure {
		return isTerminated(err)
	}
	if b.State() != Closed {
		return false
	}
	return b.fail(d, err)
}

func (b *Breaker) fail(d time.Duration, err error) bool {
	b.mu.Lock()
	now := time.Now()
	stale := b.State() != Closed || (d > 0 && now.Add(-d).Before(b.since))
	if !stale {
		b.foldLocked(now)
		b.countLocked(now, Failure, err, nil)
	}
	b.mu.Unlock()
	if !stale {
		b.changed()
	}
	return !stale
}

// Try runs one probe, if the breaker lets it, and counts its result as classify
// tells. It is the one place that holds a permission of gobreaker's while
// something else runs, and returns it whatever the probe does. Nothing runs
// while the breaker is open.
func (b *Breaker) Try(probe func() error, classify func(error) Kind) (ran bool, err error) {
	b.mu.Lock()
	done, refused := b.allowLocked()
	b.mu.Unlock()
	if refused != nil {
		return false, refused
	}
	began := time.Now()
	err = errProbePanicked
	defer func() {
		b.settle(began, classify(err), err, done)
	}()
	err = probe()
	return true, err
}

func (b *Breaker) settle(began time.Time, kind Kind, err error, done func(error)) {
	b.mu.Lock()
	now := time.Now()
	b.foldLocked(now)
	switch kind {
	case Success:
		b.probed = now.Sub(began)
	case Failure:
		b.confirmed = true
	}
	b.countLocked(now, kind, err, done)
	b.mu.Unlock()
	b.changed()
}

// allowLocked asks gobreaker only in states that are settled: it would take
// the step from open to half-open by itself, before the pause is over.
func (b *Breaker) allowLocked() (func(error), error) {
	if b.State() == Open {
		return nil, gobreaker.ErrOpenState
	}
	return b.gb.Allow()
}

// countLocked brings one result to gobreaker, through done if permission was
// taken before.
func (b *Breaker) countLocked(now time.Time, kind Kind, err error, done func(error)) {
	switch kind {
	case Success:
		b.failures, b.confirmed = 0, false
		b.window.add(now, 1, 0)
	case Failure:
		b.failures++
		b.lastErr, b.lastErrAt = err, now
		b.window.add(now, 0, 1)
	}
	if done == nil {
		var refused error
		if done, refused = b.allowLocked(); refused != nil {
			return
		}
	}
	switch kind {
	case Success:
		done(nil)
	case Failure:
		done(err)
	default:
		done(errIgnored)
	}
}

// foldLocked counts the successes reported since the last time. For gobreaker
// one stands for all of them: it needs to know only that the run of failures
// is broken; the ratio is taken from the window.
func (b *Breaker) foldLocked(now time.Time) {
	n, sum := b.good.Swap(0), b.work.Swap(0)
	if n <= 0 {
		return
	}
	b.averageLocked(n, time.Duration(sum))
	if b.State() != Closed {
		return
	}
	b.window.add(now, uint64(n-1), 0)
	b.countLocked(now, Success, nil, nil)
}

// averageLocked lets n new results weigh n against eight old ones.
func (b *Breaker) averageLocked(n int64, sum time.Duration) {
	mean := sum / time.Duration(n)
	if b.latency == 0 {
		b.latency = mean
		return
	}
	b.latency += time.Duration(float64(mean-b.latency) * float64(n) / float64(n+8))
}

// Tick takes the step from open to half-open when its time has come, which
// gobreaker does only when somebody asks. It returns how long the breaker
// stays open; 0 if it is not open.
func (b *Breaker) Tick() time.Duration {
	if b.State() != Open {
		return 0
	}
	b.mu.Lock()
	left := time.Until(b.until)
	if left <= 0 {
		b.gb.State()
	}
	open := b.State() == Open
	b.mu.Unlock()
	if !open {
		b.changed()
		return 0
	}
	return max(left, time.Millisecond)
}

// Retry ends what relapses have added to the pause of an open breaker: somebody else has
// found the database well.
func (b *Breaker) Retry() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if until := b.since.Add(b.cfg.OpenTimeout + time.Nanosecond); b.State() == Open && until.Before(b.until) {
		b.until = until
	}
}

// Status is what the breaker knows, without ID and Host.
func (b *Breaker) Status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Status{
		State:        b.State(),
		Since:        b.since,
		LastError:    b.lastErr,
		LastErrorAt:  b.lastErrAt,
		Failures:     b.failures,
		ProbeLatency: b.probed,
		Latency:      b.latency,
	}
}

// Take returns the transitions since the last call, as one.
func (b *Breaker) Take() (Change, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, has := b.pending, b.has
	b.pending, b.has = Change{}, false
	return c, has
}

// readyToTrip runs under gobreaker's mutex and b.mu.
func (b *Breaker) readyToTrip(c gobreaker.Counts) bool {
	if c.ConsecutiveFailures >= b.cfg.Failures && b.confirmed {
		return true
	}
	if b.cfg.FailureRatio < 0 {
		return false
	}
	sum := b.window.total()
	all := sum.good + sum.bad
	return all >= uint64(b.cfg.MinRequests) && float64(sum.bad) >= b.cfg.FailureRatio*float64(all)
}

// onStateChange runs under gobreaker's mutex and b.mu: it may not ask
// gobreaker anything, nor call anybody. It leaves a note for Take.
func (b *Breaker) onStateChange(_ string, from, to gobreaker.State) {
	now := time.Now()
	c := Change{From: stateOf(from), To: stateOf(to), At: now}
	if c.To == Open {
		c.Err = b.lastErr
		b.until = now.Add(b.pauseLocked(c.From, now))
	}
	if c.To == Closed {
		b.reopened = true
	}
	b.since = now
	b.window.clear()
	b.state.Store(int32(c.To))
	b.noteLocked(c)
}

func (b *Breaker) noteLocked(c Change) {
	if b.has {
		c = b.pending.then(c)
	}
	b.pending, b.has = c, true
}

// then makes one change of two.
func (c Change) then(next Change) Change {
	if next.Err == nil {
		next.Err = c.Err
	}
	next.From = c.From
	return next
}

// pauseLocked is how long to stay open, a moment more than gobreaker's own
// expiry, which must have passed.
func (b *Breaker) pauseLocked(from State, now time.Time) time.Duration {
	pause := b.cfg.OpenTimeout + time.Nanosecond
	if from != Closed {
		return pause
	}
	if b.reopened && now.Sub(b.since) < b.cfg.Interval {
		b.relapses = min(b.relapses+1, maxRelapses)
	} else {
		b.relapses = 0
	}
	return pause << b.relapses
}

func stateOf(s gobreaker.State) State {
	switch s {
	case gobreaker.StateClosed:
		return Closed
	case gobreaker.StateHalfOpen:
		return HalfOpen
	default:
		return Open
	}
}
