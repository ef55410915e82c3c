package gateway

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestRoleSettings changes what a role and the database have set for new sessions: these have it,
// whichever connections their statements run on, also those of another gateway.
func TestRoleSettings(t *testing.T) {
	s := newSet(t, nil)
	ctx := context.Background()
	admin := connect(t, s.url(""))
	execute(t, admin, "CREATE USER app; CREATE SCHEMA one; CREATE SCHEMA two; GRANT USAGE ON SCHEMA one, two TO app")
	for _, schema := range []string{"one", "two"} {
		execute(t, admin, fmt.Sprintf("CREATE TABLE %s.here (name text PRIMARY KEY); INSERT INTO %[1]s.here VALUES ('%[1]s'); GRANT SELECT, UPDATE ON %[1]s.here TO app", schema))
	}
	other := *s
	other.serve(t, nil)
	// wrong tells what a new session finds that is not as it should be.
	wrong := func(g *set, zone, schema string) string {
		conn, err := pgx.Connect(ctx, g.urlOf("app", "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		if got := conn.PgConn().ParameterStatus("TimeZone"); got != zone {
			return "told TimeZone " + got
		}
		for range 12 {
			for _, q := range []string{"SELECT current_setting('TimeZone') || ' ' || name FROM here", "UPDATE here SET name = name RETURNING current_setting('TimeZone') || ' ' || name"} {
				var got string
				if err := conn.QueryRow(ctx, q, pgx.QueryExecModeSimpleProtocol).Scan(&got); err != nil || got != zone+" "+schema {
					return fmt.Sprint(q, ": ", got, err)
				}
			}
		}
		return ""
	}
	change := func(zone, schema string) {
		t.Helper()
		execute(t, admin, "ALTER ROLE app SET timezone = '"+zone+"'")
		execute(t, admin, "BEGIN; ALTER DATABASE postgres SET search_path = "+schema+", public; COMMIT")
	}
	for i := range 4 {
		zone, schema := []string{"Asia/Tokyo", "Europe/Vienna"}[i%2], []string{"one", "two"}[i%2]
		change(zone, schema)
		if got := wrong(s, zone, schema); got != "" {
			t.Fatalf("round %d: %s", i, got)
		}
	}
	eventually(t, func() bool { return wrong(&other, "Europe/Vienna", "two") == "" })
	execute(t, admin, "DO $$ BEGIN ALTER ROLE app SET timezone = 'Asia/Tokyo'; END $$")
	eventually(t, func() bool { return wrong(s, "Asia/Tokyo", "two") == "" })
	execute(t, admin, "ALTER DATABASE postgres RESET search_path")
}

// TestNameOfAnother has a role dropped, or renamed, and another made under its name: who logs in by
// that name is the new one, whichever connections there were, also those of another gateway.
func TestNameOfAnother(t *testing.T) {
	s := newSet(t, nil)
	ctx := context.Background()
	admin := connect(t, s.url(""))
	other := *s
	other.serve(t, nil)
	execute(t, admin, "CREATE TABLE hers (id int PRIMARY KEY)")
	// who tells as whom a client of that name reads and writes.
	who := func(g *set) (as string) {
		conn, err := pgx.Connect(ctx, g.urlOf("app", "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		for _, q := range []string{"SELECT %s", "WITH w AS (DELETE FROM own) SELECT %s"} {
			var one string
			if err := conn.QueryRow(ctx, fmt.Sprintf(q, "session_user || has_table_privilege('hers', 'SELECT')"), pgx.QueryExecModeSimpleProtocol).Scan(&one); err != nil {
				one = code(err)
			}
			as += one + " "
		}
		return as
	}
	create := func() {
		t.Helper()
		execute(t, admin, "CREATE USER app; CREATE TABLE IF NOT EXISTS own (id int PRIMARY KEY); GRANT SELECT, DELETE ON own TO app")
	}
	create()
	for round, leave := range []string{
		"GRANT SELECT ON hers TO app; ALTER ROLE app RENAME TO former", "DROP OWNED BY app; DROP USER app",
		"DO $$ BEGIN DROP OWNED BY app; DROP USER app; END $$", "DO $$ BEGIN GRANT SELECT ON hers TO app; ALTER ROLE app RENAME TO earlier; END $$",
	} {
		const fresh = "appfalse appfalse "
		for _, g := range []*set{s, &other} {
			eventually(t, func() bool { return who(g) == fresh })
		}
		execute(t, admin, leave)
		create()
		if got := who(s); round < 2 && got != fresh {
			t.Errorf("after %s: %q", leave, got)
		}
		for _, g := range []*set{s, &other} {
			eventually(t, func() bool { return who(g) == fresh })
		}
	}
}
