//go:build unix

package torture_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/pgdist/pgdist/internal/pgtest"
	"github.com/pgdist/pgdist/internal/torture"
)

// open launches a server with the workload's schema.
func open(t *testing.T, opts pgtest.Options) (*pgtest.Server, *sql.DB) {
	t.Helper()
	opts.Settings = map[string]string{"deadlock_timeout": "50ms"}
	s := pgtest.Start(t, opts)
	db, err := sql.Open("pgx", s.DSN())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	create(t, db)
	return s, db
}

func create(t *testing.T, db *sql.DB) {
	t.Helper()
	for _, statement := range torture.Schema() {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%v\n%s", err, statement)
		}
	}
}

func run(t *testing.T, db *sql.DB, opts torture.Options) *torture.History {
	t.Helper()
	opts.Logf = t.Logf
	h, err := torture.Run(t.Context(), db, opts)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// One PostgreSQL keeps every promise, and every operation of the menu works.
func TestOneServerKeepsItsPromises(t *testing.T) {
	_, db := open(t, pgtest.Options{FsyncOff: true})
	first := run(t, db, torture.Options{Ops: 250, Seed: 1})
	if err := first.Check(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if first.Unknown() != 0 {
		t.Errorf("%d outcomes unknown on a server that nobody disturbed", first.Unknown())
	}
	counts := first.Counts()
	for _, name := range torture.Names() {
		if strings.HasPrefix(name, "read") || name == "merge" || name == "bad item" || name == "rollback tx" || name == "failed commit tx" {
			continue // they acknowledge nothing
		}
		if counts[name+" acknowledged"] == 0 {
			t.Errorf("%s never succeeded", name)
		}
	}
	second := run(t, db, torture.Options{Ops: 30, Seed: 2, Clients: 4})
	if err := errors.Join(second.Check(t.Context(), db), first.Check(t.Context(), db)); err != nil {
		t.Errorf("a second run on the same database: %v", err)
	}
}

func TestSameSeedSameChoices(t *testing.T) {
	var counts [2]map[string]int
	for i := range counts {
		_, db := open(t, pgtest.Options{FsyncOff: true})
		h := run(t, db, torture.Options{Clients: 1, Ops: 100, Seed: 42})
		counts[i] = h.Counts()
	}
	for name, n := range counts[0] {
		if counts[1][name] != n {
			t.Errorf("%s: %d and %d times", name, n, counts[1][name])
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	_, db := open(t, pgtest.Options{FsyncOff: true})
	if _, err := torture.Run(t.Context(), db, torture.Options{Only: []string{"no such"}}); err == nil || !strings.Contains(err.Error(), `"no such"`) {
		t.Errorf("an unknown operation: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := torture.Run(ctx, db, torture.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context: %v", err)
	}
	began := time.Now()
	h := run(t, db, torture.Options{Duration: 200 * time.Millisecond, Clients: 2, Only: []string{"item"}})
	if h.Acked() == 0 || time.Since(began) > time.Minute {
		t.Errorf("%d operations in %v", h.Acked(), time.Since(began))
	}
}
