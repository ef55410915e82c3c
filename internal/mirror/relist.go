package mirror

import (
	"context"
	"errors"
	"time"

	"github.com/pgdist/pgdist/health"
)

// Members are added and removed, and votes given and taken, by views like any other
// change. One that changes votes has the list before as well and is decided on by
// majorities of both; a second view ends that, once nobody can read by an older one
// any more: whoever did is registered with the voters before, perhaps with nobody else.

// relistJob asks the loop for a change of the list of members.
type relistJob struct {
	ctx context.Context
	// want tells what is to be changed of the present view; done that nothing is.
	want func(v *health.View) (in health.Intent, done bool, err error)
	// as is how a member to be added is connected to.
	as   MemberConfig
	done chan error
}

// relistPatience is how long other changes of the view may come in between.
const relistPatience = 15 * time.Second

// settleEvery is how often it is tried to end a change of voters that somebody has begun.
const settleEvery = time.Second

// relist has the list of members changed as want says, and returns once the change is
// chosen, and ended.
func (s *Set) relist(ctx context.Context, as MemberConfig, want func(v *health.View) (health.Intent, bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*relistPatience, health.ErrTimeout)
	defer cancel()
	var last error
	for began := time.Now(); ; {
		j := &relistJob{ctx: ctx, want: want, as: as, done: make(chan error, 1)}
		select {
		case s.lists <- j:
		case <-s.life.Done():
			return ErrClosed
		case <-ctx.Done():
			return errors.Join(last, context.Cause(ctx))
		}
		last = <-j.done
		if last == nil || isRefusal(last) || ctx.Err() != nil || time.Since(began) > relistPatience {
			return last
		}
		if !hesitate(ctx, proposalTime) {
			return errors.Join(last, context.Cause(ctx))
		}
	}
}

// isRefusal tells of errors that trying again does not mend. Others may: whoever changes the
// view at the same time ends sessions, and is in the way until that is done.
func isRefusal(err error) bool {
	var own *Error
	return errors.Is(err, health.ErrIntent) || errors.Is(err, health.ErrLastMember) || errors.Is(err, ErrClosed) ||
		errors.As(err, &own) && (own.Op == "add" || own.Op == "remove")
}

// relistTo is one attempt at it, in the loop.
func (s *Set) relistTo(ctx context.Context, j *relistJob) error {
	if err := s.settle(ctx); err != nil {
		return err
	}
	in, done, err := j.want(s.cur)
	if done || err != nil {
		return err
	}
	if a := in.Add; a != nil && s.members.get(a.ID) == nil {
		m := s.newMember(a.ID, j.as)
		s.know(m) // it may have a vote in this
		defer func() {
			if !has(s.cur.Members, a.ID) && s.members.get(a.ID) == m {
				s.lose(m)
			}
		}()
	}
	err = s.change(ctx, in, nil)
	if errors.Is(err, health.ErrIntent) && s.reload(ctx) == nil {
		// It was asked for by an older view than the members have: by theirs it may be done, be it
		// by this program's own attempt that it heard no answer to.
		if _, done, e := j.want(s.cur); done && e == nil {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	if err := s.round(ctx, thorough); err != nil {
		return err
	}
	return s.settle(ctx)
}

// settle ends a change of votes that is under way.
func (s *Set) settle(ctx context.Context) error {
	if len(s.cur.Former) == 0 {
		return nil
	}
	if s.view.Load() != s.cur {
		if err := s.round(ctx, thorough); err != nil {
			return err
		}
	}
	if err := s.awaitDrain(ctx); err != nil {
		return err
	}
	if err := s.change(ctx, health.Intent{Settle: true}, nil); err != nil {
		return err
	}
	if err := s.round(ctx, thorough); err != nil {
		return err
	}
	if len(s.cur.Former) > 0 {
		return errUnsettled
	}
	return nil
}

// settleLate ends a change of votes whose proposer may have ended in the middle of it.
func (s *Set) settleLate(ctx context.Context) {
	if len(s.cur.Former) == 0 {
		s.unsettled = time.Time{}
		return
	}
	if s.unsettled.IsZero() {
		s.unsettled = time.Now()
	}
	if time.Since(s.unsettled) < settleEvery {
		return
	}
	s.unsettled = time.Now()
	if err := s.settle(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("a change of the set's voters could not be ended yet", "err", err)
	}
}

// votes are what the members of a list are to have: the usual ones, if those before had
// these, and else one for whoever is new.
func votes(before, after []health.Member) map[health.MemberID]int {
	usual := health.StandardVotes(before)
	for _, m := range before {
		if m.Weight != usual[m.ID] {
			usual = nil
			break
		}
	}
	if usual != nil {
		return health.StandardVotes(after)
	}
	out := map[health.MemberID]int{}
	for _, m := range after {
		if !has(before, m.ID) {
			out[m.ID] = 1
		}
	}
	return out
}
