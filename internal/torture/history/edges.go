package history

import "slices"

// graph draws what the history tells of the transactions' order. Those that failed
// have no place in it, nor has one of unknown end that nobody saw anything of.
func (l *lists) graph() *graph {
	g := newGraph(len(l.txns))
	at := make(map[*txn]int, len(l.txns))
	for i, t := range l.txns {
		at[t] = i
	}
	happened := func(t *txn) bool { return t != nil && t.typ != Fail }
	for key, order := range l.order {
		for i := 1; i < len(order); i++ {
			a, b := l.writer[element{key, order[i-1]}], l.writer[element{key, order[i]}]
			if happened(a) && happened(b) {
				g.add(at[a], at[b], ww)
			}
		}
	}
	unread := l.unread()
	for key, list := range unread {
		if order := l.order[key]; len(order) > 0 {
			if w := l.writer[element{key, order[len(order)-1]}]; happened(w) {
				for _, t := range list {
					g.add(at[w], at[t], ww)
				}
			}
		}
	}
	for _, t := range l.txns {
		if t.typ != OK {
			continue
		}
		own := map[element]bool{}
		for _, s := range t.steps {
			if s.append {
				own[element{s.key, s.value}] = true
				continue
			}
			l.readEdges(g, at, t, s, own, unread, happened)
		}
	}
	l.orderEdges(g, at)
	return g
}

// unread lists who appended to each key what no read shows: it comes after all that
// reads do show.
func (l *lists) unread() map[int64][]*txn {
	out := map[int64][]*txn{}
	for _, t := range l.txns {
		for _, s := range t.steps {
			if _, read := l.place[element{s.key, s.value}]; s.append && t.typ == OK && !read {
				out[s.key] = append(out[s.key], t)
			}
		}
	}
	return out
}

// readEdges adds what one read tells: who wrote what it shows last, and who wrote
// what it does not show yet.
func (l *lists) readEdges(g *graph, at map[*txn]int, t *txn, s step, own map[element]bool, unread map[int64][]*txn, happened func(*txn) bool) {
	list := s.read
	for len(list) > 0 && own[element{s.key, list[len(list)-1]}] {
		list = list[:len(list)-1]
	}
	if len(list) > 0 {
		if w := l.writer[element{s.key, list[len(list)-1]}]; happened(w) {
			g.add(at[w], at[t], wr)
		}
	}
	order := l.order[s.key]
	if len(list) > len(order) || !slices.Equal(list, order[:len(list)]) {
		return // incompatible: it has been said
	}
	switch {
	case len(list) == len(order):
		for _, w := range unread[s.key] {
			g.add(at[t], at[w], rw)
		}
	default:
		if w := l.writer[element{s.key, order[len(list)]}]; happened(w) {
			g.add(at[t], at[w], rw)
		}
	}
}

// orderEdges adds the order of each process, and that of transactions one of which
// had ended when the other began: as few of these as say it all.
func (l *lists) orderEdges(g *graph, at map[*txn]int) {
	type event struct {
		index int
		t     *txn
		end   bool
	}
	var events []event
	for _, t := range l.txns {
		if t.typ == Fail {
			continue
		}
		events = append(events, event{t.from, t, false})
		if t.typ == OK {
			events = append(events, event{t.to, t, true})
		}
	}
	slices.SortFunc(events, func(a, b event) int { return a.index - b.index })
	last := map[int]*txn{}      // by process
	latest := map[*txn]bool{}   // ended, and after none of them has one begun that ended, too
	before := map[*txn][]*txn{} // what was latest when it began
	for _, e := range events {
		if e.end {
			for _, b := range before[e.t] {
				delete(latest, b)
			}
			delete(before, e.t)
			latest[e.t] = true
			last[e.t.process] = e.t
			continue
		}
		if p := last[e.t.process]; p != nil {
			g.add(at[p], at[e.t], process)
		}
		for b := range latest {
			g.add(at[b], at[e.t], realtime)
			before[e.t] = append(before[e.t], b)
		}
	}
}
