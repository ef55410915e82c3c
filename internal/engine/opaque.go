package engine

import (
	"context"

	"github.com/pgdist/pgdist/classify"
)

// A string of statements that is not understood (it is too long to be judged, say) may hold
// transaction control, of which the engine learns only by how the server stands afterwards.

// adopt makes a transaction that such a string has left open, or failed, the session's. It
// reports whether there is one.
func (l *Lease) adopt() bool {
	s := l.s
	if l.c.IsClosed() || !l.c.inTransaction() {
		return false
	}
	s.tx = transaction{state: txOpen, begin: "BEGIN", saved: s.settings, attempt: l.write.attempt, change: l.write.change, redefines: l.write.redefines, ran: true, drew: true, left: l.left}
	if l.at != here {
		s.keep(l.hold)
	} else {
		l.c.waiting.Store(0)
	}
	l.noteSession()
	return true
}

var endWords = []string{"commit", "end", "prepare"}

// ended acknowledges what such a string may have committed of the session's transaction, which
// is over if the server says so.
func (l *Lease) ended(ctx context.Context, cause error) error {
	s := l.s
	over := !l.c.inTransaction()
	if !over && !containsFold(l.call.SQL, endWords) {
		return cause
	}
	t := s.tx
	t.didAnything()
	err := l.definite(s.acknowledge(ctx, &t, l.c))
	if over {
		s.tx = transaction{}
		if t.journal.keeps() {
			t.journal.giveUp("a string of statements that is not understood has ended it")
		}
		l.c.restored(unknownSettings) // what was set for the transaction alone is not
		if !l.c.IsClosed() {
			s.keepLeft(t.left, l.c, false)
		}
		s.letGo()
	}
	if cause == nil {
		cause = err
	}
	return cause
}

// opaque tells whether the call is one that is not understood.
func (l *Lease) opaque() bool { return l.call.Verdict.Class == classify.Unknown }
