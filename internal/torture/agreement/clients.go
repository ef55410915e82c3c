//go:build unix

package agreement

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgdist/pgdist/internal/torture/history"
)

// opTimeout is how long a client waits before it gives an operation up.
const opTimeout = 12 * time.Second

// round is one run of the clients, with histories and rows of its own.
type round struct {
	c       *cluster
	n       int64
	seed    uint64
	strict  map[string]bool // workloads whose reads are linearizable
	records map[string]*history.Recorder

	next     atomic.Int64 // numbers that are used once
	forked   atomic.Int64 // the fork's next key
	counters []atomic.Int64
	resting  atomic.Pointer[runner] // the program that clients leave alone for now

	mu          sync.Mutex // guards what follows
	outcomes    map[string]int
	differences []string // from the plain server
}

// workloads, and how often each has its turn.
var workloads = []struct {
	name   string
	weight int
}{{"register", 5}, {"append", 6}, {"set", 3}, {"bank", 4}, {"fork", 3}, {"counter", 4}, {"draw", 1}, {"mixed", 6}}

func newRound(ctx context.Context, c *cluster, n int64, seed uint64, clients int) *round {
	r := &round{c: c, n: n, seed: seed, strict: map[string]bool{"register": true, "append": false}, records: map[string]*history.Recorder{}, outcomes: map[string]int{}}
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, w := range workloads {
		r.records[w.name] = history.NewRecorder()
	}
	for _, w := range []string{"set", "fork", "counter"} {
		r.strict[w] = rng.IntN(2) == 0
	}
	for i := len(c.mixed); i < clients; i++ {
		c.mixed = append(c.mixed, &mixed{who: int64(i), merges: c.major >= 15})
	}
	r.counters = make([]atomic.Int64, clients)
	for i := range r.counters {
		r.counters[i].Store(r.id())
	}
	c.must(ctx, fmt.Sprintf("INSERT INTO accounts SELECT %d, g, %d FROM generate_series(1, %d) g", n, perHead, accounts))
	c.must(ctx, "INSERT INTO sketches SELECT (random() * 1e15)::bigint, 'at first' FROM generate_series(1, 20)")
	return r
}

// id is a number that is used for nothing else in any round.
func (r *round) id() int64 { return r.n<<24 | r.next.Add(1) }

// client is one of many.
type client struct {
	*round
	i         int
	rng       *rand.Rand
	processes map[string]int  // of each history
	count     int64           // what its counter was last told to be
	register  int64           // the key it chose last, …
	seen      map[int64]int64 // … and what it read there
}

// run lets clients loose until ctx ends.
func (r *round) run(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range r.counters {
		k := &client{round: r, i: i, rng: rand.New(rand.NewPCG(r.seed, uint64(i)+2)), processes: map[string]int{}, seen: map[int64]int64{}}
		wg.Go(func() { k.loop(ctx) })
	}
	wg.Wait()
}

func (k *client) loop(ctx context.Context) {
	total := 0
	for _, w := range workloads {
		total += w.weight
	}
	for ctx.Err() == nil {
		at := k.rng.IntN(total)
		for _, w := range workloads {
			if at -= w.weight; at < 0 {
				k.one(w.name)
				break
			}
		}
	}
}

// door picks a program that runs and can do what is asked.
func (k *client) door(strict bool) *runner {
	var some []*runner
	for _, p := range k.c.programs {
		p.mu.Lock()
		up := p.client != nil
		p.mu.Unlock()
		if up && p != k.resting.Load() && (!strict || !p.kind.gateway || p.kind.strict) {
			some = append(some, p)
		}
	}
	if len(some) == 0 {
		return nil
	}
	return some[k.rng.IntN(len(some))]
}

// one does one operation of a workload.
func (k *client) one(workload string) {
	strict := k.strict[workload]
	door := k.door(strict)
	if door == nil {
		time.Sleep(20 * time.Millisecond) // all are dead: they will be back
		return
	}
	if workload == "mixed" {
		k.mix(door)
		return
	}
	f, value := k.choose(workload)
	k.tell(door, Request{Workload: workload, F: f, Value: quoted(value), Round: k.n, Strict: strict, Tx: k.rng.IntN(3) == 0, Timeout: opTimeout})
}

// tell asks a program and records that.
func (k *client) tell(door *runner, q Request) Answer {
	rec := k.records[q.Workload]
	p, ok := k.processes[q.Workload]
	if !ok {
		p = rec.Process()
		k.processes[q.Workload] = p
	}
	rec.Invoke(p, q.F, q.Value)
	a := door.ask(context.Background(), q)
	var err error
	if a.Error != "" {
		err = errors.New(a.Error)
	}
	if a.Type != history.OK {
		a.Value = q.Value
		time.Sleep(time.Duration(k.rng.IntN(20)) * time.Millisecond)
	}
	rec.End(p, a.Type, q.F, a.Value, err)
	if a.Type == history.Info {
		delete(k.processes, q.Workload)
	}
	if q.Workload == "counter" && q.F == "write" && a.Type == history.Info {
		k.count = 0
		k.counters[k.i].Store(k.id())
	}
	if q.Workload == "register" && q.F == "read" && a.Type == history.OK {
		var held *int64
		if json.Unmarshal(a.Value, &[]any{new(int64), &held}) == nil && held != nil && k.seen != nil {
			k.seen[k.register] = *held
		}
	}
	k.mu.Lock()
	k.outcomes[q.Workload+"/"+q.F+" "+string(a.Type)]++
	k.mu.Unlock()
	return a
}

// window is a number that moves on, so that nobody's history grows without end: each
// key is used for a while.
func (k *client) window(per int64) int64 { return k.n<<24 | k.next.Load()/per*4 }

// choose makes up an operation.
func (k *client) choose(workload string) (string, any) {
	switch workload {
	case "register":
		key := k.window(300) + k.rng.Int64N(3)
		k.register = key
		switch held := k.seen[key]; {
		case k.rng.IntN(4) == 0:
			return "write", []any{key, k.id()}
		case k.rng.IntN(3) == 0 && held != 0:
			return "cas", []any{key, []int64{held, k.id()}}
		}
		return "read", []any{key, nil}
	case "append":
		var steps [][3]any
		for range 1 + k.rng.IntN(4) {
			key := k.window(150) + k.rng.Int64N(4)
			if k.rng.IntN(2) == 0 {
				steps = append(steps, [3]any{"append", key, k.id()})
			} else {
				steps = append(steps, [3]any{"r", key, nil})
			}
		}
		return "txn", steps
	case "set":
		if k.rng.IntN(3) > 0 {
			return "add", k.id()
		}
		return "read", nil
	case "bank":
		if a, b := 1+k.rng.IntN(accounts), 1+k.rng.IntN(accounts); a != b && k.rng.IntN(2) == 0 {
			return "transfer", []int{min(a, b), max(a, b), k.rng.IntN(40) - 20} // in one order: no deadlocks
		}
		return "read", nil
	case "fork":
		if k.rng.IntN(3) == 0 {
			return "write", k.n<<24 | k.forked.Add(1)
		}
		group := max(0, k.forked.Load()-k.rng.Int64N(4)) &^ 3
		var keys [][2]int64
		for i := range int64(4) {
			keys = append(keys, [2]int64{k.n<<24 | group + i, 0})
		}
		return "read", keys
	case "counter":
		if k.rng.IntN(2) == 0 {
			k.count++
			return "write", []int64{k.counters[k.i].Load(), k.count}
		}
		whose := k.i
		if k.rng.IntN(2) == 0 {
			whose = k.rng.IntN(len(k.counters))
		}
		return "read", []int64{k.counters[whose].Load(), 0}
	}
	return "next", nil
}

// last has every program read everything once more, when all is well again: what was
// acknowledged must be there now.
func (r *round) last(ctx context.Context) error {
	limited, over := context.WithTimeout(ctx, 3*time.Minute)
	defer over()
	k := &client{round: r, rng: rand.New(rand.NewPCG(r.seed, 0)), processes: map[string]int{}}
	var errs []error
	for _, p := range r.c.programs {
		var asked []Request
		ask := func(workload, f string, value any) {
			if !r.strict[workload] || !p.kind.gateway || p.kind.strict {
				asked = append(asked, Request{Workload: workload, F: f, Value: quoted(value), Round: r.n, Strict: r.strict[workload], Timeout: time.Minute})
			}
		}
		ask("set", "read", nil)
		ask("bank", "read", nil)
		for _, key := range r.keys("register") {
			ask("register", "read", []any{key, nil})
		}
		for some := range slices.Chunk(r.keys("append"), 8) {
			var steps [][3]any
			for _, key := range some {
				steps = append(steps, [3]any{"r", key, nil})
			}
			ask("append", "txn", steps)
		}
		for i := range k.forked.Load()/4 + 1 {
			var keys [][2]int64
			for j := range int64(4) {
				keys = append(keys, [2]int64{r.n<<24 | i*4 + j, 0})
			}
			ask("fork", "read", keys)
		}
		for _, key := range r.keys("counter") {
			ask("counter", "read", []int64{key, 0})
		}
		for _, m := range r.c.mixed {
			if m.pending == nil {
				continue
			}
			if err := k.clear(p, m); err != nil {
				errs = append(errs, fmt.Errorf("with all well again, what became of step %d of client %d is not known: %w", m.pending.N, m.who, err))
			}
		}
		for i, q := range asked {
			if limited.Err() != nil {
				r.c.explain(ctx)
				return errors.Join(append(errs, fmt.Errorf("with all well again, program %d has answered %d of %d questions in time", p.n, i, len(asked)))...)
			}
			if a := k.tell(p, q); a.Type != history.OK {
				errs = append(errs, fmt.Errorf("with all well again, program %d: %s/%s: %s: %s", p.n, q.Workload, q.F, a.Type, a.Error))
			}
		}
	}
	return errors.Join(errs...)
}

// keys lists those that a workload's history is about.
func (r *round) keys(workload string) []int64 {
	return slices.Sorted(maps.Keys(history.Keys(r.records[workload].Ops())))
}

// judge has the checkers look at what was recorded. What they find fails the test, and
// the histories are kept.
func (r *round) judge(t *verdict) {
	t.Helper()
	t.Logf("round %d, seed %d, strict %v: %v", r.n, r.seed, r.strict, r.outcomes)
	promise := func(workload string) history.Promise {
		if r.strict[workload] {
			return history.Strict
		}
		return history.Session
	}
	found := 0
	verdict := func(workload string, list []history.Violation, err error) {
		if err != nil {
			t.Errorf("round %d, seed %d: %s: %v", r.n, r.seed, workload, err)
		}
		for _, v := range list {
			t.Errorf("round %d, seed %d: %s: %v", r.n, r.seed, workload, v)
			found++
		}
	}
	for workload, check := range map[string]func([]history.Op) ([]history.Violation, error){
		"register": func(ops []history.Op) ([]history.Violation, error) { return history.CheckRegisters(ops, time.Minute) },
		"append":   history.CheckAppend,
		"set":      func(ops []history.Op) ([]history.Violation, error) { return history.CheckSet(ops, promise("set")) },
		"bank": func(ops []history.Op) ([]history.Violation, error) {
			return history.CheckBank(ops, accounts, accounts*perHead)
		},
		"fork": func(ops []history.Op) ([]history.Violation, error) {
			return history.CheckLongFork(ops, promise("fork"))
		},
		"counter": func(ops []history.Op) ([]history.Violation, error) {
			return history.CheckCounters(ops, promise("counter"))
		},
		"draw": history.CheckDrawn,
	} {
		list, err := check(r.records[workload].Ops())
		verdict(workload, list, err)
	}
	for _, d := range r.differences {
		t.Errorf("round %d, seed %d: mixed: %s", r.n, r.seed, d)
		found++
	}
	if found > 0 {
		if err := r.keep(t); err != nil {
			t.Error(err)
		}
	}
}

// keep writes the histories to files that outlive the test.
func (r *round) keep(t *verdict) error {
	dir, err := os.MkdirTemp("", "pgdist-histories-")
	if err != nil {
		return err
	}
	for name, rec := range r.records {
		f, err := os.Create(filepath.Join(dir, name+".jsonl"))
		if err != nil {
			return err
		}
		if err := errors.Join(history.Write(f, rec.Ops()), f.Close()); err != nil {
			return err
		}
	}
	t.Logf("histories are in %s", dir)
	return nil
}

// operations counts what was done, and what of it has an outcome nobody knows.
func (r *round) operations() (all, unknown int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for what, n := range r.outcomes {
		all += n
		if len(what) > 4 && what[len(what)-4:] == "info" {
			unknown += n
		}
	}
	return all, unknown
}

// busy waits until clients have done something.
func (r *round) busy(ctx context.Context) {
	for all := 0; all < 100; all, _ = r.operations() {
		if !pass(ctx, 20*time.Millisecond) {
			return
		}
	}
}

// settle waits until all is well, has everything read once more, judges and compares.
func (c *cluster) settle(ctx context.Context, r *round) {
	c.t.Helper()
	if err := c.upAll(ctx); err != nil {
		c.t.Error(err)
	} else if err := r.last(ctx); err != nil {
		c.t.Error(err)
	}
	r.judge(c.t)
	c.compare(ctx)
}
