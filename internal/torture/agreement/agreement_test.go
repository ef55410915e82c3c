//go:build unix

package agreement

import (
	"context"
	"flag"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/failpoint"
	"github.com/pgdist/pgdist/internal/pgtest"
)

var (
	seedFlag = flag.Uint64("agreement.seed", 0, "seed of the runs; 0 picks one")
	forFlag  = flag.Duration("agreement.for", 15*time.Second, "how long the run with faults goes on")
	members  = flag.Int("agreement.members", 3, "how many servers")
	clients  = flag.Int("agreement.clients", 16, "how many clients")
	all      = flag.Bool("agreement.all", false, "at each failpoint programs freeze and pause, too")
)

func TestMain(m *testing.M) {
	Main() // does not return in a program
	os.Exit(m.Run())
}

// seeded prints its seed.
func seeded(t *testing.T) uint64 {
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
func TestEveryFailpoint(t *testing.T) {
	seed := seeded(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	c := newCluster(t, *members, []kind{{}, {gateway: true, strict: true}}, pgtest.Options{})
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
