package simulation

import (
	"errors"
	"slices"

	"github.com/pgdist/pgdist/health"
)

// attempts bounds what the product tries until it is stopped.
const attempts = 4

// change has a new view chosen.
func (d *dist) change(in health.Intent, with func(epoch int64, then func(error)), end func(error)) {
	began := d.cur.Epoch
	left := attempts
	var try func(epoch int64)
	first := func(epoch int64) {
		d.adopt(func(did bool, highest int64) {
			if did {
				end(errSuperseded)
				return
			}
			try(max(epoch, highest+1))
		})
	}
	try = func(epoch int64) {
		if left--; left < 0 {
			d.proposing = 0
			end(errTired)
			return
		}
		d.proposing = epoch
		d.propose(epoch, in, with, func(again int64, err error) {
			if again <= epoch {
				if d.cur.Epoch == began {
					d.proposing = 0
				}
				end(err)
				return
			}
			if d.others == 0 {
				try(again)
				return
			}
			d.proposing = 0
			d.hesitate(func() { first(again) })
		})
	}
	if d.others > 0 {
		first(began + 1)
	} else {
		try(began + 1)
	}
}

// propose tries one epoch. A result above epoch asks for another try with it.
func (d *dist) propose(epoch int64, in health.Intent, with func(epoch int64, then func(error)), end func(int64, error)) {
	w := d.w
	keep := d.cur.Leader
	if in.DropLeader || slices.Contains(in.Exclude, keep) || in.Remove == keep || in.Leader != 0 && in.Leader != keep {
		keep = 0
	}
	asked := d.ids()
	d.all(asked, "promise", func(c *call) verdict {
		c.m.promise(epoch, c.m.id != keep, &c.ans)
		return done
	}, func(answers []*answer) {
		higher := epoch
		var stands []health.Stand[place]
		for _, a := range answers {
			switch {
			case a.err != nil:
			case !a.given:
				higher = max(higher, a.promised+1)
			default:
				if s := system(d.cur, a.id); s != "" && s != a.system && w.Bug != BugStrangersVote && w.Bug != BugStrangersAccept {
					a.err = errRefused
					continue
				}
				stands = append(stands, d.stand(epoch, a, a.id != keep))
			}
		}
		if higher > epoch && w.Bug != BugEpochTwice {
			end(higher, nil)
			return
		}
		if d.meet(stands) {
			end(epoch+1, nil) // who was added since must be asked, too
			return
		}
		next, err := d.next(epoch, stands, in)
		if err != nil {
			if errors.Is(err, health.ErrConflict) {
				w.fail("members contradict each other: %v", err)
			}
			end(0, err)
			return
		}
		for _, a := range answers {
			if s := system(next, a.id); a.err == nil && s != "" && s != a.system && w.Bug != BugStrangersAccept {
				a.err = errRefused
			}
		}
		install := func(err error) {
			if err != nil {
				end(0, err)
				return
			}
			d.install(next, answers, func(err error) { end(0, err) })
		}
		if with != nil && w.Bug != BugJoinBeforePromise {
			with(epoch, install)
		} else {
			install(nil)
		}
	})
}

// meet makes the members known that the newest view among the promises names.
func (d *dist) meet(stands []health.Stand[place]) bool {
	base := d.cur
	for _, s := range stands {
		if s.Accepted != nil && s.Accepted.Epoch > base.Epoch {
			base = s.Accepted
		}
	}
	met := named(base) &^ d.roster
	d.roster |= met
	return met != 0
}

// stand is answer.promise, and where the member is.
func (d *dist) stand(epoch int64, a *answer, hard bool) health.Stand[place] {
	hard = hard || a.fenced || d.w.Bug == BugSoftFollower
	p := health.Promise{Member: a.id, Epoch: epoch, Hard: hard, Accepted: a.accepted, Booted: a.booted && (hard || a.leads), Term: a.pos.term, System: a.system}
	p.Rank = health.PositionRank{Term: a.pos.term, Xmax: a.pos.seen}
	if a.pos.all {
		p.Rank.Xmax = 1<<64 - 1
	}
	if d.w.Bug == BugBootIgnored {
		p.Booted = true
	}
	if d.w.Bug == BugStrangersVote || d.w.Bug == BugOldServersVote {
		p.System = ""
	}
	return health.Stand[place]{Promise: p, Place: a.pos, Crashed: a.crashed}
}

// next is the view that the promises allow.
func (d *dist) next(epoch int64, stands []health.Stand[place], in health.Intent) (*health.View, error) {
	d.bend(stands)
	next, err := health.Propose(epoch, stands, in, d.cur, d.within())
	if err == nil && d.w.Bug == BugSettleUnseen && changing(stands) {
		next.Former = nil
	}
	return next, err
}

// install has the view accepted and put into force.
func (d *dist) install(next *health.View, answers []*answer, end func(error)) {
	w := d.w
	d.unbend(next)
	w.register(next)
	if w.Trace {
		w.note("%s proposes %v", d, next)
	}
	if w.Bug == BugRoleBeforeChosen && next.Term == next.Epoch {
		d.ask(d.member(next.Leader), "activate", func(c *call) verdict { return c.m.activate(next, &c.ans) }, func(a *answer) {
			if a.err == nil {
				d.enterView(next)
			}
			end(a.err)
		})
		return
	}
	d.again(answers, "accept", func(c *call) verdict { c.m.accept(next, &c.ans); return done }, func(did []*answer) {
		var accepted []id
		for _, a := range did {
			if a.err == nil && a.given {
				accepted = append(accepted, a.id)
			}
		}
		if !d.majority(next, accepted) {
			end(errNoMajority)
			return
		}
		rest := func(a *answer) {
			if a != nil && a.err != nil {
				end(a.err)
				return
			}
			d.settled(next, answers)
			d.enterView(next)
			end(nil)
		}
		if next.Term != next.Epoch {
			rest(nil)
			return
		}
		if !slices.Contains(accepted, next.Leader) {
			end(errLeaderLost)
			return
		}
		lead := slices.IndexFunc(answers, func(a *answer) bool { return a.id == next.Leader })
		d.again(answers[lead:lead+1], "activate", func(c *call) verdict { return c.m.activate(next, &c.ans) }, func(as []*answer) { rest(as[0]) })
	})
}

// enterView makes a chosen view the loop's own.
func (d *dist) enterView(v *health.View) {
	if k := d.w.views[v.Epoch]; !k.chosen && d.w.Bug != BugRoleBeforeChosen {
		d.w.fail("%s goes by a view that was not chosen: %v", d, v)
	}
	for _, m := range d.cur.InSync {
		if !v.Has(m) {
			d.w.Left++
		}
	}
	d.cur, d.entered = v, v.Epoch
	for _, m := range d.w.members {
		if !v.Has(m.id) || m.id == v.Leader || d.others > 0 {
			d.known &^= bit(m.id)
		}
	}
	d.terms = true
	d.roster = named(v)
	if d.w.Trace {
		d.w.note("%s enters %v", d, v)
	}
}

// adopt looks whether a newer view was chosen, and goes by it.
func (d *dist) adopt(then func(did bool, highest int64)) {
	d.all(d.ids(), "where", where, func(found []*answer) {
		v, highest := newestView(found), int64(0)
		for _, a := range found {
			if a.err == nil {
				highest = max(highest, a.promised)
			}
		}
		if v == nil || v.Epoch <= d.cur.Epoch || !(v.Chosen(voters(found)) || d.w.Bug == BugAdoptUnchosen) || !v.InOffice(voters(found)) {
			then(false, highest)
			return
		}
		d.w.Adopted++
		d.enterView(v)
		then(true, highest)
	})
}

// reload goes by another's view, or proposes the same again.
func (d *dist) reload(end func(error)) {
	tries := 0
	var try func()
	try = func() {
		d.adopt(func(did bool, _ int64) {
			switch {
			case did:
				end(nil)
			case d.others == 0 || tries == 2:
				d.alter(health.Intent{}, end)
			default:
				tries++
				d.hesitate(try)
			}
		})
	}
	try()
}

// hesitate waits for a random time, or, as far as anybody else can tell, has done so already.
func (d *dist) hesitate(then func()) {
	w := d.w
	if !w.calm && !w.rng.oneIn(4) {
		then()
		return
	}
	until := d.clock() + int64(w.rng.between(lease/8, lease))
	d.poll = func() bool {
		if d.clock() < until {
			return false
		}
		d.poll = nil
		then()
		return true
	}
}

// alter is change, and what to do when the leader is unfit for the role that it is left.
func (d *dist) alter(in health.Intent, end func(error)) {
	d.change(in, nil, func(err error) {
		if errors.Is(err, health.ErrNeedHard) {
			in.DropLeader = true
			d.change(in, nil, func(err error) { end(notSuperseded(err)) })
			return
		}
		end(notSuperseded(err))
	})
}

func notSuperseded(err error) error {
	if errors.Is(err, errSuperseded) {
		return nil
	}
	return err
}

// renew goes by the view that somebody else has chosen.
func (d *dist) renew(end func(error)) {
	d.newer = false
	lonely := d.lonely
	d.lonely = false
	d.adopt(func(did bool, highest int64) {
		round := func(err error) {
			if err != nil {
				end(err)
				return
			}
			d.round(end)
		}
		switch {
		case did:
			round(nil)
		case highest <= d.cur.Epoch && !lonely:
			end(nil)
		default:
			d.reload(round)
		}
	})
}

// switchTo is a switchover that ends open transactions.
func (d *dist) switchTo(to id, end func(error)) {
	if !d.cur.Has(to) || to == d.cur.Leader {
		end(nil)
		return
	}
	d.change(health.Intent{Leader: to}, nil, func(err error) {
		if err == nil || errors.Is(err, errSuperseded) {
			d.round(end)
			return
		}
		d.alter(health.Intent{}, func(err error) {
			if err != nil {
				end(err)
				return
			}
			d.round(end)
		})
	})
}
