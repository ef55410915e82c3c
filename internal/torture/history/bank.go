package history

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// CheckBank judges a history in which f is "transfer" with [from, to, amount], or
// "read" with a list of [account, balance]: at every moment there are as many
// accounts as given, none is overdrawn, and together they hold total. It names "wrong
// total", "wrong accounts" and "overdrawn".
func CheckBank(ops []Op, accounts int, total int64) ([]Violation, error) {
	all, err := calls(ops)
	if err != nil {
		return nil, err
	}
	var found findings
	for _, c := range all {
		switch {
		case c.f == "transfer":
			continue
		case c.f != "read":
			return nil, fmt.Errorf("operation %d: %q is nothing that a bank does", c.from, c.f)
		case c.typ != OK:
			continue
		}
		var list [][2]int64
		if err := c.decode(c.got, &list); err != nil {
			return nil, err
		}
		sum, seen := int64(0), map[int64]bool{}
		for _, a := range list {
			sum += a[1]
			seen[a[0]] = true
			if a[1] < 0 {
				found.add("overdrawn", []int{c.from}, "account %d holds %d", a[0], a[1])
			}
		}
		if len(list) != accounts || len(seen) != accounts {
			found.add("wrong accounts", []int{c.from}, "there are %d, not %d: %v", len(list), accounts, list)
		}
		if sum != total {
			found.add("wrong total", []int{c.from}, "the accounts hold %d together, not %d: %v", sum, total, list)
		}
	}
	return found.list, nil
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
