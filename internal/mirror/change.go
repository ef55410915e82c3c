package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/pgdist/pgdist/health"
)

// promiseAnswer is what pgdist.promise() and pgdist.adopt() return.
type promiseAnswer struct {
	Given  bool `json:"given"`
	Fenced bool `json:"fenced"` // nobody writes there any more, asked for or not
	here
}

// answer is a member's promise, or why there is none.
type answer struct {
	m    *member
	c    voter
	hard bool // it was asked to end whoever writes there
	p    promiseAnswer
	err  error
}

// change has a new view chosen: promises, the view they allow, acceptance by a
// majority, the leader's office, and a first flush under it. s.cur and what
// clients see change only if all of it came about. with runs between promise
// and acceptance, when nobody can be acknowledged: the last step of joining.
func (s *Set) change(ctx context.Context, in health.Intent, with func(epoch int64) error) error {
	began := s.cur.Epoch
	epoch := began + 1
	if s.others.Load() > 0 && s.given == nil {
		did, highest, err := s.adopt(ctx)
		if err != nil {
			return err
		}
		if did {
			return errSuperseded
		}
		epoch = max(epoch, highest+1)
	}
	for {
		s.proposing.Store(epoch)
		s.log.Debug("proposing a view", "epoch", epoch, "exclude", in.Exclude, "join", in.Join, "leader", in.Leader, "drop_leader", in.DropLeader)
		again, err := s.propose(ctx, epoch, in, with)
		if again <= epoch {
			if s.cur.Epoch == began {
				s.proposing.Store(0)
			}
			return err
		}
		epoch = again
		if s.others.Load() == 0 {
			continue
		}
		// Somebody else is changing the view: it may be for the same reason.
		s.proposing.Store(0)
		s.duels++
		if !s.giveWay(ctx) {
			return context.Cause(ctx)
		}
		did, highest, err := s.adopt(ctx)
		if err != nil {
			return err
		}
		if did {
			return errSuperseded
		}
		epoch = max(epoch, highest+1)
	}
}

// propose tries one epoch. A result above epoch asks for another try with it.
func (s *Set) propose(ctx context.Context, epoch int64, in health.Intent, with func(epoch int64) error) (int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, changeTimeout, health.ErrTimeout)
	defer cancel()
	answers := s.promises(ctx, epoch, in)
	defer closeAll(answers)
	var given []health.Promise
	var errs []error
	higher := epoch
	for i, a := range answers {
		switch {
		case a.err != nil:
			errs = append(errs, a.err)
		case !a.p.Given:
			higher = max(higher, a.p.refusedAt()+1)
		default:
			p, err := a.promise(epoch, s.cur)
			if answers[i].err = err; err != nil { // nor does it count when the view is accepted
				errs = append(errs, err)
				continue
			}
			given = append(given, p)
		}
	}
	if higher > epoch {
		return higher, nil
	}
	if base := baseOf(s.cur, given); s.meet(base) {
		return epoch + 1, nil // who was added since must be asked, too
	}
	next, err := s.next(epoch, given, answers, in)
	if err != nil {
		if errors.Is(err, health.ErrNoQuorum) {
			err = &Error{Op: "change the view", Err: errors.Join(append([]error{ErrNoMajority}, errs...)...),
				Hint: "bring the members that do not answer back; reads go on where they can"}
		}
		return 0, err
	}
	sift(answers, next)
	if with != nil {
		if err := with(epoch); err != nil {
			return 0, err
		}
	}
	err = s.install(ctx, next, answers)
	if errors.Is(err, errOutbid) {
		return epoch + 1, nil
	}
	return 0, err
}

// next is health.Propose, with the places that the members answered with.
func (s *Set) next(epoch int64, given []health.Promise, answers []answer, in health.Intent) (*health.View, error) {
	stands := make([]health.Stand[Place], 0, len(given))
	for _, p := range given {
		i := slices.IndexFunc(answers, func(a answer) bool { return a.m.id == p.Member })
		stands = append(stands, health.Stand[Place]{Promise: p, Place: answers[i].p.place(), Crashed: answers[i].p.Crashed})
	}
	return health.Propose(epoch, stands, in, s.cur, Place.within)
}

// baseOf is the newest view that was accepted by anyone who promised, or cur.
func baseOf(cur *health.View, given []health.Promise) *health.View {
	for _, p := range given {
		if p.Accepted != nil && p.Accepted.Epoch > cur.Epoch {
			cur = p.Accepted
		}
	}
	return cur
}

// refusedAt is the epoch a member that refused has promised already.
func (p promiseAnswer) refusedAt() int64 { return max(p.Promised, p.Epoch) }

const changeTimeout = 5 * time.Second

// promises asks all members: the leader that is to stay softly, the others hard.
func (s *Set) promises(ctx context.Context, epoch int64, in health.Intent) []answer {
	keep := s.cur.Leader
	if in.DropLeader || slices.Contains(in.Exclude, keep) || in.Remove == keep || (in.Leader != 0 && in.Leader != keep) {
		keep = 0
	}
	ids := s.sortedIDs()
	out := make([]answer, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		m := s.members.get(id)
		if g := s.given; g != nil && g.m.id == id && g.p.Epoch == epoch {
			out[i], s.given = *g, nil
			continue
		}
		wg.Go(func() {
			timeout := m.health.ProbeTimeout
			if s.downErr(id) != nil {
				timeout /= 3 // most likely it is still away
			}
			ctx, cancel := context.WithTimeoutCause(ctx, timeout, health.ErrTimeout)
			defer cancel()
			out[i] = m.promise(ctx, epoch, id != keep)
			if out[i].err == nil {
				pointPromised.Pass()
			}
		})
	}
	wg.Wait()
	pointPromisedAll.Pass()
	return out
}

func (m *member) promise(ctx context.Context, epoch int64, hard bool) answer {
	c, err := m.voter(ctx)
	if err != nil {
		return answer{m: m, err: err}
	}
	a := answer{m: m, c: c, hard: hard}
	a.p, err = c.promise(ctx, epoch, hard)
	a.err = m.fail("ask for a promise", causeOf(ctx, err))
	return a
}

// promise turns an answer into what health.Next judges.
func (a answer) promise(epoch int64, cur *health.View) (health.Promise, error) {
	if a.p.Set != cur.Set || a.p.Member != int(a.m.id) {
		return health.Promise{}, &Error{Op: "change the view", Member: a.m.id, Host: a.m.host,
			Err:  fmt.Errorf("the database there is member %d of set %s, not member %d of set %s", a.p.Member, a.p.Set, a.m.id, cur.Set),
			Hint: "it was replaced or restored from another set; it counts for nothing until it is added anew"}
	}
	if was, ok := cur.Member(a.m.id); ok && was.System != "" && was.System != a.p.Cluster {
		return health.Promise{}, &Error{Op: "change the view", Member: a.m.id, Host: a.m.host,
			Err:  fmt.Errorf("the server there is %s, member %d was %s", a.p.Cluster, a.m.id, was.System),
			Hint: "what it promised before is not known there; it counts for nothing until it is copied: pgdist resync DSN --member " + a.m.host}
	}
	rank, err := a.p.rank()
	// Who was asked softly and does not lead is no leader to be kept, whatever its boot row says.
	hard := a.hard || a.p.Fenced
	return health.Promise{Member: a.m.id, Epoch: epoch, Hard: hard, Accepted: a.p.View, Booted: a.p.Booted && (hard || a.p.Leads),
		Term: a.p.Term, Rank: rank, Amiss: a.p.Amiss != "", System: a.p.Cluster}, err
}

// sift refuses the answers of servers that the next view does not name: their acceptance
// would be of no more worth than their promise.
func sift(answers []answer, next *health.View) {
	for i, a := range answers {
		if a.err != nil {
			continue
		}
		_, answers[i].err = a.promise(next.Epoch, next)
	}
}

// install has the view accepted and put into force.
func (s *Set) install(ctx context.Context, next *health.View, answers []answer) error {
	body, err := json.Marshal(next)
	if err != nil {
		return err
	}
	accepted, outbid, errs := acceptBy(ctx, next, body, answers)
	if !next.Quorum(accepted) {
		if outbid {
			return errOutbid
		}
		return errors.Join(append([]error{ErrNoMajority}, errs...)...)
	}
	if !next.Borne(accepted) {
		return errOutbid // chosen, but to be gone by only without those that did not accept it
	}
	pointChosen.Pass()
	leader := connOf(answers, next.Leader, accepted)
	if next.Term == next.Epoch {
		if leader == nil {
			return errors.Join(append([]error{errLeaderLost}, errs...)...)
		}
		if _, err := leader.one(ctx, `SELECT pgdist.activate($1::bigint)`, strconv.AppendInt(nil, next.Epoch, 10)); err != nil {
			return s.members.get(next.Leader).fail("take office", err)
		}
		pointOffice.Pass()
		s.fill(ctx, leader, next)
	}
	s.settled(s.cur, next, answers)
	err = s.enterView(ctx, next)
	pointEntered.Pass()
	return err
}

// errOutbid: somebody else has proposed a higher epoch between promise and acceptance.
var errOutbid = errors.New("another program has proposed a newer view")

// errLeftOut: the member is not in the view any more.
var errLeftOut = errors.New("it was left out of the view")

// enterView makes a chosen view the loop's own.
func (s *Set) enterView(ctx context.Context, next *health.View) error {
	old := s.cur
	s.cur = next
	s.meet(next)
	s.part(next)
	s.entered.Store(next.Epoch)
	s.forgetHeld(next.InSync)
	if old == nil || old.Leader != next.Leader || old.Term != next.Term {
		s.leaderC.close()
		s.gateC.close()
		s.leaderC, s.gateC = nil, nil
	}
	for id, m := range s.members.all() {
		m.seat.Store(next)
		switch {
		case next.Has(id) && (old == nil || !old.Has(id)):
			m.joined.Store(monotonic())
			s.newcomers[id] = true
		case !next.Has(id) && old != nil && old.Has(id):
			s.postpone(m, errLeftOut)
		}
		if !next.Has(id) || id == next.Leader {
			m.forget()
		} else if s.others.Load() > 0 {
			m.unsure()
		}
	}
	return s.connectLeader(ctx)
}

// meetLeader connects to the leader and makes sure that it is the view's.
func (s *Set) meetLeader(ctx context.Context, m *member) (*conn, *here, error) {
	c, err := dial(ctx, m.cfg, m.named(map[string]string{"default_transaction_read_only": "on"}))
	if err != nil {
		return nil, nil, m.fail("connect", err)
	}
	h, err := c.where(ctx)
	if err == nil {
		err = recognise(s.cur, m.id, m.host, h)
	}
	if err != nil {
		c.close()
		return nil, nil, m.fail("ask for its state", err)
	}
	return c, h, nil
}

// connectLeader makes sure there is a connection batches are read on, with no transaction on it, and the
// chain of terms to go with the next flush.
func (s *Set) connectLeader(ctx context.Context) error {
	if s.leaderC.idle() {
		return nil
	}
	s.leaderC.close()
	m := s.members.get(s.cur.Leader)
	c, h, err := s.meetLeader(ctx, m)
	if sqlState(err) == "57P01" {
		// Whoever asks for a promise ends the sessions that look at the office, too.
		c, h, err = s.meetLeader(ctx, m)
	}
	if err != nil {
		return &leaderError{err}
	}
	s.leaderC = c
	s.heardLeader(nil)
	s.terms, err = json.Marshal(h.Terms)
	return err
}
