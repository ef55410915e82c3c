package driver

import (
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// TestChecksThatPassed: what a CHECK says depends on chance or the clock; the
// leader's rows passed it, and that is that, also for a database that comes to
// see them later.
func TestChecksThatPassed(t *testing.T) {
	db, servers := mirrored(t, "")
	run(t, db, `CREATE TABLE luck (id int PRIMARY KEY, CONSTRAINT fair CHECK (random() < 0.5));
		CREATE TABLE lease (k int, until timestamptz, CHECK (until > clock_timestamp()), CONSTRAINT two CHECK (until > CURRENT_TIMESTAMP)) PARTITION BY RANGE (k);
		CREATE TABLE lease_1 PARTITION OF lease DEFAULT; COMMENT ON CONSTRAINT two ON lease IS 'said'`)
	for i := range 12 {
		if _, err := db.Exec("INSERT INTO luck VALUES ($1)", i); err != nil && sqlState(err) != "23514" {
			t.Error(err)
		}
	}
	pgtest.SameBytes(t, servers...)
	if err := servers[2].Kill(); err != nil {
		t.Fatal(err)
	}
	run(t, db, "INSERT INTO lease SELECT g, now() + '3 s' FROM generate_series(1, 5) g")
	for ask[bool](t, db, "SELECT now() < max(until) FROM lease") {
		time.Sleep(50 * time.Millisecond)
	}
	if err := servers[2].StartAgain(); err != nil {
		t.Fatal(err)
	}
	equal(t, servers, "SELECT k, until FROM lease ORDER BY 1", ages)
	pgtest.SameBytes(t, servers...)
}

// TestLastvalIsTheClients: what capture does must not show in the session.
func TestLastvalIsTheClients(t *testing.T) {
	db, _ := mirrored(t, "")
	run(t, db, "CREATE TABLE s (id serial PRIMARY KEY, v int); CREATE TABLE keyless (v int)")
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // ErrTxDone
	run(t, tx, "INSERT INTO s (v) SELECT generate_series(1, 2500)")
	run(t, tx, "UPDATE s SET v = 0")
	run(t, tx, "INSERT INTO keyless VALUES (1)")
	run(t, tx, "ALTER TABLE keyless ADD w int")
	if got := ask[int](t, tx, "SELECT lastval()"); got != 2500 {
		t.Errorf("lastval() is %d", got)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}
