//go:build unix

package agreement

import (
	"context"
	"flag"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/failpoint"
)

var (
	seedFlag = flag.Uint64("agreement.seed", 0, "seed of the runs; 0 picks one")
	forFlag  = flag.Duration("agreement.for", 8*time.Second, "how long the run with faults goes on")
	members  = flag.Int("agreement.members", 3, "how many servers")
	clients  = flag.Int("agreement.clients", 16, "how many clients")
	programs = flag.Int("agreement.programs", 2, "how many programs, one to three")
	only     = flag.String("agreement.accident", "", "only accidents whose names this regular expression finds")
	all      = flag.Bool("agreement.all", false, "at each failpoint programs freeze and pause, too")
)

// roundTime is how long clients go on before what they heard is judged.
const roundTime = time.Minute

func TestMain(m *testing.M) {
	Main() // does not return in a program
	os.Exit(m.Run())
}

// seeded prints its seed.
func seeded(t *verdict) uint64 {
	t.Helper()
	s := *seedFlag
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("-agreement.seed=%d", s)
	return s
}

// A program dies at each point at which it leaves something half done, and nothing that
// was acknowledged is lost, nothing that failed is there.
func TestEveryFailpoint(tt *testing.T) {
	tt.Parallel() // both wait, most of the time
	t := judged(tt)
	seed := seeded(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	c := newCluster(t, *members, []kind{{}, {gateway: true, strict: true}})
	r := newRound(ctx, c, 1, seed, *clients)
	loose, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		r.run(loose)
		close(done)
	}()
	rng := rand.New(rand.NewPCG(seed, 0))
	byKind := map[string][]string{}
	for _, p := range failpoint.All() {
		kind, known := leadsTo[p]
		if !known {
			t.Fatalf("failpoint %q: say in leadsTo at which occasion programs come to it", p)
		}
		byKind[kind] = append(byKind[kind], p)
	}
	kinds := slices.Sorted(maps.Keys(byKind))
	rng.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	actions := []Action{Die}
	if *all {
		actions = append(actions, Freeze, Pause)
	}
	for _, do := range actions {
		for _, kind := range kinds {
			if err := c.visit(ctx, kind, slices.Clone(byKind[kind]), do, rng); err != nil {
				t.Error(err)
				if err := c.upAll(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	stop()
	<-done
	c.settle(ctx, r)
}

// What has happened to others, or would happen to pgdist if one of its rules were missing,
// happens, and is not noticed by what the clients are told. The mutants in
// internal/mirror/testdata are found by this.
func TestAccidents(tt *testing.T) {
	tt.Parallel()
	t := judged(tt)
	seed := seeded(t)
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute) // less than what mutants are given
	defer cancel()
	c := newCluster(t, *members, []kind{{}, {gateway: true, strict: true}})
	r := newRound(ctx, c, 1, seed, *clients)
	loose, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		r.run(loose)
		close(done)
	}()
	rng := rand.New(rand.NewPCG(seed, 0))
	r.busy(ctx)
	wanted, err := regexp.Compile(*only)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, a := range accidents {
		if !wanted.MatchString(a.name) || a.long && !*all && *only == "" {
			continue
		}
		began := time.Now()
		limited, over := context.WithTimeout(ctx, 100*time.Second)
		err := a.run(limited, r, rng)
		if err == nil {
			err = c.upAll(limited)
		}
		if err == nil {
			err = c.works(limited)
		}
		over()
		ran++
		t.Logf("%s: %v", a.name, time.Since(began).Round(time.Millisecond))
		if err != nil {
			t.Errorf("%s: %v", a.name, err)
			break
		}
	}
	if ran == 0 {
		t.Errorf("no accident's name matches %q", *only)
	}
	stop()
	<-done
	c.settle(ctx, r)
}

// Everything fails at any time, several things at once.
func TestUnderFaults(tt *testing.T) {
	t := judged(tt)
	seed := seeded(t)
	limit := 2**forFlag + 8*time.Minute // each round takes its time to settle
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := newCluster(t, *members, []kind{{}, {gateway: true, strict: true}, {gateway: true}}[:*programs])
	faults := map[string]int{}
	ops, unknown := 0, 0
	for n, left := int64(1), *forFlag; left > 0 && !t.Failed(); n, left = n+1, left-roundTime {
		seed := seed + uint64(n) - 1
		r, evil := newRound(ctx, c, n, seed, *clients), newNemesis(c, seed)
		evil.brief = *forFlag < roundTime/2
		limited, stop := context.WithTimeout(ctx, min(left, roundTime))
		var broken error
		var wg sync.WaitGroup
		wg.Go(func() { broken = evil.run(limited) })
		r.run(limited)
		wg.Wait()
		stop()
		if broken != nil {
			t.Errorf("round %d: what was broken could not be mended: %v", n, broken)
		}
		if err := evil.finish(ctx); err != nil {
			t.Error(err)
		}
		c.settle(ctx, r)
		all, info := r.operations()
		ops, unknown = ops+all, unknown+info
		for what, times := range evil.done {
			faults[what] += times
		}
	}
	total := 0
	for _, times := range faults {
		total += times
	}
	t.Logf("%d operations, %d of them of unknown outcome, %d faults: %v", ops, unknown, total, faults)
}
