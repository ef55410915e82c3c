package engine

import (
	"testing"
	"time"
)

func TestPick(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct {
		name    string
		policy  Balance
		members []candidate
		skip    uint64
		turn    uint64
		want    int
	}{
		{"nobody", LeastOutstanding, nil, 0, 0, -1},
		{"all tried", LeastOutstanding, []candidate{{weight: 1}, {weight: 1}}, 0b11, 0, -1},
		{"fewest", LeastOutstanding, []candidate{{1, 3, ms}, {1, 1, ms}, {1, 2, ms}}, 0, 0, 1},
		{"fewest that is left", LeastOutstanding, []candidate{{1, 3, ms}, {1, 1, ms}, {1, 2, ms}}, 0b010, 0, 2},
		{"per weight", LeastOutstanding, []candidate{{1, 1, ms}, {4, 3, ms}}, 0, 0, 1},
		{"a tie goes to the clearly faster", LeastOutstanding, []candidate{{1, 0, 10 * ms}, {1, 0, ms}}, 0, 0, 1},
		{"hardly faster takes turns, first", LeastOutstanding, []candidate{{1, 0, 10 * ms}, {1, 0, 9 * ms}}, 0, 0, 0},
		{"hardly faster takes turns, second", LeastOutstanding, []candidate{{1, 0, 10 * ms}, {1, 0, 9 * ms}}, 0, 1, 1},
		{"last resort is spared", LeastOutstanding, []candidate{{0, 0, ms}, {1, 99, ms}}, 0, 0, 1},
		{"last resort serves", LeastOutstanding, []candidate{{0, 0, ms}, {1, 99, ms}}, 0b10, 0, 0},
		{"only last resorts", LeastOutstanding, []candidate{{0, 5, ms}, {0, 1, ms}}, 0, 0, 1},
		{"the default", "", []candidate{{1, 3, ms}, {1, 1, ms}}, 0, 0, 1},
		{"in turn", RoundRobin, []candidate{{1, 9, ms}, {2, 0, ms}, {1, 0, ms}}, 0, 0, 0},
		{"in turn by weight", RoundRobin, []candidate{{1, 9, ms}, {2, 0, ms}, {1, 0, ms}}, 0, 2, 1},
		{"in turn, last", RoundRobin, []candidate{{1, 9, ms}, {2, 0, ms}, {1, 0, ms}}, 0, 3, 2},
		{"in turn, around", RoundRobin, []candidate{{1, 9, ms}, {2, 0, ms}, {1, 0, ms}}, 0, 4, 0},
		{"in turn, one gone", RoundRobin, []candidate{{1, 0, ms}, {1, 0, ms}}, 0b01, 0, 1},
		{"random of one", Random, []candidate{{0, 0, ms}, {3, 0, ms}}, 0, 0, 1},
		{"fastest", Latency, []candidate{{1, 0, 3 * ms}, {1, 9, ms}}, 0, 0, 1},
		{"unknown is tried", Latency, []candidate{{1, 0, 3 * ms}, {1, 9, 0}}, 0, 0, 1},
		{"now and then another", Latency, []candidate{{1, 0, 3 * ms}, {1, 9, ms}}, 0, 2*exploreEvery + exploreEvery - 1, 0},
	} {
		if got := pick(c.policy, c.members, c.skip, c.turn); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestRandomFollowsWeights(t *testing.T) {
	counts := [3]int{}
	for range 10000 {
		counts[pick(Random, []candidate{{weight: 0}, {weight: 1}, {weight: 3}}, 0, 0)]++
	}
	if counts[0] != 0 || counts[2] < 2*counts[1] || counts[2] > 4*counts[1] {
		t.Error(counts)
	}
}

func TestNearest(t *testing.T) {
	words := []string{"balance", "pool_size", "pool_wait_timeout", "consistency"}
	for _, c := range []struct {
		word, want string
		distance   int
	}{
		{"balence", "balance", 1}, {"pool_sise", "pool_size", 1}, {"consitsency", "consistency", 1},
		{"balnace", "balance", 1}, {"balance", "balance", 0}, {"pool_wait", "pool_size", 4},
	} {
		if got, d := nearest(c.word, words); got != c.want || d != c.distance {
			t.Errorf("%s: %s at %d, want %s at %d", c.word, got, d, c.want, c.distance)
		}
	}
}
