package mirror

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/pgdist/pgdist/health"
)

// errSuperseded: another distributor had a view chosen meanwhile, which this one
// goes by now.
var errSuperseded = errors.New("another distributor has changed the view")

// proposalTime is about how long a change of view takes its proposer. Who sees an
// epoch that no view was chosen for waits that long before proposing itself.
const proposalTime = 300 * time.Millisecond

// giveWay leaves another proposer time for its view, each time longer than the last, until
// there is a view that all go by: on machines so busy that a view takes longer than it should,
// programs that propose would else end each other's work for ever. (Paxos has the
// same need: Lamport, "Paxos Made Simple", section 2.4.)
func (s *Set) giveWay(ctx context.Context) bool {
	return hesitate(ctx, proposalTime<<min(s.duels, 3))
}

// adopt looks whether a view newer than the loop's own was chosen, by a majority's
// acceptance, and goes by it. It tells whether it did, and the highest epoch that
// any member has heard of.
func (s *Set) adopt(ctx context.Context) (did bool, highest int64, err error) {
	found := s.whereabouts(ctx)
	newest := newestView(found)
	if newest != nil && newest.Epoch > s.cur.Epoch && s.meet(newest) {
		found = s.whereabouts(ctx)
		newest = newestView(found)
	}
	for _, a := range found {
		if a.here != nil {
			highest = max(highest, a.here.Epoch, a.here.Promised)
		}
	}
	if newest == nil || newest.Epoch <= s.cur.Epoch || !s.chosen(found, newest) || !borne(found, newest) || !s.leaderFit(found, newest) {
		return false, highest, nil
	}
	s.log.Debug("going by a view that another distributor has proposed", "epoch", newest.Epoch)
	return true, highest, s.enterView(ctx, newest)
}

// whereabouts asks all members who and where they are.
func (s *Set) whereabouts(ctx context.Context) []answerOf {
	out := make([]answerOf, 0, len(s.members.all()))
	heard := make(chan answerOf, len(s.members.all()))
	for _, m := range s.members.all() {
		s.done.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, m.health.ProbeTimeout, health.ErrTimeout)
			defer cancel()
			a := answerOf{cfg: m.configured()}
			c, err := m.voter(ctx)
			if err == nil {
				a.here, err = c.where(ctx)
				c.close()
			}
			a.err = causeOf(ctx, err)
			heard <- a
		})
	}
	var grace <-chan time.Time
	for range s.members.all() {
		select {
		case a := <-heard:
			out = append(out, a)
		case <-grace:
			return out
		}
		if 2*len(out) > len(s.members.all()) && grace == nil && s.heardRegister(out) {
			grace = time.After(stragglers)
		}
	}
	return out
}

// stragglers is how long those that do not answer are waited for when others have.
const stragglers = 50 * time.Millisecond

// chosen tells whether a majority has accepted the view.
func (s *Set) chosen(found []answerOf, v *health.View) bool { return v.Chosen(voters(found)) }

// heardRegister tells whether the register that has all votes, if there is one, has answered.
func (s *Set) heardRegister(found []answerOf) bool {
	m, there := s.cur.Register()
	return !there || slices.ContainsFunc(found, func(a answerOf) bool { return a.cfg.Host() == m.Host })
}

// borne is View.Borne of what the members answered.
func borne(found []answerOf, v *health.View) bool {
	var accepted []health.MemberID
	for _, a := range voters(found) {
		if a.Set == v.Set && a.Accepted == v.Epoch {
			accepted = append(accepted, a.Member)
		}
	}
	return v.Borne(accepted)
}

// voters are those that answered.
func voters(found []answerOf) []health.Voter {
	out := make([]health.Voter, 0, len(found))
	for _, a := range found {
		if h := a.here; h != nil {
			out = append(out, health.Voter{Member: health.MemberID(h.Member), Set: h.Set, System: h.Cluster, Epoch: h.Epoch, Accepted: h.Accepted,
				Leads: h.Leads, Office: h.Office, Booted: h.Booted})
		}
	}
	return out
}

// reload takes over the view that another distributor had chosen. Where there is an
// epoch that no view was chosen for, its proposer may have died: then the same view
// is proposed again.
func (s *Set) reload(ctx context.Context) error {
	for tries := 0; ; tries++ {
		did, _, err := s.adopt(ctx)
		if did || err != nil {
			return err
		}
		if s.others.Load() == 0 || tries == 2 {
			break
		}
		if !s.giveWay(ctx) {
			return context.Cause(ctx)
		}
	}
	s.duels++
	return s.alter(ctx, health.Intent{})
}

// reconsider looks anew at members that another program has taken back and whose breakers
// are open here, for a while yet: what this one knows of them may be of before. If it left
// them out at once the other would take them back at once.
func (s *Set) reconsider(ctx context.Context) {
	for id := range s.newcomers {
		delete(s.newcomers, id)
		m := s.members.get(id)
		if m == nil || !s.cur.Has(id) || !s.isDown(id) {
			continue
		}
		ctx, cancel := context.WithTimeoutCause(ctx, m.health.ProbeTimeout, health.ErrTimeout)
		err := s.probe(ctx, id)
		cancel()
		if err != nil {
			continue
		}
		s.mu.Lock()
		delete(s.down, id)
		s.mu.Unlock()
		s.board.Retry(id)
	}
}
