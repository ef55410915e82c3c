//go:build unix

package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgdist/pgdist/internal/pgtest"
)

func TestClassify(t *testing.T) {
	cases := []struct {
		sql  string
		want []string
	}{
		{"SELECT 1", []string{"class     read", "runs on   any member in sync, read-only"}},
		{"/* pgdist: leader */ SELECT 1", []string{"runs on   the leader, read-only, as its comment asks"}},
		{"/* pgdist: any */ SELECT mine(1)", []string{"runs on   any member in sync, read-only, as its comment asks; the leader if it writes after all"}},
		{"/* pgdist: moon */ SELECT 1", []string{`asks for "moon"`, "leader, any"}},
		{"SELECT 1 FOR UPDATE", []string{"because   locks rows (FOR UPDATE)", "runs on   the leader\n"}},
		{"INSERT INTO t VALUES (random())", []string{"class     write", "acknowledged once every member in sync has it"}},
		{"SELECT mine(1), s.other()", []string{"class     write", "functions mine, s.other"}},
		{"CREATE TABLE t ()", []string{"class     ddl", "as text at its place on every member"}},
		{"CREATE TEMP TABLE t ()", []string{"temporary, so not mirrored", "pins      temp"}},
		{"VACUUM t", []string{"class     utility", "each of the other members for itself"}},
		{"SET search_path = x", []string{"class     session"}},
		{"COMMIT", []string{"class     transaction"}},
		{"SELECT lo_create(0)", []string{"class     refused", "SQLSTATE 0A000", "hint "}},
		{"SELEC 1", []string{"class     unknown", "the leader, whose own error comes back"}},
		{"SELECT 1; DELETE FROM t", []string{"1: SELECT 1\n", "2: DELETE FROM t\n", "together: write (changes rows)"}},
		{"", []string{"together: read"}},
	}
	for _, c := range cases {
		t.Run(c.sql, func(t *testing.T) {
			pgdist(t, "classify", c.sql).want(t, statusOK, c.want...)
			pgdistIn(t.Context(), c.sql, "classify", "-").want(t, statusOK, c.want...)
		})
	}
}

func TestClassifyJSON(t *testing.T) {
	r := pgdistIn(t.Context(), "SELECT 1;\n UPDATE t\n SET v = mine(2)", "classify", "--json", "-")
	r.want(t, statusOK)
	var got judgements
	decode(t, r.out, &got)
	want := judgements{Class: "write", Because: "changes rows", Statements: []judgement{
		{Text: "SELECT 1", Tag: "SELECT", Class: "read", Because: got.Statements[0].Because, RunsOn: "any member in sync, read-only"},
		{Text: "UPDATE t SET v = mine(2)", Tag: "UPDATE", Class: "write", Because: "changes rows",
			RunsOn: "the leader; acknowledged once every member in sync has it", Functions: []string{"mine"}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestClassifyArguments(t *testing.T) {
	pgdist(t, "classify").wantErrors(t, 1, "accepts 1 arg")
	pgdist(t, "classify", "--dsn", "pgdist://a:1,a:x/b", "SELECT f()").wantErrors(t, 1, "the DSN cannot be read")
	var errs strings.Builder
	code := run(t.Context(), []string{"classify", "-"}, brokenReader{}, &strings.Builder{}, &errs)
	if code != statusFailed || !strings.Contains(errs.String(), "read standard input: no tape") {
		t.Errorf("exit status %d, %s", code, errs.String())
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("no tape") }

// The catalog tells which of the users' functions write; one that answers is enough.
func TestClassifyAsksTheCatalog(t *testing.T) {
	two := pgtest.Set(t, 2, pgtest.Options{FsyncOff: true})
	everywhere(t, "postgres", `CREATE FUNCTION steady(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
		CREATE FUNCTION mixed(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
		CREATE FUNCTION mixed(text) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
		CREATE SCHEMA s; CREATE FUNCTION s.steady(int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'`, two...)
	if err := two[0].Kill(); err != nil {
		t.Fatal(err)
	}
	set := dsn("postgres", two...)
	for sql, class := range map[string]string{
		"SELECT public.steady(1)": "read", "SELECT steady(1)": "write", "SELECT s.steady(1)": "write", "SELECT mixed(1)": "write",
		"SELECT missing(1)": "write", "SELECT public.steady(1); DELETE FROM t": "write",
	} {
		pgdist(t, "classify", "--dsn", set, sql).want(t, statusOK, "class     "+class)
	}
	if err := two[1].Kill(); err != nil {
		t.Fatal(err)
	}
	pgdist(t, "classify", "--dsn", set, "SELECT steady(1)").wantErrors(t, 2, two[0].Addr(), two[1].Addr(), "connection refused")
}
