package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgdist/pgdist/classify"
)

// doneRead ends a read outside transactions.
func (l *Lease) doneRead(ctx context.Context, f failure, cause error) (bool, error) {
	t := &l.s.try
	again := false
	switch f {
	case failNone:
		if l.sit.class == classify.Session {
			cause = l.noteConfig(ctx)
		}
	case failReadOnly, failFenced:
		again, t.forced = !t.forced, true
	case failHollow:
		again = l.hollow()
	case failStale:
		t.stale++
		again = t.stale <= maxStale
	case failUnsent:
		again = true
	case failOvertaken:
		cause = errLeaderChanged()
		if again = l.fenced(); again {
			if err := l.s.awaitLeader(ctx, l.hold); err != nil {
				again, cause = false, err
			}
		}
	case failLost, failEvicted:
		t.lost++
		t.mark(l.s.e, l.hold)
		again = t.lost <= maxLost
	}
	again = again && !l.delivered
	l.s.near.at = l.end
	if !again {
		cause = l.explain(f, cause)
	}
	l.hold.giveAt(l.end)
	if again {
		return true, nil
	}
	return false, cause
}

// explain makes a clear error of what a read hears that the mirror made give way.
func (l *Lease) explain(f failure, cause error) error {
	if (f == failEvicted || f == failLost) && l.c.purpose == readOnly && l.s.e.mirror.Evicted(l.c.member.id, l.c.PID()) {
		return errEvicted()
	}
	return cause
}

// doneWrite ends a write that has a transaction of its own around it.
func (l *Lease) doneWrite(ctx context.Context, f failure, cause error) (bool, error) {
	s, t := l.s, &l.s.try
	l.write.drew = l.mayDraw()
	again := false
	switch f {
	case failNone:
		l.write.note(l.call.Verdict, l.sit.class)
		l.noteExplained(&l.write)
		err := s.commit(ctx, &l.write, l.hold)
		if errors.Is(err, errRolledBack) && !l.delivered && t.lost < maxLost {
			t.lost++
			err = s.awaitLeader(ctx, l.hold)
			return err == nil, l.finish(ctx, err, err == nil)
		}
		return false, l.finish(ctx, l.definite(err), false)
	case failFenced:
		again = l.fenced()
		cause = errLeaderChanged()
	case failStale:
		t.stale++
		again = t.stale <= maxStale
	case failStatement, failHollow:
		s.spent(&l.write)
	case failUnsent:
		again = true
	case failLost: // before COMMIT was sent: rolled back for certain
		t.lost++
		again = t.lost <= maxLost
		cause = errLeaderChanged()
	}
	again = again && !l.delivered
	if !again {
		return false, l.finish(ctx, cause, false)
	}
	if f == failFenced {
		if err := s.awaitLeader(ctx, l.hold); err != nil {
			return false, l.finish(ctx, err, false)
		}
	}
	return true, l.finish(ctx, nil, true)
}

// noteExplained adds to a transaction's changes what mayExplain tells.
func (l *Lease) noteExplained(t *transaction) {
	if l.mayExplain() {
		t.change = Change{Sequences: true, Schema: true}
	}
}

// mayExplain tells whether a write may have made a table by EXPLAIN ANALYZE within a
// function, or given objects away by REASSIGN OWNED, of which the mirror learns only by
// looking: a function says so, be it a trigger's or one that others call, or the statement
// does to one that runs what it is given. What is put together otherwise is found within
// seconds.
func (l *Lease) mayExplain() bool {
	if l.sit.class != classify.Write {
		return false
	}
	if l.s.e.catalog.explains() {
		return true
	}
	for i := range l.call.Verdict.Statements {
		if st := &l.call.Verdict.Statements[i]; len(st.Functions) > 0 || st.Newer {
			return containsFold(l.call.SQL, untoldWords)
		}
	}
	return false
}

var untoldWords = []string{"explain", "reassign"}

// definite turns the inner "rolled back" into what the client hears.
func (l *Lease) definite(err error) error {
	if errors.Is(err, errRolledBack) {
		return errLeaderChanged()
	}
	return err
}

// fenced counts the times that capture refused a write, which is rolled back,
// and tells whether it may be run again.
func (l *Lease) fenced() bool {
	l.s.try.fenced++
	return l.s.try.fenced <= maxFenced
}

// awaitLeader waits a moment for a view newer than the one that h was chosen by.
func (s *Session) awaitLeader(ctx context.Context, h hold) error {
	limited, cancel := context.WithTimeout(ctx, retryPause<<min(s.try.fenced, 5))
	defer cancel()
	if _, err := s.e.mirror.WaitView(limited, h.view.Epoch); err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return nil
}

// finish puts the connection of a write back and keeps what the session has to
// remember of it.
func (l *Lease) finish(ctx context.Context, err error, again bool) error {
	s := l.s
	if err != nil || again {
		if rollback(l.hold) { // what a connection had kept is gone with it
			l.noteFailed()
			s.keepLeft(l.left, l.c, !l.bare())
		}
	} else {
		err = l.noteConfig(ctx)
		l.noteSession()
		s.keepLeft(l.left, l.c, false)
	}
	if l.at == here {
		l.c.waiting.Store(0)
		if l.c.IsClosed() {
			if again {
				l.unpinned = s.pins
			}
			s.pins = 0
			s.dropHeld()
		}
		s.letGo()
		return err
	}
	if s.pins != 0 && s.held.c == nil {
		if !l.c.usable() { // what it had is lost by now, which the next statement is told
			l.c.spoil()
		}
		s.keep(l.hold)
		return err
	}
	s.last = lastWrite{l.c, l.c.stamp}
	l.hold.give()
	return err
}

// doneBare ends a statement that ran without a transaction around it and may
// have committed, in part or in whole, even if it failed.
func (l *Lease) doneBare(ctx context.Context, f failure, cause error) (bool, error) {
	s := l.s
	s.disown(ctx)
	l.write.didAnything()
	switch f {
	case failNone:
		l.parts(ctx)
		err := s.acknowledge(ctx, &l.write, l.c)
		if l.opaque() && !errors.Is(err, errRolledBack) && l.adopt() {
			return false, l.definite(err)
		}
		if errors.Is(err, errRolledBack) && l.mayRepeat() {
			return true, l.finish(ctx, nil, true)
		}
		return false, l.finish(ctx, l.definite(err), false)
	case failUnsent:
		return true, l.finish(ctx, nil, true)
	case failFenced:
		if l.fenced() && !l.delivered {
			err := s.awaitLeader(ctx, l.hold)
			return err == nil, l.finish(ctx, err, err == nil)
		}
	case failCancelled:
		l.c.spoil()
		return false, l.finish(ctx, cause, false)
	case failLost:
		l.write.attempt.Parts = true
		outcome, err := s.resolve(ctx, l.write.attempt)
		switch {
		case err != nil:
			cause = err
		case outcome == Committed:
			cause = errResultLost()
		case l.mayRepeat(): // none of its transactions left anything
			return true, l.finish(ctx, nil, true)
		default:
			cause = errLeaderChanged()
		}
		return false, l.finish(ctx, cause, false)
	}
	// The server's own error; parts of it may be committed all the same.
	if err := s.acknowledge(ctx, &l.write, l.c); err != nil && !errors.Is(err, errRolledBack) {
		cause = errors.Join(cause, err)
	}
	if l.opaque() && f == failStatement && l.adopt() {
		return false, cause
	}
	return false, l.finish(ctx, cause, false)
}

// parts finds out which was the last transaction that the statement committed: if the
// leader is lost before the others have it, they may have some that came before.
func (l *Lease) parts(ctx context.Context) {
	l.write.attempt.Parts = true
	rows, err := l.c.Rows(ctx, "SELECT pg_catalog.current_setting('pgdist.last', true)")
	if err == nil && len(rows) == 1 && len(rows[0]) == 1 {
		l.write.attempt.Last = string(rows[0][0])
	}
}

// mayRepeat counts a statement that was lost without a trace, and tells whether
// it may be run once more.
func (l *Lease) mayRepeat() bool {
	l.s.try.lost++
	return !l.delivered && l.s.try.lost <= maxLost
}

// errRolledBack: the transaction left no trace and may be run again. errNotCommitted is
// one whose backend may still be there, though it will never be told to commit.
var (
	errRolledBack   = errors.New("rolled back")
	errNotCommitted = fmt.Errorf("%w: COMMIT was not sent", errRolledBack)
	errFenced       = fmt.Errorf("%w: COMMIT was refused", errRolledBack)
)

// commit ends t on h and acknowledges it. Its error is errRolledBack if t
// certainly left no trace because its leader was lost, a server's own error if
// the commit failed, ErrCommitRolledBack for a failed transaction, or what
// says that the outcome is unknown.
func (s *Session) commit(ctx context.Context, t *transaction, h hold) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if v := s.e.route().view; v.Leader != h.c.member.id || v.Term != h.view.Term {
		h.c.kill() // COMMIT is not sent, so it is rolled back
		return errNotCommitted
	}
	if s.hears() {
		s.own(ctx, t, h.c)
		defer s.disown(ctx)
	}
	if !t.brings.nothing() { // from here on others may meet it
		s.e.catalog.bring(t.brings)
		defer func() {
			if err != nil {
				s.e.catalog.forget()
			}
		}()
	}
	pointCommit.Pass()
	h.c.waiting.Store(nanotime())
	tag, err := h.c.exec(ctx, "COMMIT")
	h.c.waiting.Store(0)
	switch f := classifyError(ctx, err); {
	case f == failNone && tag == "ROLLBACK":
		s.spent(t)
		return ErrCommitRolledBack
	case f == failNone:
		pointCommitted.Pass()
		return s.acknowledge(ctx, t, h.c)
	case f == failCancelled:
		h.c.spoil()
		return &causedError{pgErrorOf(errUnknownOutcome(ctx.Err())), ctx.Err()}
	case f == failFenced:
		return errFenced
	case f.connectionGone():
		s.e.report(h.c.member, 0, err)
		return s.settle(ctx, t.attempt)
	}
	s.spent(t)
	return err
}

// acknowledge waits until every in-sync member has what t committed on c.
func (s *Session) acknowledge(ctx context.Context, t *transaction, c *conn) error {
	s.e.catalog.bring(t.brings)
	err := s.e.mirror.Ack(ctx, t.attempt.Term, t.change)
	if t.redefines {
		s.e.catalog.forget()
	}
	if t.renews {
		s.e.renew()
	}
	switch {
	case err == nil:
		pointAcknowledged.Pass()
		return nil
	case errors.Is(err, ErrTermOver):
		err = s.settle(ctx, t.attempt)
	default:
		err = errNotMirrored(err)
	}
	if err != nil && !errors.Is(err, errRolledBack) {
		c.spoil()
	}
	return err
}

// settle asks what became of a transaction: nil if it is committed.
func (s *Session) settle(ctx context.Context, a Attempt) error {
	pointSettling.Pass()
	outcome, err := s.resolve(ctx, a)
	switch {
	case err != nil:
		return err
	case outcome == Committed:
		return nil
	}
	return errRolledBack
}

func (s *Session) resolve(ctx context.Context, a Attempt) (Outcome, error) {
	if d := s.e.config.FailoverTimeout; d != never {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	began := time.Now()
	outcome, err := s.e.mirror.Resolve(ctx, a)
	s.e.log.Info("asked for the outcome of a commit", "leader", a.Leader, "term", a.Term, "outcome", int(outcome), "took", time.Since(began), "error", err)
	switch {
	case errors.Is(err, ErrInPart):
		return Unknown, errInPart()
	case err != nil:
		return Unknown, errUnknownOutcome(err)
	}
	return outcome, nil
}

// noteConfig follows a set_config that the client called in a query.
func (l *Lease) noteConfig(ctx context.Context) error {
	for i := range l.call.Verdict.Statements {
		st := &l.call.Verdict.Statements[i]
		if len(st.Sets) == 0 || opaqueConfig(st) {
			continue
		}
		next, err := l.s.settings.afterConfig(ctx, l.c, st)
		if err != nil {
			return err
		}
		l.s.settings, l.c.applied = next, next
		l.s.means(ctx, l.c)
	}
	return nil
}

// noteFailed keeps what a statement that failed may have left all the same: a rollback ends
// neither prepared statements nor advisory locks, which the next session must not meet.
func (l *Lease) noteFailed() {
	const lasting = classify.PinAdvisoryLock | classify.PinPrepared | classify.PinSeed
	for i := range l.call.Verdict.Statements {
		l.s.pins |= l.call.Verdict.Statements[i].Pin & lasting
	}
}

// noteSession keeps what a statement that succeeded left on its connection.
func (l *Lease) noteSession() {
	for i := range l.call.Verdict.Statements {
		st := &l.call.Verdict.Statements[i]
		// currval after nextval is served from the connection used last, while
		// nobody else has it: a connection kept for it would be lost with its
		// leader, and a plain nextval must not notice that.
		pins := st.Pin &^ classify.PinSequence
		if opaqueConfig(st) {
			pins |= classify.PinSetting
		}
		l.s.pins = l.s.pins&^st.Unpin | pins
	}
}
