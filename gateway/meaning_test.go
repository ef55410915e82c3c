package gateway

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestConstantsInPreparedStatements: a server reads a constant when it prepares a statement, so
// clients with other settings must not share what it has prepared.
func TestConstantsInPreparedStatements(t *testing.T) {
	s := newSet(t, func(c *Config) { c.DSN += "&pool_size=1" })
	const midnight, tokyo, utc = "SELECT extract(epoch FROM '2020-01-01 00:00'::timestamptz)::int8::text", "1577804400", "1577836800"
	run := func(t *testing.T, conn *pgx.Conn, name, want string) {
		t.Helper()
		r := conn.PgConn().ExecPrepared(context.Background(), name, nil, nil, nil).Read()
		if r.Err != nil || len(r.Rows) != 1 || string(r.Rows[0][0]) != want {
			t.Errorf("%s, %v; want %s", r.Rows, r.Err, want)
		}
	}
	prepare := func(t *testing.T, conn *pgx.Conn, name, sql string) {
		t.Helper()
		if _, err := conn.PgConn().Prepare(context.Background(), name, sql, nil); err != nil {
			t.Fatal(err)
		}
	}
	execute(t, connect(t, s.url("")), "CREATE TABLE moments (id serial PRIMARY KEY, at timestamptz)")
	const insert = "INSERT INTO moments (at) VALUES ('2020-01-01 00:00') RETURNING extract(epoch FROM at)::int8::text"
	for _, sql := range []string{midnight, insert} {
		t.Run("two clients, "+sql[:6], func(t *testing.T) {
			a, b := connect(t, s.url("&timezone=Asia/Tokyo")), connect(t, s.url("&timezone=UTC"))
			prepare(t, a, "s", sql)
			prepare(t, b, "s", sql)
			for range 3 {
				run(t, a, "s", tokyo)
				run(t, b, "s", utc)
			}
		})
	}
	t.Run("set later", func(t *testing.T) {
		a, b := connect(t, s.url("&timezone=UTC")), connect(t, s.url("&timezone=UTC"))
		prepare(t, a, "s", insert+" AS later") // outside a transaction on a connection for reads
		execute(t, a, "SET TimeZone = 'Asia/Tokyo'")
		if r := a.PgConn().ExecPrepared(context.Background(), "s", nil, nil, nil).Read(); r.Err != nil {
			t.Error(r.Err)
		}
		prepare(t, b, "s", insert+" AS later")
		run(t, b, "s", utc)
	})
	t.Run("set locally", func(t *testing.T) {
		a, b := connect(t, s.url("&timezone=UTC")), connect(t, s.url("&timezone=UTC"))
		for _, set := range []string{"SET LOCAL TimeZone = 'Asia/Tokyo'", "SELECT set_config('TimeZone', 'Asia/Tokyo', true)"} {
			sql := insert + fmt.Sprintf(" AS local%d", len(set))
			execute(t, a, "BEGIN")
			execute(t, a, set)
			prepare(t, a, sql, sql)
			run(t, a, sql, tokyo)
			execute(t, a, "COMMIT")
			prepare(t, b, sql, sql)
			run(t, b, sql, utc)
		}
	})
	t.Run("encodings", func(t *testing.T) {
		a, b := connect(t, s.url("&client_encoding=LATIN1")), connect(t, s.url(""))
		const sql = "SELECT length('ä')::text"
		prepare(t, a, "s", sql)
		prepare(t, b, "s", sql)
		for range 3 {
			run(t, a, "s", "2")
			run(t, b, "s", "1")
		}
	})
}
