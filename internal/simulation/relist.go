package simulation

import (
	"errors"

	"github.com/pgdist/pgdist/health"
)

// relist changes the list of members: relist.go.
func (d *dist) relist(end func(error)) {
	d.settleVotes(func(err error) {
		if err != nil {
			end(err)
			return
		}
		in, ok := d.wanted()
		if !ok {
			end(nil)
			return
		}
		d.change(in, nil, func(err error) {
			if err != nil {
				d.roster = named(d.cur)
				end(err)
				return
			}
			d.w.Relisted++
			d.round(func(err error) {
				if err != nil {
					end(err)
					return
				}
				d.settleVotes(end)
			})
		})
	})
}

var errUnsettled = errors.New("the change of votes was not ended")

// settleVotes ends a change of votes that is under way.
func (d *dist) settleVotes(end func(error)) {
	if len(d.cur.Former) == 0 || d.view != d.cur {
		end(nil)
		return
	}
	d.awaitDrain(func(err error) {
		if err != nil {
			end(err)
			return
		}
		d.change(health.Intent{Settle: true}, nil, func(err error) {
			if err != nil {
				end(err)
				return
			}
			d.round(func(err error) {
				if err == nil && len(d.cur.Former) > 0 {
					err = errUnsettled
				}
				end(err)
			})
		})
	})
}

// wanted is what an operator may want of the list.
func (d *dist) wanted() (in health.Intent, ok bool) {
	w, v := d.w, d.cur
	votes := func(list []health.Member) map[id]int {
		out := health.StandardVotes(list)
		for _, m := range list {
			if m.Weight == 0 && !m.Witness && !v.Has(m.ID) {
				delete(out, m.ID)
			}
		}
		return out
	}
	switch w.rng.n(4) {
	case 0: // a witness, or a member that is copied later
		n := v.NextID()
		if n > 6 || !w.complete() {
			return in, false
		}
		me := health.Member{ID: n, Host: host(n), Witness: w.rng.oneIn(2)}
		m := w.newcomer(n, me.Witness)
		if m == nil {
			return in, false
		}
		if me.Witness {
			me.System = m.system
			in.Votes = votes(append(append([]health.Member(nil), v.Members...), me))
		}
		in.Add = &me
		d.roster |= bit(n)
	case 1:
		m := v.Members[w.rng.n(len(v.Members))]
		if len(v.Members) < 3 || m.ID == v.Leader || !w.complete() {
			return in, false
		}
		in.Remove = m.ID
		var rest []health.Member
		for _, x := range v.Members {
			if x.ID != m.ID {
				rest = append(rest, x)
			}
		}
		in.Votes = votes(rest)
	default:
		in.Votes = votes(v.Members)
		same := true
		for _, m := range v.Members {
			if n, given := in.Votes[m.ID]; given && n != m.Weight {
				same = false
			}
		}
		if same {
			return in, false
		}
	}
	return in, true
}

// newcomer is the database that is to be member n; the operator has prepared it.
func (w *world) newcomer(n id, witness bool) *member {
	if int(n) <= len(w.members) {
		m := w.members[n-1]
		if m.witness != witness {
			return nil
		}
		return m
	}
	if int(n) != len(w.members)+1 {
		return nil
	}
	m := &member{w: w, id: n, up: true, boot: -1, next: 1, witness: witness, vacant: !witness}
	m.system = w.newSystem()
	w.members = append(w.members, m)
	w.grow()
	return m
}

// grow counts majorities anew for one more member.
func (w *world) grow() {
	for _, k := range w.views {
		if k != nil {
			k.count(len(w.members))
		}
	}
}
