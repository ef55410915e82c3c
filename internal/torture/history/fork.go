package history

import "fmt"

// CheckLongFork judges a history in which f is "write" with a key, each written once,
// or "read" with a list of [key, 1 if it is there, else 0]. All states that reads show
// must lie on one chain: of two reads, one shows all that the other does of the keys
// they share. "long fork" is a pair that does not. Of Session reads only what was
// acknowledged counts: they may show what is then undone.
func CheckLongFork(ops []Op, p Promise) ([]Violation, error) {
	all, err := calls(ops)
	if err != nil {
		return nil, err
	}
	counts := map[int64]bool{}
	for _, c := range all {
		switch c.f {
		case "write":
			var key int64
			if err := c.decode(c.asked, &key); err != nil {
				return nil, err
			}
			if _, twice := counts[key]; twice {
				return nil, fmt.Errorf("operation %d writes key %d once more", c.from, key)
			}
			counts[key] = c.typ == OK || p == Strict
		case "read":
		default:
			return nil, fmt.Errorf("operation %d: %q is neither read nor write", c.from, c.f)
		}
	}
	type seen struct {
		from  int
		there map[int64]bool // of keys that count
	}
	var found findings
	states := map[string]seen{} // different ones
	for _, c := range all {
		if c.f != "read" || c.typ != OK {
			continue
		}
		var list [][2]int64
		if err := c.decode(c.got, &list); err != nil {
			return nil, err
		}
		s := seen{c.from, map[int64]bool{}}
		for _, kv := range list {
			if counts[kv[0]] {
				s.there[kv[0]] = kv[1] != 0
			}
		}
		name := fmt.Sprint(s.there) // package fmt sorts the keys
		if _, known := states[name]; known {
			continue
		}
		for _, o := range states {
			mine, his := int64(-1), int64(-1)
			for key, there := range s.there {
				if other, shared := o.there[key]; shared && there && !other {
					mine = key
				} else if shared && !there && other {
					his = key
				}
			}
			if mine >= 0 && his >= 0 {
				found.add("long fork", []int{o.from, c.from}, "the first shows %d and not %d, the second %d and not %d", his, mine, mine, his)
			}
		}
		states[name] = s
	}
	return found.list, nil
}
