package mirror

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/pgdist/pgdist/health"
)

// The loop is the one owner of the chosen view and of all flushes: it serves
// acknowledgements, excludes members, elects leaders and takes members back, one
// thing at a time.

// tick is how often the loop looks after what nobody asked for.
const tick = 100 * time.Millisecond

func (s *Set) loop(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	var flushed time.Time
	for ctx.Err() == nil {
		idle := false
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case j := <-s.joins:
			j.done <- s.join(ctx, j)
		case a := <-s.aligns:
			a.done <- s.align(ctx, a)
		case j := <-s.switches:
			j.done <- s.switchTo(ctx, j)
		case j := <-s.tasks:
			j.done <- j.do(ctx)
		case j := <-s.lists:
			j.done <- s.relistTo(ctx, j)
		case <-t.C:
			idle = true
		}
		if err := s.heal(ctx); err != nil {
			s.trouble(ctx, err)
			continue
		}
		if s.newer.Load() || s.unsupported.Load() {
			if err := s.renew(ctx); err != nil {
				s.trouble(ctx, err)
				continue
			}
		}
		if idle {
			s.inviteBack(ctx)
			s.copyLost(ctx)
			s.prune(ctx)
			s.fillAgain(ctx)
			s.settleLate(ctx)
		}
		if !idle {
			s.gather(ctx)
		}
		// Now and then everything is compared: what came past pgdist, and
		// sequences that statements moved which failed.
		all := time.Since(flushed) > s.cfg.FlushInterval || s.suspect.Swap(false)
		if ws := s.take(); len(ws) > 0 || all {
			s.serve(ctx, ws, all)
			if all {
				flushed = time.Now()
			}
		}
	}
}

// gatherMost bounds how long a flush is put off for more commits to share it.
const gatherMost = 2 * time.Millisecond

// gather waits a little for commits that are about to come, if the last flush
// served several: what a flush costs does not grow much with what it carries,
// and under load that cost is what everybody waits for. A lone writer never
// waits here.
func (s *Set) gather(ctx context.Context) {
	if s.group < 3 {
		return
	}
	t := time.NewTimer(min(s.took/2, gatherMost))
	defer t.Stop()
	for s.pending() < s.group {
		select {
		case <-s.wake:
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (s *Set) pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}

// take removes the waiters that a flush beginning now will serve.
func (s *Set) take() []*waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == nil {
		return nil
	}
	ws := s.waiting
	s.waiting = make([]*waiter, 0, cap(ws))
	return ws
}

// giveBack puts waiters that could not be served in front again.
func (s *Set) giveBack(ws []*waiter) {
	if len(ws) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(ws, s.waiting...)
}

// serve flushes once and answers the waiters.
func (s *Set) serve(ctx context.Context, ws []*waiter, all bool) {
	how := shallow
	if all {
		how = s.look()
	}
	for _, w := range ws {
		how = how.with(w.how)
	}
	began := time.Now()
	// What is hoped for next time: as many as now, and a little more.
	s.group = max(len(ws)+len(ws)/4, s.group*7/8)
	defer func() {
		s.took = time.Since(began)
		if how != shallow && how != defined {
			s.deep, s.deepTook = began, s.took
		}
	}()
	if err := s.round(ctx, how); err != nil {
		s.giveBack(ws)
		s.suspect.Store(true) // until a flush has shown that all is well
		s.trouble(ctx, err)
		return
	}
	if len(ws) > 0 {
		if err := s.awaitDrain(ctx); err != nil {
			s.giveBack(ws)
			if errors.Is(err, errNewerEpoch) {
				s.poke()
			} else {
				s.trouble(ctx, err)
			}
			return
		}
	}
	if len(ws) > 0 {
		pointServed.Pass()
	}
	for _, w := range ws {
		if w.term != s.cur.Term {
			w.done <- ErrTermOver
		} else {
			w.done <- nil
		}
	}
}

// look is how deep a flush goes that nobody asked for.
func (s *Set) look() depth {
	switch {
	case time.Since(s.looked) >= sharedEvery:
		s.looked = time.Now()
		return thorough
	case time.Since(s.deep) < deepShare*s.deepTook:
		return shallow
	}
	return sequences
}

// deepShare bounds what looking unasked at sequences that nobody has called takes of the
// loop's time, where there are thousands: each is a statement of its own.
const deepShare = 20

// sharedEvery is how often roles and their kin are compared when no statement
// that pgdist knows of has changed them: a function may.
const sharedEvery = 5 * time.Second

// round is one flush to all in-sync followers, and what its failures call for.
// It returns nil only if every follower of the view then in force has what the
// leader held when round began.
func (s *Set) round(ctx context.Context, how depth) error {
	adopted := false
	for range 20 {
		failed, err := s.flushInSync(ctx, how)
		if err == nil && len(failed) == 0 && s.unseen && !adopted {
			s.unseen, adopted = false, true
			if err = s.takeUp(ctx); err == nil {
				continue
			}
		}
		if err == nil && len(failed) == 0 {
			s.terms = nil
			s.strikes, s.troubles = 0, 0
			for _, m := range s.members.all() {
				m.strikes = 0
			}
			if s.view.Load() != s.cur {
				s.publish()
			}
			return nil
		}
		if err := s.react(ctx, failed, err); err != nil {
			return err
		}
	}
	return errors.New("the set does not come to rest")
}

func (s *Set) flushInSync(ctx context.Context, how depth) (map[health.MemberID]error, error) {
	s.reconsider(ctx)
	ctx, done := s.engage(ctx, s.cur.InSync)
	defer done()
	if err := s.connectLeader(ctx); err != nil {
		return nil, err
	}
	if s.terms != nil {
		how = thorough // a follower may have led until now, and hold what only a leader does
	}
	over, err := s.takeTurn(ctx, s.followers())
	var failed map[health.MemberID]error
	if err == nil {
		failed, err = s.flush(ctx, s.cur.Epoch, s.followers(), how)
		over()
	}
	var dead *memberError
	if errors.As(context.Cause(ctx), &dead) {
		if dead.id == s.cur.Leader {
			return nil, &leaderError{dead.err}
		}
		if failed == nil {
			failed = map[health.MemberID]error{}
		}
		failed[dead.id] = dead
		err = nil
	}
	return failed, err
}

func (s *Set) followers() []*member {
	var out []*member
	for _, id := range s.cur.Followers() {
		out = append(out, s.members.get(id))
	}
	return out
}

// react changes the view as a failed flush requires. nil: flush again.
func (s *Set) react(ctx context.Context, failed map[health.MemberID]error, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var lead *leaderError
	var one *memberError
	switch {
	case errors.As(err, &lead):
		return s.leaderFailed(ctx, lead.err)
	case errors.As(err, &one):
		failed = map[health.MemberID]error{one.id: one.err}
	case err != nil:
		return err
	}
	var out []*member
	for id, err := range failed {
		m := s.members.get(id)
		if m == nil {
			continue // a view that was adopted because of another one has removed it
		}
		if again := s.followerFailed(ctx, m, err); !again {
			if s.troubles == 0 {
				s.log.Warn("excluding a member", "member", s.hostOf(id), "err", err)
			}
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		return nil
	}
	var ids []health.MemberID
	for _, m := range out {
		m.say(textExcluded, failed[m.id])
		ids = append(ids, m.id)
	}
	slices.Sort(ids)
	if err := s.alter(ctx, health.Intent{Exclude: ids}); err != nil {
		return err
	}
	for _, m := range out {
		if !s.cur.Has(m.id) {
			m.say(textExcluded, failed[m.id])
		}
	}
	return nil
}

// alter is change, and what to do when the leader turns out to be unfit for the
// role that the intent leaves it.
func (s *Set) alter(ctx context.Context, in health.Intent) error {
	err := s.change(ctx, in, nil)
	if errors.Is(err, health.ErrNeedHard) {
		in.DropLeader = true
		err = s.change(ctx, in, nil)
	}
	if errors.Is(err, errSuperseded) {
		return nil // what is still to be changed shows by that view's flush
	}
	return err
}

// renew goes by the view that somebody else has chosen, before anybody has to wait
// for it.
func (s *Set) renew(ctx context.Context) error {
	s.newer.Store(false)
	alone := s.unsupported.Swap(false)
	did, highest, err := s.adopt(ctx)
	if err == nil && !did {
		if highest <= s.cur.Epoch && !alone {
			return nil // it has been adopted meanwhile
		}
		err = s.reload(ctx)
	}
	if err != nil {
		return err
	}
	return s.round(ctx, thorough)
}

// followerFailed tells whether the same apply may be tried again.
func (s *Set) followerFailed(ctx context.Context, m *member, err error) (again bool) {
	var dead *memberError
	var held *errHeld
	state := sqlState(err)
	if state == codePosition && s.others.Load() > 0 {
		m.unsure() // another distributor was first
		return true
	}
	m.forget()
	switch {
	case errors.As(err, &dead) && dead.id != m.id:
		return true // its apply was called off because of another member
	case errors.As(err, &held):
		return false
	case errors.As(err, &dead), errors.Is(err, errSilent), errors.Is(err, health.ErrTimeout), state == codeCrashed:
		return false
	case state == codeFence:
		// Somebody else changed the view; ours is to be chosen anew.
		return s.reload(ctx) == nil
	case state == codePosition, state == "40P01", state == "40001", state == "55P03", state == "57014":
		return m.strike()
	case state != "" && health.Classify(err) != health.Failure && state != "57P01":
		return false // the database works and refuses the rows
	}
	ctx, cancel := context.WithTimeoutCause(ctx, m.health.ProbeTimeout, health.ErrTimeout)
	defer cancel()
	if s.locate(ctx, m) != nil {
		return false
	}
	return m.strike()
}

// strike allows a few repetitions in a row.
func (m *member) strike() bool {
	m.strikes++
	return m.strikes%5 != 0
}

// leaderFailed finds out whether the leader works after all, and has a new one
// chosen if not.
func (s *Set) leaderFailed(ctx context.Context, cause error) error {
	s.leaderC.close()
	s.leaderC = nil
	s.gateC.close()
	s.gateC = nil
	if errors.Is(cause, errNewerEpoch) {
		return s.reload(ctx)
	}
	if state := sqlState(cause); state != "" && state != "57P01" && (health.ClassifyOwn(cause) != health.Failure || unreadable(cause)) {
		// It works, and refuses what is asked of it: another leader would, too.
		return &Error{Op: "read a batch", Member: s.cur.Leader, Host: s.hostOf(s.cur.Leader), Err: cause, Hint: "writes cannot be acknowledged until this is mended: if a function of the users' fails, through pgdist (CREATE OR REPLACE FUNCTION)"}
	}
	var held *errHeld
	if s.downErr(s.cur.Leader) == nil && !errors.Is(cause, errLeaderLost) && !errors.As(cause, &held) && s.leaderAnswers(ctx) {
		// Whose session was ended by another program, which took this one for dead, or by an
		// operator, has nothing to hold against the leader: each new leader that it had chosen would end
		// others' sessions in turn, and so on.
		if sqlState(cause) == "57P01" {
			return nil
		}
		s.strikes++
		if s.strikes%5 != 0 {
			return nil
		}
	}
	if !errors.Is(cause, errLeaderLost) && !errors.As(cause, &held) {
		if who := s.leaderReached(ctx); who != "" {
			return s.cutOff(who, cause)
		}
	}
	if s.troubles == 0 {
		s.log.Warn("the leader failed", "member", s.hostOf(s.cur.Leader), "err", cause)
	}
	old := s.members.get(s.cur.Leader)
	err := s.change(ctx, health.Intent{DropLeader: true}, nil)
	if errors.Is(err, errSuperseded) {
		err = nil
	}
	if err == nil && s.cur.Leader != old.id {
		old.say(textExcluded, cause)
	}
	return err
}

func (s *Set) leaderAnswers(ctx context.Context) bool {
	m := s.members.get(s.cur.Leader)
	ctx, cancel := context.WithTimeoutCause(ctx, m.health.ProbeTimeout, health.ErrTimeout)
	defer cancel()
	if s.connectLeader(ctx) != nil {
		return false
	}
	h, err := s.leaderC.where(ctx)
	return err == nil && h.Leads && h.Booted
}

// heal acts on breakers that opened while no flush was under way.
func (s *Set) heal(ctx context.Context) error {
	s.reconsider(ctx)
	failed := map[health.MemberID]error{}
	s.mu.Lock()
	for _, id := range s.cur.InSync {
		if err, dead := s.down[id]; dead {
			failed[id] = &memberError{id, err}
		} else if err, dead := s.crashed[id]; dead {
			failed[id] = &memberError{id, err}
		}
	}
	clear(s.crashed)
	s.mu.Unlock()
	if len(failed) == 0 {
		return nil
	}
	var err error
	if e, dead := failed[s.cur.Leader]; dead {
		err = s.leaderFailed(ctx, e)
	} else {
		err = s.react(ctx, failed, nil)
	}
	if err != nil {
		return err
	}
	return s.round(ctx, thorough)
}

// trouble waits a little before the loop tries again, and answers writes that
// waited too long.
func (s *Set) trouble(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if time.Since(s.complained) > complainEvery || s.troubles == 0 {
		s.log.Error("the set cannot acknowledge writes", "err", err, "attempts", s.troubles+1)
		s.complained = time.Now()
	}
	pause := min(tick/2<<min(s.troubles, 8), troublePause)
	s.troubles++
	s.lastErr.Store(&err)
	s.mu.Lock()
	var keep []*waiter
	for _, w := range s.waiting {
		if time.Since(w.at) > s.cfg.AckTimeout {
			w.done <- err
		} else {
			keep = append(keep, w)
		}
	}
	if s.waiting != nil {
		s.waiting = append(make([]*waiter, 0, len(keep)), keep...)
	}
	s.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
	s.poke()
}

const (
	// troublePause is the longest pause between attempts to go on.
	troublePause = 400 * time.Millisecond
	// complainEvery is how often the log hears that they fail.
	complainEvery = 5 * time.Second
)
