package simulation

import (
	"fmt"
	"time"

	"github.com/pgdist/pgdist/health"
)

// confirmer is what a distributor keeps of its lease.
type confirmer struct {
	from, length int64 // the grant, by its own clock
	soon         bool  // a confirmation is asked for
	at           int64 // when the next is due
	asking       bits  // members that have not answered yet
	running      bool
	seen, since  int64           // the epoch that is being drained, since when
	gone         [maxNames]int64 // since when they are not alive
	until        int64           // when the name that it has now is to be given up, by its own clock
	long         bool            // the lease that goes with the name is of who is alone
	poll         func() bool     // what the loop waits for
	tries        int
	late         func() // see BugLeaseLate
}

// aloneLeases is how many leases a distributor that is alone takes at a time.
const aloneLeases = 4

func (d *dist) lease() int64 {
	if d.long {
		return aloneLeases * lease
	}
	return lease
}

// caller is a distributor as it tells members of itself.
type caller struct {
	slot         int
	epoch, lease int64
}

// as is this distributor, serving by the view of that epoch.
func (d *dist) as(epoch int64) caller { return caller{slot: d.slot, epoch: epoch, lease: d.lease()} }

// mine tells whether it has, or had, this name on the lists.
func (d *dist) mine(slot int) bool { return slot == d.slot || d.former>>slot&1 == 1 }

// rename is confirmer.rename: requests that are under way are about the name before, and can do it no harm
// any more. A world has only so many names; who needs another one ends.
func (d *dist) rename() {
	if len(d.w.names) > 0 && d.w.names[d.slot] == d {
		d.former |= 1 << d.slot
	}
	if len(d.w.names) == maxNames {
		d.dead = true
		return
	}
	d.slot = len(d.w.names)
	d.w.names = append(d.w.names, d)
	d.long = d.others == 0
	d.until = d.clock() + d.lease()
}

// holds tells whether the grant is still good.
func (d *dist) holds() bool {
	if d.w.Bug == BugNoLease {
		return d.view != nil
	}
	return d.view != nil && d.clock()-d.from < d.length
}

func (d *dist) confirmDue() bool {
	return !d.running && (d.soon || d.clock() >= d.at)
}

// confirmRound is confirmer.round.
func (d *dist) confirmRound() {
	v := d.view
	d.soon, d.running = false, true
	d.at = d.clock() + lease/3
	if d.drained < v.Epoch {
		d.at = d.clock() + lease/12
	}
	if d.seen != v.Epoch {
		d.seen, d.since = v.Epoch, d.clock()
	}
	began := d.clock()
	me := d.as(v.Epoch)
	var got []health.Confirmation
	var lists []*answer
	var yes []id
	left := 0
	over := false
	conclude := func() {
		over, d.running = true, false
		if d.w.Bug == BugLeaseFromAnswer {
			began = d.clock()
		}
		d.conclude(v, got, lists, me.lease, began)
	}
	ids := d.ids()
	for _, m := range ids {
		if d.asking&bit(m) != 0 {
			continue
		}
		d.asking |= bit(m)
		left++
	}
	if left == 0 {
		conclude()
		return
	}
	for _, m := range ids {
		if d.asking&bit(m) == 0 {
			continue
		}
		d.ask(d.member(m), "confirm", d.seated(func(c *call) verdict {
			c.m.confirm(me, &c.ans)
			return done
		}), func(a *answer) {
			d.asking &^= bit(m)
			if left--; over {
				return
			}
			if a.err == nil && !a.known {
				d.ask(d.member(m), "enrol", func(c *call) verdict { c.m.enrol(me); return done }, func(*answer) {})
			}
			if a.err == nil {
				c := health.Confirmation{Member: a.id, Promised: a.promised, Accepted: epochOf(a.accepted), Known: a.known}
				for i, e := range a.list {
					if e.on && !d.mine(i) {
						c.Others = append(c.Others, health.Mate{ID: names[i], Epoch: int64(e.epoch), Lease: ticks(int64(e.lease))})
					}
				}
				got, lists = append(got, c), append(lists, a)
				if c.Confirms(v) {
					yes = append(yes, a.id)
				}
			}
			if left == 0 || v.Quorum(yes) {
				conclude()
			}
		})
	}
}

// conclude is confirmer.conclude.
func (d *dist) conclude(v *health.View, got []health.Confirmation, lists []*answer, asked, began int64) {
	out := health.Conclude(v, got, health.Reader{Lease: ticks(lease), Asked: ticks(asked), Proposing: d.proposing, Entered: d.entered})
	if out.Grant > 0 && d.clock() >= d.until && d.w.Bug != BugNameKept {
		d.rename()
		d.soon = true
		return
	}
	allow := func() {
		if out.Grant > 0 {
			d.from, d.length = began, int64(out.Grant)/int64(ticks(1))
			d.until = d.from + d.length
		}
	}
	if d.w.Bug != BugLeaseLate {
		allow()
	}
	switch {
	case out.Confirmed:
		d.mates(lists)
		if d.w.Bug == BugLeaseLate { // others are told before it holds here
			d.late = allow
		}
		d.drain(v, got, began)
	case out.Newer:
		d.newer = true
	case out.Unsupported:
		if d.clock()-d.since > lease && max(d.proposing, d.entered) <= v.Epoch {
			d.lonely = true
		}
	}
}

// mates finds out who else there is.
func (d *dist) mates(lists []*answer) {
	living := 0
	var gone bits
	for i := range d.w.names {
		var longest int64
		on, alive := false, false
		for _, a := range lists {
			if a.list[i].on {
				on, longest = true, max(longest, int64(a.list[i].lease))
				alive = alive || a.alive>>i&1 == 1
			}
		}
		if !on || i == d.slot {
			d.gone[i] = 0
			continue
		}
		if d.mine(i) {
			gone |= 1 << i
		} else if alive {
			living++
			d.gone[i] = 0
		} else if d.gone[i] == 0 {
			d.gone[i] = d.clock()
		} else if d.clock()-d.gone[i] > forgotten+longest+longest/20 {
			gone |= 1 << i
		}
	}
	d.others = living
	switch {
	case living > 0:
		d.long = false
	case !d.long && d.w.Bug == BugLeaseLengthened:
		d.long = true
	case !d.long:
		d.rename()
	}
	if gone != 0 {
		d.dismiss(gone, 1<<62, func([]id) {})
	}
}

func (d *dist) dismiss(slots bits, epoch int64, then func(did []id)) {
	d.all(d.ids(), "dismiss", func(c *call) verdict { c.m.dismiss(slots, epoch); return done }, func(as []*answer) { then(answered(as)) })
}

// drain finds out whether anybody may still go by an older view.
func (d *dist) drain(v *health.View, got []health.Confirmation, began int64) {
	if d.drained >= v.Epoch {
		return
	}
	waited := began - d.since
	if d.w.Bug == BugDrainWithoutSlack {
		waited += waited / 12
	}
	lag, over := health.Drained(v, got, ticks(waited))
	if !over && d.w.Bug != BugNoDrain {
		return
	}
	if len(lag) == 0 {
		d.drained = max(d.drained, v.Epoch)
		return
	}
	var slots bits
	for _, l := range lag {
		slots |= 1 << (10*(l[0]-'0') + l[1] - '0')
	}
	d.dismiss(slots, v.Epoch, func(did []id) {
		if v.Quorum(did) || d.w.Bug == BugNoDrain {
			d.w.Drains++
			d.drained = max(d.drained, v.Epoch)
		}
	})
}

// awaitDrain waits until what is acknowledged under the present view is missed by nobody.
func (d *dist) awaitDrain(end func(error)) {
	epoch := d.cur.Epoch
	if d.w.Bug == BugNoDrain || d.drained >= epoch {
		end(nil)
		return
	}
	d.tries = 0
	d.poll = func() bool {
		d.tries++
		switch {
		case d.drained >= epoch:
			d.poll = nil
			end(nil)
		case d.newer:
			d.poll = nil
			end(errNewerEpoch)
		case d.tries > 200:
			d.poll = nil
			end(errNoMajority)
		default:
			return false
		}
		return true
	}
}

// polled looks whether what the loop waits for has come.
func (d *dist) polled() bool { return d.poll != nil && d.poll() }

// settled notes, once a view was chosen, that nobody reads by an older one, if that is so.
func (d *dist) settled(next *health.View, answers []*answer) {
	alone, base := true, int64(0)
	for _, a := range answers {
		if a.err != nil || !a.given {
			continue
		}
		for i, e := range a.list {
			alone = alone && (!e.on || d.mine(i))
		}
		base = max(base, epochOf(a.accepted))
	}
	if d.w.Bug == BugSettledAlways {
		alone = true
	}
	if health.Settled(d.cur, next, alone, d.drained >= d.cur.Epoch, base) {
		d.drained = max(d.drained, next.Epoch)
	}
}

// ticks is so much of the world's time.
func ticks(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

var names = func() (out [maxNames]string) {
	for i := range out {
		out[i] = fmt.Sprintf("%02d", i)
	}
	return out
}()
