package mirror

import (
	"fmt"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// fewLocks leave a server room for 440 locks, and some more that it has to spare.
var fewLocks = pgtest.Options{Settings: map[string]string{
	"max_locks_per_transaction": "10", "max_connections": "40", "max_wal_senders": "0", "max_worker_processes": "1", "autovacuum_max_workers": "1"}}

// TestMoreDDLThanLocks: a member that missed more DDL than its server has locks for in one
// transaction is copied afresh.
func TestMoreDDLThanLocks(t *testing.T) {
	soon(t)
	r := newRigOn(t, 3, fewLocks, "")
	// Each with a sequence, and a table and an index for its long values.
	ten := func(first int) string {
		return fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP
			EXECUTE format('CREATE TABLE t%%s (k serial, v text)', i); EXECUTE format('INSERT INTO t%%s (v) VALUES (''x'')', i); END LOOP; END $$`, first, first+9)
	}
	r.cfg.AutoResync = true
	r.open()
	if err := r.server(3).Kill(); err != nil {
		t.Fatal(err)
	}
	r.inSync(2)
	c := r.client()
	for i := 0; i < 50; i += 10 {
		r.do(c, ten(i))
	}
	r.set.Close()
	if err := r.server(3).StartAgain(); err != nil {
		t.Fatal(err)
	}
	// Others take what locks there are, but for those of a few tables.
	others := pgtest.Connect(t, r.server(3).DSN("template1"))
	for {
		if _, err := others.Exec(r.ctx(), `SELECT pg_advisory_lock(nextval('pg_temp.taken')) FROM generate_series(1, 50)`); err == nil {
			continue
		} else if sqlState(err) == "53200" {
			break
		} else if _, err := others.Exec(r.ctx(), `CREATE TEMPORARY SEQUENCE taken`); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := others.Exec(r.ctx(), `SELECT pg_advisory_unlock(i) FROM generate_series(1, 200) i`); err != nil {
		t.Fatal(err)
	}
	r.open()
	r.await("the member lost its place", func() bool { return r.set.members.get(3).note.Load().Text == textLost })
	if err := others.Close(r.ctx()); err != nil {
		t.Error(err)
	}
	r.inSync(3)
	r.same()

	c = r.client()
	// Sequences that no flush could read are not made.
	if _, err := c.Exec(r.ctx(), `DO $$ BEGIN FOR i IN 1..320 LOOP EXECUTE 'CREATE SEQUENCE s' || i; END LOOP; END $$`); sqlState(err) != "53400" {
		t.Error(err)
	}
	r.do(c, `DO $$ BEGIN EXECUTE 'CREATE SEQUENCE s'; END $$`)
	r.same()
}

// TestMoreDefinitionsThanLocks: a script of definitions that needs more locks than there are is
// run piece by piece, and again if it is not known how far that came.
func TestMoreDefinitionsThanLocks(t *testing.T) {
	r := newRigOn(t, 1, fewLocks, "")
	r.open()
	cfg := r.set.members.get(1).cfg.Copy()
	r.server(1).Exec(t, `CREATE DATABASE other`)
	cfg.Database = "other"
	script := "SET search_path = public;\n"
	for i := range 400 {
		script += fmt.Sprintf("CREATE TABLE t%d (k int, v text CHECK (v <> ';\n--')); -- ;\n", i)
	}
	copying := &resync{target: &member{id: 1, cfg: cfg}, attempt: "this one"}
	if _, err := pgtest.Connect(t, r.server(1).DSN("other")).Exec(r.ctx(), "CREATE SCHEMA pgdist;"+attemptSQL+"("+quoteLiteral(copying.attempt)+")"); err != nil {
		t.Fatal(err)
	}
	if err := copying.restore(r.ctx(), script, "test", false); err != nil {
		t.Fatal(err)
	}
	if err := copying.restore(r.ctx(), script, "test", false); sqlState(err) != "42P07" {
		t.Error(err)
	}
	if err := copying.restore(r.ctx(), script+"CREATE TABLE last (k int)", "test", true); err != nil {
		t.Error(err)
	}
	var n int
	if err := pgtest.Connect(t, r.server(1).DSN("other")).QueryRow(r.ctx(), `SELECT count(*) FROM pg_tables WHERE schemaname = 'public'`).Scan(&n); err != nil || n != 401 {
		t.Errorf("%d tables, %v", n, err)
	}
}

// TestUninstallWithFewLocks: what takes more locks to drop than a server has is dropped piece by piece.
func TestUninstallWithFewLocks(t *testing.T) {
	schema := ""
	for i := range 60 {
		schema += fmt.Sprintf("CREATE TABLE t%d (k serial PRIMARY KEY, v text);", i)
	}
	r := newRigOn(t, 2, fewLocks, schema)
	r.open()
	r.do(r.client(), `INSERT INTO t7 (v) VALUES ('x')`)
	r.set.Close()
	c, err := dial(r.ctx(), r.cfg.Members[0].Conn, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.exec(r.ctx(), deafSQL+dropSQL); sqlState(err) != "53200" {
		t.Fatalf("the case is none: %v", err)
	}
	c.close()
	for range 2 { // and nothing is to be done the second time
		if err := Uninstall(r.ctx(), r.cfg, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range r.servers {
		var n int
		err := pgtest.Connect(t, s.DSN()).QueryRow(r.ctx(), traces).Scan(&n)
		if err != nil || n != 0 {
			t.Fatalf("%d objects are left: %v", n, err)
		}
	}
}
