//go:build unix

package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// status says what to run, resync does it, and a program that is opened brings the
// copy into the set.
func TestResync(t *testing.T) {
	three := pgtest.Set(t, 3, pgtest.Options{})
	everywhere(t, "postgres", schema, three...)
	set := dsn("postgres", three...)
	pgdist(t, "init", set).want(t, statusOK)
	third := three[2].Addr()

	pgdist(t, "resync", set).wantErrors(t, 1, "--member")
	pgdist(t, "resync", set, "--member", three[0].Addr()).wantErrors(t, 1, "it is the set's leader")
	pgdist(t, "resync", set, "--member", third).wantErrors(t, 1, "it is in sync", "--force")
	pgdist(t, "resync", set, "--member", third, "--force").wantErrors(t, 1, "holds 2 tables, which will be lost", "--yes")

	on(t, three[2], "postgres", `DROP EVENT TRIGGER "!pgdist_start", "!pgdist_ddl", "!pgdist_as", "!pgdist_drop", "!pgdist_rewrite"; DROP SCHEMA pgdist CASCADE; INSERT INTO t VALUES (1000, 'stray')`)
	pgdist(t, "status", set).want(t, statusNotAsItIs, "run: pgdist resync DSN --member "+third)
	pgdist(t, "resync", set, "--member", third, "--yes", "--wait", "0").want(t, statusOK, "was copied from "+three[1].Addr(), "101 rows", "not in sync yet")
	r := pgdist(t, "verify", set)
	r.want(t, statusOK)
	pgtest.SameBytes(t, three[:]...)
}

func TestResyncProgress(t *testing.T) {
	var b bytes.Buffer
	p := copyProgress{newVerifyProgress(&b)}
	p.now = func() time.Time { return p.began.Add(11 * time.Second) }
	p.set(mirror.ResyncProgress{Tables: 3, TablesDone: 1, Rows: 550, Bytes: 22 << 20, Estimated: 1100, Table: "public.t"})
	if want := "1 of 3 tables, 550 rows of about 1100 (50%), 50 rows per second, 2.0 MB/s, public.t\n"; b.String() != want {
		t.Errorf("%q instead of %q", b.String(), want)
	}
}
