package engine

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/classify"
)

// isServers tells whether an error is a server's word.
func isServers(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && !isOurs(err)
}

// lost ends a statement whose transaction is lost with its server.
func (l *Lease) lost(ctx context.Context, f failure) (again bool, err error) {
	s := l.s
	s.tx.gone = false
	how := lossConnection
	if f == failFenced {
		how = lossFenced
		if !l.fenced() {
			return false, s.loseTx()
		}
	} else if s.try.lost++; s.try.lost > maxLost {
		return false, l.explain(f, s.loseTx())
	}
	if !l.expect() {
		s.tx.journal.giveUp("its client has got a part of a result")
	}
	if err := s.recover(ctx, how); err != nil {
		return false, l.explain(f, err)
	}
	return true, nil
}

// restartReader moves a reading transaction after an error of its member.
func (s *Session) restartReader(f failure) bool {
	h := s.held
	s.held = hold{}
	s.tx.state = txPending
	wrote := f == failReadOnly || f == failFenced
	s.try.forced = s.try.forced || wrote
	s.try.mark(s.e, h)
	if wrote && rollback(h) {
		h.give()
		return true
	}
	h.drop()
	return true
}

// rollback ends a failed transaction on a connection that goes back to its pool.
func rollback(h hold) bool {
	h.c.unsent()
	if h.c.spoiled.Load() || h.c.IsClosed() {
		return false
	}
	if !h.c.inTransaction() {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	h.c.waiting.Store(nanotime())
	_, err := h.c.exec(ctx, "ROLLBACK")
	h.c.waiting.Store(0)
	return err == nil
}

// mayDraw tells whether the statement may have drawn from a sequence.
func (l *Lease) mayDraw() bool {
	return l.c.purpose == readWrite && (l.sit.class == classify.Write || l.sit.class == classify.Unknown || l.sit.forced)
}

// spentTimeout bounds the wait for sequences of what was rolled back. The answer
// is definite without them; they follow with the next acknowledgement.
const spentTimeout = 2 * time.Second

// spent brings to the followers what outlives a transaction that is rolled
// back: sequences never go back, and a value that a client has seen in it must
// not be given out again by another leader.
func (s *Session) spent(t *transaction) {
	if !t.drew {
		return
	}
	ctx, cancel := context.WithTimeout(s.e.ctx, spentTimeout)
	defer cancel()
	if err := s.e.mirror.Ack(ctx, t.attempt.Term, Change{}); err != nil {
		s.e.log.Debug("the sequences that a transaction drew from before it was rolled back are not known to be mirrored yet", "error", err)
	}
}

// mark notes that a member failed this call.
func (t *attempts) mark(e *Engine, h hold) {
	if t.view != h.view {
		return
	}
	for i, m := range e.route().readers {
		if m == h.c.member {
			t.tried |= 1 << i
		}
	}
}
