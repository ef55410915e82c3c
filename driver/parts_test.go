package driver

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/failpoint"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// endAtCommit ends, at the n-th COMMIT from now on, the server's processes that are in a transaction.
func endAtCommit(t *testing.T, leader *pgtest.Server, n int64) {
	t.Helper()
	admin, err := pgx.Connect(context.Background(), leader.DSN())
	if err != nil {
		t.Fatal(err)
	}
	var passed atomic.Int64
	failpoint.Watch(func(name string) {
		if strings.HasSuffix(name, "COMMIT is about to be sent") && passed.Add(1) == n {
			if _, err := admin.Exec(context.Background(), "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE state = 'idle in transaction'"); err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(func() {
		failpoint.Watch(nil)
		_ = admin.Close(context.Background())
	})
}

// TestPartsAreCommittedOnce has the last COMMIT of a string of several transactions fail, for
// certain: what came before it is not run again.
func TestPartsAreCommittedOnce(t *testing.T) {
	db, servers := mirrored(t, "")
	run(t, db, "CREATE TABLE parts (id int GENERATED ALWAYS AS IDENTITY, a text)")
	for _, c := range []struct {
		sql, code string
		at        int64
		want      string
	}{
		{"INSERT INTO parts (a) VALUES ('one')", "", 1, "one"},
		{"INSERT INTO parts (a) VALUES ('one'); INSERT INTO parts (a) VALUES ('two')", "", 1, "one two"},
		{"INSERT INTO parts (a) VALUES ('one'); COMMIT", "", 1, "one"},
		{"INSERT INTO parts (a) VALUES ('one'); COMMIT; INSERT INTO parts (a) VALUES ('two')", "40001", 2, "one"},
		{"INSERT INTO parts (a) VALUES ('one'); COMMIT; INSERT INTO parts (a) VALUES ('two'); COMMIT", "40001", 2, "one"},
		{"BEGIN; INSERT INTO parts (a) VALUES ('one'); COMMIT; INSERT INTO parts (a) VALUES ('two')", "40001", 2, "one"},
	} {
		run(t, db, "TRUNCATE parts")
		endAtCommit(t, servers[0], c.at)
		_, err := db.Exec(c.sql)
		failpoint.Watch(nil)
		if sqlState(err) != c.code || err != nil && c.code == "" {
			t.Errorf("%s: %v", c.sql, err)
		}
		if got := ask[string](t, db, "SELECT coalesce(string_agg(a, ' ' ORDER BY id), '') FROM parts"); got != c.want {
			t.Errorf("%s: there is %q instead of %q", c.sql, got, c.want)
		}
	}
}
