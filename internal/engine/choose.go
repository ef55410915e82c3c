package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
)

// fewMembers is the number up to which choosing needs no memory of its own.
const fewMembers = 8

// choose picks a member to read from, or nil. tried has a bit for each place in
// r.readers that must not be taken.
func (e *Engine) choose(r *routes, tried uint64) (*member, int) {
	var few [fewMembers]candidate
	list := few[:0]
	if len(r.readers) > fewMembers {
		list = make([]candidate, 0, len(r.readers))
	}
	for _, m := range r.readers {
		list = append(list, candidate{m.weight, m.load(), time.Duration(m.latency.Load())})
	}
	turn := e.turn.Add(1)
	i := pick(e.config.Balance, list, tried|e.unusable(r), turn)
	if i < 0 {
		// Nobody looks well: better to try than to give up.
		i = pick(e.config.Balance, list, tried, turn)
	}
	if i < 0 {
		return nil, -1
	}
	return r.readers[i], i
}

// unusable has a bit for each place in r.readers whose breaker is open.
func (e *Engine) unusable(r *routes) (mask uint64) {
	for i, m := range r.readers {
		if !e.mirror.Usable(m.id) {
			mask |= 1 << i
		}
	}
	return mask
}

// patience is how long, and how often, a statement waits for a member.
type patience struct {
	until time.Time // zero is for ever
	pause time.Duration
	last  error
}

func (e *Engine) newPatience() patience {
	p := patience{pause: retryPause}
	if e.config.FailoverTimeout != never {
		p.until = time.Now().Add(e.config.FailoverTimeout)
	}
	return p
}

// wait blocks until the view is newer than epoch or a pause is over. It
// returns an error when there is no time left.
func (p *patience) wait(ctx context.Context, m Mirror, epoch int64, cause error) error {
	if cause != nil {
		p.last = cause
	}
	if !p.until.IsZero() && time.Now().After(p.until) {
		return errNoLeader(p.last)
	}
	limited, cancel := context.WithTimeout(ctx, p.pause)
	defer cancel()
	if _, err := m.WaitView(limited, epoch); err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	p.pause = min(2*p.pause, retryPauseMax)
	return nil
}

// current waits until the view is known to be the present one: what is read after it
// is no older than what anybody was told before it was called.
func (e *Engine) current(ctx context.Context) error {
	limit := e.config.FailoverTimeout
	if limit == never {
		limit = 0
	}
	err := e.mirror.Current(ctx, limit)
	e.heed()
	if err == nil || ctx.Err() != nil {
		return err
	}
	return errUnconfirmed(err)
}

// currentNow tells whether current would not have to wait.
func (e *Engine) currentNow() bool {
	e.heed()
	return e.mirror.Confirmed()
}

// heed forgets what others may have changed.
func (e *Engine) heed() {
	if n := e.mirror.Changes(); n != e.catalog.changes.Load() {
		e.catalog.changes.Store(n)
		e.catalog.forget()
	}
}

// acquireLeader leases a read-write connection to the leader, waiting for one
// to be chosen if need be. by is who gets it, nil for the engine itself.
func (e *Engine) acquireLeader(ctx context.Context, by *Session, p purpose) (hold, error) {
	var pat patience
	for {
		r := e.route()
		var cause error
		if r.leader != nil {
			c, err := r.leader.poolsOf(by.tenantOf())[p].acquire(ctx, nil, by)
			if err == nil {
				return hold{c, r.view}, nil
			}
			if ctx.Err() != nil {
				return hold{}, ended(ctx, err)
			}
			if !e.worthRetrying(err) {
				return hold{}, err
			}
			e.report(r.leader, 0, err)
			cause = err
		}
		if pat.pause == 0 {
			pat = e.newPatience()
		}
		if err := pat.wait(ctx, e.mirror, r.view.Epoch, cause); err != nil {
			return hold{}, err
		}
	}
}

// acquireReader leases a read-only connection to a member of the balance's
// choice. t collects the members that failed; near is what the session used last.
func (e *Engine) acquireReader(ctx context.Context, by *Session, t *attempts, near *affinity) (hold, error) {
	var pat patience
	var cause error
	for {
		r := e.route()
		if r.view != t.view { // places have moved
			t.view, t.tried = r.view, 0
		}
		m, i := e.chooseNear(r, t.tried, near)
		if m != nil {
			c, err := m.poolsOf(by.tenantOf())[readOnly].acquire(ctx, near.c, by)
			if err == nil {
				near.c = c
				return hold{c, r.view}, nil
			}
			if ctx.Err() != nil {
				return hold{}, ended(ctx, err)
			}
			if !e.worthRetrying(err) {
				return hold{}, err
			}
			e.report(m, 0, err)
			t.tried |= 1 << i
			cause = err
			continue
		}
		if pat.pause == 0 {
			pat = e.newPatience()
		}
		if err := pat.wait(ctx, e.mirror, r.view.Epoch, cause); err != nil {
			return hold{}, noReader(err)
		}
		t.tried = 0
	}
}

// ended is what a client hears whose ctx ended while there was no connection: that, however
// the last attempt to make one went.
func ended(ctx context.Context, err error) error {
	if errors.Is(err, ctx.Err()) {
		return err
	}
	return fmt.Errorf("%w (%v)", ctx.Err(), err) // a server's error in it is not the statement's
}

// affinity keeps a session with one member, and one connection, for a while:
// changing the server with each statement would find its caches cold.
type affinity struct {
	c     *conn
	view  *health.View
	seat  int
	reads int
	since int64 // when the member was chosen, and when its latest read ended,
	at    int64 // on nanotime's clock
}

// A session chooses again after stayReads reads from one member, but not
// before stayTime, as long as that member is not clearly busier than others.
const (
	stayReads = 16
	stayTime  = 10 * time.Millisecond
)

func (e *Engine) chooseNear(r *routes, tried uint64, near *affinity) (*member, int) {
	stays := near.reads < stayReads || time.Duration(near.at-near.since) < stayTime
	if e.config.Balance == LeastOutstanding && stays && near.view == r.view && tried == 0 && !crowded(r, near.seat) &&
		e.mirror.Usable(r.readers[near.seat].id) {
		near.reads++
		return r.readers[near.seat], near.seat
	}
	m, i := e.choose(r, tried)
	if m == nil {
		near.view = nil
		return nil, i
	}
	near.view, near.seat, near.reads, near.since = r.view, i, 1, near.at
	return m, i
}

// crowded tells whether a member has more than twice as much to do as another
// one of at least its weight.
func crowded(r *routes, seat int) bool {
	mine := r.readers[seat]
	busy := mine.load()
	if busy == 0 {
		return false
	}
	for _, m := range r.readers {
		if m.weight >= mine.weight && 2*(m.load()+1) < busy {
			return true
		}
	}
	return false
}

// worthRetrying tells errors of connecting that may pass from those that a
// client has to hear: a wrong password, an unknown database, a full pool.
func (e *Engine) worthRetrying(err error) bool {
	if errors.Is(err, ErrPoolWait) || errors.Is(err, ErrClosed) {
		return false
	}
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return true
	}
	return strings.HasPrefix(pe.Code, "57P") || strings.HasPrefix(pe.Code, "08") || pe.Code == codeTooManyConns
}
