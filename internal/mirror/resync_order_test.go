package mirror

import (
	"slices"
	"strings"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// inherits makes tables that have their columns in another order than pg_dump makes them in.
const inherits = `
CREATE TABLE top (id int PRIMARY KEY, a text, CONSTRAINT above CHECK (id > 0));
CREATE TABLE late (own text COLLATE "C" DEFAULT 'x', num int NOT NULL) INHERITS (top);
CREATE TABLE plain (own text, PRIMARY KEY (id)) INHERITS (top);
ALTER TABLE top ADD COLUMN b text DEFAULT 'it''s;', ADD COLUMN gone int, ADD COLUMN n int CHECK (n < 1000), ADD COLUMN s bigint;
ALTER TABLE top DROP COLUMN gone; ALTER TABLE late ALTER b SET DEFAULT 'other', ALTER a SET NOT NULL, ALTER own SET STORAGE EXTERNAL, ADD CHECK (num > -5) NO INHERIT;
ALTER TABLE late DROP COLUMN num, ADD COLUMN num int;
CREATE TABLE other (z text, y text);
CREATE TABLE "odd; -- 'q'" (y text, z text, x text);
ALTER TABLE "odd; -- 'q'" INHERIT other;
CREATE TABLE two (w text) INHERITS (top, other);
ALTER TABLE other ADD COLUMN v text;
CREATE TABLE below (u text) INHERITS (late);
ALTER TABLE late ADD COLUMN t text;
COMMENT ON COLUMN late.own IS 'own; one'; CREATE INDEX ON late (own); GRANT SELECT ON late TO PUBLIC; CREATE VIEW seen AS SELECT * FROM late;
CREATE TABLE straight () INHERITS (top);
CREATE TABLE zz (id serial, t text DEFAULT 'a;
 DEFAULT '); CREATE TABLE aa (own int, PRIMARY KEY (id)) INHERITS (zz); CREATE SEQUENCE zzz; ALTER TABLE aa ADD COLUMN mine int DEFAULT 7;
ALTER TABLE zz ADD COLUMN "DEFAULT x" bigint, ADD COLUMN v text DEFAULT 'v'; ALTER TABLE aa ALTER "DEFAULT x" SET DEFAULT nextval('zzz')`

// A copy has the columns of its tables in the order in which the source has them: else what
// is written later would be put into other columns.
func TestResyncKeepsTheOrderOfColumns(t *testing.T) {
	r := newRig(t, 3, inherits)
	fill := func(by string) []string {
		var out []string
		for _, q := range []string{
			`INSERT INTO late (id, a, own, b, n, s, num, t) VALUES (@, 'a @', 'own @', 'b @', @, @ * 10, @ + 2, 't @')`,
			`INSERT INTO plain (id, a, own, b, n, s) VALUES (@, 'a @', 'own @', 'b @', @, @)`,
			`INSERT INTO "odd; -- 'q'" (x, y, z, v) VALUES ('x @', 'y @', 'z @', 'v @')`,
			`INSERT INTO two (id, a, z, y, w, b, v) VALUES (@, 'a @', 'z @', 'y @', 'w @', 'b @', 'v @')`,
			`INSERT INTO below (id, a, own, num, u, b, t) VALUES (@, 'a @', 'own @', @, 'u @', 'b @', 't @')`,
			`INSERT INTO straight (id, a, b) VALUES (@, 'a @', 'b @')`, `INSERT INTO aa (own) VALUES (@)`, `INSERT INTO zz (t) VALUES ('t @')`,
			`UPDATE top SET s = @ WHERE id < @`, `UPDATE other SET y = y || z`, `DELETE FROM "odd; -- 'q'" WHERE x = 'x ' || (@ - 2)`,
		} {
			out = append(out, strings.ReplaceAll(q, "@", by))
		}
		return out
	}
	c := r.client()
	r.do(c, slices.Concat(fill("1"), fill("2"))...)
	r.replace(3)
	r.do(c, `UPDATE plain SET s = 9`)
	r.ack()
	r.inSync(2)
	if _, err := r.resync(r.ctx(), 3, yes); err != nil {
		t.Fatal(err)
	}
	r.inSync(3)
	r.do(c, slices.Concat(fill("3"), fill("4"))...)
	r.ddl(c, `ALTER TABLE top ADD COLUMN more text DEFAULT 'more'`)
	r.do(c, fill("5")...)
	r.ddl(c, `ALTER TABLE other DROP COLUMN v`) // theirs go with it where they are not the child's own, too
	if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 {
		t.Errorf("%v", said(rep))
	}
	const flags = `SELECT string_agg(concat_ws(' ', attrelid::regclass, attname, attislocal, attinhcount, attnotnull), ', ' ORDER BY attrelid::regclass::text, attname) FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped AND attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r')`
	var want, got string
	for i, into := range []*string{&want, &got} {
		if err := pgtest.Connect(t, r.servers[2*i].DSN()).QueryRow(r.ctx(), flags).Scan(into); err != nil {
			t.Fatal(err)
		}
	}
	if want != got {
		t.Errorf("columns are inherited otherwise:\n%s\n%s", want, got)
	}
	r.same()
}

// Of several keys a table's copy goes by the one that its source goes by, whichever was made
// first: else the key of one row would be taken for another's.
func TestResyncKeepsTheKey(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE keys (a int NOT NULL, b int NOT NULL, n int); CREATE UNIQUE INDEX second ON keys (a); CREATE UNIQUE INDEX first ON keys (b);
		INSERT INTO keys SELECT g, 101 - g, 0 FROM generate_series(1, 100) g`)
	c := r.client()
	r.replace(3)
	r.do(c, `UPDATE keys SET n = 1`)
	r.ack()
	r.inSync(2)
	if _, err := r.resync(r.ctx(), 3, func(o *ResyncOptions) { yes(o); o.Jobs = 1 }); err != nil { // indexes by their names
		t.Fatal(err)
	}
	r.inSync(3)
	r.do(c, `DELETE FROM keys WHERE a < 10`)
	r.ack()
	if v, rep := r.set.View(), r.verify(VerifyOptions{}); len(v.InSync) != 3 || len(rep.Differences) > 0 {
		t.Errorf("in sync are %v, and %v", v.InSync, said(rep))
	}
	r.do(c, `UPDATE keys SET n = 2 WHERE a < 20`)
	r.ddl(c, `ALTER INDEX second RENAME TO a_third`) // which is the key now
	r.do(c, `UPDATE keys SET n = 3 WHERE a < 30`, `DELETE FROM keys WHERE a = 40`)
	r.ack()
	r.inSync(3)
	r.same()
}

// What is granted on a schema is there before what is granted by those who have it from there, and
// checks find what they name without a schema beside their table.
func TestResyncGrantsAndChecks(t *testing.T) {
	r := newRig(t, 3, `CREATE SCHEMA apart; COMMENT ON SCHEMA apart IS 'of its own'; CREATE ROLE grants_r; CREATE ROLE granted_r; GRANT USAGE ON SCHEMA apart TO grants_r;
		CREATE TABLE apart.t (id int PRIMARY KEY); GRANT SELECT ON apart.t TO grants_r WITH GRANT OPTION; SET ROLE grants_r; GRANT SELECT ON apart.t TO granted_r; RESET ROLE;
		CREATE FUNCTION apart.outer_check(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN inner_check($1); END $$;
		CREATE FUNCTION apart.inner_check(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0'; SET search_path = apart;
		CREATE DOMAIN apart.some AS int CHECK (apart.outer_check(VALUE)); CREATE TABLE apart.checked (id apart.some PRIMARY KEY, v int CHECK (apart.outer_check(v)));
		INSERT INTO apart.checked SELECT g, g FROM generate_series(1, 50) g; CREATE TABLE public.checked (id apart.some)`)
	c := r.client()
	r.do(c, `SET search_path = apart`, `INSERT INTO checked VALUES (100, 1)`)
	r.replace(3)
	r.do(c, `UPDATE checked SET v = v + 1`)
	r.ack()
	r.inSync(2)
	if _, err := r.resync(r.ctx(), 3, yes); err != nil {
		t.Fatal(err)
	}
	r.inSync(3)
	r.do(c, `UPDATE checked SET v = v + 1, id = id + 1000 WHERE id < 10`, `INSERT INTO public.checked VALUES (1), (1)`, `DELETE FROM public.checked`)
	r.ack()
	if v, rep := r.set.View(), r.verify(VerifyOptions{}); len(v.InSync) != 3 || len(rep.Differences) > 0 {
		t.Errorf("in sync are %v, and %v", v.InSync, said(rep))
	}
	r.same()
}
