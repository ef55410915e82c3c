//go:build unix

package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// tamper changes rows behind the mirror's back, as only a superuser can.
func tamper(t *testing.T, s *pgtest.Server, sql string) {
	t.Helper()
	on(t, s, "postgres", "SET session_replication_role = replica; "+sql)
}

func TestVerify(t *testing.T) {
	three := pgtest.Set(t, 3, pgtest.Options{})
	everywhere(t, "postgres", schema, three...)
	set := dsn("postgres", three...)
	pgdist(t, "verify", set).wantErrors(t, 3, "not part of a pgdist set", "run: pgdist init")
	pgdist(t, "init", set).want(t, statusOK)

	t.Run("equal", func(t *testing.T) {
		on(t, three[0], "postgres", "INSERT INTO t VALUES (101, 'late'); INSERT INTO s DEFAULT VALUES")
		r := pgdist(t, "verify", set)
		r.want(t, statusOK, "equal: "+three[0].Addr(), "2 tables, 103 rows each")
		if !strings.Contains(r.out, "309 rows read from 3 members in ") || r.errs != "" {
			t.Errorf("what it cost is not said:\n%s%s", r.out, r.errs)
		}
	})
	t.Run("a sequence that is put right", func(t *testing.T) {
		tamper(t, three[2], "SELECT setval('s_id_seq', 77)")
		moved := three[2].Addr() + " (member 3): sequence public.s_id_seq is at 77,true instead of "
		pgdist(t, "verify", set).want(t, statusOK, "equal: "+three[0].Addr(), moved, "until this comparison began, which put it right")
		if r := pgdist(t, "verify", set); strings.Contains(r.out, "put it right") {
			t.Errorf("nothing was amiss: %s", r.out)
		}
		on(t, three[0], "postgres", "INSERT INTO s DEFAULT VALUES") // and nobody has shipped it
		if r := pgdist(t, "verify", set); strings.Contains(r.out, "put it right") {
			t.Errorf("it had only not been shipped: %s", r.out)
		}
		on(t, three[0], "postgres", "DELETE FROM s WHERE id = (SELECT max(id) FROM s)")
	})
	t.Run("a row tampered with", func(t *testing.T) {
		tamper(t, three[1], "UPDATE t SET v = 'forged' WHERE id = 7; DELETE FROM t WHERE id = 9; INSERT INTO t VALUES (1000, 'smuggled')")
		r := pgdist(t, "verify", set)
		r.want(t, statusNotAsItIs, three[1].Addr()+" (member 2): table public.t has other contents: 3 rows differ",
			`    row (id) = (7): v: "forged" instead of "row 7"`, `    row (id) = (9): only on the leader: (9,"row 9")`, "    row (id) = (1000): only there: (1000,smuggled)",
			"1 differences from the leader, "+three[0].Addr(), "pgdist: members differ")
		r = pgdist(t, "verify", "--json", "-q", set)
		r.want(t, statusNotAsItIs)
		var got finding
		decode(t, r.out, &got)
		if got.Equal || len(got.Differences) != 1 || got.Differences[0].Member != 2 || len(got.Differences[0].Rows) != 3 || got.Differences[0].Differing != 3 ||
			got.Differences[0].Object != "table public.t" || *got.Differences[0].Rows[0].Columns[0].Member != `"forged"` || got.RowsPerSecond <= 0 || len(got.NotCompared) != 0 {
			t.Errorf("got %s", r.out)
		}
		tamper(t, three[1], "UPDATE t SET v = 'row 7' WHERE id = 7; INSERT INTO t VALUES (9, 'row 9'); DELETE FROM t WHERE id = 1000")
		pgdist(t, "verify", set).want(t, statusOK)
	})
	t.Run("repaired", func(t *testing.T) {
		pgdist(t, "verify", "--force", "--repair=false", set).wantErrors(t, 1, "--force is for --repair")
		tamper(t, three[1], "UPDATE t SET v = 'forged' WHERE id = 7; DELETE FROM t WHERE id = 9; INSERT INTO t VALUES (1000, 'smuggled')")
		tamper(t, three[2], "UPDATE s SET at = 'epoch' WHERE id = 1; ALTER TABLE t ALTER v SET DEFAULT 'x'")
		pgdist(t, "verify", "--repair", "-q", set).want(t, statusNotAsItIs, three[1].Addr()+" (member 2): table public.t has other contents: 3 rows differ: REPAIRED",
			`    row (id) = (9): only on the leader: (9,"row 9")`, three[2].Addr()+" (member 3): table public.s has other contents: 1 row differs: REPAIRED", "default: 'x'::text instead of none; not repaired: see pgdist resync DSN --member "+three[2].Addr()+" --force\n",
			"2 differences were put right from the leader; until then clients may have read what was wrong", "1 differences from the leader")
		tamper(t, three[2], "ALTER TABLE t ALTER v DROP DEFAULT; DELETE FROM t WHERE id < 3")
		r := pgdist(t, "verify", "--repair", "--json", "-q", set)
		r.want(t, statusOK)
		var got finding
		decode(t, r.out, &got)
		if !got.Equal || len(got.Differences) != 1 || !got.Differences[0].Repaired || got.Differences[0].Member != 3 {
			t.Errorf("got %s", r.out)
		}
		for _, s := range three[1:] {
			tamper(t, s, "DELETE FROM t WHERE id = 3")
		}
		pgdist(t, "verify", "--repair", "-q", set).want(t, statusFailed, "all followers hold the same, and the leader something else: public.t", "pgdist switchover", "--force", "2 differences from the leader")
		pgdist(t, "verify", "--repair", "--force", "-q", set).want(t, statusOK, "equal: ")
		pgdist(t, "verify", set).want(t, statusOK)
	})
	t.Run("a definition changed", func(t *testing.T) {
		tamper(t, three[2], "ALTER TABLE t ALTER v SET DEFAULT 'x'")
		pgdist(t, "verify", set).want(t, statusNotAsItIs, three[2].Addr()+" (member 3): table column public.t.v is defined differently: default: 'x'::text instead of none")
		pgdist(t, "verify", "--table", "s", set).want(t, statusOK, "equal: ", "1 tables, 2 rows each")
		pgdist(t, "verify", "--table", "nosuch", set).wantErrors(t, 1, "there is no table nosuch")
		tamper(t, three[2], "ALTER TABLE t ALTER v DROP DEFAULT")
	})
	t.Run("resumed", func(t *testing.T) {
		tamper(t, three[1], "UPDATE s SET at = 'epoch'")
		file := filepath.Join(t.TempDir(), "state")
		pgdist(t, "verify", "--resume", set).wantErrors(t, 1, "--resume: give the file")
		pgdist(t, "verify", "--jobs", "0", "--rate", "-1", set).wantErrors(t, 2, "--jobs=0", "--rate=-1")
		pgdist(t, "verify", "--state", file, set).want(t, statusNotAsItIs, "table public.s has other contents: 2 rows differ")
		tamper(t, three[1], "UPDATE s SET at = '2020-01-01'")
		pgdist(t, "verify", "--state", file, "--resume", set).want(t, statusOK, "2 tables, 103 rows each", "1 of these tables, 101 rows each, were not read now: they were found equal between ", "6 rows read")
		pgdist(t, "verify", "--state", file, "--resume", "--json", set).want(t, statusOK, `"equal":true`, `"earlier":{"tables":2,"rows":103,`)
		pgdist(t, "verify", "--state", file, set).want(t, statusOK, "309 rows read")
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		file := filepath.Join(t.TempDir(), "state")
		pgdistIn(ctx, "", "verify", "--rate", "10", "--state", file, set).want(t, statusInterrupted, "pgdist: interrupted")
		pgdist(t, "verify", "--state", file, "--resume", set).want(t, statusOK, "2 tables, 103 rows each")
	})
	t.Run("a member away", func(t *testing.T) {
		if err := three[2].Kill(); err != nil {
			t.Fatal(err)
		}
		r := pgdist(t, "verify", "--wait", "100ms", set)
		r.wantErrors(t, 1, "not in sync, so not compared: "+three[2].Addr(), "--in-sync", "equal: ")
		pgdist(t, "verify", "--wait", "0s", "--in-sync", set).want(t, statusOK, "equal: ")
		pgdist(t, "status", set).want(t, statusNotAsItIs, "no ")
		if err := three[2].StartAgain(); err != nil {
			t.Fatal(err)
		}
		r = pgdist(t, "verify", set)
		r.want(t, statusOK, three[2].Addr()+": 2 tables, 103 rows each")
	})
	pgtest.SameBytes(t, three...)
}
