//go:build unix

package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// dumpOf is what pg_dump says of a database, schema and data.
func dumpOf(t *testing.T, s *pgtest.Server, database string) string {
	t.Helper()
	bin, err := pgtest.BinDir()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "pg_dump"), s.DSN(database))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	// From 15.14 on, a random key guards a dump against what it holds.
	var kept []string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, `\restrict `) && !strings.HasPrefix(line, `\unrestrict `) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func TestUninstallLeavesNoTrace(t *testing.T) {
	three := pgtest.Set(t, 3, pgtest.Options{})
	everywhere(t, "postgres", schema+`; CREATE TABLE p (id int, k text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
		CREATE TABLE p1 PARTITION OF p FOR VALUES IN ('a'); CREATE TABLE keyless (v text); CREATE ROLE mirror SUPERUSER LOGIN`, three...)
	set := dsn("postgres", three...)
	var before []string
	for _, s := range three {
		before = append(before, dumpOf(t, s, "postgres"))
	}
	pgdist(t, "init", "--mirror-user", "mirror", set).want(t, statusOK)
	if dump := dumpOf(t, three[0], "postgres"); !strings.Contains(dump, "CREATE SCHEMA pgdist") {
		t.Fatal("init installed nothing")
	}
	pgdist(t, "uninstall", set).want(t, statusOK, "removed from "+three[0].Addr(), "removed from "+three[2].Addr())
	for i, s := range three {
		if after := dumpOf(t, s, "postgres"); after != before[i] {
			t.Errorf("%s is not what it was:\n%s", s.Addr(), after)
		}
	}
	pgdist(t, "status", set).wantErrors(t, 3, "not part of a pgdist set", "pgdist init")
	pgdist(t, "init", set).want(t, statusOK)

	if err := three[1].Kill(); err != nil {
		t.Fatal(err)
	}
	pgdist(t, "uninstall", set).wantErrors(t, 1, three[1].Addr(), "removed from "+three[0].Addr(), "removed from "+three[2].Addr())
}
