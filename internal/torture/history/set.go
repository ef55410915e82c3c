package history

import "fmt"

// Promise is what single reads are promised.
type Promise int

const (
	// Session reads are never older than what anybody was told before they began.
	// They may show what is about to be acknowledged, and what then fails.
	Session Promise = iota
	// Strict reads are linearizable: what one has shown is there for all that follow.
	Strict
)

// CheckSet judges a history in which f is "add" with a number, each added once, or
// "read" with a list of those that are there. It names: "lost element", acknowledged
// before a read that lacks it; "failed element", seen after its addition had failed;
// "unknown element", not added by anybody yet; "duplicate element"; and for Strict
// reads "unseen element", which an earlier read had shown.
func CheckSet(ops []Op, p Promise) ([]Violation, error) {
	all, err := calls(ops)
	if err != nil {
		return nil, err
	}
	adds := map[int64]call{}
	var acked []int64
	for _, c := range all {
		switch c.f {
		case "add":
			var n int64
			if err := c.decode(c.asked, &n); err != nil {
				return nil, err
			}
			if was, twice := adds[n]; twice {
				return nil, fmt.Errorf("operations %d and %d add the same number, %d", was.from, c.from, n)
			}
			adds[n] = c
			if c.typ == OK {
				acked = append(acked, n)
			}
		case "read":
		default:
			return nil, fmt.Errorf("operation %d: %q is nothing that a set does", c.from, c.f)
		}
	}
	var found findings
	shown := map[int64]call{} // Strict: by which read that ended first
	for _, c := range all {
		if c.f != "read" || c.typ != OK {
			continue
		}
		var list []int64
		if err := c.decode(c.got, &list); err != nil {
			return nil, err
		}
		there := map[int64]bool{}
		for _, n := range list {
			if there[n] {
				found.add("duplicate element", []int{c.from}, "%d is there twice", n)
			}
			there[n] = true
			add, known := adds[n]
			switch {
			case !known || add.from > c.to:
				found.add("unknown element", []int{c.from}, "%d is there, which nobody had added", n)
			case add.typ == Fail && (p == Strict || add.to < c.from):
				found.add("failed element", []int{add.from, c.from}, "%d is there, whose addition failed", n)
			}
			if s, seen := shown[n]; p == Strict && (!seen || c.to < s.to) {
				shown[n] = c
			}
		}
		for _, n := range acked {
			if add := adds[n]; add.to < c.from && !there[n] {
				found.add("lost element", []int{add.from, c.from}, "%d was acknowledged before the read, which lacks it", n)
			}
		}
		if p == Strict {
			unseen(&found, c, there, shown)
		}
	}
	return found.list, nil
}

// unseen looks for what an earlier read had shown and this one does not.
func unseen(found *findings, c call, there map[int64]bool, shown map[int64]call) {
	for _, n := range sortedKeys(shown) {
		if s := shown[n]; s.to < c.from && !there[n] {
			found.add("unseen element", []int{s.from, c.from}, "%d had been read before, and is not there any more", n)
		}
	}
}
