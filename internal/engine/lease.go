package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgdist/pgdist/classify"
)

// Lease is a server connection on loan for one statement. It is the session's
// only one and is valid until Done says that the statement is over.
type Lease struct {
	s    *Session
	call Call
	sit  situation
	at   place // here stays here, whatever the connection's purpose
	hold
	inTx      bool
	write     transaction // the implicit transaction, at leaderWrite and leaderBare
	start     int64       // both on nanotime's clock, end once the result began to arrive
	end       int64
	delivered bool
	cancelled bool         // the client asked for it
	final     bool         // a stale plan is the client's affair
	unpinned  classify.Pin // what was lost with the connection that the statement would be repeated without
	left      leaving      // what functions in it may leave on the connection
	// digest is of the result, nil unless the transaction is kept; kept is how to
	// do it again.
	digest    *Digest
	kept      Step
	keptSize  int
	resumable bool // the client need not notice a repetition, though it has rows
}

// Final tells that the client has been told what the statement returns: if a plan
// no longer fits that, the server's word about it is the client's.
func (l *Lease) Final() { l.final = true }

// ByClient tells that the client has asked the server to cancel the statement, so
// that the server's word about it is the client's.
func (l *Lease) ByClient() { l.cancelled = true }

// Began is when the lease's statement began, on Now's clock.
func (l *Lease) Began() int64 { return l.start }

// Conn is the connection to run the statement on.
func (l *Lease) Conn() ServerConn { return l.c.ServerConn }

// Repeatable tells whether the statement can be run again elsewhere as long as
// none of its rows was delivered.
func (l *Lease) Repeatable() bool { return !l.inTx && l.c.purpose == readOnly }

// BufferRows tells whether the statement's rows must be kept back, up to
// Config.ResultBuffer bytes, until Done has acknowledged the write.
func (l *Lease) BufferRows() bool {
	return !l.inTx && (l.at == leaderWrite || l.at == leaderBare || l.at == here)
}

// judge fills in what routing depends on. It returns the error with which a
// statement is refused.
func (l *Lease) judge() error {
	s, v := l.s, l.call.Verdict
	l.sit = situation{
		class: v.Class, route: l.call.Route, hint: v.Hint, level: s.e.config.Consistency,
		tx: s.tx.state, readOnly: s.tx.readOnly, atWriter: s.tx.atWriter, movable: s.tx.movable, pins: s.pins, forced: s.try.forced, hollow: s.try.hollow,
	}
	if s.tx.leaderOnly {
		l.sit.level = LeaderLevel
	}
	l.sit.counted = s.held.c != nil && s.held.c.admitted
	switch v.Class {
	case classify.Read:
	case classify.Refused:
		return refusal(v)
	default:
		if v.Class != classify.LeaderRead {
			l.sit.class = v.Resolve(s.e.catalog)
		}
	}
	for i := range v.Statements {
		if err := l.call.boundSettings(&v.Statements[i]); err != nil {
			return err
		}
		l.sit.traits(&v.Statements[i], len(v.Statements))
	}
	l.sit.rwDefault = s.tx.readOnly && l.showsDefault()
	if s.tx.state == txNone && len(v.Statements) == 1 && (v.Statements[0].Tag == "SET CONSTRAINTS" || v.Statements[0].Tag == "LOCK TABLE") {
		l.sit.bare = true // without a transaction they do nothing, and the server says so
	}
	l.sit.cursor = l.sit.cursor || l.call.Portal
	if l.sit.class == classify.Read || l.sit.class == classify.Write { // a write may be tried as a read, or be in a READ ONLY transaction
		l.sit.hollow = l.sit.hollow || s.e.catalog.hollow(l.call.SQL)
	}
	if l.left = l.leaves(); l.left.lasts() || l.left.acts {
		l.sit.forced, l.sit.stays = true, true // what a member that is only read has is seen by nobody else
	}
	l.sit.cursor = l.sit.cursor || l.left.roots && l.sit.tx != txNone
	if l.sit.movable && (l.sit.tx == txPending || l.sit.tx == txReading) {
		l.sit.clock = containsFold(l.call.SQL, clockWords)
	}
	return nil
}

// traits adds what one statement means for routing.
func (sit *situation) traits(st *classify.Statement, n int) {
	sit.cursor = sit.cursor || st.Cursor != nil
	if st.Class == classify.Unknown || st.NoTx || n == 1 && (st.Tag == "CALL" || st.Tag == "DO") {
		sit.bare = true
	}
	sit.quiet = n == 1 && st.Catalog && st.Pin == 0 && !st.Temp && st.Tag == "SELECT" && !readsSettings(st)
	sit.leaderSetting = opaqueConfig(st) || touchesReadOnly(st)
	sit.stays = sit.stays || st.Pin&^classify.PinSequence != 0
	for _, set := range st.Sets {
		if set.Kind == classify.SetShow {
			sit.rwShow = sit.rwShow || showsReadOnly(set.Name)
		}
	}
}

// showsDefault tells a statement that would show that its connection is for reads even in a
// transaction that is READ ONLY anywhere.
func (l *Lease) showsDefault() bool {
	for i := range l.call.Verdict.Statements {
		st := &l.call.Verdict.Statements[i]
		for _, set := range st.Sets {
			if set.Kind == classify.SetShow && (set.Name == nameReadOnly || set.Name == "all") {
				return true
			}
		}
		if st.Class == classify.LeaderRead && (readsSettings(st) || containsFold(l.call.SQL, settingWords)) {
			return true
		}
	}
	return false
}

// settingWords are in every text that calls current_setting.
var settingWords = []string{"current_setting"}

// readsSettings tells a query that would show that its connection is for reads.
func readsSettings(st *classify.Statement) bool {
	return slices.ContainsFunc(st.Reads, func(r classify.RelRef) bool { return r.Name == "pg_settings" })
}

func refusal(v *classify.Verdict) error {
	for i := range v.Statements {
		if r := v.Statements[i].Refusal; r != nil {
			return errRefused(r.Message, r.Hint)
		}
	}
	return errRefused(v.Because, "")
}

// acquire finds the connection.
func (l *Lease) acquire(ctx context.Context) error {
	s := l.s
	if s.tx.state == txFailed {
		return s.failedTx()
	}
	for {
		l.at = route(l.sit)
		if s.tx.state != txNone {
			return l.acquireInTx(ctx)
		}
		var err error
		switch l.at {
		case here:
			if s.stale() || s.misplaced() && l.writes() {
				return s.pinLost()
			}
			l.hold = s.held
			err = l.beginWrite(ctx)
		case anywhere:
			err = l.acquireReader(ctx)
		case leaderRead:
			if l.hold, err = s.e.acquireLeader(ctx, s, readOnly); err == nil {
				err = l.prepareRead(ctx)
			}
		default:
			err = l.acquireWriter(ctx)
		}
		if !errors.Is(err, errAgain) {
			return err
		}
	}
}

// errAgain: the connection was gone before the statement was sent.
var errAgain = errors.New("again")

func (l *Lease) acquireReader(ctx context.Context) (err error) {
	if l.hold, err = l.s.e.acquireReader(ctx, l.s, &l.s.try, &l.s.near); err != nil {
		return err
	}
	return l.prepareRead(ctx)
}

// prepareRead makes the session's settings hold on the connection.
func (l *Lease) prepareRead(ctx context.Context) error {
	if l.c.applied == l.s.settings {
		return nil
	}
	return l.prepared(ctx, l.watched(func() error { return l.c.apply(ctx, l.s.settings) }))
}

func (l *Lease) acquireWriter(ctx context.Context) error {
	if l.wantsLast() {
		if err := l.acquireLast(ctx); err != nil {
			return err
		}
	} else {
		var err error
		if l.hold, err = l.s.e.acquireLeader(ctx, l.s, readWrite); err != nil {
			return err
		}
	}
	if err := l.prepared(ctx, l.watched(func() error { return l.c.apply(ctx, l.s.settings) })); err != nil {
		return err
	}
	return l.beginWrite(ctx)
}

// prepared deals with an error of the engine's own statements before the
// client's: a lost connection costs nothing but another one.
func (l *Lease) prepared(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	h := l.hold
	l.hold = hold{}
	gone := classifyError(ctx, err).connectionGone()
	if l.at == here {
		if gone {
			return l.s.pinLost()
		}
		return err
	}
	h.drop()
	if gone {
		return errAgain
	}
	return err
}

// watched runs the engine's own statement as something that may be killed.
func (l *Lease) watched(f func() error) error {
	l.c.waiting.Store(nanotime())
	defer l.c.waiting.Store(0)
	return f()
}

// beginWrite opens the transaction around a write, unless it has to go without.
func (l *Lease) beginWrite(ctx context.Context) error {
	l.write = transaction{state: txOpen, implicit: true}
	l.write.arm(l.s.e, l.hold)
	l.s.mark(&l.write)
	if l.at == leaderBare || l.sit.bare {
		if l.s.hears() { // it may commit by itself
			l.s.own(ctx, &l.write, l.c)
		}
		return nil
	}
	return l.prepared(ctx, l.watched(func() error { return l.c.begin(ctx, "BEGIN", l.at != here) }))
}

// begun starts the statement's clock.
func (l *Lease) begun() {
	m := l.c.member
	m.outstanding.Add(1)
	l.start = nanotime()
	l.c.stamp++
	l.c.delivering.Store(false)
	l.c.waiting.Store(l.start)
	l.c.own(l.s.owner)
	l.s.busy = true
}

// Delivered is called before the first row, or the result, reaches the client:
// from then on the statement cannot be run again unseen. It may wait, under
// strict consistency, and its error is the statement's; Done is called all
// the same.
func (l *Lease) Delivered(ctx context.Context) error {
	if l.delivered {
		return nil
	}
	l.delivered = true
	l.c.delivering.Store(true)
	l.c.waiting.Store(0)
	if l.c.purpose != readOnly {
		return nil
	}
	l.end = nanotime()
	l.c.member.observe(time.Duration(l.end - l.start))
	if !l.sit.strict() {
		return nil
	}
	// All that it can have read is the leader's of the term in which it began: if another
	// leads by now, some of that may be lost, whatever has been flushed since.
	err := l.s.e.mirror.Ack(ctx, l.view.Term, Change{Sequences: true})
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, ErrTermOver):
		return &Error{Op: "strict read", Err: err, Hint: "the read itself succeeded; ask again, or use consistency=session"}
	case l.inTx:
		return errLeaderChanged()
	}
	l.delivered = false
	l.c.delivering.Store(false)
	return err
}

// Waiting tells that the client waits for the row of that number, counted from
// 1, and 0 that it no longer waits for any.
func (l *Lease) Waiting(row int64) { l.c.waiting.Store(row) }

// Done ends the statement with the error it met, if any. If again is true, the
// caller asks Acquire once more and runs the statement again; otherwise err is
// the client's result. Writes outside a transaction of the client's are
// committed and acknowledged here.
func (l *Lease) Done(ctx context.Context, cause error) (again bool, err error) {
	if !l.s.busy {
		return false, cause
	}
	if cause == nil && l.c.purpose == readOnly {
		cause = l.Delivered(ctx)
	}
	if l.end == 0 || cause != nil {
		l.end = nanotime()
	}
	l.c.waiting.Store(0) // not later: below, the connection may become somebody else's
	f := classifyError(ctx, cause)
	if f == failEvicted && l.cancelled || f == failStale && l.final || errors.Is(cause, ErrDiffers) {
		f = failStatement
	}
	l.account(f, time.Duration(l.end-l.start), cause)
	switch {
	case l.inTx:
		again, err = l.doneInTx(ctx, f, cause)
	case l.bare():
		again, err = l.doneBare(ctx, f, cause)
	case l.at == leaderWrite || l.at == here:
		again, err = l.doneWrite(ctx, f, cause)
	default:
		again, err = l.doneRead(ctx, f, cause)
	}
	if again && l.unpinned != 0 { // what it refers to, a temporary table say, went with the connection
		again, err = false, errPinLost(l.unpinned.String())
	}
	l.s.busy = false
	l.s.try.going = again
	return again, err
}

// bare tells that the statement, outside transactions, has none of ours around it.
func (l *Lease) bare() bool { return l.at == leaderBare || l.at == here && l.sit.bare }

// account keeps the member's numbers and tells its breaker.
func (l *Lease) account(f failure, d time.Duration, cause error) {
	m := l.c.member
	m.outstanding.Add(-1)
	if l.c.purpose == readOnly {
		m.reads.Add(1)
	} else {
		m.writes.Add(1)
	}
	switch f {
	case failCancelled, failUnsent:
	case failLost:
		// What took this connection has taken the free ones with it, most of the
		// time: they would use up the repetitions of this statement.
		l.c.pool.closeParked(func(*conn) bool { return true })
		l.s.e.report(m, d, cause)
	default:
		l.s.e.mirror.Report(m.id, d, nil)
	}
}

// failedTx is what a statement hears in a transaction that is lost.
func (s *Session) failedTx() error {
	return pgError(codeFailedTx, "current transaction is aborted, commands ignored until end of transaction block", "")
}

// pinLost gives up the state of a session whose connection is gone.
func (s *Session) pinLost() error {
	reason := s.pins.String()
	s.pins = 0
	s.dropHeld()
	return errPinLost(reason)
}

// wantsLast tells a statement that refers to what this session's previous one
// did on its connection (currval, lastval).
func (l *Lease) wantsLast() bool {
	for i := range l.call.Verdict.Statements {
		st := &l.call.Verdict.Statements[i]
		if st.Pin&classify.PinSequence != 0 && !st.Sequences { // nextval refers to nothing before it
			return true
		}
	}
	return false
}

// acquireLast leases the connection of the session's latest write, if nobody
// has used it since.
func (l *Lease) acquireLast(ctx context.Context) error {
	last := l.s.last
	r := l.s.e.route()
	if last.c != nil && last.c.member == r.leader && last.c.pool.acquireThis(last.c, last.stamp) {
		l.hold = hold{last.c, r.view}
		return nil
	}
	return pgError("55000", "currval and lastval are not defined in this session outside the transaction of nextval",
		"Use RETURNING, or ask in the same transaction.")
}

func (l *Lease) String() string {
	return fmt.Sprintf("%s at %s on member %d", l.sit.class, l.at, l.c.member.id)
}
