package history

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Lists: f is "txn" and its value a list of ["append", key, number] and ["r", key,
// list or null], in the order in which the transaction did them. Each number is
// appended to a key once in a history. So a read shows not only a state but how it
// came about, and two reads of a key must agree about that.

// step is one thing that a transaction does.
type step struct {
	append bool
	key    int64
	value  int64   // appended
	read   []int64 // read; nil: nothing there
	known  bool    // the read's answer is known
}

// txn is one transaction.
type txn struct {
	call
	steps []step
}

func (t *txn) id() []int { return []int{t.from} }

// txns decodes a history of transactions.
func txns(ops []Op) ([]*txn, error) {
	all, err := calls(ops)
	if err != nil {
		return nil, err
	}
	var out []*txn
	for _, c := range all {
		if c.f != "txn" {
			return nil, fmt.Errorf("operation %d: %q is no transaction", c.from, c.f)
		}
		var steps []json.RawMessage
		if err := c.decode(c.said(), &steps); err != nil {
			return nil, err
		}
		t := &txn{call: c}
		for _, text := range steps {
			s, err := c.step(text)
			if err != nil {
				return nil, err
			}
			t.steps = append(t.steps, s)
		}
		out = append(out, t)
	}
	return out, nil
}

func (c call) step(text json.RawMessage) (step, error) {
	var f string
	var s step
	var value json.RawMessage
	if err := c.list(text, &f, &s.key, &value); err != nil {
		return s, err
	}
	switch f {
	case "append":
		s.append = true
		return s, c.decode(value, &s.value)
	case "r":
		s.known = c.typ == OK
		return s, c.decode(value, &s.read)
	}
	return s, fmt.Errorf("operation %d: a transaction that does %q", c.from, f)
}

// element is a number in a key's list.
type element struct{ key, value int64 }

// lists is what a history says about its lists.
type lists struct {
	found  findings
	txns   []*txn
	writer map[element]*txn  // who appended it, or tried to
	last   map[element]bool  // its writer's last to that key
	order  map[int64][]int64 // the longest list read of a key
	place  map[element]int   // in that
}

// CheckAppend looks for what no serial order of the transactions that happened can
// explain. Names are Adya's, and Elle's for what concerns lists: G0, G1a, G1b, G1c,
// G-single, G-nonadjacent, G2-item; with "-process" if the order of one process's
// transactions is part of the circle, with "-realtime" if that of transactions which
// followed each other is; "lost update", "internal", "duplicate elements",
// "incompatible order", "unknown element"; and "lost append", a read that lacks what
// was acknowledged before it began. Under SERIALIZABLE none of them may be; see
// [Weaker] for less.
func CheckAppend(ops []Op) ([]Violation, error) {
	all, err := txns(ops)
	if err != nil {
		return nil, err
	}
	l := &lists{txns: all, writer: map[element]*txn{}, last: map[element]bool{}, order: map[int64][]int64{}, place: map[element]int{}}
	if err := l.index(); err != nil {
		return nil, err
	}
	for _, t := range all {
		if t.typ == OK {
			l.inner(t)
			l.reads(t)
		}
	}
	l.lostUpdates()
	l.lostAppends()
	l.circles()
	return l.found.list, nil
}

// index finds out who wrote what and in which order it came to be.
func (l *lists) index() error {
	for _, t := range l.txns {
		mine := map[int64]int64{}
		for _, s := range t.steps {
			if !s.append {
				continue
			}
			e := element{s.key, s.value}
			if w := l.writer[e]; w != nil {
				return fmt.Errorf("operations %d and %d append the same number, %d, to %d", w.from, t.from, s.value, s.key)
			}
			l.writer[e] = t
			mine[s.key] = s.value
		}
		for key, value := range mine {
			l.last[element{key, value}] = true
		}
	}
	for _, t := range l.txns {
		for _, s := range t.steps {
			if s.known && len(s.read) > len(l.order[s.key]) {
				l.order[s.key] = s.read
			}
		}
	}
	for key, list := range l.order {
		for i, value := range list {
			if _, twice := l.place[element{key, value}]; !twice {
				l.place[element{key, value}] = i
			}
		}
	}
	return nil
}

// inner looks for reads that contradict what the same transaction did before.
func (l *lists) inner(t *txn) {
	seen := map[int64][]int64{}
	read := map[int64]bool{} // seen is all of the list, not only its end
	for _, s := range t.steps {
		if s.append {
			seen[s.key] = append(slices.Clone(seen[s.key]), s.value)
			continue
		}
		want := seen[s.key]
		if read[s.key] && !slices.Equal(want, s.read) || len(s.read) < len(want) || !slices.Equal(want, s.read[len(s.read)-len(want):]) {
			l.found.add("internal", t.id(), "list %d reads as %v where the transaction itself had read or made …%v", s.key, s.read, want)
		}
		seen[s.key], read[s.key] = s.read, true
	}
}

// reads looks at what single reads show.
func (l *lists) reads(t *txn) {
	for _, s := range t.steps {
		if s.append {
			continue
		}
		once := map[int64]bool{}
		for i, value := range s.read {
			w := l.writer[element{s.key, value}]
			switch {
			case once[value]:
				l.found.add("duplicate elements", t.id(), "list %d reads as %v: %d is there twice", s.key, s.read, value)
			case w == nil:
				l.found.add("unknown element", t.id(), "list %d reads as %v: nobody appended %d", s.key, s.read, value)
			case w.typ == Fail:
				l.found.add("G1a", []int{w.from, t.from}, "list %d reads as %v: the transaction that appended %d had failed", s.key, s.read, value)
			case w != t && i == len(s.read)-1 && !l.last[element{s.key, value}]:
				l.found.add("G1b", []int{w.from, t.from}, "list %d reads as %v: the transaction that appended %d appended more", s.key, s.read, value)
			}
			once[value] = true
		}
		if order := l.order[s.key]; len(s.read) > len(order) || !slices.Equal(s.read, order[:len(s.read)]) {
			l.found.add("incompatible order", t.id(), "list %d reads as %v here and as %v elsewhere", s.key, s.read, order)
		}
	}
}

// outside is the list of a key as the transaction found it, without what it appended
// itself: by its first read of it.
func (t *txn) outside(key int64) ([]int64, bool) {
	for _, s := range t.steps {
		switch {
		case s.key != key:
		case s.append:
			return nil, false // it may have been any
		case s.known:
			return s.read, true
		}
	}
	return nil, false
}

// lostUpdates looks for transactions that read one version of a list and then both
// appended to it.
func (l *lists) lostUpdates() {
	type version struct {
		key int64
		n   int
		end int64
	}
	first := map[version]*txn{}
	for _, t := range l.txns {
		if t.typ != OK {
			continue
		}
		done := map[int64]bool{}
		for _, s := range t.steps {
			list, ok := t.outside(s.key)
			if !s.append || done[s.key] || !ok {
				continue
			}
			done[s.key] = true
			v := version{key: s.key, n: len(list)}
			if v.n > 0 {
				v.end = list[v.n-1]
			}
			if other := first[v]; other != nil {
				l.found.add("lost update", []int{other.from, t.from}, "both read list %d as %v and appended to it", s.key, list)
			}
			first[v] = t
		}
	}
}

// lostAppends looks for reads that lack what was acknowledged before they began.
func (l *lists) lostAppends() {
	type done struct{ at, value int64 }
	acked := map[int64][]done{} // by key, in the order of acknowledgement
	for e, t := range l.writer {
		if t.typ == OK {
			acked[e.key] = append(acked[e.key], done{int64(t.to), e.value})
		}
	}
	for _, list := range acked {
		slices.SortFunc(list, func(a, b done) int { return int(a.at - b.at) })
	}
	for _, t := range l.txns {
		if t.typ != OK {
			continue
		}
		for _, s := range t.steps {
			if s.append {
				continue
			}
			there := map[int64]bool{}
			for _, v := range s.read {
				there[v] = true
			}
			for _, d := range acked[s.key] {
				if d.at > int64(t.from) {
					break
				}
				if !there[d.value] {
					w := l.writer[element{s.key, d.value}]
					l.found.add("lost append", []int{w.from, t.from}, "list %d reads as %v, without %d, which was acknowledged before", s.key, s.read, d.value)
				}
			}
		}
	}
}

// Level is an isolation level that a history is judged by.
type Level int

const (
	StrictSerializable Level = iota // what SERIALIZABLE transactions are
	Snapshot                        // REPEATABLE READ
	ReadCommitted
)

// Weaker drops what a weaker level than StrictSerializable allows.
func Weaker(found []Violation, level Level) []Violation {
	allowed := map[string]bool{}
	if level >= Snapshot {
		allowed["G2-item"], allowed["G2-item-process"], allowed["G2-item-realtime"] = true, true, true
	}
	if level >= ReadCommitted {
		for _, name := range []string{"G-single", "G-nonadjacent"} {
			allowed[name], allowed[name+"-process"], allowed[name+"-realtime"] = true, true, true
		}
		allowed["lost update"], allowed["internal"] = true, true
	}
	return slices.DeleteFunc(slices.Clone(found), func(v Violation) bool { return allowed[v.Name] })
}
