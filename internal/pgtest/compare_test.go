//go:build unix

package pgtest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

const everything = `
CREATE ROLE reader;
CREATE SCHEMA "Odd ""name""";
CREATE TYPE mood AS ENUM ('sad', 'so ''so''');
CREATE DOMAIN positive AS numeric CHECK (VALUE > 0);
CREATE TYPE pair AS (a int, b text);
CREATE TYPE floats AS RANGE (subtype = float8);
CREATE FUNCTION shout(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1)';
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE AGGREGATE joined (text) (SFUNC = textcat, STYPE = text, INITCOND = '');
CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m mood, p positive, c pair, f float8, r floats, "quoted col" text DEFAULT 'x', the_row int,
  g int GENERATED ALWAYS AS (the_row * 2) STORED, UNIQUE (m, p), at timestamptz, b bytea, d char(4));
CREATE INDEX i ON t (lower("quoted col")) WHERE the_row > 0;
CREATE TRIGGER touched BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch();
INSERT INTO t (m, p, c, f, r, the_row, at, b, d) VALUES ('sad', 1.00, '(1,)', '-0', '[1,2)', 4, '2020-01-01 UTC', '\x00ff', 'a'), (NULL, NULL, NULL, 'NaN', 'empty', NULL, 'infinity', '', NULL);
CREATE TABLE "Odd ""name"""."Weird.Table" (a text); INSERT INTO "Odd ""name"""."Weird.Table" VALUES ('x'), ('x'), (NULL);
CREATE TABLE parts (k int, v text) PARTITION BY LIST (k);
CREATE TABLE parts1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts2 PARTITION OF parts DEFAULT;
INSERT INTO parts VALUES (1, 'one'), (2, 'two');
CREATE VIEW v AS SELECT id FROM t;
CREATE MATERIALIZED VIEW mv AS SELECT random() AS r;
CREATE SEQUENCE s; SELECT nextval('s');
CREATE SCHEMA pgdist; CREATE TABLE pgdist.own AS SELECT random() AS r;
CREATE TRIGGER pgdist_capture AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION touch();
GRANT SELECT ON t TO reader; GRANT SELECT (the_row) ON t TO reader;
CREATE POLICY mine ON t TO reader USING (id > 0);
CREATE RULE nothing AS ON DELETE TO v DO INSTEAD NOTHING;
CREATE STATISTICS st ON m, p FROM t;
CREATE CAST (pair AS text) WITH INOUT;
`

// Every change is made on one of two equal servers, must be found there, and
// is taken back.
func TestDifferencesAreFound(t *testing.T) {
	set := pgtest.Set(t, 2, pgtest.Options{FsyncOff: true, Databases: []string{"app"}})
	// Spent OIDs: equality must not depend on them.
	set[1].Exec(t, "CREATE TYPE gone AS ENUM ('a', 'b'); DROP TYPE gone; CREATE TABLE gone (); DROP TABLE gone")
	for _, s := range set {
		s.Exec(t, everything)
	}
	pgtest.SameBytes(t, set...)
	pgtest.Digest(t, set[0].DSN(), set[1].DSN())
	if t.Failed() {
		return
	}
	const named = "SET session_replication_role = replica; "
	for _, c := range []struct{ change, back, want string }{
		{"UPDATE t SET p = 1.0 WHERE id = 1", "UPDATE t SET p = 1.00 WHERE id = 1", "table public.t (rows: A 2, B 2)"},
		{"UPDATE t SET f = 0 WHERE id = 1", "UPDATE t SET f = '-0' WHERE id = 1", "table public.t"},
		{"INSERT INTO parts VALUES (3, 'three')", "DELETE FROM parts WHERE k = 3", "only in B: (3,three)"},
		{`INSERT INTO "Odd ""name"""."Weird.Table" VALUES ('x')`, `DELETE FROM "Odd ""name"""."Weird.Table" WHERE ctid = (SELECT max(ctid) FROM "Odd ""name"""."Weird.Table" WHERE a = 'x')`, `table "Odd ""name"""."Weird.Table" (rows: A 3, B 4)`},
		{"SELECT nextval('s')", "SELECT setval('s', 1)", `sequence public.s: A "1 true", B "2 true"`},
		{"SELECT setval('s', 1, false)", "SELECT setval('s', 1)", `B "1 false"`},
		{"ALTER TABLE t ALTER the_row SET DEFAULT 3", "ALTER TABLE t ALTER the_row DROP DEFAULT", "public.t.the_row"},
		{"CREATE INDEX j ON t (p)", "DROP INDEX j", "CREATE INDEX j"},
		{"ALTER TABLE t ADD CONSTRAINT low CHECK (the_row < 99) NOT VALID", "ALTER TABLE t DROP CONSTRAINT low", "CHECK ((the_row < 99)) NOT VALID"},
		{"ALTER TABLE t DISABLE TRIGGER touched", "ALTER TABLE t ENABLE TRIGGER touched", "enabled D"},
		{"CREATE OR REPLACE FUNCTION shout(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)'", "CREATE OR REPLACE FUNCTION shout(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1)'", "SELECT lower($1)"},
		{"CREATE OR REPLACE VIEW v AS SELECT id + 0 AS id FROM t", "CREATE OR REPLACE VIEW v AS SELECT id FROM t", "relation public.v"},
		{"GRANT UPDATE ON t TO reader", "REVOKE UPDATE ON t FROM reader", "reader=rw/postgres"},
		{"ALTER ROLE reader CREATEDB", "ALTER ROLE reader NOCREATEDB", "role reader"},
		{"ALTER TYPE mood RENAME VALUE 'sad' TO 'bad'", "ALTER TYPE mood RENAME VALUE 'bad' TO 'sad'", "'bad'"},
		{"CREATE TABLE extra ()", "DROP TABLE extra", "public.extra"},
		{"ALTER SEQUENCE s INCREMENT 5", "ALTER SEQUENCE s INCREMENT 1", "sequence public.s bigint 1 5"},
		{"ALTER TABLE parts DETACH PARTITION parts1", "ALTER TABLE parts ATTACH PARTITION parts1 FOR VALUES IN (1)", "public.parts1"},
		// What may differ.
		{"INSERT INTO pgdist.own VALUES (7)", "", ""},
		{"REFRESH MATERIALIZED VIEW mv", "", ""},
		{"DROP TRIGGER pgdist_capture ON t", "", ""},
		{"CREATE TEMP TABLE mine (a int)", "", ""},
	} {
		set[1].Exec(t, named+c.change)
		err := pgtest.CompareServers(t.Context(), set...)
		var difference *pgtest.DifferenceError
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.change, err)
		case c.want != "" && (!errors.As(err, &difference) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v\nwant a difference with %q", c.change, err, c.want)
		}
		if c.back != "" {
			set[1].Exec(t, named+c.back)
			if err := pgtest.CompareServers(t.Context(), set...); err != nil {
				t.Fatalf("after %s: %v", c.back, err)
			}
		}
	}
}

func TestMissingDatabaseIsFound(t *testing.T) {
	a := pgtest.Start(t, pgtest.Options{FsyncOff: true})
	b := pgtest.Start(t, pgtest.Options{FsyncOff: true, Databases: []string{"app"}})
	if err := pgtest.CompareServers(t.Context(), a, b); err == nil || !strings.Contains(err.Error(), `database "app" does not exist`) {
		t.Errorf("a missing database: %v", err)
	}
	if err := pgtest.Compare(t.Context(), a.DSN()); err == nil {
		t.Error("one database alone is no comparison")
	}
}

func TestFirstDifferingRows(t *testing.T) {
	set := pgtest.Set(t, 2, pgtest.Options{FsyncOff: true})
	for i, s := range set {
		s.Exec(t, fmt.Sprintf("CREATE TABLE t AS SELECT g FROM generate_series(%d, 1000) g", 1+i*100))
	}
	err := pgtest.CompareServers(t.Context(), set...)
	if err == nil || !strings.Contains(err.Error(), "table public.t (rows: A 1000, B 900)\n  only in A: (1)\n  only in A: (10)\n  only in A: (100)") {
		t.Error(err)
	}
}
