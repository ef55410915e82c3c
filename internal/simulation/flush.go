package simulation

import (
	"errors"
	"slices"

	"github.com/pgdist/pgdist/health"
)

// flush brings the members given to the leader's present, under the fence of epoch.
func (d *dist) flush(epoch int64, targets []id, end func(failed map[id]error, err error)) {
	w := d.w
	cur := d.cur
	read := func() {
		d.askAs(cur, d.member(cur.Leader), "batch", where, func(lead *answer) {
			if err := trusted(lead, epoch, cur.Term, w.Bug); err != nil {
				end(nil, err)
				return
			}
			to := place{term: lead.office, seen: lead.seen}
			failed := map[id]error{}
			left := 1
			over := func() {
				if left--; left == 0 {
					end(failed, nil)
				}
			}
			for _, m := range targets {
				from := d.place[m-1]
				entries := w.fresh(lead.journal, from)
				if entries == 0 && from.term == lead.office && !d.terms {
					continue
				}
				b := &batch{epoch: epoch, at: from, tick: d.tick[m-1], keys: entries, rows: lead.rows, entries: entries, to: to, terms: lead.terms}
				left++
				put := func(then func(*answer)) {
					d.ask(d.member(m), "apply", d.seated(func(c *call) verdict { return c.m.put(c, b) }), then)
				}
				if w.Bug == BugAckBeforeApply {
					put(func(*answer) {})
					over()
					continue
				}
				put(func(a *answer) {
					if a.err != nil {
						failed[m] = a.err
						d.known &^= bit(m)
					} else {
						d.place[m-1] = to
						d.tick[m-1]++
					}
					over()
				})
			}
			over()
		})
	}
	var unknown []id
	for _, m := range targets {
		if d.known&bit(m) == 0 || d.others > 0 { // in turn with others one asks each time
			unknown = append(unknown, m)
		}
	}
	d.all(unknown, "locate", d.seated(where), func(found []*answer) {
		failed := map[id]error{}
		for _, a := range found {
			if a.err != nil {
				failed[a.id] = a.err
				continue
			}
			d.place[a.id-1], d.tick[a.id-1] = a.pos, a.tick
			d.known |= bit(a.id)
		}
		if len(failed) > 0 {
			end(failed, nil)
			return
		}
		read()
	})
}

// leaderError marks what went wrong at the leader.
type leaderError struct{ error }

func trusted(h *answer, epoch, term int64, bug Bug) error {
	switch {
	case h.err != nil:
		return leaderError{h.err}
	case bug == BugAckWithoutReread && h.leads && h.office == term:
		return nil
	case h.promised > epoch:
		return leaderError{errNewerEpoch}
	case bug == BugOtherTerm && h.leads && h.promised == epoch:
		return nil
	case !h.leads || !h.booted && bug != BugBootIgnored || h.office != term || h.promised < epoch:
		return leaderError{errLeaderLost}
	}
	return nil
}

// round is one flush to all in-sync followers, and what its failures call for.
func (d *dist) round(end func(error)) {
	left := attempts
	var again func(err error)
	again = func(err error) {
		if left--; err != nil || left < 0 {
			end(errors.Join(err, errTired))
			return
		}
		cur := d.cur
		d.flush(cur.Epoch, cur.Followers(), func(failed map[id]error, err error) {
			if err == nil && len(failed) == 0 {
				d.terms = false
				if d.view != d.cur {
					d.view = d.cur
					d.soon = true
				}
				end(nil)
				return
			}
			d.react(failed, err, again)
		})
	}
	again(nil)
}

// react changes the view as a failed flush requires. nil: flush again.
func (d *dist) react(failed map[id]error, err error, then func(error)) {
	var lead leaderError
	if errors.As(err, &lead) {
		d.leaderFailed(lead.error, then)
		return
	}
	var out []id
	for m := id(1); int(m) <= len(d.w.members); m++ {
		err := failed[m]
		switch {
		case err == nil:
		case errors.Is(err, errFence):
			d.reload(then)
			return
		case errors.Is(err, errPosition), errors.Is(err, errEnded):
		case d.w.rng.oneIn(3): // it may be tried again
		default:
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		then(nil)
		return
	}
	slices.Sort(out)
	if d.w.Bug == BugEagerExclusion { // acknowledged by those that are left, before a majority knows
		c := *d.cur
		c.InSync = slices.DeleteFunc(slices.Clone(c.InSync), func(m id) bool { return slices.Contains(out, m) })
		d.cur = &c
		then(nil)
		return
	}
	d.alter(health.Intent{Exclude: out}, then)
}

// leaderFailed has a new leader chosen, unless the old one works after all.
func (d *dist) leaderFailed(cause error, then func(error)) {
	if errors.Is(cause, errNewerEpoch) {
		d.reload(then)
		return
	}
	if !errors.Is(cause, errLeaderLost) && d.w.rng.oneIn(2) {
		then(nil)
		return
	}
	d.change(health.Intent{DropLeader: true}, nil, func(err error) { then(notSuperseded(err)) })
}

// heal acts on members that are believed dead.
func (d *dist) heal(dead bits, end func(error)) {
	round := func(err error) {
		if err != nil {
			end(err)
			return
		}
		d.round(end)
	}
	if dead&bit(d.cur.Leader) != 0 {
		d.leaderFailed(errLost, round)
		return
	}
	failed := map[id]error{}
	for _, m := range list(dead, nil) {
		failed[m] = errLost
	}
	d.react(failed, nil, round)
}

// serve flushes once and answers the waiters.
func (d *dist) serve(end func(error)) {
	ws := d.waiting
	d.waiting = nil
	back := func(err error) {
		d.waiting = append(ws, d.waiting...)
		if d.w.rng.oneIn(4) { // AckTimeout
			all := d.waiting
			d.waiting = nil
			for _, x := range all {
				x.done(err)
			}
		}
		end(err)
	}
	d.round(func(err error) {
		if err != nil {
			back(err)
			return
		}
		d.awaitDrain(func(err error) {
			if err != nil {
				back(err)
				return
			}
			for _, x := range ws {
				if x.term != d.cur.Term && d.w.Bug != BugOtherTerm {
					x.done(errTermOver)
				} else {
					x.done(nil)
				}
			}
			end(nil)
		})
	})
}
