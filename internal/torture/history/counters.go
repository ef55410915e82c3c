package history

import "fmt"

// Counters: f is "write" with [key, number], or "read" with the same as answer, 0 if
// there is nothing. A key has one writer, who writes 1, 2, 3, … and takes another
// key after a write of unknown end.

// CheckCounters looks for reads that go back in time: "stale read", behind what anybody
// was told before it began (which includes what the reader himself wrote); "failed
// value", of a write that had failed before; "unknown value", which nobody had written
// yet. Strict reads must not be behind earlier reads either: "lost sight".
func CheckCounters(ops []Op, p Promise) ([]Violation, error) {
	all, err := calls(ops)
	if err != nil {
		return nil, err
	}
	type counter struct {
		writes []call // the nth writes n+1
		reads  []call
		shown  []int64
	}
	keys := map[int64]*counter{}
	for _, c := range all {
		var key, n int64
		if err := c.list(c.said(), &key, &n); err != nil && (c.f != "read" || c.typ == OK) {
			return nil, err
		}
		k := keys[key]
		if k == nil {
			k = &counter{}
			keys[key] = k
		}
		switch {
		case c.f == "write":
			if w := len(k.writes); n != int64(w)+1 || w > 0 && k.writes[w-1].to > c.from {
				return nil, fmt.Errorf("operation %d writes %d to counter %d after %d writes, or before their end is known", c.from, n, key, w)
			}
			k.writes = append(k.writes, c)
		case c.f != "read":
			return nil, fmt.Errorf("operation %d: %q is nothing that a counter does", c.from, c.f)
		case c.typ == OK:
			k.reads, k.shown = append(k.reads, c), append(k.shown, n)
		}
	}
	var found findings
	for _, key := range sortedKeys(keys) {
		k := keys[key]
		for i, c := range k.reads {
			n := k.shown[i]
			if n < 0 || n > int64(len(k.writes)) || n > 0 && k.writes[n-1].from > c.to {
				found.add("unknown value", []int{c.from}, "counter %d reads as %d, which nobody had written", key, n)
				continue
			}
			if n > 0 {
				if w := k.writes[n-1]; w.typ == Fail && (w.to < c.from || p == Strict) {
					found.add("failed value", []int{w.from, c.from}, "counter %d reads as %d, whose write failed", key, n)
				}
			}
			for m := len(k.writes); int64(m) > n; m-- {
				if w := k.writes[m-1]; w.typ == OK && w.to < c.from {
					found.add("stale read", []int{w.from, c.from}, "counter %d reads as %d, after %d was acknowledged", key, n, m)
					break
				}
			}
			for j, o := range k.reads {
				if p == Strict && o.to < c.from && k.shown[j] > n {
					found.add("lost sight", []int{o.from, c.from}, "counter %d reads as %d, after %d had been read", key, n, k.shown[j])
					break
				}
			}
		}
	}
	return found.list, nil
}
