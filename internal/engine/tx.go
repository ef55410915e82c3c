package engine

import (
	"context"
	"errors"

	"github.com/pgdist/pgdist/classify"
)

// transaction is the client's transaction, or the one around a single write.
type transaction struct {
	state txState
	// begin is the statement that begins it.
	begin string
	// implicit: not asked for by the client; ends with its statements.
	implicit bool
	// gone: its server has said what is wrong with a statement, and ended; nothing was heard
	// from the client since.
	gone bool
	// readOnly, movable and leaderOnly decide where it may run.
	readOnly, movable, leaderOnly bool
	// weak: each statement has a snapshot of its own. rooted: something of a READ ONLY
	// transaction lives on its server, or tells of its beginning. atWriter: it runs
	// where the session could write.
	weak, rooted, atWriter bool
	// saved are the settings to go back to on ROLLBACK, savepoints those of
	// ROLLBACK TO.
	saved      *settings
	savepoints []savepoint
	// attempt tells the mirror which transaction this was, change what it did.
	attempt Attempt
	change  Change
	// redefines is set once it may have run DDL. (What functions do untold changes no definition
	// that the catalog is asked for: see mayExplain.)
	redefines bool
	// ran is set once a statement's result has been given to the client; begun
	// while the statement is under way with which BEGIN is sent.
	ran, begun bool
	// drew is set once something ran that may have drawn from a sequence,
	// whether it succeeded or not.
	drew bool
	// local is another number after everything that was set for the transaction alone and may
	// decide what a text means, 0 if nothing was.
	local int64
	// left is what its statements may have left on the connection by functions, brings what
	// code may leave that was defined in it.
	left, brings leaving
	// renews: it may have changed what roles or the database have set for new connections, or
	// who has a name.
	renews bool
	// journal is what is kept to run it again, nil if nothing is.
	journal *journal
	// hearing is what it will listen to, nil if it has not changed that; before is closed
	// once all is heard that came before it, nil if nobody asked.
	hearing *hearing
	before  <-chan struct{}
}

type savepoint struct {
	name     string
	settings *settings
	hearing  *hearing
}

// arm notes what Resolve needs to know, before BEGIN is sent.
func (t *transaction) arm(e *Engine, h hold) {
	t.attempt = Attempt{
		Conn: h.c.token, PID: h.c.PID(), Started: h.c.started,
		Leader: h.c.member.id, Term: h.view.Term, Since: e.mirror.Acked(),
	}
}

// note adds what a call may have done.
func (t *transaction) note(v *classify.Verdict, class classify.Class) {
	for i := range v.Statements {
		st := &v.Statements[i]
		t.change.Sequences = t.change.Sequences || (st.Sequences || st.Class == classify.Unknown) && !remade(st)
		t.renews = t.renews || st.Tag == "ALTER ROLE" || st.Tag == "DROP ROLE" || st.Tag == "ALTER DATABASE"
		t.redefines = t.redefines || st.Class == classify.DDL || st.Class == classify.Unknown || st.Tag == "CALL" || st.Tag == "DO"
	}
	t.change.Schema = t.change.Schema || t.redefines
	if class == classify.Write {
		t.change.Sequences = t.change.Sequences || len(v.Statements) != 1
	}
}

// didAnything is note of what is not known.
func (t *transaction) didAnything() {
	t.change, t.redefines = Change{Sequences: true, Schema: true}, true
}

// remade tells that a statement leaves a sequence that nobody has called as the followers'
// replay leaves it, or called. (To look at all of these takes longer than it does.)
func remade(st *classify.Statement) bool {
	return st.Class == classify.DDL && len(st.Functions) == 0 && remakes[st.Tag]
}

var remakes = map[string]bool{
	"CREATE TABLE": true, "ALTER TABLE": true, "DROP TABLE": true, "CREATE INDEX": true, "DROP INDEX": true, "CREATE VIEW": true, "DROP VIEW": true,
	"CREATE FUNCTION": true, "CREATE TRIGGER": true, "DROP TRIGGER": true, "CREATE TYPE": true, "CREATE POLICY": true, "COMMENT": true, "GRANT": true, "REVOKE": true,
}

// TxOptions are a transaction's modes; the zero value is BEGIN without any.
type TxOptions struct {
	// Isolation is "serializable", "repeatable read", "read committed",
	// "read uncommitted" or "".
	Isolation string
	// ReadOnly and Deferrable are nil if BEGIN does not say.
	ReadOnly, Deferrable *bool
}

func (o TxOptions) sql() string { return "BEGIN" + o.modes() }

// modes are those that it sets, as BEGIN and SET TRANSACTION take them.
func (o TxOptions) modes() (sql string) {
	if o.Isolation != "" {
		sql += " ISOLATION LEVEL " + o.Isolation
	}
	if o.ReadOnly != nil {
		sql += choice(*o.ReadOnly, " READ ONLY", " READ WRITE")
	}
	if o.Deferrable != nil {
		sql += choice(*o.Deferrable, " DEFERRABLE", " NOT DEFERRABLE")
	}
	return sql
}

func choice(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

// newTransaction decides what a transaction with options may do.
func (s *Session) newTransaction(o TxOptions) transaction {
	t := transaction{state: txPending, begin: o.sql(), saved: s.settings}
	defaults := !s.settings.transactionDefaults()
	t.readOnly = o.ReadOnly != nil && *o.ReadOnly
	serializable := o.Isolation == "serializable" || o.Isolation == "" && !defaults
	t.leaderOnly = t.readOnly && (serializable || s.e.recentlyHollow())
	t.atWriter = t.readOnly && nanotime() < s.e.actedUntil.Load()
	t.weak = (o.Isolation == "" || o.Isolation == "read committed" || o.Isolation == "read uncommitted") && defaults
	t.movable = !t.readOnly && t.weak && s.pins == 0
	return t
}

// Begin begins a transaction. A READ COMMITTED or READ ONLY one reaches a
// server with its first statement.
func (s *Session) Begin(ctx context.Context, o TxOptions) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	if s.tx.state != txNone {
		return s.warnBegin(ctx)
	}
	s.tx = s.newTransaction(o)
	s.tx.journal = s.newJournal()
	if s.tx.movable || s.tx.readOnly && s.pins == 0 {
		return nil
	}
	if err := s.startTx(ctx, leaderWrite, false); err != nil {
		s.tx = transaction{}
		return err
	}
	return nil
}

// warnBegin lets the server say that there is a transaction already.
func (s *Session) warnBegin(ctx context.Context) error {
	switch s.tx.state {
	case txPending:
		return nil
	case txFailed:
		return s.failedTx()
	}
	_, err := s.held.c.exec(ctx, "BEGIN")
	return err
}

// setTransaction is SET TRANSACTION before the transaction is on a server.
func (s *Session) setTransaction(tx *classify.TxStmt, text string) {
	o := TxOptions{Isolation: tx.Isolation, ReadOnly: tx.ReadOnly, Deferrable: tx.Deferrable}
	if o.Isolation == "default" {
		o.Isolation = ""
	}
	t := s.newTransaction(o)
	t.readOnly = t.readOnly || s.tx.readOnly && tx.ReadOnly == nil
	t.begin, t.saved, t.journal, t.hearing = s.tx.begin+"; "+text, s.tx.saved, s.tx.journal, s.tx.hearing
	t.movable = t.movable && s.tx.movable && tx.Isolation != "default"
	t.leaderOnly = t.leaderOnly || s.tx.leaderOnly
	t.weak, t.atWriter = t.weak && s.tx.weak && tx.Isolation != "default", t.atWriter || s.tx.atWriter && t.readOnly
	s.tx = t
}

// startTx puts the transaction on a server, at a place as route chose it. If a
// statement follows at once, BEGIN may go with it.
func (s *Session) startTx(ctx context.Context, at place, follows bool) error {
	for {
		h, err := s.acquireTx(ctx, &at)
		if err != nil {
			return err
		}
		s.opening = h
		begin := s.tx.begin
		if h.c.purpose == readOnly {
			// A query fixes the mode: SET TRANSACTION READ WRITE comes too late.
			begin = readOnlyBegin(begin, s.tx.movable) + "; SELECT 1"
		}
		s.tx.arm(s.e, h)
		if h.c.purpose == readWrite {
			s.mark(&s.tx)
		}
		s.tx.begun = follows && h.c.purpose == readWrite && s.pins == 0
		h.c.waiting.Store(nanotime())
		err = h.c.begin(ctx, begin, s.tx.begun)
		h.c.waiting.Store(0)
		if err == nil {
			s.tx.state = txOpen
			if s.tx.movable && h.c.purpose == readOnly {
				s.tx.state = txReading
			}
			if j := s.tx.journal; j != nil {
				j.begin, j.at = s.tx.begin, at
			}
			s.keep(h)
			s.opening = hold{}
			return nil
		}
		s.opening = hold{}
		if s.pins != 0 {
			return s.pinLost()
		}
		h.drop()
		if !classifyError(ctx, err).connectionGone() {
			return err
		}
	}
}

func readOnlyBegin(begin string, movable bool) string {
	if movable {
		return begin + " READ ONLY"
	}
	return begin
}

// acquireTx leases the connection for a transaction, with settings in force.
func (s *Session) acquireTx(ctx context.Context, at *place) (hold, error) {
	for {
		var h hold
		var err error
		switch {
		case s.misplaced() && *at == leaderWrite && !s.tx.readOnly:
			return h, s.pinLost()
		case s.held.c != nil:
			return s.held, nil
		case *at == anywhere:
			h, err = s.e.acquireReader(ctx, s, &s.try, &s.near)
		case *at == leaderRead:
			h, err = s.e.acquireLeader(ctx, s, readOnly)
		default:
			h, err = s.e.acquireLeader(ctx, s, readWrite)
		}
		if err != nil {
			return h, err
		}
		if s.tx.movable && *at == anywhere && !h.c.plainDefaults {
			h.give()
			*at, s.tx.movable = leaderWrite, false
			continue
		}
		s.opening = h
		err = h.c.apply(ctx, s.settings)
		s.opening = hold{}
		if err == nil {
			return h, nil
		}
		h.drop()
		if !classifyError(ctx, err).connectionGone() {
			return h, err
		}
	}
}

// acquireInTx finds the statement's connection within the client's transaction.
func (l *Lease) acquireInTx(ctx context.Context) error {
	s := l.s
	l.inTx = true
	if s.tx.state == txReading && (l.at != here || s.stale()) {
		s.leaveReader(ctx)
	}
	if err := l.toWriter(ctx); err != nil {
		return err
	}
	for s.tx.state == txOpen && s.stale() {
		s.tx.gone = false
		if s.try.lost++; s.try.lost > maxLost {
			return s.loseTx()
		}
		if err := s.recover(ctx, lossConnection); err != nil {
			return err
		}
	}
	if s.tx.state == txPending {
		if l.at == here {
			l.at = anywhere
		}
		if err := s.startTx(ctx, l.at, true); err != nil {
			return err
		}
	}
	l.hold = s.held
	return nil
}

// stale tells whether the held connection can no longer serve: its member has
// left the in-sync set, or a writing one is not the leader of its term any more.
func (s *Session) stale() bool {
	v := s.e.route().view
	if v == s.held.view {
		return false
	}
	id := s.held.c.member.id
	if s.held.c.purpose == readWrite {
		return v.Leader != id || v.Term != s.held.view.Term
	}
	return !v.Has(id)
}

// leaveReader ends the reading part of a transaction, which then goes on
// elsewhere.
func (s *Session) leaveReader(ctx context.Context) {
	h := s.held
	s.tx.state = txPending
	if h.c.IsClosed() {
		s.dropHeld()
		return
	}
	h.c.waiting.Store(nanotime())
	if _, err := h.c.exec(ctx, "COMMIT"); err != nil {
		s.dropHeld() // it had only read
		return
	}
	s.held = hold{}
	h.give()
}

// loseTx gives up a transaction whose server is gone and returns what the
// client hears. Until ROLLBACK every statement fails.
func (s *Session) loseTx() error {
	readOnly := s.held.c.purpose == readOnly
	s.failTx()
	if readOnly {
		return errMemberLost()
	}
	return errLeaderChanged()
}

func (s *Session) failTx() {
	s.dropHeld()
	s.pins = 0
	s.tx.state = txFailed
	s.settings = s.tx.saved
}

// doneInTx ends a statement within the client's transaction.
func (l *Lease) doneInTx(ctx context.Context, f failure, cause error) (bool, error) {
	s := l.s
	moving := s.tx.state == txReading
	s.tx.drew = s.tx.drew || l.mayDraw()
	s.tx.left = s.tx.left.with(l.left)
	if s.tx.readOnly && s.tx.weak && !s.tx.rooted {
		s.tx.rooted = l.roots()
	}
	first := s.tx.begun
	s.tx.begun = false
	if first && f != failNone && l.c.unsent() { // the statement never left: nor has the transaction begun
		s.tx.state = txPending
		s.letGo()
		if f == failUnsent {
			return true, nil
		}
		return false, cause
	}
	if f == failStatement {
		l.noteFailed()
	}
	switch {
	case first && f.connectionGone() && !l.delivered && s.pins == 0 && s.try.lost < maxLost:
		// Its first statement: the transaction begins anew elsewhere.
		s.try.lost++
		s.dropHeld()
		s.tx.state = txPending
		return true, nil
	case first && f == failFenced && !l.delivered && s.pins == 0 && l.fenced():
		h := s.held
		s.held, s.tx.state = hold{}, txPending
		rollback(h)
		h.give()
		return true, s.awaitLeader(ctx, h)
	case errors.Is(cause, ErrDiffers):
		return false, l.differed(ctx)
	case f == failNone:
		s.tx.ran = true
		s.tx.note(l.call.Verdict, l.sit.class)
		l.noteExplained(&s.tx)
		s.tx.brings = s.tx.brings.with(s.e.catalog.brings(&l.call))
		l.keep()
		l.noteSession()
		for i := range l.call.Verdict.Statements {
			s.noteLocal(ctx, &l.call.Verdict.Statements[i])
		}
		if l.opaque() {
			return false, l.ended(ctx, nil)
		}
		return false, l.noteConfigInTx(ctx)
	case errors.Is(cause, ErrNotHere) && l.c.purpose == readOnly && !moving && !l.delivered:
		return l.notHereTx(ctx)
	case f == failHollow && l.c.purpose == readOnly && !l.delivered && !l.atLeader():
		return s.hollowTx(moving)
	case moving && (f == failReadOnly || f == failFenced || f.connectionGone() || f == failEvicted) && l.expect():
		return s.restartReader(f), nil
	case f == failFenced && l.c.purpose == readWrite, f.connectionGone():
		return l.lost(ctx, f)
	case l.c.IsClosed() && f == failStatement && isServers(cause):
		// The server has said what is wrong with the statement, and is gone since: of that
		// the next one hears, which may be ROLLBACK TO a savepoint, by an error after which
		// programs run the transaction again.
		s.tx.gone = true
		if moving {
			s.tx.state, s.tx.movable = txOpen, false
		}
	case l.c.IsClosed():
		s.failTx()
		return false, l.explain(f, cause)
	case isOurs(cause):
		l.keep()
		return false, s.refused(ctx, cause)
	case moving && l.c.inTransaction():
		s.tx.state, s.tx.movable = txOpen, false // failed: it stays until ROLLBACK
	}
	l.keep()
	if l.opaque() && f == failStatement && !l.c.IsClosed() && s.tx.state == txOpen {
		cause = l.ended(ctx, cause)
	}
	return false, l.explain(f, cause)
}
