//go:build unix

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// databases makes a database of the name on each server.
func databases(t *testing.T, name, options string, servers ...*pgtest.Server) {
	t.Helper()
	for _, s := range servers {
		on(t, s, "postgres", fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0 %s", name, options))
	}
}

func TestInit(t *testing.T) {
	three := pgtest.Set(t, 3, pgtest.Options{})
	everywhere(t, "postgres", schema, three...)
	set := dsn("postgres", three...)

	t.Run("installs, says who leads, and shows progress apart from the answer", func(t *testing.T) {
		r := pgdist(t, "init", "--leader", three[1].Addr(), set)
		r.want(t, statusOK, "checking "+three[2].Addr(), "comparing contents")
		if strings.Contains(r.out, "checking") {
			t.Error("progress on standard output")
		}
		for i, s := range three {
			role := "follower"
			if i == 1 {
				role = "leader"
			}
			if line := fmt.Sprintf("%d       %s  %s", i+1, s.Addr(), role); !strings.Contains(r.out, line) {
				t.Errorf("%q is missing in\n%s", line, r.out)
			}
		}
		pgdist(t, "status", set).want(t, statusOK, "leader")
		pgdist(t, "verify", set).want(t, statusOK, "equal: ", "2 tables, 101 rows each")
	})
	t.Run("a second time", func(t *testing.T) {
		pgdist(t, "init", set).wantErrors(t, 1, "the databases are set", "already", "pgdist uninstall")
	})
	t.Run("with one that is new among them", func(t *testing.T) {
		on(t, three[2], "postgres", `DROP EVENT TRIGGER "!pgdist_start"; DROP EVENT TRIGGER "!pgdist_ddl"; DROP EVENT TRIGGER "!pgdist_as"; DROP EVENT TRIGGER "!pgdist_drop"; DROP EVENT TRIGGER "!pgdist_rewrite"; DROP SCHEMA pgdist CASCADE`)
		pgdist(t, "init", set).wantErrors(t, 2, three[0].Addr(), three[1].Addr(), "belongs to set", "pgdist uninstall")
	})
	t.Run("an even number of members", func(t *testing.T) {
		databases(t, "two", "", three[:2]...)
		pgdist(t, "init", dsn("two", three[:2]...)).want(t, statusOK, three[0].Addr()+" has the casting vote")
	})
}

// What keeps databases from becoming a set is named, for each of them, and
// leaves them as they were.
func TestInitRefuses(t *testing.T) {
	two := pgtest.Set(t, 2, pgtest.Options{})
	a, b := two[0].Addr(), two[1].Addr()
	everywhere(t, "postgres", "CREATE ROLE plain LOGIN", two...)
	on(t, two[0], "postgres", "CREATE ROLE only_here LOGIN")
	cases := []struct {
		name string
		// encodings of the two databases; sql that runs in each and in the second
		first, second, both, tamper string
		user                        string
		flags                       []string
		lines                       int
		want                        []string
	}{
		{name: "rows", both: schema, tamper: "UPDATE t SET v = 'tampered' WHERE id = 7", lines: 1,
			want: []string{b, "differ from the leader's", "table public.t has other contents", "pg_dump"}},
		{name: "counts", both: schema, tamper: "DELETE FROM t WHERE id > 90", lines: 1, want: []string{b, "table public.t has 90 rows instead of 100"}},
		{name: "sequence", both: schema, tamper: "SELECT nextval('s_id_seq')", lines: 1, want: []string{b, "sequence public.s_id_seq is at 2,true instead of 1,true"}},
		{name: "schema", both: schema, tamper: "CREATE INDEX more ON t (v)", lines: 1, want: []string{b, "index public.more is not on the leader"}},
		{name: "column", both: schema, tamper: "ALTER TABLE t ALTER v SET DEFAULT 'x'", lines: 1, want: []string{b, "table column public.t.v is defined differently: default: 'x'::text instead of none"}},
		{name: "missing", both: "", tamper: "CREATE TABLE extra ()", lines: 1, want: []string{b, "table public.extra is not on the leader"}},
		{name: "encoding", first: "ENCODING 'UTF8' LOCALE 'C'", second: "ENCODING 'LATIN1' LOCALE 'C'", lines: 1,
			want: []string{b, "encoding and locale LATIN1 C C", "UTF8 C C", "equal settings"}},
		{name: "locale", first: "LOCALE 'C'", second: "LOCALE 'C.UTF-8'", lines: 1, want: []string{b, "UTF8 C.UTF-8", "UTF8 C C"}},
		{name: "extension", tamper: "DROP EXTENSION plpgsql", lines: 1, want: []string{b, "extensions [] differ from the leader's [plpgsql 1.0]"}},
		{name: "nosuper", user: "plain", lines: 2, want: []string{a, b, "role plain is not a superuser", "mirror_user"}},
		{name: "norole", flags: []string{"--mirror-user", "only_here"}, lines: 1, want: []string{b, "role only_here does not exist", "CREATE ROLE"}},
		{name: "noleader", flags: []string{"--leader", "elsewhere:1"}, lines: 1, want: []string{"elsewhere:1 is none of the hosts named", "host:port"}},
		{name: "large", both: "SELECT lo_from_bytea(0, 'x')", lines: 2, want: []string{a, b, "1 large objects", "bytea"}},
		{name: "force", both: "CREATE TABLE u (id int PRIMARY KEY); ALTER TABLE u FORCE ROW LEVEL SECURITY", lines: 1, want: []string{"public.u", "FORCE ROW LEVEL SECURITY", "NO FORCE"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			name := "init_" + c.name
			if c.second == "" {
				c.second = c.first
			}
			databases(t, name, c.first, two[0])
			databases(t, name, c.second, two[1])
			everywhere(t, name, c.both, two...)
			if c.tamper != "" {
				on(t, two[1], name, c.tamper)
			}
			user := "postgres"
			if c.user != "" {
				user = c.user
			}
			args := append([]string{"init", dsnAs(user, name, two...)}, c.flags...)
			pgdist(t, args...).wantErrors(t, c.lines, c.want...)
			for _, s := range two {
				if dump := dumpOf(t, s, name); strings.Contains(dump, "pgdist") {
					t.Errorf("something was left on %s:\n%s", s.Addr(), dump)
				}
			}
		})
	}
}
