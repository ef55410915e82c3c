package engine

import (
	"math/rand/v2"
	"time"
)

// Balance names the way a member is chosen for a read.
type Balance string

const (
	// LeastOutstanding takes the member with the fewest statements in flight
	// per weight; ties go to the clearly faster member, then in turn. Default.
	LeastOutstanding Balance = "least_outstanding"
	// RoundRobin takes the members in turn, each as often as its weight says.
	RoundRobin Balance = "round_robin"
	// Random takes a member at random, with its weight as probability.
	Random Balance = "random"
	// Latency takes the member that has answered fastest lately per weight,
	// and now and then another, to notice that it has become faster.
	Latency Balance = "latency"
)

// Balances lists the values of Balance, the default first.
func Balances() []Balance { return []Balance{LeastOutstanding, RoundRobin, Random, Latency} }

// candidate is what a choice knows of one member.
type candidate struct {
	weight      int // 0 is last resort
	outstanding int64
	latency     time.Duration // 0 is not known yet
}

// exploreEvery is how often Latency tries a member in turn.
const exploreEvery = 64

// clearlyFaster is the ratio of latencies below which two members count as equal.
const clearlyFaster = 2

// pick returns the index of the member to read from, or -1 if there is none.
// skip is a bit per candidate that must not be taken; turn counts choices made
// so far. It depends on nothing else (Random: and on chance).
func pick(policy Balance, members []candidate, skip uint64, turn uint64) int {
	last := lastResort(members, skip)
	switch policy {
	case RoundRobin:
		return pickNth(members, skip, last, turn)
	case Random:
		return pickNth(members, skip, last, rand.Uint64())
	case Latency:
		if turn%exploreEvery == exploreEvery-1 {
			return pickNth(members, skip, last, turn/exploreEvery)
		}
		return pickBest(members, skip, last, turn, lowerLatency)
	}
	return pickBest(members, skip, last, turn, lessLoaded)
}

// lastResort tells whether only members of weight 0 are left.
func lastResort(members []candidate, skip uint64) bool {
	for i, m := range members {
		if skip&(1<<i) == 0 && m.weight > 0 {
			return false
		}
	}
	return true
}

func eligible(members []candidate, skip uint64, last bool, i int) bool {
	return skip&(1<<i) == 0 && (last || members[i].weight > 0)
}

// pickNth lays the members' weights end to end and returns whose stretch n falls in.
func pickNth(members []candidate, skip uint64, last bool, n uint64) int {
	total := uint64(0)
	for i, m := range members {
		if eligible(members, skip, last, i) {
			total += uint64(max(m.weight, 1))
		}
	}
	if total == 0 {
		return -1
	}
	n %= total
	for i, m := range members {
		if !eligible(members, skip, last, i) {
			continue
		}
		if w := uint64(max(m.weight, 1)); n >= w {
			n -= w
			continue
		}
		return i
	}
	return -1
}

// pickBest returns the best eligible member, starting the comparison at a
// place that moves with turn so that equal ones take turns.
func pickBest(members []candidate, skip uint64, last bool, turn uint64, better func(a, b candidate) bool) int {
	best, n := -1, len(members)
	if n == 0 {
		return -1
	}
	at := int(turn % uint64(n))
	for range n {
		if eligible(members, skip, last, at) && (best < 0 || better(members[at], members[best])) {
			best = at
		}
		if at++; at == n {
			at = 0
		}
	}
	return best
}

func lessLoaded(a, b candidate) bool {
	la, lb := (a.outstanding+1)*int64(max(b.weight, 1)), (b.outstanding+1)*int64(max(a.weight, 1))
	if la != lb {
		return la < lb
	}
	return a.latency*clearlyFaster < b.latency
}

func lowerLatency(a, b candidate) bool {
	return a.latency*time.Duration(max(b.weight, 1)) < b.latency*time.Duration(max(a.weight, 1))
}
