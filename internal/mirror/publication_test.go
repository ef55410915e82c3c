package mirror

import (
	"regexp"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// publishable is what a publication that publishes updates and deletes minds, and what not.
const publishable = `CREATE TABLE keyless (v text); INSERT INTO keyless SELECT 'x' || g FROM generate_series(1, 50) g;
	CREATE TABLE bag (v int); INSERT INTO bag SELECT g FROM generate_series(1, 50) g;
	CREATE TABLE uniq (a int NOT NULL UNIQUE, b int); INSERT INTO uniq SELECT g, g FROM generate_series(1, 50) g;
	CREATE TABLE pk (id int PRIMARY KEY, v int); INSERT INTO pk SELECT g, g FROM generate_series(1, 50) g;
	CREATE TABLE filtered (id int PRIMARY KEY, v int); CREATE TABLE listed (id int PRIMARY KEY, v int);
	CREATE TABLE parted (a int NOT NULL, v int, UNIQUE (a)) PARTITION BY RANGE (a); CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100)`

// publications are as users make them; those with a filter or a list there are since 15.
func (r *rig) publications() []string {
	out := []string{`CREATE PUBLICATION "every thing" FOR ALL TABLES`, `CREATE PUBLICATION no_insert FOR TABLE bag WITH (publish = 'delete, truncate')`,
		`CREATE PUBLICATION updates FOR TABLE bag, uniq WITH (publish = 'update')`, `CREATE PUBLICATION harmless FOR TABLE keyless WITH (publish = 'insert')`}
	if r.major() >= 15 {
		out = append(out, `CREATE PUBLICATION of_some FOR TABLE filtered WHERE (v > 0)`, `CREATE PUBLICATION of_columns FOR TABLE listed (v)`)
	}
	return out
}

// published checks that the publications of all members are those of the leader, and that none
// of them has journaled any DDL but that.
func (r *rig) published() {
	r.t.Helper()
	of := func(id health.MemberID) (out string) {
		const q = `SELECT (SELECT string_agg((to_jsonb(p) - 'oid' - 'pubowner')::text, ' ' ORDER BY p.pubname) FROM pg_publication p) || (SELECT count(*) FROM pgdist.journal WHERE op = 'd')`
		if err := pgtest.Connect(r.t, r.server(id).DSN()).QueryRow(r.ctx(), q).Scan(&out); err != nil {
			r.t.Fatal(err)
		}
		return out
	}
	v := r.set.View()
	for _, id := range v.Followers() {
		if got, want := of(id), of(v.Leader); got != want {
			r.t.Errorf("member %d has\n%s, the leader\n%s", id, got, want)
		}
	}
}

// changed is the transaction that changed a member's publications last, and those it has.
func (r *rig) changed(id health.MemberID) (out string) {
	r.t.Helper()
	if err := pgtest.Connect(r.t, r.server(id).DSN()).QueryRow(r.ctx(), `SELECT string_agg(pubname || ' ' || xmin, ' ' ORDER BY pubname) FROM pg_publication`).Scan(&out); err != nil {
		r.t.Fatal(err)
	}
	return out
}

var isDDL = regexp.MustCompile(`^(CREATE|ALTER|DROP) `)

// together runs statements as one transaction, DDL as the engine does.
func (r *rig) together(c *pgx.Conn, sql ...string) {
	r.t.Helper()
	tx, err := c.Begin(r.ctx())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, q := range sql {
		announced := ""
		if isDDL.MatchString(q) {
			announced = q
		}
		if _, err := tx.Exec(r.ctx(), `SELECT set_config('pgdist.ddl', $1, true)`, announced); err != nil {
			r.t.Fatal(err)
		}
		if _, err := tx.Exec(r.ctx(), q); err != nil {
			r.t.Fatalf("%s: %v", q, err)
		}
	}
	if err := tx.Commit(r.ctx()); err != nil {
		r.t.Fatal(err)
	}
	r.ack()
}

// A publication forbids nobody what the leader may do: no follower is excluded for what it
// must update or delete for that.
func TestPublications(t *testing.T) {
	r := newRig(t, 3, publishable)
	c := r.client()
	before := r.set.View()
	for _, q := range r.publications() {
		r.ddl(c, q)
	}
	follower := before.Followers()[0]
	untouched := r.changed(follower)
	r.do(c, `UPDATE pk SET v = 0 WHERE id < 10`, `DELETE FROM pk WHERE id = 20`, `INSERT INTO keyless VALUES ('y')`, `INSERT INTO pk VALUES (100, 1)`)
	if now := r.changed(follower); now != untouched {
		t.Errorf("the follower has changed its publications without need: from %s to %s", untouched, now)
	}
	for _, sql := range [][]string{
		{`INSERT INTO uniq VALUES (100, 1)`},
		{`INSERT INTO parted VALUES (1, 1), (2, 2)`},
		{`INSERT INTO filtered VALUES (1, 1), (2, -1)`},
		{`INSERT INTO listed VALUES (1, 1)`},
		{`ALTER TABLE keyless ADD COLUMN t timestamptz DEFAULT clock_timestamp()`},
		{`ALTER TABLE uniq ADD COLUMN t timestamptz DEFAULT clock_timestamp()`, `INSERT INTO uniq VALUES (101, 1)`},
		{`TRUNCATE bag`, `INSERT INTO bag VALUES (1), (1)`, `INSERT INTO uniq VALUES (102, 1)`},
		{`INSERT INTO uniq VALUES (103, 1)`, `ALTER PUBLICATION updates SET (publish = 'insert, update')`},
		{`ALTER PUBLICATION "every thing" RENAME TO everything`, `INSERT INTO uniq VALUES (104, 1)`, `DROP PUBLICATION no_insert`},
		{`CREATE PUBLICATION another FOR TABLE uniq, parted`, `INSERT INTO uniq VALUES (105, 1)`, `ALTER PUBLICATION another DROP TABLE uniq`},
		// Rows that would not bear the DDL, and go in its transaction: the tables are emptied first.
		{`ALTER PUBLICATION everything SET (publish = 'insert')`, `DROP PUBLICATION updates`, `ALTER PUBLICATION another SET (publish = '')`, `DELETE FROM uniq WHERE a < 10`, `ALTER TABLE uniq ADD CHECK (a > 9)`,
			`DELETE FROM keyless WHERE v = 'y'`, `ALTER TABLE keyless ADD CHECK (v <> 'y')`, `ALTER PUBLICATION everything SET (publish = 'delete, update, insert, truncate')`},
		{`ALTER TABLE keyless ALTER COLUMN v SET NOT NULL`, `INSERT INTO keyless VALUES ('z')`},
	} {
		r.together(c, sql...)
		if v := r.set.View(); v.Epoch != before.Epoch {
			t.Fatalf("%q: %v", sql, v)
		}
		r.published()
	}
	r.same()
}

// So it is for a member that was away, whether the publication is older or newer than what it
// missed, and for an old leader's tail.
func TestPublicationsOfTheAbsent(t *testing.T) {
	r := newRig(t, 3, publishable)
	publications := r.publications()
	away := func() {
		t.Helper()
		if err := r.server(3).Stop(pgtest.Fast); err != nil { // it loses nothing
			t.Fatal(err)
		}
		r.inSync(2)
	}
	away()
	c := r.client()
	r.do(c, `DELETE FROM bag WHERE v < 10`, `UPDATE keyless SET v = 'y' WHERE v = 'x1'`, `DELETE FROM uniq WHERE a = 1`, `INSERT INTO filtered VALUES (3, -1)`, `INSERT INTO listed SELECT g, g FROM generate_series(1, 50) g`,
		`DELETE FROM listed WHERE id = 1`)
	for _, q := range publications {
		r.ddl(c, q)
	}
	r.together(c, `INSERT INTO uniq VALUES (100, 1)`, `ALTER PUBLICATION updates SET (publish = 'insert, update')`, `DROP PUBLICATION no_insert`)
	r.startAgain(3)
	r.inSync(3)
	r.published()
	r.same()

	away()
	r.do(c, `INSERT INTO uniq VALUES (101, 1)`, `INSERT INTO parted VALUES (1, 1)`, `INSERT INTO filtered VALUES (4, 1)`, `INSERT INTO keyless VALUES ('z')`)
	r.ddl(c, `ALTER TABLE keyless ADD COLUMN t timestamptz DEFAULT clock_timestamp()`)
	// Its rows use a label that is added with its type: DDL runs ahead of rows, after the tables are emptied.
	for _, q := range []string{`CREATE TYPE fresh AS ENUM ('x')`, `ALTER TYPE fresh ADD VALUE 'y'`, `CREATE TABLE freshes (f fresh)`, `ALTER PUBLICATION updates ADD TABLE freshes`} {
		r.ddl(c, q)
	}
	r.do(c, `INSERT INTO freshes VALUES ('y')`)
	r.startAgain(3)
	r.inSync(3)
	r.published()
	r.same()

	// What nobody else has: the leader's.
	r.set.Close()
	r.unheard(c, `INSERT INTO uniq VALUES (200, 1)`, `INSERT INTO keyless VALUES ('tail')`, `INSERT INTO filtered VALUES (9, 9)`)
	r.kill(1)
	r.open()
	r.startAgain(1)
	r.inSync(3)
	var n int
	if err := r.client().QueryRow(r.ctx(), `SELECT count(*) FROM uniq WHERE a = 200`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows of the tail: %v", n, err)
	}
	r.do(r.client(), `INSERT INTO uniq VALUES (201, 1)`)
	r.published()
	r.same()
}

// unheard runs statements that nobody acknowledges.
func (r *rig) unheard(c *pgx.Conn, sql ...string) {
	r.t.Helper()
	for _, q := range sql {
		if _, err := c.Exec(r.ctx(), q); err != nil {
			r.t.Fatalf("%s: %v", q, err)
		}
	}
}
