package engine

import (
	"context"
	"slices"

	"github.com/pgdist/pgdist/classify"
)

// actWords are in every text that reaches other sessions without writing: advisory locks and
// notifications, which those of another database do not meet.
var actWords = []string{"advisory", "notify"}

// acts tells whether a statement reaches other sessions by the database that it runs on.
func (l *Lease) acts() bool {
	return l.sit.class == classify.LeaderRead && containsFold(l.call.SQL, actWords) || l.left.pins&classify.PinAdvisoryLock != 0 || l.left.acts
}

// toWriter has a READ ONLY transaction go on at the leader if it has begun where a statement of
// its does not belong. It begins anew, which nobody can tell unless something of it lives on its server.
// What reaches nobody else then stays where it is: pg_dump prepares statements in a snapshot.
func (l *Lease) toWriter(ctx context.Context) error {
	s := l.s
	if s.tx.state != txOpen || !s.tx.readOnly || s.held.c.purpose != readOnly || s.held.c.inFailed() {
		return nil
	}
	away := !l.atHeldLeader()
	must := away && l.acts()
	if !must && !l.sit.stays && !l.sit.rwDefault && (!away || l.sit.class != classify.LeaderRead) {
		return nil
	}
	if s.tx.ran && (!s.tx.weak || s.tx.rooted) || len(s.tx.savepoints) > 0 {
		if !must {
			return nil
		}
		s.e.actedUntil.Store(nanotime() + int64(hollowTime))
		j := s.tx.journal
		if !j.keeps() || s.unfit() != "" {
			s.failTx()
			return errActs()
		}
		s.tx.atWriter, j.at = true, leaderWrite
		return s.recover(ctx, lossConnection)
	}
	s.leaveReader(ctx)
	s.tx.leaderOnly = true
	l.sit.tx, l.sit.level = txPending, LeaderLevel
	l.at = route(l.sit)
	return nil
}

// misplaced tells whether the session stays on a connection that cannot write, which it has
// from a READ ONLY transaction. Once it writes it is told that it has lost what it stays for.
func (s *Session) misplaced() bool {
	return s.held.c != nil && s.pins != 0 && s.held.c.purpose == readOnly
}

// writes tells whether a statement outside transactions is sure to fail on such a connection.
// What EXECUTE would do is not known.
func (l *Lease) writes() bool {
	for i := range l.call.Verdict.Statements {
		if l.call.Verdict.Statements[i].Prepared != nil {
			return false
		}
	}
	return l.sit.class == classify.Write || l.sit.forced
}

// roots tells whether a statement of a READ ONLY transaction has made something there that
// would not be on another server (SET LOCAL, a cursor), or told when it began.
func (l *Lease) roots() bool {
	if !slices.ContainsFunc(l.call.Verdict.Statements, func(st classify.Statement) bool { return st.Tag != "SHOW" }) {
		return false // of any server's transaction in that mode the same is shown
	}
	for i := range l.call.Verdict.Statements {
		if len(l.call.Verdict.Statements[i].Functions) > 0 {
			return true
		}
	}
	return l.sit.class != classify.Read || l.sit.cursor || l.sit.forced || containsFold(l.call.SQL, clockWords)
}

// atHeldLeader tells whether the session's connection is one to the present leader.
func (l *Lease) atHeldLeader() bool { return l.s.held.c.member == l.s.e.route().leader }

// inFailed tells whether an error has ended the transaction on the connection.
func (c *conn) inFailed() bool { return c.TxStatus() == 'E' }
