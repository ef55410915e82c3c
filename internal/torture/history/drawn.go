package history

import "fmt"

// CheckDrawn judges a history in which f is "next" and its answer a number: none may be
// given out twice ("drawn twice"), nor one that is not greater than what had been given
// out before it was asked for ("drawn backwards").
func CheckDrawn(ops []Op) ([]Violation, error) {
	all, err := calls(ops)
	if err != nil {
		return nil, err
	}
	var found findings
	numbers := make([]int64, len(all))
	by := map[int64]call{}
	for i, c := range all {
		if c.f != "next" {
			return nil, fmt.Errorf("operation %d: %q is nothing that a sequence does", c.from, c.f)
		}
		if c.typ != OK {
			continue
		}
		if err := c.decode(c.got, &numbers[i]); err != nil {
			return nil, err
		}
		if other, twice := by[numbers[i]]; twice {
			found.add("drawn twice", []int{other.from, c.from}, "%d was given out twice", numbers[i])
		}
		by[numbers[i]] = c
	}
	// In the order of the index: highest of what had ended before each beginning.
	ends := make(map[int]int64, len(all))
	begins := make(map[int]int, len(all))
	for i, c := range all {
		if c.typ == OK {
			ends[c.to], begins[c.from] = numbers[i], i
		}
	}
	highest, holder := int64(0), 0
	for at := range ops {
		if n, ok := ends[at]; ok && n > highest {
			highest, holder = n, at
		}
		if i, ok := begins[at]; ok && highest > 0 && numbers[i] < highest {
			found.add("drawn backwards", []int{holder, at}, "%d was given out after %d", numbers[i], highest)
		}
	}
	return found.list, nil
}
