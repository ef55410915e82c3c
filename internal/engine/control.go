package engine

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/classify"
)

// control carries out BEGIN, COMMIT, SAVEPOINT and their kin, given as SQL.
func (s *Session) control(ctx context.Context, st *classify.Statement, text string) (string, error) {
	tx := st.Tx
	switch tx.Kind {
	case classify.TxBegin:
		return st.Tag, s.beginText(ctx, st)
	case classify.TxCommit:
		defer s.ended(ctx, s.heardAll)
		return s.commitText(ctx, tx)
	case classify.TxRollback:
		defer s.ended(ctx, s.heardAll)
		return "ROLLBACK", s.rollbackText(tx)
	case classify.TxSetTransaction:
		if s.tx.state == txPending && tx.Snapshot != "" { // the server may have something to say to it
			s.tx.movable, s.tx.weak, s.tx.atWriter = false, false, s.tx.readOnly
			break
		}
		if s.tx.state == txPending {
			s.setTransaction(tx, text)
			return st.Tag, nil
		}
		if s.tx.state == txReading && tx.Isolation == "" && tx.Snapshot == "" {
			s.leaveReader(ctx)
			s.setTransaction(tx, text)
			return st.Tag, nil
		}
		if s.tx.state == txReading { // too late: the server says so
			s.tx.state, s.tx.movable = txOpen, false
		}
	}
	return s.onTxServer(ctx, st, text)
}

func (s *Session) beginText(ctx context.Context, st *classify.Statement) error {
	tx := st.Tx
	o := TxOptions{Isolation: tx.Isolation, ReadOnly: tx.ReadOnly, Deferrable: tx.Deferrable}
	within := s.tx.state != txNone
	if err := s.Begin(ctx, o); err != nil || !within || o.modes() == "" {
		return err
	}
	// There is one already, of which the server only warns; the modes it takes all the same
	// (src/backend/tcop/utility.c, TRANS_STMT_BEGIN).
	set := *st
	set.Tx = &classify.TxStmt{Kind: classify.TxSetTransaction, Isolation: tx.Isolation, ReadOnly: tx.ReadOnly, Deferrable: tx.Deferrable}
	_, err := s.control(ctx, &set, "SET TRANSACTION"+o.modes())
	return err
}

func (s *Session) commitText(ctx context.Context, tx *classify.TxStmt) (string, error) {
	again := s.tx
	err := s.Commit(ctx)
	switch {
	case errors.Is(err, ErrNoTransaction) && tx.Chain:
		return "", errNoBlock(tx)
	case errors.Is(err, ErrNoTransaction):
		return "COMMIT", nil // PostgreSQL only warns
	case errors.Is(err, ErrCommitRolledBack):
		return "ROLLBACK", s.chain(tx, again)
	case err != nil:
		return "", err
	}
	return "COMMIT", s.chain(tx, again)
}

func (s *Session) rollbackText(tx *classify.TxStmt) error {
	again := s.tx
	if tx.Chain && s.tx.state == txNone {
		return errNoBlock(tx)
	}
	if err := s.Rollback(); err != nil && !errors.Is(err, ErrNoTransaction) {
		return err
	}
	return s.chain(tx, again)
}

// errNoBlock is the server's error of what is for use between BEGIN and COMMIT only; a
// string of several statements is no such place.
func errNoBlock(tx *classify.TxStmt) error {
	what := map[classify.TxKind]string{
		classify.TxSavepoint: "SAVEPOINT", classify.TxRelease: "RELEASE SAVEPOINT", classify.TxRollbackTo: "ROLLBACK TO SAVEPOINT",
		classify.TxCommit: "COMMIT AND CHAIN", classify.TxRollback: "ROLLBACK AND CHAIN",
	}[tx.Kind]
	return &pgconn.PgError{
		Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "25P01", Message: what + " can only be used in transaction blocks", File: "xact.c",
	}
}

// chain begins a transaction with the modes of the one before.
func (s *Session) chain(tx *classify.TxStmt, before transaction) error {
	if !tx.Chain || before.state == txNone {
		return nil
	}
	s.tx = transaction{
		state: txPending, begin: before.begin, saved: s.settings,
		readOnly: before.readOnly, leaderOnly: before.leaderOnly, weak: before.weak, atWriter: before.atWriter, journal: s.newJournal(),
	}
	return nil
}

// onTxServer runs what only a transaction on the leader can answer: SAVEPOINT,
// ROLLBACK TO, RELEASE, SET TRANSACTION.
func (s *Session) onTxServer(ctx context.Context, st *classify.Statement, text string) (string, error) {
	if s.tx.state == txNone {
		// Outside a transaction these are errors or warnings of the server's.
		return s.execPlain(ctx, st, text)
	}
	tag, err := s.execHere(ctx, st, text)
	switch {
	case err != nil:
	case st.Tx.Kind == classify.TxSetTransaction:
		s.tx.begin += "; " + text // for AND CHAIN
	default:
		s.noteSavepoint(st.Tx)
		s.means(ctx, s.held.c)
	}
	return tag, err
}

// execPlain runs a statement by itself, as a read.
func (s *Session) execPlain(ctx context.Context, st *classify.Statement, text string) (string, error) {
	one := *st
	one.Class = classify.Read
	sub := classify.Verdict{Class: classify.Read, Statements: []classify.Statement{one}}
	for {
		lease, err := s.Acquire(ctx, Call{SQL: text, Verdict: &sub, Route: RouteLeader})
		if err != nil {
			return "", err
		}
		tag, err := lease.c.exec(ctx, text)
		again, err := lease.Done(ctx, err)
		if !again {
			return tag, err
		}
	}
}

// noteSavepoint follows the settings through savepoints.
func (s *Session) noteSavepoint(tx *classify.TxStmt) {
	list := s.tx.savepoints
	at := -1
	for i, sp := range list {
		if sp.name == tx.Savepoint {
			at = i
		}
	}
	switch tx.Kind {
	case classify.TxSavepoint:
		s.tx.savepoints = append(list, savepoint{tx.Savepoint, s.settings, s.tx.hearing})
	case classify.TxRollbackTo:
		if at >= 0 {
			s.settings, s.tx.hearing = list[at].settings, list[at].hearing
			s.held.c.applied = s.settings
			s.tx.savepoints = list[:at+1]
		}
	case classify.TxRelease:
		if at >= 0 {
			s.tx.savepoints = list[:at]
		}
	}
}

// Commit ends the client's transaction and returns once every in-sync member
// has it. ErrCommitRolledBack tells that it had failed before.
func (s *Session) Commit(ctx context.Context) error {
	switch {
	case s.closed:
		return ErrClosed
	case s.busy:
		return ErrBusy
	case s.raw:
		if err := s.settleRaw(ctx); err != nil {
			return err
		}
	}
	if s.tx.gone { // by then an error had ended it: its COMMIT is a ROLLBACK
		s.failTx()
	}
	switch s.tx.state {
	case txNone:
		return ErrNoTransaction
	case txPending:
		t := s.tx
		s.tx = transaction{}
		err := s.listenFirst(ctx, &t)
		if err != nil {
			s.settings = t.saved
			return err
		}
		s.heard(&t, nil)
		return nil
	case txFailed:
		s.settings = s.tx.saved
		s.tx = transaction{}
		return ErrCommitRolledBack
	}
	err := s.commitHeld(ctx)
	switch {
	case errors.Is(err, errRolledBack):
		return errLeaderChanged()
	case errors.Is(err, errReaderLost):
		return errMemberLost()
	}
	return err
}

// commitHeld commits the transaction on the held connection.
func (s *Session) commitHeld(ctx context.Context) error {
	s.try = attempts{}
	err := s.commitOnce(ctx)
	for err != nil && s.tx.journal != nil && s.try.lost < maxLost {
		how, lost := lossAtCommit(err)
		if !lost {
			break
		}
		s.try.lost++
		if err = s.recover(ctx, how); err == nil {
			err = s.commitOnce(ctx)
		}
	}
	t, h := s.tx, s.held
	s.heard(&t, err)
	s.tx = transaction{}
	if h.c == nil { // lost, and told so
		return err
	}
	if err != nil {
		s.settings = t.saved
		if !h.c.IsClosed() && rollback(h) {
			h.c.restored(t.saved)
		}
	} else {
		h.c.restored(h.c.applied)
	}
	if !h.c.inTransaction() {
		s.keepLeft(t.left, h.c, err != nil)
	}
	if s.pins != 0 && h.c.IsClosed() {
		s.pins = 0
	}
	s.letGo()
	return err
}

func (s *Session) commitOnce(ctx context.Context) error {
	if err := s.listenFirst(ctx, &s.tx); err != nil {
		return err
	}
	if s.held.c.purpose == readOnly {
		return s.commitReading(ctx, s.held)
	}
	t := s.tx
	return s.commit(ctx, &t, s.held)
}

// lossAtCommit tells how a transaction was lost, if it is certain that it was.
func lossAtCommit(err error) (how loss, lost bool) {
	switch {
	case errors.Is(err, errNotCommitted), errors.Is(err, errReaderLost):
		return lossConnection, true
	case errors.Is(err, errFenced):
		return lossFenced, true
	}
	return lossCommit, errors.Is(err, errRolledBack)
}

// errReaderLost: the server of a transaction that could only read is lost, and whether
// what was read was right was still to be said.
var errReaderLost = errors.New("the server was lost before it had confirmed what was read")

// commitReading ends a transaction that could only read. If its server is lost
// now, all it has read was right nonetheless.
func (s *Session) commitReading(ctx context.Context, h hold) error {
	h.c.waiting.Store(nanotime())
	tag, err := h.c.exec(ctx, "COMMIT")
	h.c.waiting.Store(0)
	switch f := classifyError(ctx, err); {
	case f == failNone && tag == "ROLLBACK":
		return ErrCommitRolledBack
	case f.connectionGone() && s.tx.leaderOnly: // SERIALIZABLE may fail at its end
		return errReaderLost
	case f.connectionGone():
		return nil
	}
	return err
}

// Rollback ends the client's transaction without a trace.
func (s *Session) Rollback() error {
	if s.tx.state == txNone {
		return ErrNoTransaction
	}
	if s.busy {
		return ErrBusy
	}
	s.rollbackAny()
	return nil
}

// rollbackAny ends a transaction in whatever state it is.
func (s *Session) rollbackAny() {
	t := s.tx
	s.tx = transaction{}
	s.settings = t.saved
	if s.held.c == nil {
		return
	}
	if t.state == txOpen || t.state == txReading {
		if rollback(s.held) {
			s.held.c.restored(t.saved)
			s.spent(&t)
			s.keepLeft(t.left, s.held.c, true)
		} else {
			s.pins = 0
			s.dropHeld()
			return
		}
	}
	s.letGo()
}

// isLeaderChanged recognises errLeaderChanged.
func isLeaderChanged(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == codeSerialization && pe.Routine == "pgdist" && strings.Contains(pe.Message, "leader")
}
