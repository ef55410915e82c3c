package driver

import (
	"context"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// A write that was committed on the leader, and whose acknowledgement did not come in
// time, says nothing about what its connection does next: found by its trace, it was
// once taken for a later transaction, which was lost and reported as committed.
func TestLostCommitAfterUnacknowledgedWrite(t *testing.T) {
	db, servers := mirrored(t, "")
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	if _, err := db.ExecContext(ctx, "CREATE TABLE t (n int PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	each := func(f func(*pgtest.Server) error) {
		for _, s := range servers[1:] {
			if err := f(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	each((*pgtest.Server).SigStop)
	soon, over := context.WithCancel(ctx)
	wrote := make(chan error, 1)
	go func() {
		_, err := db.ExecContext(soon, "INSERT INTO t VALUES (1)")
		wrote <- err
	}()
	for contents(t, servers[0], "SELECT n FROM t") == "[]" && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	over()
	if err := <-wrote; err == nil {
		t.Error("a write was acknowledged that no follower has")
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if err := tx.QueryRowContext(ctx, "INSERT INTO t VALUES (2) RETURNING pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	if _, err := pgtest.Connect(t, servers[0].DSN()).Exec(ctx, "SELECT pg_terminate_backend($1)", pid); err != nil {
		t.Fatal(err)
	}
	each((*pgtest.Server).SigCont)
	if err := tx.Commit(); err == nil {
		t.Error("a transaction whose backend had been ended was reported as committed")
	}
	if err := db.PingContext(ctx); err != nil {
		t.Fatal(err)
	}
	equal(t, servers, "SELECT n FROM t", ages)
	if got := contents(t, servers[0], "SELECT n FROM t"); got != "[[1]]" {
		t.Errorf("the table holds %s", got)
	}
}
