package mirror

import (
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// A type that changes gives rows and keys another text: a member that was away when they were
// written, and comes back after it, gets the tables whole.
func TestTypesThatChangeMeanwhile(t *testing.T) {
	r := newRig(t, 3, `CREATE TYPE pair AS (a int, b text); CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN pairs AS pair[]; CREATE TYPE nest AS (p pair, m mood); CREATE TABLE rowed (a int PRIMARY KEY, b text);
		CREATE TABLE ck (k pair PRIMARY KEY, v int); CREATE TABLE ek (k mood PRIMARY KEY, v int); CREATE TABLE dk (k pairs PRIMARY KEY, v int); CREATE TABLE nk (k nest PRIMARY KEY, v int);
		CREATE TABLE kl (p pair, m mood, r rowed); CREATE TABLE plain (k int PRIMARY KEY); CREATE TABLE tree (k mood, v int, PRIMARY KEY (k)) PARTITION BY LIST (k); CREATE TABLE leaf PARTITION OF tree DEFAULT;
		INSERT INTO ck VALUES ('(1,A)', 1), ('(2,A)', 1); INSERT INTO ek VALUES ('ok', 1); INSERT INTO kl VALUES ('(1,A)', 'sad', '(1,x)'), ('(2,B)', 'ok', '(2,y)')`)
	gens := func(at int) (out map[string]int) {
		out = map[string]int{}
		rows, err := pgtest.Connect(t, r.servers[at].DSN()).Query(r.ctx(), `SELECT rel, gen FROM pgdist.tables`)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var rel string
			var gen int
			if err := rows.Scan(&rel, &gen); err != nil {
				t.Fatal(err)
			}
			out[rel] = gen
		}
		if rows.Err() != nil {
			t.Fatal(rows.Err())
		}
		return out
	}
	if err := r.server(3).Kill(); err != nil {
		t.Fatal(err)
	}
	r.inSync(2)
	c := r.client()
	r.do(c, `INSERT INTO ck VALUES ('(3,B)', 3)`, `UPDATE ck SET v = 9 WHERE k = '(1,A)'::pair`, `DELETE FROM ck WHERE k = '(2,A)'::pair`, `INSERT INTO ek VALUES ('sad', 2)`, `UPDATE ek SET v = 3`,
		`INSERT INTO dk VALUES (ARRAY['(1,A)', '(2,B)']::pair[], 1)`, `INSERT INTO nk VALUES (ROW('(1,A)'::pair, 'sad'), 1)`, `INSERT INTO tree VALUES ('sad', 1)`, `INSERT INTO plain VALUES (1)`,
		`INSERT INTO kl VALUES ('(3,C)', 'sad', '(3,z)')`, `DELETE FROM kl WHERE m = 'ok'`)
	r.ddl(c, `ALTER TYPE mood ADD VALUE 'new'`)
	before := gens(0)
	for _, rel := range []string{"ek", "nk", "kl", "tree"} {
		if before[rel] != 1 {
			t.Errorf("a new label raised the generation of %s to %d", rel, before[rel])
		}
	}
	r.ddl(c, `ALTER TYPE pair ADD ATTRIBUTE c int`)
	r.ddl(c, `ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'`)
	r.ddl(c, `ALTER TABLE rowed ADD COLUMN c int`)
	r.do(c, `UPDATE ck SET v = v + 1`, `INSERT INTO ek VALUES ('new', 7)`, `UPDATE kl SET m = 'ok' WHERE m = 'blue'`)
	after := gens(0)
	for _, rel := range []string{"ck", "ek", "dk", "nk", "kl", "tree"} {
		if after[rel] <= before[rel] {
			t.Errorf("what was journaled of %s before still counts", rel)
		}
	}
	if after["plain"] != 1 {
		t.Errorf("plain has nothing to do with it: generation %d", after["plain"])
	}
	if err := r.server(3).StartAgain(); err != nil {
		t.Fatal(err)
	}
	r.inSync(3)
	r.same()
	for i := range 3 {
		for rel, gen := range gens(i) {
			if after[rel] != gen {
				t.Errorf("server %d has generation %d of %s, the leader %d", i, gen, rel, after[rel])
			}
		}
	}
}

// Names that begin like pgdist's own are the users' to give, and to drop.
func TestNamesLikePgdists(t *testing.T) {
	r := newRig(t, 2, `CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'`)
	c := r.client()
	for _, sql := range []string{
		`CREATE TABLE pgdist_1 (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, pgdist_1 oid)`,
		`ALTER TABLE pgdist_1 DROP CONSTRAINT pgdist_1_pkey`, `ALTER TABLE pgdist_1 ADD CONSTRAINT pgdist_i UNIQUE (id)`, `ALTER TABLE pgdist_1 DROP CONSTRAINT pgdist_i`,
		`CREATE TRIGGER pgdist_mine BEFORE INSERT ON pgdist_1 FOR EACH ROW EXECUTE FUNCTION f()`, `ALTER TABLE pgdist_1 DISABLE TRIGGER pgdist_mine`, `DROP TRIGGER pgdist_mine ON pgdist_1`,
	} {
		r.ddl(c, sql)
	}
	r.do(c, `INSERT INTO pgdist_1 (pgdist_1) VALUES (1)`)
	r.same()
	if _, err := c.Exec(r.ctx(), `DROP TRIGGER pgdist_i ON pgdist_1`); sqlState(err) != "2BP01" {
		t.Errorf("a trigger of pgdist's is dropped: %v", err)
	}
	if _, err := c.Exec(r.ctx(), `ALTER TABLE pgdist_1 DISABLE TRIGGER pgdist_i`); err == nil {
		t.Error("a trigger of pgdist's is disabled")
	}
}

// A type whose change concerns any table concerns more than those with columns of it.
func TestTypedTablesChangeWithTheirType(t *testing.T) {
	r := newRig(t, 2, `CREATE TYPE pair AS (a int, b text); CREATE TABLE typed OF pair; CREATE TABLE other (p pair); INSERT INTO typed VALUES (1, 'x')`)
	c := r.client()
	r.ddl(c, `ALTER TYPE pair ADD ATTRIBUTE c int CASCADE`)
	r.do(c, `INSERT INTO typed VALUES (2, 'y', 3)`, `UPDATE typed SET c = 9 WHERE a = 1`)
	r.same()
}
