package torture

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
)

// The kinds of violations.
const (
	LostWrite       = "lost write"       // acknowledged, and not there
	PhantomWrite    = "phantom write"    // failed or never sent, and there
	StaleRead       = "stale read"       // a read missed what was acknowledged before it began
	DirtyRead       = "dirty read"       // a read showed what had failed before
	WrongValue      = "wrong value"      // not what RETURNING had told the client
	BrokenInvariant = "broken invariant" // see Invariants
	UnexpectedError = "unexpected error" // an error that the client should not have seen
)

// Violation is one broken promise.
type Violation struct {
	Kind   string // one of the constants above
	Client int    // which client saw it; 0 is the first, or the check at the end
	Op     string // the operation, or the invariant's name
	Detail string
	Err    error // the unexpected error, otherwise nil
}

// Error tells the kind, where it was seen and what was.
func (v *Violation) Error() string {
	s := fmt.Sprintf("torture: %s: %s: %s", v.Kind, v.Op, v.Detail)
	if v.Err != nil {
		s += ": " + v.Err.Error()
	}
	return s
}

// Unwrap returns the unexpected error.
func (v *Violation) Unwrap() error { return v.Err }

// item is what RETURNING told about an inserted row.
type item struct{ id, rnd, uuid string }

// History is what the clients of one run know. Methods are safe for concurrent
// use.
type History struct {
	Seed int64

	run int64 // distinguishes runs on one database, in every op's upper bits

	mu         sync.Mutex // guards what follows
	outcomes   map[int64]Outcome
	acked      []int64 // in the order of acknowledgement
	failed     []int64
	items      map[int64]item   // acknowledged inserts not deleted since
	deleted    map[int64]bool   // items whose deletion was acknowledged
	taken      map[string]int64 // job id → op that took it
	violations []*Violation
	dropped    int            // violations beyond maxViolations
	counts     map[string]int // "name outcome" or "name SQLSTATE" → how often
	lanes      int64
}

const maxViolations = 100

func newHistory(seed, run int64) *History {
	return &History{
		Seed: seed, run: run, outcomes: map[int64]Outcome{}, items: map[int64]item{}, deleted: map[int64]bool{},
		taken: map[string]int64{}, counts: map[string]int{},
	}
}

// start notes that op is about to be sent: from now on it may be there.
func (h *History) start(ops ...int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range ops {
		h.outcomes[op] = Unknown
	}
}

// end notes the outcome of op, an operation of the given name.
func (h *History) end(name string, op int64, o Outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.outcomes[op] = o
	h.counts[name+" "+o.String()]++
	switch o {
	case Acked:
		h.acked = append(h.acked, op)
	case Failed:
		h.failed = append(h.failed, op)
	}
}

func (h *History) count(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[what]++
}

func (h *History) violate(v *Violation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.violations) == maxViolations {
		h.dropped++
		return
	}
	h.violations = append(h.violations, v)
}

// sample returns operations that were acknowledged and that had failed by now,
// the latest of them and some older ones.
func (h *History) sample(rng *rand.Rand) (acked, failed []int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return pick(rng, h.acked), pick(rng, h.failed)
}

func pick(rng *rand.Rand, from []int64) []int64 {
	some := slices.Clone(from[max(0, len(from)-8):])
	for range min(8, len(from)) {
		some = append(some, from[rng.IntN(len(from))])
	}
	return some
}

// newLane returns a number for rows that one client will have to itself.
func (h *History) newLane() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lanes++
	return h.run<<20 | h.lanes
}

// Acked returns how many operations were acknowledged.
func (h *History) Acked() int { return h.total(Acked) }

// Unknown returns how many operations have an outcome that no client knows.
func (h *History) Unknown() int { return h.total(Unknown) }

func (h *History) total(o Outcome) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.outcomes {
		if x == o {
			n++
		}
	}
	return n
}

// Violations returns what was seen during the run, at most a hundred.
func (h *History) Violations() []*Violation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.violations)
}

// Counts returns how often each operation had each outcome ("transfer
// acknowledged") and each error occurred ("transfer 40001").
func (h *History) Counts() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.counts)
}

// String summarizes the run.
func (h *History) String() string {
	counts := h.Counts()
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d acknowledged, %d unknown, %d violations\n", h.Seed, h.Acked(), h.Unknown(), len(h.Violations()))
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&b, "  %7d %s\n", counts[name], name)
	}
	return b.String()
}
