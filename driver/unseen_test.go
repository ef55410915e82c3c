package driver

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// TestDDLUnseen: EXPLAIN ANALYZE makes the table that it explains, by itself or within a
// function, and no event trigger is told of it: when it is answered, all servers have it.
func TestDDLUnseen(t *testing.T) {
	db, servers := mirrored(t, "")
	run(t, db, `CREATE TABLE src (k int PRIMARY KEY, v text); INSERT INTO src SELECT g, 'v' || g FROM generate_series(1, 50) g; CREATE TABLE trig (k int);
		CREATE FUNCTION does(what text) RETURNS SETOF text LANGUAGE plpgsql AS $$ DECLARE s text; BEGIN FOR s IN EXECUTE what LOOP RETURN NEXT s; END LOOP; END $$`)
	unseen(t, db, servers, `SELECT does('EXPLAIN ANALYZE CREATE TABLE a AS SELECT k, random() AS r FROM src')`)
	run(t, db, `CREATE FUNCTION by_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'EXPLAIN ANALYZE CREATE TABLE a AS SELECT k, random() AS r FROM src'; RETURN NULL; END $$;
		CREATE TRIGGER explains AFTER INSERT ON trig FOR EACH ROW EXECUTE FUNCTION by_trigger();
		CREATE FUNCTION explain(what text) RETURNS SETOF text LANGUAGE plpgsql AS $$ DECLARE s text; BEGIN FOR s IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF) ' || what LOOP RETURN NEXT s; END LOOP; END $$`)
	unseen(t, db, servers,
		`EXPLAIN ANALYZE CREATE TABLE a AS SELECT k, random() AS r FROM src`,
		`EXPLAIN (ANALYZE, COSTS OFF) SELECT k, random() AS r INTO a FROM src`,
		`SELECT explain('CREATE TABLE a AS SELECT k, random() AS r FROM src')`,
		`DO $$ BEGIN EXECUTE 'EXPLAIN ANALYZE CREATE TABLE a AS SELECT k, random() AS r FROM src'; END $$`,
		`INSERT INTO trig VALUES (1)`,
		`BEGIN; EXPLAIN ANALYZE CREATE TABLE a AS SELECT k, random() AS r FROM src; UPDATE a SET r = 7 WHERE k = 7; COMMIT`,
	)
	var plan string
	if err := db.QueryRow(`EXPLAIN ANALYZE CREATE TABLE a AS SELECT k FROM src`).Scan(&plan); err != nil || !strings.Contains(plan, "actual time") {
		t.Errorf("the plan is %q: %v", plan, err)
	}
	run(t, db, `DROP TABLE a`)
	run(t, db, `BEGIN; EXPLAIN ANALYZE CREATE TABLE a AS SELECT k FROM src; ROLLBACK`)
	run(t, db, `CREATE TABLE a (k int)`)
	pgtest.SameBytes(t, servers...)
}

// unseen runs statements that make table a, and has it used and dropped.
func unseen(t *testing.T, db *sql.DB, servers []*pgtest.Server, statements ...string) {
	t.Helper()
	for _, make := range statements {
		run(t, db, make)
		for i, s := range servers {
			if got := contents(t, s, `SELECT count(*) FROM a`); got != "[[50]]" {
				t.Errorf("%s: server %d has %s", make, i, got)
			}
		}
		run(t, db, `INSERT INTO a VALUES (0, 0); DELETE FROM a WHERE k = 1; ALTER TABLE a ADD PRIMARY KEY (k)`)
		pgtest.SameBytes(t, servers...)
		run(t, db, `DROP TABLE a`)
	}
}
