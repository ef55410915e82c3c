package mirror

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// What two versions write differently and means the same is the same; what differs
// in more is told.
func TestPlainForm(t *testing.T) {
	for _, x := range []struct {
		a, b string
		same bool
	}{
		{" SELECT t.id,\n    t.v\n   FROM s.t;", " SELECT id,\n    v\n   FROM s.t;", true},
		{" SELECT x.id\n   FROM \"S p\".\"T \"\"q\" x\n  WHERE (x.id > 1);", " SELECT id\n   FROM \"S p\".\"T \"\"q\" x\n  WHERE (id > 1);", true},
		{" SELECT t.id\n   FROM ONLY t\n  ORDER BY t.id", " SELECT id\n   FROM ONLY t\n  ORDER BY id", true},
		{" SELECT t.id\n   FROM t;", " SELECT v\n   FROM t;", false},
		{" SELECT t.id\n   FROM (t\n     JOIN u ON ((t.id = u.id)));", " SELECT u.id\n   FROM (t\n     JOIN u ON ((t.id = u.id)));", false},
		{" SELECT t.id\n   FROM t,\n    u;", " SELECT u.id\n   FROM t,\n    u;", false},
		{" SELECT a.x,\n    ( SELECT max(b.y) AS max\n           FROM b\n          WHERE (b.y < a.x)) AS m\n   FROM a;", " SELECT x,\n    ( SELECT max(b.y) AS max\n           FROM b\n          WHERE (b.y < a.x)) AS m\n   FROM a;", true},
		{" SELECT a.x,\n    ( SELECT max(b.y) AS max\n           FROM b\n          WHERE (b.y < a.x)) AS m\n   FROM a;", " SELECT x,\n    ( SELECT max(b.y) AS max\n           FROM b\n          WHERE (b.y < b.x)) AS m\n   FROM a;", false},
		{"DO INSTEAD  UPDATE s.t r SET b = 1", "DO INSTEAD  UPDATE s.t AS r SET b = 1", true}, {"DO INSTEAD  DELETE FROM ONLY t AS \"R\"", "DO INSTEAD  DELETE FROM ONLY t \"R\"", true}, {"SELECT a AS b", "SELECT a b", false},
		{"'x'::text", "'x'", true}, {"'x''y'::character varying", "'x''y'", true}, {"1", "2", false}, {"'1'::integer", "'1'", false},
	} {
		if got := plainForm(x.a) == plainForm(x.b); got != x.same {
			t.Errorf("%q\n%q\nthe same: %v", x.a, x.b, got)
		}
	}
}

// Of definitions of two versions what a server deparses is judged by its plain form,
// all else as it is.
func TestWeigh(t *testing.T) {
	diff := func(name string, attrs ...[3]string) objectDiff {
		d := objectDiff{name: name, here: true, there: true, whole: map[string][2]string{}}
		for _, a := range attrs {
			d.attrs = append(d.attrs, Attribute{Name: a[0]})
			d.whole[a[0]] = [2]string{a[1], a[2]}
		}
		return d
	}
	differ, unclear := weigh([]objectDiff{
		diff("same", [3]string{"query", "SELECT  1", "SELECT 1"}),
		diff("written", [3]string{"query", "SELECT a()", "SELECT b()"}),
		diff("owner", [3]string{"owner", "a", "b"}, [3]string{"query", "SELECT 1", "SELECT 2"}),
		diff("gone", [3]string{"default", "", "1"}),
		diff("body", [3]string{"body", "SELECT 1", "SELECT 2"}),
		{name: "missing", here: true},
	})
	var got []string
	for _, d := range append(differ, objectDiff{name: "|"}) {
		got = append(got, d.name)
	}
	for _, d := range unclear {
		got = append(got, d.name)
	}
	if s := strings.Join(got, " "); s != "owner gone body missing | written owner" {
		t.Error(s)
	}
}

// A script loses from its head what an older server does not know, and nothing else.
func TestForServer(t *testing.T) {
	script := "SET statement_timeout = 0;\nSET transaction_timeout = 0;\nSET x = 1;\n\n--\n-- Name: f; Type: FUNCTION\n--\nCREATE FUNCTION f() AS '\nSET transaction_timeout = 0;\n'"
	if got := forServer(script, 17); got != script {
		t.Error(got)
	}
	if got := forServer(script, 16); got != strings.Replace(script, "SET transaction_timeout = 0;\n", "", 1) {
		t.Error(got)
	}
}

// Memberships of a leader before PostgreSQL 16 become what they were there on a server
// after it, and the other way round, or are refused.
func TestMemberships(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	sql, err := scripts("01", "08")
	if err != nil {
		t.Fatal(err)
	}
	s.Exec(t, "BEGIN; SET client_min_messages = warning; "+sql+"; COMMIT; CREATE ROLE boss")
	c := pgtest.Connect(t, s.DSN())
	var modern bool
	if err := c.QueryRow(t.Context(), `SELECT current_setting('server_version_num')::int >= 160000`).Scan(&modern); err != nil {
		t.Fatal(err)
	}
	const roles = `{"heir": {"options": "NOSUPERUSER INHERIT LOGIN"}, "guest": {"options": "NOSUPERUSER NOINHERIT LOGIN"}}`
	for _, x := range []struct{ before, after, older, newer string }{
		{before: `[["g", "heir", "boss", true, null, null], ["g", "guest", null, false, null, null]]`,
			newer: `[["g", "guest", "postgres", false, false, true], ["g", "heir", "postgres", true, true, true]]`},
		{after: `[["g", "heir", "boss", true, true, true], ["g", "heir", "postgres", false, true, true], ["g", "guest", "boss", false, false, true]]`,
			older: `[["g", "guest", null, false, null, null], ["g", "heir", null, true, null, null]]`},
		{after: `[["made", "heir", "postgres", true, false, false]]`, older: `[]`},
		{after: `[["g", "heir", "boss", false, true, false]]`, older: "no WITH INHERIT and WITH SET"},
		{after: `[["g", "guest", "boss", false, true, true]]`, older: "no WITH INHERIT and WITH SET"},
		{after: `[["g", "heir", "boss", false, false, true]]`, older: "no WITH INHERIT and WITH SET"},
		{before: `[]`, older: `[]`, newer: `[]`},
	} {
		list, want := x.before+x.after, x.newer
		if !modern {
			want = x.older
		}
		if want == "" { // of this server's own kind
			want = list
		}
		var got string
		if err := c.QueryRow(t.Context(), `SELECT pgdist.memberships($1::text::jsonb, $2::text::jsonb)::text`, list, roles).Scan(&got); err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s\ngot  %s\nwant %s", list, got, want)
		}
	}
}

// Of a pg_dump that is older than its server's notes among columns' options only the options are left,
// and what merely looks like it stays.
func TestWithoutInternals(t *testing.T) {
	for _, x := range [][2]string{
		{"ALTER TABLE ONLY public.a ALTER COLUMN x SET (pg_attver=224333624);", ""},
		{"ALTER TABLE ONLY public.\"A \"\"b\" ALTER COLUMN \"pg_attver=1\" SET (pg_attver=224333624, n_distinct=5);", "ALTER TABLE ONLY public.\"A \"\"b\" ALTER COLUMN \"pg_attver=1\" SET (n_distinct=5);"},
		{"ALTER FOREIGN TABLE ONLY s.f ALTER COLUMN y SET (n_distinct=-0.5, pg_attver='7', pg_more=8);", "ALTER FOREIGN TABLE ONLY s.f ALTER COLUMN y SET (n_distinct=-0.5);"},
		{"ALTER TABLE ONLY public.a ALTER COLUMN \"pg_attver=1\" SET (n_distinct=5);", "ALTER TABLE ONLY public.a ALTER COLUMN \"pg_attver=1\" SET (n_distinct=5);"},
		{"CREATE FUNCTION f() AS '\nALTER TABLE ONLY public.z ALTER COLUMN x SET (pg_attver=1);\n';\nALTER TABLE ONLY public.z ALTER COLUMN x SET (pg_attver=1);", "CREATE FUNCTION f() AS '\nALTER TABLE ONLY public.z ALTER COLUMN x SET (pg_attver=1);\n';\n"},
	} {
		frame := "SET x = 1;\n\n--\n-- Name: a; Type: TABLE; Schema: public\n--\n\nCREATE TABLE public.a (x int);\n%s\n%s\nALTER TABLE public.a OWNER TO b;\n"
		first := "ALTER TABLE ONLY public.a ALTER COLUMN \"of all\" SET (pg_attver=99);"
		if got, want := withoutInternals(fmt.Sprintf(frame, first, x[0])), fmt.Sprintf(frame, "", x[1]); got != want {
			t.Errorf("%s:\n%s\ninstead of\n%s", x[0], got, want)
		}
	}
}
