package simulation

import (
	"errors"
	"fmt"
	"slices"

	"github.com/pgdist/pgdist/health"
)

// dist is a distributor: mirror.Set.
type dist struct {
	w       *world
	slot    int  // its name on the members' lists
	former  bits // names that it had before
	name    string
	dead    bool
	stopped bool
	cut     bits  // members that it cannot reach
	rate    int64 // how fast its clock runs, in thousandths
	offset  int64

	cur       *health.View // the loop's
	view      *health.View // what clients go by; nil until the set is open
	proposing int64
	entered   int64
	others    int // distributors beside this one that are alive, as far as it knows
	newer     bool
	lonely    bool // Set.unsupported
	drained   int64
	suspects  bits // members that are believed dead

	busy    bool // the loop does something
	waiting []waiter
	invited bits // members that are being brought up to date
	joins   []id // … and ask for the last step
	wish    id   // whom the operator wants for a leader; 0 nobody
	lists   bool // the list of members is to be changed
	roster  bits // the members that it knows of

	// What is known of followers.
	place [8]place
	tick  [8]int
	known bits
	terms bool // the chain of terms goes with the next flush

	confirmer
}

// Clocks run so fast, in thousandths of the world's: what differs by a twentieth is allowed for.
const slowest, fastest = 976, 1024

// waiter is who waits for an acknowledgement.
type waiter struct {
	term int64
	done func(error)
}

func (d *dist) String() string { return d.name }

func (w *world) newDist() *dist {
	d := &dist{w: w, rate: []int64{slowest, fastest}[w.rng.n(2)], offset: int64(w.rng.n(1000))}
	w.dists = append(w.dists, d)
	d.name = fmt.Sprintf("D%d", len(w.dists))
	d.rename()
	return d
}

// clock is the distributor's own.
func (d *dist) clock() int64 { return d.w.now*d.rate/1000 + d.offset }

func (d *dist) member(m id) *member { return d.w.members[m-1] }

// seated is exec over a connection that is known to lead to the member as the loop's view has it.
func (d *dist) seated(exec func(*call) verdict) func(*call) verdict {
	v := d.cur
	return func(c *call) verdict {
		if s := system(v, c.m.id); s != "" && s != c.m.system && d.w.Bug != BugNoIdentity && c.m.apply != c {
			c.ans.err = errRefused
			return done
		}
		return exec(c)
	}
}

// again asks over the connections that came with earlier answers.
func (d *dist) again(over []*answer, name string, exec func(*call) verdict, then func([]*answer)) {
	var ids []id
	var lives [9]int
	for _, a := range over {
		if a.err == nil {
			ids = append(ids, a.id)
			lives[a.id] = a.life
		}
	}
	d.all(ids, name, func(c *call) verdict {
		if c.m.life != lives[c.m.id] {
			c.ans.err = errLost
			return done
		}
		return exec(c)
	}, then)
}

// all asks several members at once and waits for all of them.
func (d *dist) all(ids []id, name string, exec func(*call) verdict, then func([]*answer)) {
	left := len(ids)
	if left == 0 {
		then(nil)
		return
	}
	out := make([]*answer, len(ids))
	for i, m := range ids {
		d.ask(d.member(m), name, exec, func(a *answer) {
			a.id = m
			out[i] = a
			if left--; left == 0 {
				then(out)
			}
		})
	}
}

// ids lists the members that it knows of.
func (d *dist) ids() []id { return list(d.roster, nil) }

// named are the members that a view names, and those that the one before named.
func named(v *health.View) bits {
	var s bits
	for _, m := range v.Members {
		s |= bit(m.ID)
	}
	for _, m := range v.Former {
		s |= bit(m.ID)
	}
	return s
}

// turn has the distributor do something of its own, and tells whether there was anything.
func (d *dist) turn() bool {
	if d.dead || d.stopped {
		return false
	}
	if d.late != nil && d.w.rng.oneIn(3) {
		d.late()
		d.late = nil
	}
	if d.view != nil && d.confirmDue() {
		d.confirmRound()
		return true
	}
	if d.busy {
		return d.polled()
	}
	return d.work()
}

// work is what the loop does next.
func (d *dist) work() bool {
	d.busy = true
	end := func(error) { d.busy = false }
	heal := bits(0)
	if d.cur != nil {
		for _, m := range d.cur.InSync {
			heal |= bit(m) & d.suspects
		}
		d.suspects = 0
	}
	switch {
	case d.view == nil:
		d.open(end)
	case heal != 0:
		d.heal(heal, end)
	case d.newer || d.lonely:
		d.renew(end)
	case len(d.joins) > 0:
		m := d.joins[0]
		d.joins = d.joins[1:]
		d.join(m, func(err error) { d.invited &^= bit(m); end(err) })
	case d.wish != 0:
		to := d.wish
		d.wish = 0
		d.switchTo(to, end)
	case d.lists && d.view == d.cur:
		d.lists = false
		d.relist(end)
	case len(d.cur.Former) > 0 && d.view == d.cur && d.w.rng.oneIn(8): // settleLate
		d.settleVotes(end)
	case len(d.waiting) > 0:
		d.serve(end)
	case d.w.rng.oneIn(3) && d.invite():
		d.busy = false
	case d.w.rng.oneIn(16):
		d.round(end)
	default:
		d.busy = false
		return false
	}
	return true
}

var (
	errSuperseded = errors.New("another distributor has changed the view")
	errNoMajority = errors.New("no majority")
	errNewerEpoch = errors.New("the leader promised a newer epoch")
	errLeaderLost = errors.New("the leader crashed or was deposed")
	errTermOver   = errors.New("the term is over")
	errTired      = errors.New("too many attempts")
)

// open is firstView.
func (d *dist) open(end func(error)) {
	var ids []id
	for _, m := range d.w.members {
		if m.accepted != nil { // who is configured
			ids = append(ids, m.id)
		}
	}
	d.all(ids, "where", where, func(found []*answer) {
		v := newestView(found)
		if v == nil {
			end(errLost)
			return
		}
		d.cur, d.entered, d.roster = v, v.Epoch, named(v)
		me := d.as(v.Epoch)
		d.all(d.ids(), "enrol", func(c *call) verdict {
			c.m.enrol(me)
			return done
		}, func(did []*answer) {
			if !v.Quorum(answered(did)) {
				end(errNoMajority)
				return
			}
			d.others = 0
			for i := range maxNames {
				if !d.mine(i) && slices.ContainsFunc(found, func(a *answer) bool { return a.err == nil && a.list[i].on }) {
					d.others++
				}
			}
			rest := func(err error) {
				if err != nil {
					end(err)
					return
				}
				d.round(end)
			}
			if v.InForce(voters(found)) {
				rest(nil)
				return
			}
			d.alter(health.Intent{DropLeader: !v.InOffice(voters(found))}, rest)
		})
	})
}

func answered(as []*answer) []id {
	var out []id
	for _, a := range as {
		if a.err == nil {
			out = append(out, a.id)
		}
	}
	return out
}

func newestView(found []*answer) *health.View {
	var v *health.View
	for _, a := range found {
		if a.err == nil && a.accepted != nil && (v == nil || a.accepted.Epoch > v.Epoch) {
			v = a.accepted
		}
	}
	return v
}

func voters(found []*answer) []health.Voter {
	out := make([]health.Voter, 0, len(found))
	for _, a := range found {
		if a.err == nil {
			out = append(out, health.Voter{Member: a.id, Set: "s", System: a.system, Epoch: a.promised, Accepted: epochOf(a.accepted), Leads: a.leads, Office: a.office, Booted: a.booted})
		}
	}
	return out
}

func epochOf(v *health.View) int64 {
	if v == nil {
		return 0
	}
	return v.Epoch
}
