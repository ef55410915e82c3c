package simulation

import (
	"errors"
	"slices"

	"github.com/pgdist/pgdist/health"
)

var (
	errMoved = errors.New("it is not in the leader's term")
	errLost2 = errors.New("it lost its place")
)

// invite begins to bring a member up to date that is not in sync.
func (d *dist) invite() bool {
	w, v := d.w, d.view
	m := w.members[w.rng.n(len(w.members))]
	x, listed := v.Member(m.id)
	if !listed || x.Witness || v.Has(m.id) || d.invited&bit(m.id) != 0 {
		return false
	}
	if by := m.claimed; by != nil && !by.dead && !by.stopped && by.invited&bit(m.id) != 0 && (w.calm || !w.rng.oneIn(4)) {
		return false
	}
	m.claimed = d
	d.invited |= bit(m.id)
	if m.vacant || m.system != x.System { // the operator's command
		d.resync(m, func() { d.invited &^= bit(m.id) })
		return true
	}
	d.catchUp(m, 3, func(err error) {
		if err != nil {
			d.invited &^= bit(m.id)
			return
		}
		d.joins = append(d.joins, m.id)
	})
	return true
}

// catchUp is catchUp.round, up to so many times.
func (d *dist) catchUp(m *member, rounds int, end func(error)) {
	w, v := d.w, d.view
	if v.Has(m.id) {
		end(errSuperseded)
		return
	}
	d.ask(m, "where", where, func(h *answer) {
		want := system(v, m.id)
		switch {
		case h.err != nil:
			end(h.err)
			return
		case h.promised > v.Epoch:
			d.newer = w.Bug != BugPromisedForEver
			end(errRefused)
			return
		case h.system != want && w.Bug != BugStrangersVote && w.Bug != BugStrangersAccept:
			end(errRefused)
			return
		}
		rest := func(a *answer) {
			if a != nil && (a.err != nil || !a.given && a.promised != v.Epoch) {
				end(errRefused)
				return
			}
			d.askAs(v, d.member(v.Leader), "where", where, func(lead *answer) {
				if lead.err != nil {
					end(lead.err)
					return
				}
				d.ship(m, v, h, lead, func(err error) {
					if err == nil && rounds > 1 && w.rng.oneIn(3) {
						d.catchUp(m, rounds-1, end)
						return
					}
					end(err)
				})
			})
		}
		if h.promised < v.Epoch || h.leads {
			d.ask(m, "adopt", func(c *call) verdict { c.m.adopt(v, &c.ans); return done }, rest)
			return
		}
		rest(nil)
	})
}

// ship applies what the member missed, and undoes its tail.
func (d *dist) ship(m *member, v *health.View, h, lead *answer, end func(error)) {
	w := d.w
	mine, theirs, ok := meet(h, lead)
	if !ok {
		end(errLost2)
		return
	}
	apply := func(tail mask) {
		d.askAs(v, d.member(v.Leader), "batch", where, func(b *answer) {
			if err := trusted(b, v.Epoch, v.Term, 0); err != nil {
				end(err)
				return
			}
			entries := w.fresh(b.journal, mine)
			put := &batch{epoch: v.Epoch, at: h.pos, tick: h.tick, keys: entries | tail, rows: b.rows, entries: entries,
				to: place{term: b.office, seen: b.seen}, terms: b.terms}
			d.ask(m, "apply", d.seated(func(c *call) verdict { return c.m.put(c, put) }), func(a *answer) { end(a.err) })
		})
	}
	if theirs.term == lead.office && theirs == lead.pos && h.pos.term == lead.office || w.Bug == BugTailKept {
		apply(0)
		return
	}
	d.ask(m, "tail", where, func(a *answer) {
		if a.err != nil {
			end(a.err)
			return
		}
		apply(w.fresh(a.journal, theirs))
	})
}

// meet is where the histories of a returning member and the leader part: lineage.go.
func meet(m, lead *answer) (mine, theirs place, ok bool) {
	known := func(term int64) bool {
		return term == lead.pos.term || slices.ContainsFunc(lead.terms, func(t termRow) bool { return t.term == term || t.prev.term == term })
	}
	mine = m.pos
	for !known(mine.term) {
		i := slices.IndexFunc(m.terms, func(t termRow) bool { return t.term == mine.term })
		if i < 0 {
			return mine, theirs, false
		}
		mine = m.terms[i].prev
	}
	theirs = lead.pos
	for _, t := range lead.terms {
		if t.prev.term == mine.term {
			theirs = t.prev
			break
		}
	}
	return mine, theirs, true
}

// join is the last step, in the loop: the fence, the last delta, the new view.
func (d *dist) join(m id, end func(error)) {
	w := d.w
	if d.cur.Has(m) {
		end(nil)
		return
	}
	d.known &^= bit(m)
	with := func(epoch int64, then func(error)) {
		d.known = 0
		d.terms = true
		d.ask(d.member(m), "locate", d.seated(where), func(a *answer) {
			switch {
			case a.err != nil:
				then(a.err)
				return
			case a.pos.term != d.cur.Term && w.Bug != BugJoinOtherTerm:
				then(errMoved)
				return
			}
			d.flush(epoch, append(d.cur.Followers(), m), func(failed map[id]error, err error) {
				if err == nil && len(failed) > 0 {
					err = errLost
				}
				then(err)
			})
		})
	}
	in := health.Intent{Join: m}
	after := func(err error) {
		if err == nil {
			w.Joins++
			d.round(end)
			return
		}
		d.reload(func(err error) {
			if err != nil {
				end(err)
				return
			}
			d.round(end)
		})
	}
	if w.Bug == BugJoinBeforePromise {
		d.known = 0
		d.terms = true
		d.flush(d.cur.Epoch, append(d.cur.Followers(), m), func(failed map[id]error, err error) {
			if err != nil || len(failed) > 0 {
				end(errRefused)
				return
			}
			d.change(in, with, after)
		})
		return
	}
	d.change(in, with, after)
}

// resync is a full copy, by a program of its own that the operator runs: first the database
// is dropped, from when on it is nobody; it is somebody again by the last step.
func (d *dist) resync(m *member, end func()) {
	w, v := d.w, d.view
	server := m.system
	mine := 0
	restore := func(from *answer, next *health.View) {
		d.ask(m, "restore", func(c *call) verdict {
			if m.system != server || m.copier != mine || !m.vacant {
				c.ans.err = errRefused // another server has come there meanwhile, or another copy
				return done
			}
			m.disk = disk{system: server, promised: next.Epoch, accepted: next, pos: place{term: from.office, seen: from.seen}, tick: m.tick + 1,
				rows: from.rows, journal: from.journal, terms: from.terms}
			m.boot, m.vacant = -1, false
			w.accepted(m, next)
			w.Resyncs++
			return done
		}, func(*answer) { end() })
	}
	d.ask(m, "restore", func(c *call) verdict {
		if w.seat(m) || m.system != server {
			c.ans.err = errRefused
			return done
		}
		m.seize()
		m.vacant = true
		m.copier++
		c.ans.tick = m.copier
		return done
	}, func(a *answer) {
		if a.err != nil {
			end()
			return
		}
		mine = a.tick
		d.askAs(v, d.member(v.Leader), "copy", where, func(from *answer) {
			if err := trusted(from, v.Epoch, v.Term, 0); err != nil {
				end()
				return
			}
			d.renewWithout(m.id, server, v, attempts, func(next *health.View) {
				if next == nil {
					end()
					return
				}
				restore(from, next)
			})
		})
	})
}

// renewWithout has a view chosen without the target's promise, which names the target's server.
func (d *dist) renewWithout(target id, server string, v *health.View, left int, end func(*health.View)) {
	w := d.w
	var others []id
	for _, m := range list(named(v), nil) {
		if m != target {
			others = append(others, m)
		}
	}
	epoch := v.Epoch + 1 + int64(w.rng.n(3))
	d.all(others, "promise", func(c *call) verdict {
		c.m.promise(epoch, c.m.id != v.Leader, &c.ans)
		return done
	}, func(answers []*answer) {
		var promises []health.Promise
		newest := v
		higher := int64(0)
		for _, a := range answers {
			if a.err != nil {
				continue
			}
			if a.accepted != nil && a.accepted.Epoch > newest.Epoch {
				newest = a.accepted
			}
			if !a.given {
				higher = max(higher, a.promised)
				continue
			}
			if s := system(v, a.id); s != "" && s != a.system {
				a.err = errRefused
				continue
			}
			promises = append(promises, d.stand(epoch, a, a.id != v.Leader).Promise)
		}
		again := func() {
			if left == 0 || higher > newest.Epoch+1 && left < 2 {
				end(nil)
				return
			}
			c := *newest
			c.Epoch = max(c.Epoch, higher) // where the next try begins
			d.renewWithout(target, server, &c, left-1, end)
		}
		if higher > 0 {
			again()
			return
		}
		if w.Bug == BugResyncTargetVotes { // as if it had been asked, and knew of nothing
			promises = append(promises, health.Promise{Member: target, Epoch: epoch, Hard: true})
		}
		next, err := health.Next(epoch, promises, health.Intent{Exclude: []id{target}})
		if err != nil || next.Term == epoch || next.Leader == target {
			end(nil)
			return
		}
		for i := range next.Members {
			if next.Members[i].ID == target {
				next.Members[i].System = server
			}
		}
		w.register(next)
		if w.Trace {
			w.note("resync by %s proposes %v", d, next)
		}
		d.again(answers, "accept", func(c *call) verdict { c.m.accept(next, &c.ans); return done }, func(did []*answer) {
			var accepted []id
			for _, a := range did {
				if a.err == nil && a.given {
					accepted = append(accepted, a.id)
				}
			}
			if w.Bug == BugResyncTargetVotes {
				accepted = append(accepted, target)
			}
			if !next.Quorum(accepted) {
				end(nil)
				return
			}
			end(next)
		})
	})
}
