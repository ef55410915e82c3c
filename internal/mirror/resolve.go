package mirror

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pgdist/pgdist/health"
)

// errPruned: the journal no longer reaches back to the transaction.
var errPruned = errors.New("the journal was pruned since; whether the transaction was committed must be seen from the data")

// Attempt identifies the last transaction of a lost connection to a leader.
type Attempt struct {
	Conn    string // the connection's setting pgdist.conn
	PID     uint32
	Started string // backend_start, "YYYY-MM-DD HH24:MI:SS.US" in UTC
	Leader  health.MemberID
	Term    int64
	Since   Place // Acked() before the transaction began
	// Parts is set if it was a statement that may have committed several transactions;
	// Last is then the setting pgdist.last of the connection after it, "" if that is
	// not known.
	Parts bool
	Last  string
}

// ErrInPart: of the transactions that one statement committed the first are kept, and
// the last are lost, or may be.
var ErrInPart = errors.New("the statement committed several transactions, not all of which are known to have been kept")

// Resolve tells definitely whether an attempt was committed. The answer holds
// for ever: it is itself acknowledged before it is given. ErrInPart is an answer, too.
func (s *Set) Resolve(ctx context.Context, a Attempt) (committed bool, err error) {
	var last error
	for ctx.Err() == nil {
		v := s.View()
		left, err := s.decide(ctx, v, a)
		if err == nil {
			err = s.Ack(ctx, v.Term, Change{Sequences: true})
		}
		if err == nil && a.Parts && left == leftPart {
			return true, ErrInPart
		}
		if err == nil {
			return left != leftNothing, nil
		}
		if errors.Is(err, ErrClosed) || errors.Is(err, errPruned) {
			return false, errors.Join(ErrOutcomeUnknown, err)
		}
		if !errors.Is(err, ErrTermOver) {
			last = err
		}
		wait, cancel := context.WithTimeout(ctx, tick)
		s.WaitView(wait, v.Epoch) //nolint:errcheck // a time-out only means to look again
		cancel()
	}
	return false, errors.Join(ErrOutcomeUnknown, last, context.Cause(ctx))
}

// decide asks the leader of v. Where that is the attempt's own leader its backend must be gone
// first, in a later term, too: a connection that was idle at the change stays, and what is then written
// over it by somebody who has not heard of the change is of the new term, and may yet be committed. Of
// another leader only what this one has counts.
func (s *Set) decide(ctx context.Context, v *health.View, a Attempt) (string, error) {
	m := s.members.get(v.Leader)
	if m == nil {
		return "", ErrNoMajority
	}
	ask, cancel := context.WithTimeoutCause(ctx, m.health.ProbeTimeout, health.ErrTimeout)
	defer cancel()
	c, err := m.connect(ask)
	if err != nil {
		return "", err
	}
	defer c.close()
	if v.Leader == a.Leader {
		if err := c.end(ctx, m, a); err != nil {
			return "", err
		}
	}
	ask, cancel = context.WithTimeoutCause(ctx, m.health.SyncTimeout, health.ErrTimeout)
	defer cancel()
	h, err := c.where(ask)
	if err == nil {
		err = recognise(v, m.id, m.host, h)
	}
	if err != nil {
		return "", m.fail("ask for its state", err)
	}
	if !h.Leads || !h.Booted || h.Office != v.Term {
		return "", ErrTermOver
	}
	if ok, err := h.floor().within(a.Since); err != nil || !ok {
		return "", m.fail("look for the transaction", errors.Join(errPruned, err))
	}
	got, err := c.one(ask, `SELECT pgdist.left($1, $2::bigint, $3::pg_snapshot, $4::text::xid8)`, text(a.Conn), strconv.AppendInt(nil, a.Since.Term, 10), nullable(a.Since.Snapshot), nullable(a.Last))
	return got, m.fail("look for the transaction", err)
}

// What an attempt may have left, as pgdist.left() says it.
const (
	leftPart    = "part"
	leftNothing = "nothing"
)

// end ends the attempt's backend and waits until it is gone: until then it may
// still commit.
func (c *conn) end(ctx context.Context, m *member, a Attempt) error {
	deadline := time.Now().Add(m.health.SyncTimeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		gone, err := c.one(ctx, `SELECT pgdist.stop($1::int, $2)`, fmt.Append(nil, a.PID), text(a.Started))
		if err != nil {
			return m.fail("end a lost connection's backend", err)
		}
		if gone == "t" {
			return nil
		}
		if time.Now().After(deadline) {
			return m.fail("end a lost connection's backend", fmt.Errorf("backend %d does not go away", a.PID))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}
