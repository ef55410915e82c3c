package engine

import (
	"context"
	"errors"

	"github.com/pgdist/pgdist/classify"
)

// Runs tells whether the session carries a call out by itself, with Exec:
// transaction control, settings, DDL, TRUNCATE, maintenance, and strings of
// statements with any of these in them. Nothing of that returns rows.
func Runs(v *classify.Verdict) bool { return runs(v, Special) }

func runs(v *classify.Verdict, special func(*classify.Statement) bool) bool {
	if v.Class == classify.Read || v.Class == classify.Unknown {
		return false
	}
	for i := range v.Statements {
		if special(&v.Statements[i]) {
			return true
		}
	}
	return false
}

// Special tells whether a statement is one of those that the session carries out itself.
// EXPLAIN ANALYZE of CREATE TABLE AS is none: it returns rows, and no event trigger is told
// of it; the mirror takes up what it makes.
func Special(st *classify.Statement) bool {
	if st.Explain != nil {
		return false
	}
	switch st.Class {
	case classify.DDL, classify.Transaction, classify.Utility:
		return true
	case classify.Session:
		return st.Tag != "SELECT"
	}
	return st.Tag == "TRUNCATE TABLE"
}

// Exec carries out a call for which Runs is true and returns the command tag
// of its last statement.
func (s *Session) Exec(ctx context.Context, call Call) (tag string, err error) {
	if err := s.ready(ctx); err != nil {
		return "", err
	}
	if call.Verdict.Class == classify.Refused {
		return "", s.refused(ctx, refusal(call.Verdict))
	}
	for range maxLost + 1 {
		s.try = attempts{}
		tag, err = s.execAll(ctx, call)
		if !errors.Is(err, errRolledBack) {
			return tag, err
		}
	}
	return "", errLeaderChanged()
}

// execAll runs the statements of a call once. errRolledBack means that nothing
// of it was done and that it may be run again.
func (s *Session) execAll(ctx context.Context, call Call) (string, error) {
	list := call.Verdict.Statements
	if len(list) == 1 {
		return s.execOne(ctx, &list[0], call)
	}
	if err := s.Check(ctx, call); err != nil {
		return "", err
	}
	return s.NewScript().run(ctx, call)
}

// execOne runs a statement that is alone in its call.
func (s *Session) execOne(ctx context.Context, st *classify.Statement, call Call) (string, error) {
	text := st.Text(call.SQL)
	switch {
	case st.Class == classify.Transaction:
		return s.control(ctx, st, text)
	case st.Class == classify.Session:
		return s.execSetting(ctx, st, text)
	case st.Class == classify.Utility:
		return s.execUtility(ctx, st, text)
	case Listens(st):
		return s.execListen(ctx, st, text)
	case s.tx.state != txNone:
		return s.execHere(ctx, st, text)
	}
	return s.execAlone(ctx, st, text)
}

// execAlone runs DDL in a transaction of its own.
func (s *Session) execAlone(ctx context.Context, st *classify.Statement, text string) (string, error) {
	if err := s.beginImplicit(ctx); err != nil {
		return "", err
	}
	tag, err := s.execHere(ctx, st, text)
	return tag, s.endImplicit(ctx, err)
}

// beginImplicit opens a transaction around statements that have none.
func (s *Session) beginImplicit(ctx context.Context) error {
	s.tx = transaction{state: txPending, begin: "BEGIN", implicit: true, saved: s.settings}
	if err := s.startTx(ctx, leaderWrite, false); err != nil {
		s.tx = transaction{}
		return err
	}
	return nil
}

// endImplicit commits it, or rolls it back because of err. A transaction that
// was lost without a trace gives errRolledBack.
func (s *Session) endImplicit(ctx context.Context, err error) error {
	if err == nil {
		return s.commitHeld(ctx)
	}
	lost := s.tx.state == txFailed
	s.rollbackAny()
	if lost && ctx.Err() == nil && isLeaderChanged(err) {
		return errRolledBack
	}
	return err
}

// execHere runs one statement on the transaction's connection, on the leader.
func (s *Session) execHere(ctx context.Context, st *classify.Statement, text string) (string, error) {
	sub := classify.Verdict{Class: st.Class, Because: st.Because, Statements: []classify.Statement{*st}}
	lease, err := s.Acquire(ctx, Call{SQL: text, Verdict: &sub, Route: RouteDefault})
	if err != nil {
		return "", err
	}
	tag, err := s.execLeased(ctx, lease.c, st, text)
	lease.keepOwn(st, text, tag, err)
	again, err := lease.Done(ctx, err)
	if again { // a transaction that only read may have had to move
		return s.execHere(ctx, st, text)
	}
	return tag, err
}

func (s *Session) execLeased(ctx context.Context, c *conn, st *classify.Statement, text string) (string, error) {
	if st.Class == classify.DDL && st.Explain == nil || st.Tag == "TRUNCATE TABLE" {
		return s.define(ctx, c, st, text)
	}
	return c.exec(ctx, text)
}

// execSetting runs SET, RESET and DISCARD and keeps what they changed.
func (s *Session) execSetting(ctx context.Context, st *classify.Statement, text string) (string, error) {
	if s.tx.state == txNone && st.Set != nil && st.Set.Kind == classify.SetDiscardAll {
		s.discardAll(ctx)
		return st.Tag, nil
	}
	sub := classify.Verdict{Class: st.Class, Because: st.Because, Statements: []classify.Statement{*st}}
	for {
		lease, err := s.Acquire(ctx, Call{SQL: text, Verdict: &sub})
		if err != nil {
			return "", err
		}
		run := text
		if base := toBase(st, text, s.base); base != "" {
			run = base
		}
		tag, err := lease.c.exec(ctx, run)
		if err == nil {
			if run != text {
				tag = st.Tag
			}
			s.settings = s.settings.after(st, text, s.base)
			lease.c.applied = s.settings
			s.means(ctx, lease.c)
			if st.Set != nil && st.Set.Kind == classify.SetDiscard && st.Set.Name == "sequences" {
				s.last = lastWrite{} // wherever it is, it is not discarded there
			}
		}
		lease.keepOwn(nil, run, tag, err)
		again, err := lease.Done(ctx, err)
		if !again {
			return tag, err
		}
	}
}

// discardAll forgets all that the session has set up.
func (s *Session) discardAll(ctx context.Context) {
	s.settings, s.pins, s.last = s.base, 0, lastWrite{}
	s.unlistenAll()
	if s.held.c == nil {
		return
	}
	if s.cleanse(ctx) && s.held.c.apply(ctx, s.settings) == nil {
		s.pins = classify.PinSession
		return
	}
	s.dropHeld() // the next statement of a whole session gets another
}
