package engine

import (
	"context"
	"errors"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/classify"
)

// script runs several statements of one string as the simple protocol does:
// what stands outside BEGIN and COMMIT is one implicit transaction.
type script struct {
	s *Session
	// fresh: no transaction was open before, and none of the script's has
	// been committed yet; it can be run again from its beginning.
	fresh bool
}

func (x *script) run(ctx context.Context, call Call) (string, error) {
	tag := ""
	for i := range call.Verdict.Statements {
		st := &call.Verdict.Statements[i]
		var err error
		if tag, err = x.step(ctx, st, st.Text(call.SQL)); err != nil {
			return "", x.fail(ctx, shift(err, call.SQL, st))
		}
	}
	if x.s.tx.implicit {
		return tag, x.s.endImplicit(ctx, nil)
	}
	return tag, nil
}

// step runs one statement, in an implicit transaction if there is no other.
func (x *script) step(ctx context.Context, st *classify.Statement, text string) (string, error) {
	s := x.s
	if st.Class == classify.Transaction {
		return x.control(ctx, st, text)
	}
	if s.tx.state == txNone {
		if st.Class == classify.Utility && st.NoTx {
			return "", pgError(codeActiveTx, st.Tag+" cannot be executed from a string of several statements", "Send it alone.")
		}
		if err := s.beginImplicit(ctx); err != nil {
			return "", err
		}
	}
	switch st.Class {
	case classify.Session:
		return s.execSetting(ctx, st, text)
	case classify.Utility:
		return s.execUtility(ctx, st, text)
	}
	return s.execHere(ctx, st, text)
}

// control is transaction control within a script.
func (x *script) control(ctx context.Context, st *classify.Statement, text string) (string, error) {
	s := x.s
	switch {
	case st.Tx.Kind == classify.TxBegin && s.tx.implicit:
		s.tx.implicit = false // what ran so far belongs to it
		return st.Tag, nil
	case st.Tx.Kind == classify.TxCommit && s.tx.implicit:
		x.fresh = false
		return "COMMIT", s.endImplicit(ctx, nil)
	case st.Tx.Kind == classify.TxCommit:
		x.fresh = false
	case st.Tx.Kind == classify.TxSavepoint && s.tx.state == txNone, st.Tx.Kind == classify.TxSetTransaction && s.tx.state == txNone:
		if err := s.beginImplicit(ctx); err != nil {
			return "", err
		}
	}
	return s.control(ctx, st, text)
}

// fail ends the script's implicit transaction because of err.
func (x *script) fail(ctx context.Context, err error) error {
	s := x.s
	lost := s.tx.state == txFailed
	if s.tx.implicit {
		err = s.endImplicit(ctx, err)
		if errors.Is(err, errRolledBack) && !x.fresh {
			return errLeaderChanged()
		}
		return err
	}
	if lost && x.fresh && isLeaderChanged(err) { // BEGIN stood in the script itself
		s.rollbackAny()
		return errRolledBack
	}
	return err
}

// shift makes an error's position count from the beginning of the whole string.
func shift(err error, sql string, st *classify.Statement) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Position == 0 || st.Start <= 0 || st.Start > len(sql) {
		return err
	}
	moved := *pe
	moved.Position += int32(utf8.RuneCountInString(sql[:st.Start]))
	return &moved
}
