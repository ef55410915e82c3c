package driver

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// Whoever holds a lock on a follower that DDL needs gives way after
// ddl_conflict_timeout: writers go on within a bound, no member is excluded, and
// a read of pgdist's own is run elsewhere unseen, or told why.
func TestReadersGiveWayToDDL(t *testing.T) {
	db, servers := mirrored(t, "&ddl_conflict_timeout=500ms&weights=0,1,1") // reads go to followers
	run(t, db, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE other (id serial PRIMARY KEY)")
	before := viewOf(t, db)
	ctx := context.Background()
	column := 0
	// alter runs DDL and, beside it, writes to another table.
	alter := func(t *testing.T) {
		t.Helper()
		var wg sync.WaitGroup
		stop := make(chan struct{})
		var longest time.Duration
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				began := time.Now()
				if _, err := db.Exec("INSERT INTO other DEFAULT VALUES"); err != nil {
					t.Error(err)
				}
				longest = max(longest, time.Since(began))
			}
		})
		began := time.Now()
		column++
		run(t, db, "ALTER TABLE t ADD COLUMN c"+string(rune('a'+column))+" int")
		took := time.Since(began)
		close(stop)
		wg.Wait()
		if bound := 9 * time.Second; took > bound || longest > bound { // before the reads are over
			t.Errorf("the DDL took %v, the longest write beside it %v", took, longest)
		}
		if after := viewOf(t, db); after != before {
			t.Errorf("the view changed from epoch %d to %d", before, after)
		}
	}
	reads := func(t *testing.T, n int) {
		t.Helper()
		deadline := time.Now().Add(ages)
		for {
			got := 0
			for _, s := range servers[1:] {
				var k int
				if err := pgtest.Connect(t, s.DSN()).QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%/* long */%' AND state <> 'idle'`).Scan(&k); err != nil {
					t.Fatal(err)
				}
				got += k
			}
			if got >= n {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d readers on the followers", got, n)
			}
		}
	}
	clear := func(t *testing.T, err error) {
		t.Helper()
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "40001" || pe.Severity != "ERROR" || !strings.Contains(pe.Hint, "ddl_conflict_timeout") {
			t.Errorf("what the client hears: %v", err)
		}
	}

	t.Run("statement", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 4 { // two on each
			wg.Go(func() {
				var n int
				if err := db.QueryRow("SELECT count(*) /* long */ FROM t, pg_sleep(10)").Scan(&n); err != nil || n != 1 {
					t.Errorf("the read: %d %v", n, err)
				}
			})
		}
		reads(t, 4)
		alter(t)
		wg.Wait()
	})
	t.Run("rows on their way", func(t *testing.T) {
		rows, err := db.Query("SELECT g, repeat('x', 1000) /* long */ FROM t, generate_series(1, 200000) g")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		rows.Next()
		reads(t, 1)
		alter(t)
		for rows.Next() {
		}
		clear(t, rows.Err())
	})
	t.Run("snapshot in use", func(t *testing.T) {
		conn, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		tx, err := conn.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if err := tx.QueryRow("SELECT count(*) /* long */ FROM t").Scan(&n); err != nil {
			t.Fatal(err)
		}
		reads(t, 1)
		alter(t)
		clear(t, tx.QueryRow("SELECT count(*) FROM t").Scan(&n))
		_ = tx.Rollback() // it is gone
		run(t, conn, "SELECT 1")
	})
	t.Run("statement within a snapshot", func(t *testing.T) {
		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			var n int
			done <- tx.QueryRow("SELECT count(*) /* long */ FROM t, pg_sleep(20)").Scan(&n)
		}()
		reads(t, 1)
		alter(t)
		clear(t, <-done)
		_ = tx.Rollback()
	})
	t.Run("idle in transaction", func(t *testing.T) {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if err := tx.QueryRow("SELECT count(*) /* long */ FROM t").Scan(&n); err != nil {
			t.Fatal(err)
		}
		reads(t, 1)
		alter(t)
		// READ COMMITTED: the next statement's snapshot is its own, wherever it runs.
		if err := tx.QueryRow("SELECT count(*) FROM t").Scan(&n); err != nil || n != 1 {
			t.Errorf("after it: %d %v", n, err)
		}
		run(t, tx, "INSERT INTO other DEFAULT VALUES")
		if err := tx.Commit(); err != nil {
			t.Error(err)
		}
	})
	t.Run("by hand", func(t *testing.T) {
		busy, idle := pgtest.Connect(t, servers[1].DSN()), pgtest.Connect(t, servers[2].DSN())
		if _, err := idle.Exec(ctx, "BEGIN; SELECT 1 /* long */ FROM t"); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := busy.Exec(ctx, "SELECT 1 /* long */ FROM t, pg_sleep(20)")
			done <- err
		}()
		reads(t, 2)
		alter(t)
		if err := <-done; sqlState(err) != "57014" {
			t.Errorf("the statement: %v", err)
		}
		if _, err := busy.Exec(ctx, "SELECT 1"); err != nil {
			t.Errorf("its session is lost: %v", err)
		}
		if _, err := idle.Exec(ctx, "SELECT 1"); err == nil {
			t.Error("an idle transaction still has its lock")
		}
	})
	equal(t, servers, "SELECT * FROM t", 0)
}

// viewOf is the epoch of the view that the driver goes by.
func viewOf(t *testing.T, db *sql.DB) (epoch int64) {
	t.Helper()
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Raw(func(c any) error {
		epoch = c.(*Conn).e.View().Epoch
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return epoch
}
