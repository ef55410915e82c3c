package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgdist/pgdist/health"
)

// A switchover moves the leader's office to another member while all work. Nobody's
// transaction is ended: the leader's fence is locked in a moment in which none that has
// written is open, what was committed until then is flushed, and only then, under that
// lock still, the leader gives its promise. Who wants to write meanwhile waits, and
// then finds the new leader.

// ErrBusyLeader: transactions that have written stayed open.
var ErrBusyLeader = errors.New("transactions that have written stay open")

// switchJob asks the loop for a switchover.
type switchJob struct {
	ctx    context.Context
	to     health.MemberID
	view   *health.View // whose leader is to be replaced
	gently bool         // end nobody's transaction
	done   chan error
}

// switchPause is between two attempts to find a moment in which nobody has written.
const switchPause = 200 * time.Millisecond

// switchPatience is how long other changes of the view may come in between.
const switchPatience = 10 * time.Second

// Switchover makes another member the leader: the one at host ("host:port", as the
// configuration names it), or with "" one that the set chooses. patience is how long open transactions
// are waited for; 0 waits for none and ends them, which their clients see as 40001.
func (s *Set) Switchover(ctx context.Context, host string, patience time.Duration) (*health.View, error) {
	for began := time.Now(); ; {
		v := s.View()
		to, err := s.successor(v, host)
		if err != nil || to == v.Leader {
			return v, err
		}
		j := &switchJob{ctx: ctx, to: to, view: v, gently: patience > 0, done: make(chan error, 1)}
		select {
		case s.switches <- j:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		err = <-j.done
		busy := errors.Is(err, ErrBusyLeader)
		again := busy || errors.Is(err, errSuperseded) || errors.Is(err, errNewerEpoch) || errors.Is(err, errLeaderLost)
		switch sqlState(err) {
		case codeFence, "40P01", "57P01": // another program's proposal was in the way, or ended ours
			again = true
		}
		if err == nil || !again || time.Since(began) > patience && (busy || time.Since(began) > switchPatience) {
			return s.View(), err
		}
		if !sleep(ctx, switchPause) {
			return nil, errors.Join(err, context.Cause(ctx))
		}
	}
}

// successor finds the member that is meant.
func (s *Set) successor(v *health.View, host string) (health.MemberID, error) {
	if host == "" {
		if f := v.Followers(); len(f) > 0 {
			return f[0], nil
		}
		return 0, &Error{Op: "switch over", Err: errors.New("no other member is in sync"), Hint: "see: pgdist status"}
	}
	for id, m := range s.members.all() {
		if m.host != host {
			continue
		}
		if !v.Has(id) {
			return 0, &Error{Op: "switch over", Member: id, Host: host, Err: errors.New("it is not in sync, so it lacks what was acknowledged"), Hint: "see: pgdist status"}
		}
		return id, nil
	}
	return 0, &Error{Op: "switch over", Host: host, Err: errors.New("no member has this address"), Hint: "the members are " + hostList(v)}
}

// holdLeader locks the leader's fence, if there is a moment soon in which nobody has a
// transaction open that has written.
func (s *Set) holdLeader(ctx context.Context, m *member) (*conn, error) {
	c, err := m.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err = c.exec(ctx, "BEGIN"); err == nil {
		_, err = c.call(ctx, `SELECT pgdist.hold()`)
	}
	if err == nil {
		c.holds = true
		return c, nil
	}
	c.close()
	if sqlState(err) == codeFenced {
		return nil, &Error{Op: "switch over", Member: m.id, Host: m.host, Err: errors.Join(ErrBusyLeader, err), Hint: "wait for them, or end them with --force: their clients hear 40001, and run them again"}
	}
	return nil, m.fail("lock the fence", err)
}

// switchTo is a switchover, in the loop.
func (s *Set) switchTo(loop context.Context, j *switchJob) error {
	if s.cur.Epoch != j.view.Epoch {
		return errSuperseded
	}
	if !j.gently {
		return s.appoint(loop, j, nil)
	}
	ctx, done := s.engage(j.ctx, s.cur.InSync)
	defer done()
	if err := s.connectLeader(ctx); err != nil {
		return err
	}
	// First the turn: who flushes reads what the fence will be locked with.
	over, err := s.takeTurn(ctx, s.followers())
	if err != nil {
		return err
	}
	defer over()
	m := s.members.get(s.cur.Leader)
	hold, err := s.holdLeader(ctx, m)
	if err != nil {
		return err
	}
	pointHeld.Pass()
	given := answer{m: m, c: hold, hard: true}
	if err := s.surrender(ctx, hold, &given); err != nil {
		hold.close()
		return err
	}
	pointSurrendered.Pass()
	over()
	return s.appoint(loop, j, &given) // which closes hold
}

// surrender ships what was committed until the fence was locked, and has the leader
// promise the next epoch before anybody can write again.
func (s *Set) surrender(ctx context.Context, hold *conn, given *answer) error {
	failed, err := s.flushOver(ctx, hold) // nobody else is answered there
	if s.outrun(failed) {
		failed, err = s.flushOver(ctx, hold)
	}
	if err != nil {
		return err
	}
	for id, err := range failed {
		return fmt.Errorf("member %d: %w", id, err)
	}
	given.p, err = hold.promise(ctx, s.cur.Epoch+1, true)
	if err == nil {
		err = hold.exec(ctx, "COMMIT")
	}
	return given.m.fail("ask for a promise", causeOf(ctx, err))
}

// outrun tells whether others flushed to members before the turn was ours, and forgets
// where these were: then the same may be tried again.
func (s *Set) outrun(failed map[health.MemberID]error) (any bool) {
	for id, err := range failed {
		if m := s.members.get(id); m != nil && sqlState(err) == codePosition {
			m.unsure()
			any = true
		}
	}
	return any
}

// appoint has a view chosen under the new leader, and flushes under it.
func (s *Set) appoint(ctx context.Context, j *switchJob, given *answer) error {
	s.given = given
	err := s.change(ctx, health.Intent{Leader: j.to}, nil)
	s.given = nil
	if err != nil {
		// The leader may have lost its role already: somebody must have it.
		return errors.Join(err, s.alter(ctx, health.Intent{}), s.round(ctx, thorough))
	}
	s.log.Info("switched over", "leader", s.hostOf(s.cur.Leader), "epoch", s.cur.Epoch)
	return s.round(ctx, thorough)
}
