//go:build unix

package torture_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
	"github.com/pgdist/pgdist/internal/torture"
)

// A durable PostgreSQL loses nothing that it acknowledged, whatever happens to
// it; its clients see that it happens.
func TestOneServerSurvivesEveryFault(t *testing.T) {
	s, db := open(t, pgtest.Options{})
	h := make(chan *torture.History, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		history, err := torture.Run(ctx, db, torture.Options{Clients: 8, Duration: time.Minute, Seed: 7, AllowDisconnects: true, Logf: t.Logf})
		if err != nil {
			t.Error(err)
		}
		h <- history
	}()
	for i, fault := range torture.AllFaults() {
		ctx, cancel := context.WithCancel(t.Context())
		done, err := torture.Faults{
			Servers: []*pgtest.Server{s}, Kinds: []torture.Fault{fault}, Seed: int64(i + 1), Every: 400 * time.Millisecond, Away: 300 * time.Millisecond, Logf: t.Logf,
			Rejoined: func(ctx context.Context, _ int) error { cancel(); return db.PingContext(ctx) },
		}.Run(ctx)
		if err != nil || len(done) == 0 || done[0].Fault != fault {
			t.Fatalf("%s: %v, %v", fault, done, err)
		}
	}
	cancel()
	history := <-h
	if history.Acked() == 0 {
		t.Fatal("nothing was acknowledged")
	}
	if err := history.Check(t.Context(), db); err != nil {
		t.Error(err)
	}
}

func TestFaultsFollowTheirSeedAndBringServersBack(t *testing.T) {
	set := pgtest.Set(t, 2, pgtest.Options{FsyncOff: true})
	var runs [2][]torture.Injected
	for n := range runs {
		ctx, cancel := context.WithCancel(t.Context())
		var count int
		did, err := torture.Faults{
			Servers: set, Seed: 99, Every: 10 * time.Millisecond, Away: 10 * time.Millisecond,
			Kinds: []torture.Fault{torture.Freeze, torture.Terminate, torture.KillBackend},
			Rejoined: func(ctx context.Context, i int) error {
				if count++; count == 4 {
					cancel()
				}
				return set[i].WaitReady(ctx)
			},
		}.Run(ctx)
		if err != nil || len(did) != 4 {
			t.Fatalf("%d faults: %v", len(did), err)
		}
		runs[n] = did
	}
	for i := range runs[0] {
		if a, b := runs[0][i], runs[1][i]; a.Server != b.Server || a.Fault != b.Fault {
			t.Errorf("fault %d: %v and %v", i, a, b)
		}
	}
	refused := errors.New("not taken back")
	_, err := torture.Faults{Servers: set, Every: time.Millisecond, Kinds: []torture.Fault{torture.Terminate},
		Rejoined: func(context.Context, int) error { return refused }}.Run(t.Context())
	if !errors.Is(err, refused) {
		t.Errorf("a server that is not taken back: %v", err)
	}
}
