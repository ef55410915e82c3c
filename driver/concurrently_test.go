package driver

import (
	"context"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// A session that makes an index is lost after the first of its transactions: the
// statement is run again, unseen, and is not in its own way.
func TestIndexConcurrentlyRunAgain(t *testing.T) {
	db, servers := mirrored(t, "")
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	for _, q := range []string{"CREATE TABLE t (n int PRIMARY KEY, v int)", "INSERT INTO t SELECT g, g FROM generate_series(1, 50) g"} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(ctx, "UPDATE t SET v = 0 WHERE n = 1"); err != nil { // the index waits for it
		t.Fatal(err)
	}
	made := make(chan error, 1)
	go func() {
		_, err := db.ExecContext(ctx, "CREATE INDEX CONCURRENTLY made ON t (v)")
		made <- err
	}()
	beside := pgtest.Connect(t, servers[0].DSN())
	for ended := 0; ended == 0; {
		if err := beside.QueryRow(ctx, `SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a WHERE a.query LIKE 'CREATE INDEX CONCURRENTLY made%' AND a.pid <> pg_backend_pid()
			AND EXISTS (SELECT 1 FROM pg_index i WHERE i.indexrelid = to_regclass('made') AND NOT i.indisvalid)`).Scan(&ended); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if err := <-made; err != nil {
		t.Error(err)
	}
	equal(t, servers, "SELECT indexdef, indisvalid FROM pg_indexes, pg_index WHERE indexrelid = indexname::regclass AND tablename = 't' ORDER BY 1", ages)
	if got := contents(t, servers[1], "SELECT count(*) FROM pg_indexes WHERE tablename = 't'"); got != "[[2]]" {
		t.Errorf("%s indexes", got)
	}
}
