package engine

import "context"

// Abort gives an error that a front door raises by itself the effect that a server's
// has on an open transaction, and returns what the client is to hear.
func (s *Session) Abort(ctx context.Context, err error) error {
	if s.Status() == 'E' {
		return err
	}
	if s.tx.state == txPending { // what follows is the server's to judge, if there is one
		if e := s.startTx(ctx, leaderWrite, false); e != nil {
			s.tx.state = txPending
		}
	}
	return s.refused(ctx, err)
}

// abortSQL makes the server abort the transaction that it has open: there is no
// such savepoint.
const abortSQL = `ROLLBACK TO SAVEPOINT "pgdist: a statement was refused"`

// refused gives a refusal of our own the effect that any error has on the
// transaction that is open: nothing but ROLLBACK, perhaps to a savepoint, goes
// on from there. A program that ignores the error would else commit a part.
func (s *Session) refused(ctx context.Context, err error) error {
	switch s.tx.state {
	case txPending:
		s.tx.state, s.settings = txFailed, s.tx.saved
	case txOpen, txReading:
		if s.tx.implicit {
			return err // it ends with the statement
		}
		c := s.held.c
		s.keepAbort()
		c.waiting.Store(nanotime())
		_, _ = c.exec(ctx, abortSQL)
		c.waiting.Store(0)
		if c.IsClosed() {
			s.failTx()
			return err
		}
		s.tx.state, s.tx.movable = txOpen, false
	}
	return err
}
