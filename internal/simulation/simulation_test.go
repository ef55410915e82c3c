package simulation

import (
	"flag"
	"os"
	"runtime/debug"
	"testing"
	"time"
)

var (
	sceneFlag  = flag.Int("sim.scene", 0, "with -sim.seed: the number of the scene, as a message gives it")
	bugFlag    = flag.Int("sim.bug", 0, "with -sim.seed: the number of the rule that is broken, as a message gives it")
	seedFlag   = flag.Uint64("sim.seed", 0, "run the schedule of this seed alone, and print what happens in it")
	mutantFlag = flag.Uint64("sim.mutants", 0, "how many schedules each mutant is given at least")
	countFlag  = flag.Int("sim.schedules", 100_000, "how many schedules to run")
)

const steps = 150 // of a schedule without a script

// TestMain lets garbage lie: a world is small and soon forgotten.
func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(800)
	os.Exit(m.Run())
}

// TestSchedules goes through schedules 1, 2, 3, …: what a number does is the same for ever, until the
// simulation is changed. One that fails is shown step by step; -sim.seed shows any.
func TestSchedules(t *testing.T) {
	began := time.Now()
	if *seedFlag > 0 {
		w := newWorld(Options{Seed: *seedFlag, Steps: steps, Scene: *sceneFlag, Bug: Bug(*bugFlag), Calm: *seedFlag%32 == 0 || Bug(*bugFlag) == BugPromisedForEver, Trace: true}, &arena{})
		err := w.run()
		t.Logf("seed %d: %v\n%s", *seedFlag, err, w.trace())
		if err != nil {
			t.Fail()
		}
		return
	}
	var sum tallies
	var mem arena
	for seed := uint64(1); seed <= uint64(*countFlag); seed++ {
		w := newWorld(Options{Seed: seed, Steps: steps, Calm: seed%32 == 0}, &mem)
		err := w.run()
		sum.add(w.tallies)
		if err != nil {
			w = newWorld(Options{Seed: seed, Steps: steps, Calm: seed%32 == 0, Trace: true}, &mem)
			err = w.run()
			t.Fatalf("seed %d: %v\n%s", seed, err, w.trace())
		}
	}
	t.Logf("%d schedules in %v: %+v", *countFlag, time.Since(began), sum)
	n := *countFlag
	for what, x := range map[string][2]int{"acknowledged": {sum.Told, n}, "rolled back": {sum.Undone, n / 40}, "reads": {sum.Reads, 3 * n}, "views": {sum.Views, 2 * n}, "terms": {sum.Terms, n / 4},
		"joins": {sum.Joins, n / 20}, "full copies": {sum.Resyncs, n / 400}, "crashes": {sum.Crashes, n / 2}, "views of others": {sum.Adopted, n / 4},
		"lists of members": {sum.Relisted, n / 60}, "left behind": {sum.Drains, n / 100}} {
		if n >= 5000 && x[0] < x[1] {
			t.Errorf("%s: %d, of which %d were to be expected: too little happened for the test to mean anything", what, x[0], x[1])
		}
	}
}
