package driver

import (
	"context"
	"database/sql"
	"testing"
)

// TestConstantsInPreparedStatements: pgx prepares a text once for each connection, and the server
// reads its constants then. Sessions with other settings, which use the connection in turns,
// must not be served by that.
func TestConstantsInPreparedStatements(t *testing.T) {
	db, _ := mirrored(t, "&pool_size=1")
	ctx := context.Background()
	run(t, db, "CREATE TABLE moments (id serial PRIMARY KEY, at timestamptz)")
	const midnight = "INSERT INTO moments (at) VALUES ('2020-01-01 00:00') RETURNING extract(epoch FROM at)::int8::text"
	const tokyo, utc = "1577804400", "1577836800"
	conns := make([]*sql.Conn, 2)
	for i := range conns {
		conn, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		conns[i] = conn
	}
	a, b := conns[0], conns[1]
	exec := func(conn *sql.Conn, text string) {
		t.Helper()
		if _, err := conn.ExecContext(ctx, text); err != nil {
			t.Fatal(text, err)
		}
	}
	same := func(conn *sql.Conn, want string) {
		t.Helper()
		var got string
		if err := conn.QueryRowContext(ctx, midnight).Scan(&got); err != nil || got != want {
			t.Errorf("%s, want %s (%v)", got, want, err)
		}
	}
	exec(b, "SET TimeZone = 'UTC'")
	same(b, utc)
	exec(a, "SET TimeZone = 'Asia/Tokyo'")
	for range 3 {
		same(a, tokyo)
		same(b, utc)
	}
	exec(a, "RESET TimeZone; SET TimeZone = 'UTC'")
	same(a, utc)
	for _, set := range []string{"SET LOCAL TimeZone = 'Asia/Tokyo'", "SET TimeZone = 'Asia/Tokyo'", "SELECT set_config('TimeZone', 'Asia/Tokyo', true)"} {
		exec(a, "BEGIN")
		exec(a, set)
		same(a, tokyo)
		exec(a, "ROLLBACK")
		same(b, utc)
		same(a, utc)
		exec(a, "BEGIN")
		exec(a, "SAVEPOINT s")
		exec(a, set)
		same(a, tokyo)
		exec(a, "ROLLBACK TO s")
		exec(a, "COMMIT")
		same(b, utc)
	}
}
