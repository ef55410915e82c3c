package simulation

// client begins something that a client of the distributor wants.
func (d *dist) client() {
	if d.dead || d.stopped || d.view == nil || !d.holds() {
		return
	}
	if d.w.rng.oneIn(2) {
		d.read()
	} else if d.w.made < maxWrites && !d.w.calm {
		d.write()
	}
}

// read is a session read: it shows whatever anybody was told before it began.
func (d *dist) read() {
	w, v := d.w, d.view
	m := d.member(v.InSync[w.rng.n(len(v.InSync))])
	told, undone := w.told, w.undone
	began := w.now
	d.askAs(v, m, "read", where, func(a *answer) {
		if a.err != nil {
			return
		}
		w.Reads++
		if lacks := told &^ a.rows; lacks != 0 {
			w.fail("%s read member %d under %v and missed %v, which had been acknowledged by t%d", d, m.id, v, writes(lacks), began)
		}
		if shows := undone & a.rows; shows != 0 {
			w.fail("%s read member %d under %v and saw %v, which had been rolled back by t%d", d, m.id, v, writes(shows), began)
		}
	})
}

// write is a transaction of one row.
func (d *dist) write() {
	w, v := d.w, d.view
	k := w.made
	w.made++
	m := d.member(v.Leader)
	d.askAs(v, m, "write", func(c *call) verdict {
		if c.orphan { // its connection is gone
			c.ans.err = errRefused
		} else {
			c.m.begin(k, &c.ans)
		}
		return done
	}, func(a *answer) {
		if a.err != nil {
			return // it never was
		}
		if w.rng.oneIn(8) {
			d.askAs(v, m, "rollback", func(c *call) verdict { c.m.open &^= 1 << k; return done }, func(*answer) {})
			return
		}
		d.askAs(v, m, "commit", func(c *call) verdict { c.m.commit(k, &c.ans); return done }, func(a *answer) {
			switch a.err {
			case nil:
				d.ack(v.Term, func(err error) {
					if err == nil {
						w.tell(d, k, true)
						return
					}
					d.resolve(k, v.Term, m.id, attempts)
				})
			case errRefused: // by the server itself: it never was
			default:
				d.resolve(k, v.Term, m.id, attempts)
			}
		})
	})
}

// tell gives a client its answer.
func (w *world) tell(d *dist, k int, committed bool) {
	w.dirty = true
	if w.Trace {
		w.note("%s tells the client of %d: committed %v", d, k, committed)
	}
	if committed {
		w.told |= 1 << k
		w.Told++
	} else {
		w.undone |= 1 << k
		w.Undone++
	}
}

// ack is Set.Ack.
func (d *dist) ack(term int64, then func(error)) {
	d.waiting = append(d.waiting, waiter{term: term, done: then})
}

// resolve is Set.Resolve: was that COMMIT committed?
func (d *dist) resolve(k int, term int64, leader id, left int) {
	w, v := d.w, d.view
	if left == 0 {
		return // unknown: 08007
	}
	again := func() { d.resolve(k, term, leader, left-1) }
	decide := func() {
		d.askAs(v, d.member(v.Leader), "decide", where, func(a *answer) {
			if a.err != nil || !a.leads || !a.booted || a.office != v.Term {
				again()
				return
			}
			committed := a.rows>>k&1 == 1
			if w.Bug == BugToldFromOne {
				w.tell(d, k, committed)
				return
			}
			d.ack(v.Term, func(err error) {
				if err != nil {
					again()
					return
				}
				w.tell(d, k, committed)
			})
		})
	}
	// Its connection may have written in a later term of this leader than the view told: the term is no question.
	if v.Leader != leader || w.Bug == BugResolveLooksOnly || w.Bug == BugResolveByTerm && v.Term != term {
		decide()
		return
	}
	d.ask(d.member(leader), "end", func(c *call) verdict { c.m.open &^= 1 << k; return done }, func(a *answer) {
		if a.err != nil {
			again()
			return
		}
		decide()
	})
}
