package mirror

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/pgtest"
)

const basics = `
CREATE TABLE acc (id int PRIMARY KEY, v int, n numeric, at timestamptz DEFAULT clock_timestamp(), r float8 DEFAULT random());
CREATE TABLE hist (a int, t timestamptz DEFAULT now(), u uuid DEFAULT gen_random_uuid());
CREATE TABLE ser (id serial PRIMARY KEY, x text UNIQUE);
CREATE TABLE swap (k int PRIMARY KEY, u int UNIQUE DEFERRABLE);
CREATE TABLE num (k numeric PRIMARY KEY, v text);
CREATE TABLE "We""ird" ("a b" text, "c'd" int, "dels" int, "rows" text, PRIMARY KEY ("c'd", "a b"));
CREATE TABLE gen (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED);
CREATE TABLE part (id int, r int, v text, PRIMARY KEY (id, r)) PARTITION BY RANGE (r);
CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (10);
CREATE TABLE part2 PARTITION OF part FOR VALUES FROM (10) TO (20);
CREATE TABLE doc (id int PRIMARY KEY, x xml, j jsonb, b bytea, i interval, f float8[]);
`

// Whatever a write did on the leader, the followers hold afterwards.
func TestRowsReachAllMembers(t *testing.T) {
	r := newRig(t, 3, basics)
	c := r.client()
	r.do(c,
		`INSERT INTO acc (id, v, n) SELECT g, g, g FROM generate_series(1, 100) g`,
		`UPDATE acc SET v = v + 1, r = random() WHERE id % 3 = 0`,
		`DELETE FROM acc WHERE id % 7 = 0`,
		`INSERT INTO hist (a) SELECT g % 3 FROM generate_series(1, 30) g`,
		`INSERT INTO ser (x) VALUES ('a'), ('b')`,
		`INSERT INTO num VALUES (1.0, 'x'), (2, 'y')`,
		`INSERT INTO "We""ird" VALUES ('q', 1, 2, 'w'), ('', 2, NULL, NULL)`,
		`INSERT INTO gen (a) VALUES (3), (4)`,
		`INSERT INTO part VALUES (1, 1, 'a'), (2, 15, 'b')`,
		`INSERT INTO doc VALUES (1, '<?xml version="1.0" encoding="UTF-8"?><a/>', '{"a": 1.00}', '\x00ff', '1 mon -3 days', '{NaN,-0,1e-300}')`,
	)
	r.same()
	r.do(c,
		`UPDATE num SET k = 1.000 WHERE k = 1`,
		`INSERT INTO swap VALUES (1, 1), (2, 2)`,
		`BEGIN`, `SET CONSTRAINTS ALL DEFERRED`, `UPDATE swap SET u = 3 - u`, `COMMIT`,
		`DELETE FROM hist WHERE ctid IN (SELECT ctid FROM hist WHERE a = 1 LIMIT 2)`,
		`UPDATE hist SET a = 9 WHERE a = 2`,
		`UPDATE part SET r = 5 WHERE id = 2`,
		`UPDATE part1 SET v = 'leaf' WHERE id = 1`,
		`UPDATE "We""ird" SET "a b" = "a b" || 'x'`,
		`UPDATE gen SET a = a + 1`,
		`SET DateStyle = 'German'; SET extra_float_digits = -5; SET IntervalStyle = 'iso_8601'`,
		`INSERT INTO hist (a) VALUES (77)`,
		`UPDATE doc SET f = f || 0.1, i = i * 1.5`,
		`UPDATE hist SET a = 78 WHERE a = 77`,
		`SELECT setval('ser_id_seq', 500, false)`,
	)
	r.same()
	r.do(c, `TRUNCATE acc, ser RESTART IDENTITY`, `INSERT INTO acc (id) VALUES (5)`, `TRUNCATE hist`, `INSERT INTO hist VALUES (1)`, `TRUNCATE part2`)
	r.same()
}

// A million rows pass in pieces; here enough to take that way.
func TestBigBatches(t *testing.T) {
	r := newRig(t, 3, basics)
	c := r.client()
	r.do(c, `INSERT INTO acc (id, v) SELECT g, g FROM generate_series(1, 25000) g`, `INSERT INTO num SELECT g, g FROM generate_series(1, 5000) g`,
		`INSERT INTO hist (a) SELECT g FROM generate_series(1, 5000) g`)
	r.same()
	r.do(c, `UPDATE acc SET id = id + 1000000, v = 1`, `UPDATE num SET k = k + 0.0`, `UPDATE hist SET a = a + 1 WHERE a % 2 = 0`, `DELETE FROM acc WHERE id % 2 = 0`)
	r.same()
}

// Followers' rows lie as the leader's do, with a key, with a further unique one, and
// without one: what comes first is found first by who asks for no order.
func TestRowsLieAlike(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE key (id text PRIMARY KEY, v int); CREATE TABLE two (id text PRIMARY KEY, v int UNIQUE); CREATE TABLE bag (id text, v int)`)
	c := r.client()
	for from, rows := range map[int]int{100: 1, 200: 30, 1000: 300, 20000: 9000} { // one message, and pieces
		for _, table := range []string{"key", "two", "bag"} {
			r.do(c, fmt.Sprintf(`INSERT INTO %s SELECT md5(g::text), g FROM generate_series(%d, %d) g`, table, from, from+rows-1))
		}
		r.same()
	}
	r.do(c, `BEGIN`, `INSERT INTO bag VALUES ('z', 1), ('a', 2)`, `INSERT INTO key VALUES ('z', 1), ('a', 2)`, `INSERT INTO bag VALUES ('m', 3), ('b', 4)`, `COMMIT`)
	r.same()
	read := func(c *pgx.Conn, sql string) (out string) {
		if err := c.QueryRow(r.ctx(), sql).Scan(&out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, table := range []string{"key", "two", "bag"} {
		order := fmt.Sprintf(`SELECT left(string_agg(v || ' ' || ctid, ' ' ORDER BY ctid) FILTER (WHERE mod(v,100)=0 or v < 230), 1000) FROM %s`, table)
		want := read(c, order)
		for id := range r.set.members.all() {
			if got := read(r.clientOf(id), order); got != want {
				t.Errorf("table %s lies differently on member %v %s\n%s", table, id, want, got)
			}
		}
	}
}

// DDL is replayed at its place, and the rows around it come out right.
func TestSchemaChanges(t *testing.T) {
	r := newRig(t, 3, basics)
	c := r.client()
	for _, q := range []string{
		`CREATE TABLE made (id serial PRIMARY KEY, v text)`,
		`CREATE INDEX made_v ON made (v)`,
		`ALTER TABLE acc ADD COLUMN extra timestamptz DEFAULT now()`,
		`ALTER TABLE acc ADD COLUMN fixed int DEFAULT 7`,
		`ALTER TABLE acc ADD COLUMN rnd float8 DEFAULT random()`,
		`CREATE FUNCTION bump() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := coalesce(NEW.v, '') || 't'; RETURN NEW; END $$`,
		`CREATE TRIGGER bump BEFORE INSERT OR UPDATE ON made FOR EACH ROW EXECUTE FUNCTION bump()`,
		`CREATE SCHEMA other`,
		`CREATE TYPE other.mood AS ENUM ('sad', 'ok')`,
		`CREATE TABLE other.people (name text PRIMARY KEY, m other.mood)`,
		`CREATE VIEW other.sad AS SELECT * FROM other.people WHERE m = 'sad'`,
		`CREATE SEQUENCE other.seq START 40`,
		`GRANT SELECT ON other.people TO PUBLIC`,
		`CREATE TABLE copied AS SELECT id, random() AS r FROM acc`,
		`ALTER TABLE hist RENAME COLUMN a TO aa`,
		`ALTER TABLE hist ADD COLUMN z int`,
		`DROP TABLE swap`,
		`ALTER TABLE other.people RENAME TO folk`,
	} {
		r.ddl(c, q)
		r.do(c, `INSERT INTO acc (id) SELECT coalesce(max(id), 0) + 1 FROM acc`)
	}
	r.do(c, `INSERT INTO made (v) VALUES ('x')`, `INSERT INTO other.folk VALUES ('ann', 'sad')`, `INSERT INTO hist (aa, z) VALUES (1, 2)`,
		`SELECT nextval('other.seq')`, `INSERT INTO copied VALUES (1000, 1)`)
	r.same()
	if _, err := c.Exec(r.ctx(), `CREATE TABLE local (i int)`); err == nil {
		t.Fatal("unannounced DDL was not refused")
	}
	if _, err := r.clientOf(2).Exec(r.ctx(), `INSERT INTO acc (id) VALUES (-1)`); sqlState(err) != "25006" {
		t.Fatalf("a write on a follower: %v", err)
	}
}

func TestFollowerLostAndBack(t *testing.T) {
	r := newRig(t, 3, basics)
	c := r.client()
	r.do(c, `INSERT INTO acc (id) SELECT generate_series(1, 1000)`)
	if err := r.server(3).Kill(); err != nil {
		t.Fatal(err)
	}
	r.do(c, `UPDATE acc SET v = 5`, `INSERT INTO hist VALUES (1)`)
	r.inSync(2)
	r.ddl(c, `ALTER TABLE acc ADD COLUMN w int`)
	r.do(c, `UPDATE acc SET w = id`)
	if err := r.server(3).StartAgain(); err != nil {
		t.Fatal(err)
	}
	r.inSync(3)
	r.same()
}

func TestLeaderLostAndBack(t *testing.T) {
	r := newRig(t, 3, basics)
	c := r.client()
	r.do(c, `INSERT INTO acc (id) SELECT generate_series(1, 1000)`, `INSERT INTO ser (x) VALUES ('a')`)
	before := r.set.View()
	if err := r.server(before.Leader).Kill(); err != nil {
		t.Fatal(err)
	}
	r.await("another leads", func() bool { return r.set.View().Leader != before.Leader })
	if v := r.set.View(); v.Term == before.Term {
		t.Fatalf("in the term of the dead: %v", v)
	}
	c = r.client()
	r.do(c, `UPDATE acc SET v = 6`, `INSERT INTO ser (x) VALUES ('b')`, `INSERT INTO hist VALUES (1)`)
	if err := r.server(before.Leader).StartAgain(); err != nil {
		t.Fatal(err)
	}
	r.inSync(3)
	r.do(c, `UPDATE acc SET v = 7 WHERE id < 10`)
	r.same()
}

// Materialized views that were there before hold data at the leader alone as long
// as there is a set, and on all again afterwards.
func TestMatviewsBeforeAndAfter(t *testing.T) {
	r := newRig(t, 3, basics+`; CREATE MATERIALIZED VIEW z AS SELECT random() AS r; CREATE MATERIALIZED VIEW a AS SELECT * FROM z; CREATE MATERIALIZED VIEW without AS SELECT 1 WITH NO DATA`)
	holding := func() (n []int) {
		for _, s := range r.servers {
			var i int
			if err := pgtest.Connect(t, s.DSN()).QueryRow(r.ctx(), `SELECT count(*) FROM pg_class WHERE relkind = 'm' AND relispopulated`).Scan(&i); err != nil {
				t.Fatal(err)
			}
			n = append(n, i)
		}
		return n
	}
	if n := holding(); !slices.Equal(n, []int{2, 0, 0}) {
		t.Errorf("materialized views with data: %v", n)
	}
	if _, err := r.clientOf(2).Exec(r.ctx(), `REFRESH MATERIALIZED VIEW z`); sqlState(err) != "25006" {
		t.Errorf("a refresh by hand on a follower: %v", err)
	}
	r.do(r.client(), `REFRESH MATERIALIZED VIEW z`)
	r.same()
	// A program that dies while its new leader is at work leaves that to the next.
	r.set.Close()
	r.servers[0].Exec(t, `SELECT set_config('pgdist.busy', secret, false) FROM pgdist.meta; REFRESH MATERIALIZED VIEW a WITH NO DATA; INSERT INTO pgdist.matviews VALUES ('a'::regclass)`)
	r.open()
	for deadline := time.Now().Add(ages); !slices.Equal(holding(), []int{2, 0, 0}); {
		if time.Now().After(deadline) {
			t.Fatalf("materialized views with data: %v", holding())
		}
	}
	r.set.Close()
	if err := Uninstall(r.ctx(), r.cfg, nil); err != nil {
		t.Fatal(err)
	}
	if n := holding(); !slices.Equal(n, []int{2, 2, 2}) {
		t.Errorf("after uninstall, materialized views with data: %v", n)
	}
}

// Uninstalled, a database is as if it had never been a member.
// traces counts what would be left of pgdist.
const traces = `SELECT (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pgdist%')
	+ (SELECT count(*) FROM pg_event_trigger) + (SELECT count(*) FROM pg_namespace WHERE nspname = 'pgdist') + (SELECT count(*) FROM pg_proc WHERE proname LIKE '%pgdist%')`

func TestUninstallLeavesNothing(t *testing.T) {
	r := newRig(t, 2, basics)
	r.do(r.client(), `INSERT INTO acc (id) VALUES (1)`)
	r.set.Close()
	if err := Uninstall(r.ctx(), r.cfg, nil); err != nil {
		t.Fatal(err)
	}
	var n int
	err := pgtest.Connect(t, r.servers[0].DSN()).QueryRow(r.ctx(), traces).Scan(&n)
	if err != nil || n != 0 {
		t.Fatalf("%d objects are left: %v", n, err)
	}
}
