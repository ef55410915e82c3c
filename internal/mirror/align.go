package mirror

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgdist/pgdist/health"
)

// alignment asks the loop for one transaction on each in-sync member, all of
// which see the same state, while writes go on.
type alignment struct {
	ctx   context.Context
	conns map[health.MemberID]*conn
	view  *health.View // whose in-sync members they are
	done  chan error
}

func (a *alignment) close() {
	for _, c := range a.conns {
		c.close()
	}
}

const exportSQL = `SELECT pg_export_snapshot()`

// release hands the leader's snapshot over to a new transaction: the one that
// the followers were brought up from has locks on all that was read for them.
func (a *alignment) release(ctx context.Context, m *member) error {
	old := a.conns[m.id]
	snap, err := old.one(ctx, exportSQL)
	if err != nil {
		return m.fail("export a snapshot", err)
	}
	c, err := m.connect(ctx)
	if err != nil {
		return err
	}
	a.conns[m.id] = c
	err = c.exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET TRANSACTION SNAPSHOT "+quoteLiteral(snap))
	old.close()
	return m.fail("take over a snapshot", err)
}

// aligned opens the transactions. The caller closes what it gets.
func (s *Set) aligned(ctx context.Context) (*alignment, error) {
	for {
		a := &alignment{ctx: ctx, conns: map[health.MemberID]*conn{}, done: make(chan error, 1)}
		select {
		case s.aligns <- a:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		// The loop answers even if ctx ends, for the connections are its to open.
		err := <-a.done
		if err == nil {
			return a, nil
		}
		a.close()
		if !errors.Is(err, errMoved) {
			return nil, err
		}
	}
}

// errMoved: a member could not follow to the snapshot; another is needed.
var errMoved = errors.New("the set moved on")

// align runs in the loop: it brings all followers exactly to the snapshot of a
// transaction it leaves open on the leader, and opens theirs before anything
// else is applied.
func (s *Set) align(loop context.Context, a *alignment) error {
	if err := s.round(loop, thorough); err != nil {
		return err
	}
	ctx, done := s.engage(a.ctx, s.cur.InSync)
	defer done()
	err := s.alignIn(ctx, a)
	var dead *memberError
	if err != nil && errors.As(context.Cause(ctx), &dead) { // a member failed: once more, without it
		return fmt.Errorf("%w: %w", errMoved, dead)
	}
	return err
}

func (s *Set) alignIn(ctx context.Context, a *alignment) error {
	a.view = s.cur
	over, err := s.takeTurn(ctx, s.followers())
	if err != nil {
		return err
	}
	defer over()
	lead, err := s.snapshot(ctx, s.cur.Leader, a)
	if err != nil {
		return err
	}
	failed, err := s.flushOver(ctx, lead)
	if outdated(err) {
		return errMoved
	}
	if err != nil {
		return err
	}
	for id, err := range failed {
		return fmt.Errorf("%w: member %d: %w", errMoved, id, err)
	}
	for _, id := range s.cur.Followers() {
		c, err := s.snapshot(ctx, id, a)
		if err != nil {
			return err
		}
		m := s.members.get(id)
		p, tick, err := m.spot(ctx, c)
		if err != nil {
			return err
		}
		if m.tick != tickless && (p != m.place || tick != m.tick) {
			m.at(p, tick) // an empty batch is not applied, so nothing else tells of it
			return fmt.Errorf("%w: another program flushed to member %d", errMoved, id)
		}
	}
	return nil
}

// snapshot opens a transaction and fixes what it sees.
func (s *Set) snapshot(ctx context.Context, id health.MemberID, a *alignment) (*conn, error) {
	m := s.members.get(id)
	c, err := dial(ctx, m.cfg, map[string]string{"default_transaction_read_only": "on"})
	if err != nil {
		return nil, m.fail("connect", err)
	}
	a.conns[id] = c
	return c, m.fail("open a snapshot", c.exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SELECT 1"))
}
