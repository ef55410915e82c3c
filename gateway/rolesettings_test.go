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
