package mirror

import (
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

const unseenSource = `CREATE TABLE src (id int PRIMARY KEY, v text); INSERT INTO src SELECT g, 'v' || g FROM generate_series(1, 100) g`

// What EXPLAIN ANALYZE makes within a function no event trigger is told of. The flush that
// answers whoever made it takes it up.
func TestDDLUnseenIsTakenUp(t *testing.T) {
	r := newRig(t, 3, unseenSource)
	epoch := r.set.View().Epoch
	c := r.client()
	r.do(c, `DO $$ BEGIN EXECUTE 'EXPLAIN ANALYZE CREATE TABLE a AS SELECT id, random() AS r FROM src'; EXECUTE 'EXPLAIN (ANALYZE) SELECT v COLLATE "C" INTO UNLOGGED "odd ""b" FROM src';
		EXECUTE 'EXPLAIN ANALYZE CREATE MATERIALIZED VIEW mv AS SELECT id, random() AS r FROM src'; EXECUTE 'EXPLAIN ANALYZE CREATE TEMP TABLE passing AS SELECT 1'; INSERT INTO a VALUES (-1, -1); END $$`)
	if err := r.set.Ack(r.ctx(), r.set.View().Term, Change{Schema: true}); err != nil {
		t.Fatal(err)
	}
	for _, s := range r.servers[1:] {
		var got string
		const q = `SELECT concat_ws(' ', (SELECT count(*) FROM a), (SELECT count(*) FROM "odd ""b"), (SELECT count(*) FROM pg_matviews WHERE matviewname = 'mv'))`
		if err := pgtest.Connect(t, s.DSN()).QueryRow(r.ctx(), q).Scan(&got); err != nil || got != "101 100 1" {
			t.Errorf("a follower has %q: %v", got, err)
		}
	}
	r.do(c, `INSERT INTO a VALUES (0, 0)`, `UPDATE a SET r = 2 WHERE id = 1`, `DELETE FROM "odd ""b"`)
	r.same()
	r.ddl(c, `DROP TABLE a, "odd ""b"`)
	r.ddl(c, `DROP MATERIALIZED VIEW mv`)
	r.same()
	if v := r.set.View(); v.Epoch != epoch {
		t.Errorf("it cost somebody his place: %v", v)
	}
}

// The next DDL does, if nobody has looked before: whatever it does to it, and also within
// the function that made it.
func TestDDLUnseenBeforeDDL(t *testing.T) {
	r := newRig(t, 2, unseenSource)
	epoch := r.set.View().Epoch
	c := r.client()
	const a = `EXECUTE 'EXPLAIN ANALYZE CREATE TABLE a AS SELECT id, random() AS r FROM src'; INSERT INTO a VALUES (-1, -1); `
	for _, next := range []string{`DROP TABLE a`, `CREATE TABLE other (k int PRIMARY KEY)`, `ALTER TABLE a ADD PRIMARY KEY (id)`, `CREATE INDEX ON a (r)`,
		`CREATE VIEW other AS SELECT * FROM a`, `ALTER TABLE a RENAME TO other`, `CREATE TABLE other AS SELECT * FROM a`} {
		r.do(c, `DO $$ BEGIN `+a+`END $$`)
		r.ddl(c, next)
		r.same()
		r.do(c, `DO $$ BEGIN DROP TABLE IF EXISTS a CASCADE; IF to_regclass('other') IS NOT NULL THEN DROP TABLE other; END IF; `+a+next+`; END $$`)
		r.same()
		r.do(c, `DO $$ BEGIN DROP TABLE IF EXISTS a CASCADE; IF to_regclass('other') IS NOT NULL THEN DROP TABLE other; END IF; END $$`)
	}
	// The query of a CREATE TABLE AS calls a function with DDL: it finds the table half made.
	r.ddl(c, `CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE inner_one (k int PRIMARY KEY); INSERT INTO inner_one VALUES (1); RETURN 1; END $$`)
	r.ddl(c, `CREATE TABLE outer_one AS SELECT f() AS x, g FROM generate_series(1, 1) g`)
	r.do(c, `INSERT INTO outer_one VALUES (2, 2)`, `INSERT INTO inner_one VALUES (2)`)
	r.same()
	if v := r.set.View(); v.Epoch != epoch {
		t.Errorf("it cost somebody his place: %v", v)
	}
}

// What cannot be mirrored stays at the leader: DDL is refused by its name until it is
// dropped, which costs nobody his place.
func TestDDLUnseenUnfit(t *testing.T) {
	r := newRig(t, 2, unseenSource)
	epoch := r.set.View().Epoch
	c := r.client()
	r.do(c, `DO $$ BEGIN EXECUTE 'EXPLAIN ANALYZE CREATE TABLE bad AS SELECT indpred FROM pg_index'; EXECUTE 'EXPLAIN ANALYZE CREATE TABLE good AS SELECT 1 AS k'; END $$`)
	if err := r.set.Ack(r.ctx(), r.set.View().Term, Change{Schema: true}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Exec(r.ctx(), `DO $$ BEGIN CREATE TABLE other (k int PRIMARY KEY); END $$`)
	if sqlState(err) != "0A000" {
		t.Errorf("other DDL was answered with %v", err)
	}
	r.ddl(c, `DROP TABLE bad, good`)
	r.ddl(c, `CREATE TABLE other (k int PRIMARY KEY)`)
	r.same()
	if v := r.set.View(); v.Epoch != epoch {
		t.Errorf("it cost somebody his place: %v", v)
	}
}

// A leader that is lost before what was made unseen was taken up has lost its place: no
// tail tells of it.
func TestDDLUnseenTail(t *testing.T) {
	r := newRig(t, 3, unseenSource)
	old := r.set.View().Leader
	c := r.client()
	r.set.Close()
	if _, err := c.Exec(r.ctx(), `DO $$ BEGIN EXECUTE 'EXPLAIN ANALYZE CREATE TABLE a AS SELECT id FROM src'; END $$`); err != nil {
		t.Fatal(err)
	}
	if err := r.server(old).Kill(); err != nil {
		t.Fatal(err)
	}
	r.open()
	r.do(r.client(), `INSERT INTO src VALUES (0, '')`)
	if err := r.server(old).StartAgain(); err != nil {
		t.Fatal(err)
	}
	r.await("the old leader to have lost its place", func() bool { return r.set.States()[old] == textLost })
}
