package engine

import (
	"context"
	"errors"
	"slices"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/classify"
)

// Check has the leader tell whether it understands a string of statements of which some are newer
// than the grammar here: PostgreSQL runs none of them if one is wrong. The error is the server's.
func (s *Session) Check(ctx context.Context, call Call) error {
	list := call.Verdict.Statements
	if len(list) < 2 || !slices.ContainsFunc(list, func(st classify.Statement) bool { return st.Newer }) {
		return nil
	}
	h, err := s.e.acquireLeader(ctx, s, readOnly)
	if err != nil {
		return err
	}
	defer h.give()
	_, err = h.c.Rows(ctx, call.SQL) // prepares it, which no server does with several
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "42601" && pe.Routine != "exec_parse_message" {
		return s.refused(ctx, err)
	}
	return nil // if the server is lost, the script finds out
}

// Script runs several statements as the simple protocol does with those of one
// string, and the extended one with those before one Sync: what stands outside
// BEGIN and COMMIT is one implicit transaction (PostgreSQL docs, "Multiple
// Statements in a Simple Query", "Pipelining").
//
// Statements for which Special is true go through Exec; before any other, which
// the front door runs on a lease, Open is called. End or Fail ends the script.
type Script struct {
	s *Session
	// fresh: no transaction was open before, and none of the script's has
	// been committed yet; it can be run again from its beginning.
	fresh bool
}

// NewScript begins a script.
func (s *Session) NewScript() *Script { return &Script{s: s, fresh: s.tx.state == txNone} }

// Open begins the implicit transaction unless one is open.
func (x *Script) Open(ctx context.Context) error {
	if err := x.s.ready(ctx); err != nil || x.s.tx.state != txNone {
		return err
	}
	return x.s.beginImplicit(ctx)
}

// Exec carries out one special statement and returns its tag.
func (x *Script) Exec(ctx context.Context, st *classify.Statement, text string) (string, error) {
	if err := x.s.ready(ctx); err != nil {
		return "", err
	}
	return x.step(ctx, st, text)
}

// End commits what the client has not. As with Fail, if again is true the script may be run once
// more from its beginning.
func (x *Script) End(ctx context.Context) (again bool, _ error) {
	err := x.end(ctx)
	if errors.Is(err, errRolledBack) {
		return true, errLeaderChanged()
	}
	return false, err
}

// end is End whose error is errRolledBack if the script may be run again.
func (x *Script) end(ctx context.Context) error {
	if !x.s.tx.implicit {
		return nil
	}
	return x.definite(x.s.endImplicit(ctx, nil))
}

// definite turns errRolledBack into what the client hears if what is lost was not all: a
// transaction of the script's that was committed before would be run twice.
func (x *Script) definite(err error) error {
	if errors.Is(err, errRolledBack) && !x.fresh {
		return errLeaderChanged()
	}
	return err
}

// Fail ends the script because of err. If again is true nothing of it was done,
// and it may be run once more from its beginning; otherwise err is the client's.
func (x *Script) Fail(ctx context.Context, err error) (again bool, _ error) {
	err = x.fail(ctx, err)
	if errors.Is(err, errRolledBack) {
		return true, errLeaderChanged()
	}
	return false, err
}

func (x *Script) run(ctx context.Context, call Call) (string, error) {
	tag := ""
	for i := range call.Verdict.Statements {
		st := &call.Verdict.Statements[i]
		var err error
		if tag, err = x.step(ctx, st, st.Text(call.SQL)); err != nil {
			return "", x.fail(ctx, ShiftError(err, call.SQL, st))
		}
	}
	return tag, x.end(ctx)
}

// step runs one statement, in an implicit transaction if there is no other.
func (x *Script) step(ctx context.Context, st *classify.Statement, text string) (string, error) {
	s := x.s
	if st.Class == classify.Transaction {
		return x.control(ctx, st, text)
	}
	if s.tx.state == txNone {
		if st.Class == classify.Utility && st.NoTx {
			return "", pgError(codeActiveTx, st.Tag+" cannot run inside a transaction block", "Send it alone: a string of several statements is one transaction.")
		}
		if err := s.beginImplicit(ctx); err != nil {
			return "", err
		}
	}
	switch {
	case st.Class == classify.Session:
		return s.execSetting(ctx, st, text)
	case st.Class == classify.Utility:
		return s.execUtility(ctx, st, text)
	case Listens(st):
		return s.execListen(ctx, st, text)
	}
	return s.execHere(ctx, st, text)
}

// control is transaction control within a script.
func (x *Script) control(ctx context.Context, st *classify.Statement, text string) (string, error) {
	s := x.s
	switch {
	case st.Tx.Kind == classify.TxBegin && s.tx.implicit:
		modes := TxOptions{Isolation: st.Tx.Isolation, ReadOnly: st.Tx.ReadOnly, Deferrable: st.Tx.Deferrable}.modes()
		if modes != "" { // too late for some: the server says so
			if _, err := s.held.c.exec(ctx, "SET TRANSACTION"+modes); err != nil {
				return "", err
			}
			s.tx.begin += modes // for AND CHAIN
		}
		s.tx.implicit = false // what ran so far belongs to it, and was not kept
		return st.Tag, nil
	case st.Tx.Chain && s.tx.implicit:
		return "", errNoBlock(st.Tx)
	case st.Tx.Kind == classify.TxCommit && s.tx.implicit:
		if err := s.endImplicit(ctx, nil); err != nil {
			return "", x.definite(err)
		}
		x.fresh = false
		return "COMMIT", nil
	case st.Tx.Kind == classify.TxCommit:
		x.fresh = false
	case s.tx.state == txNone || s.tx.implicit:
		switch st.Tx.Kind {
		case classify.TxSavepoint, classify.TxRelease, classify.TxRollbackTo:
			return "", errNoBlock(st.Tx)
		case classify.TxSetTransaction:
			if s.tx.state == txNone {
				if err := s.beginImplicit(ctx); err != nil {
					return "", err
				}
			}
		}
	}
	return s.control(ctx, st, text)
}

// fail ends the script's implicit transaction because of err.
func (x *Script) fail(ctx context.Context, err error) error {
	s := x.s
	lost := s.tx.state == txFailed
	if s.tx.implicit {
		return x.definite(s.endImplicit(ctx, err))
	}
	if lost && x.fresh && isLeaderChanged(err) { // BEGIN stood in the script itself
		s.rollbackAny()
		return errRolledBack
	}
	return err
}

// ShiftError makes an error's position count from the beginning of the whole string.
func ShiftError(err error, sql string, st *classify.Statement) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Position == 0 || st.Start <= 0 || st.Start > len(sql) {
		return err
	}
	moved := *pe
	moved.Position += int32(utf8.RuneCountInString(sql[:st.Start]))
	return &moved
}
