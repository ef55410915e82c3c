package driver

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// TestStringsNotUnderstood: transaction control in strings of statements that are too long to
// be judged is followed all the same.
func TestStringsNotUnderstood(t *testing.T) {
	db, servers := mirrored(t, "")
	run(t, db, "CREATE TABLE s (id int PRIMARY KEY)")
	long := "; /* " + strings.Repeat("x", 4<<20) + " */"
	ctx := context.Background()
	for _, c := range []struct {
		name string
		run  []string // each after the SQLSTATE that it is to fail with, if it is
		want string
	}{
		{"left open", []string{"INSERT INTO s VALUES (1); BEGIN; INSERT INTO s VALUES (2)" + long, "INSERT INTO s VALUES (3)", "COMMIT", "INSERT INTO s VALUES (4)"}, "1,2,3,4"},
		{"left open and rolled back", []string{"INSERT INTO s VALUES (1); COMMIT; BEGIN; INSERT INTO s VALUES (2)" + long, "INSERT INTO s VALUES (3)", "ROLLBACK", "INSERT INTO s VALUES (4)"}, "1,4"},
		{"ended", []string{"BEGIN", "INSERT INTO s VALUES (1)", "INSERT INTO s VALUES (2); COMMIT" + long, "INSERT INTO s VALUES (3)", "ROLLBACK"}, "1,2,3"},
		{"rolled back", []string{"BEGIN", "INSERT INTO s VALUES (1)", "INSERT INTO s VALUES (2); ROLLBACK" + long, "INSERT INTO s VALUES (3)", "COMMIT"}, "3"},
		{"ended and begun", []string{"BEGIN", "INSERT INTO s VALUES (1)", "COMMIT; BEGIN; INSERT INTO s VALUES (2)" + long, "ROLLBACK", "INSERT INTO s VALUES (3)"}, "1,3"},
		{"failed", []string{"22012 BEGIN; INSERT INTO s VALUES (1); SELECT 1/0" + long, "25P02 INSERT INTO s VALUES (2)", "ROLLBACK", "INSERT INTO s VALUES (3)"}, "3"},
		{"failed after its end", []string{"BEGIN", "INSERT INTO s VALUES (1)", "22012 COMMIT; SELECT 1/0" + long, "INSERT INTO s VALUES (3)"}, "1,3"},
		{"failed within it", []string{"BEGIN", "INSERT INTO s VALUES (1)", "22012 INSERT INTO s VALUES (2); SELECT 1/0" + long, "25P02 SELECT 1", "ROLLBACK", "INSERT INTO s VALUES (3)"}, "3"},
	} {
		run(t, db, "TRUNCATE s")
		conn, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i, sql := range c.run {
			want := ""
			if first, rest, _ := strings.Cut(sql, " "); len(first) == 5 && strings.ContainsAny(first, "0123456789") {
				want, sql = first, rest
			}
			if _, err := conn.ExecContext(ctx, sql); sqlState(err) != want {
				t.Errorf("%s, statement %d: %v", c.name, i, err)
			}
		}
		ids := func(q interface {
			QueryRowContext(context.Context, string, ...any) *sql.Row
		}) (got string) {
			if err := q.QueryRowContext(ctx, "SELECT string_agg(id::text, ',' ORDER BY id) FROM s").Scan(&got); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			return got
		}
		if got := ids(conn); got != c.want {
			t.Errorf("%s: rows %s, not %s", c.name, got, c.want)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		for range 6 { // wherever they are read
			if got := ids(db); got != c.want {
				t.Errorf("%s: rows %s for others, not %s", c.name, got, c.want)
			}
		}
	}
	pgtest.SameBytes(t, servers...)
}
