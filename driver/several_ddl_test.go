package driver

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// TestDDLBesideDDL: what a transaction's DDL means is what followers take it for, though other
// DDL, which it did not see, is committed before it; and though a member finds both later, in
// the order in which they were run.
func TestDDLBesideDDL(t *testing.T) {
	db, servers := mirrored(t, "")
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	if err := servers[2].Kill(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, setup, open, beside string }{
		{"default privileges", `CREATE ROLE reader`, `CREATE TABLE dp (k int)`, `ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader`},
		{"privileges on all", `CREATE TABLE before (k int)`, `CREATE TABLE after (k int)`, `GRANT INSERT ON ALL TABLES IN SCHEMA public TO reader`},
		{"a table that is found first", `CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE b.x (k int)`, `SET LOCAL search_path = "a", b; CREATE VIEW b.v AS SELECT * FROM x`, `CREATE TABLE a.x (k int, other text)`},
		{"… moved there", `CREATE TABLE b.y (k int); CREATE TABLE y (other int)`, `SET LOCAL search_path = A, b; CREATE VIEW b.w AS SELECT * FROM y`, `ALTER TABLE y SET SCHEMA a`},
		{"a type that is found first", `CREATE DOMAIN b.d AS int`, `SET LOCAL search_path = a, b; CREATE TABLE b.of_d (k d)`, `CREATE DOMAIN a.d AS text`},
		{"a function that is found first", `CREATE FUNCTION b.g() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `SET LOCAL search_path = a, b; CREATE TABLE b.g (k int DEFAULT g())`, `CREATE FUNCTION a.g() RETURNS int LANGUAGE sql AS 'SELECT 2'`},
		{"a function that fits better", `CREATE FUNCTION h(bigint) RETURNS int LANGUAGE sql AS 'SELECT 1'`, `CREATE TABLE h (k int DEFAULT h(1))`, `CREATE FUNCTION h(int) RETURNS int LANGUAGE sql AS 'SELECT 2'`},
		{"a model's index", `CREATE TABLE m (k int PRIMARY KEY, v text)`, `CREATE TABLE m2 (LIKE m INCLUDING ALL)`, `CREATE INDEX ON m (v)`},
		{"… of a function's", `CREATE TABLE "M ""1" (k int PRIMARY KEY, v text)`, `DO $$ BEGIN CREATE TABLE m3 (LIKE public . "M ""1" INCLUDING ALL); END $$`, `COMMENT ON COLUMN "M ""1".v IS 'x'`},
		{"some that are there", `CREATE TABLE there (k int)`, `CREATE TABLE made (k int)`, `DROP TABLE IF EXISTS made, there`},
		{"none that is there", ``, `CREATE TABLE made2 (k int)`, `DROP TABLE IF EXISTS made2`},
		{"… in a function", ``, `CREATE TABLE made4 (k int)`, `DO $$ BEGIN DROP TABLE IF EXISTS made4, made5; END $$`},
		{"nothing to alter", ``, `CREATE TABLE made3 (k int)`, `ALTER TABLE IF EXISTS made3 ADD COLUMN more int`},
		{"nothing to make", `CREATE TABLE goes (k int)`, `DROP TABLE goes`, `CREATE TABLE IF NOT EXISTS goes (other text)`},
		{"a row type", `CREATE TABLE r (k int)`, `CREATE FUNCTION rs() RETURNS SETOF r LANGUAGE sql AS 'SELECT NULL::r'`, `ALTER TABLE r RENAME TO r2`},
		{"a view's row type", `CREATE VIEW rv AS SELECT 1 AS k`, `CREATE FUNCTION rvs(rv[]) RETURNS int LANGUAGE sql AS 'SELECT 1'`, `ALTER VIEW rv RENAME TO rv2`},
		{"a materialized view's row type", `CREATE MATERIALIZED VIEW rm AS SELECT 1 AS k`, `CREATE FUNCTION rms() RETURNS rm LANGUAGE sql AS 'SELECT NULL::rm'`, `ALTER MATERIALIZED VIEW rm RENAME TO rm2`},
		{"a column of a row type", `CREATE TABLE inner_t (k int)`, `CREATE TABLE outer_t (k inner_t)`, `ALTER TABLE inner_t SET SCHEMA a`},
		{"a sequence", `CREATE SEQUENCE s`, `CREATE TABLE ser (k int DEFAULT nextval('s'))`, `ALTER SEQUENCE s RENAME TO s2`},
		{"privileges on a column", `CREATE TABLE col (k int, v int)`, `GRANT SELECT (v) ON col TO reader`, `ALTER TABLE col RENAME TO col2`},
	} {
		if _, err := db.ExecContext(ctx, c.setup); err != nil {
			t.Fatal(c.name, err)
		}
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(ctx, c.open); err != nil {
			t.Fatal(c.name, err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := db.ExecContext(ctx, c.beside)
			done <- err
		}()
		select {
		case err = <-done:
			done <- err
		case <-time.After(300 * time.Millisecond):
		}
		if err := tx.Commit(); err != nil {
			t.Error(c.name, err)
		}
		if err := <-done; err != nil {
			t.Error(c.name, err)
		}
		if pgtest.SameBytes(t, servers[:2]...); t.Failed() {
			t.Fatal(c.name)
		}
	}
	if err := servers[2].StartAgain(); err != nil {
		t.Fatal(err)
	}
	returned, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	converge(returned, t, servers)
}

// TestDDLOfTenantsGoesOn: transactions that make things of the same names in schemas of their
// own do not wait for each other.
func TestDDLOfTenantsGoesOn(t *testing.T) {
	db, servers := mirrored(t, "")
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	if _, err := db.ExecContext(ctx, `CREATE SCHEMA one; CREATE SCHEMA two; CREATE TABLE one.old (k int); CREATE TABLE two.old (k int)`); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{
		`SET LOCAL search_path = one, public; SET LOCAL lock_timeout = '5s'; CREATE TABLE t (k serial PRIMARY KEY); CREATE VIEW v AS SELECT * FROM t`,
		`SET LOCAL search_path = two, public; SET LOCAL lock_timeout = '5s'; CREATE TABLE t (k serial PRIMARY KEY); CREATE VIEW v AS SELECT * FROM t; ALTER TABLE old RENAME TO older`,
	} {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(ctx, q); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := tx.Commit(); err != nil {
				t.Error(err)
			}
			pgtest.SameBytes(t, servers...)
		}()
	}
}

// TestDDLThatWaitsLetsPass: DDL that waits for readers to go is not in the way of those that
// have read a table and now write it, as PostgreSQL's own is not.
func TestDDLThatWaitsLetsPass(t *testing.T) {
	db, servers := mirrored(t, "")
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	if _, err := db.ExecContext(ctx, `CREATE TABLE "T 1" (k int PRIMARY KEY, v int); INSERT INTO "T 1" VALUES (1, 0);
		CREATE TABLE parts (k int) PARTITION BY RANGE (k); CREATE TABLE p0 PARTITION OF parts FOR VALUES FROM (0) TO (10); INSERT INTO parts VALUES (1);
		CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER tr BEFORE INSERT ON "T 1" EXECUTE FUNCTION f()`); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ read, beside, write, ddl string }{
		{`SELECT * FROM "T 1"`, `INSERT INTO "T 1" VALUES (101, 0)`, `UPDATE "T 1" SET v = v + 1`, `ALTER TABLE "T 1" ADD COLUMN w int`},
		{`SELECT * FROM "T 1"`, `INSERT INTO "T 1" VALUES (102, 0)`, `INSERT INTO "T 1" VALUES (2, 0)`, `DROP TRIGGER tr ON "T 1"`},
		{`SELECT * FROM "T 1"`, `INSERT INTO "T 1" VALUES (103, 0)`, `DELETE FROM "T 1" WHERE k = 2`, `TRUNCATE "T 1"`},
		{`SELECT * FROM parts`, `INSERT INTO parts VALUES (5)`, `UPDATE parts SET k = k + 1`, `CREATE TABLE p1 PARTITION OF parts FOR VALUES FROM (10) TO (20)`},
		{`SELECT * FROM parts`, `INSERT INTO parts VALUES (5)`, `UPDATE parts SET k = k + 1`, `ALTER TABLE parts RENAME TO parts2`},
		{`SELECT * FROM "T 1"`, `INSERT INTO "T 1" VALUES (106, 0)`, `UPDATE "T 1" SET v = v + 1`, `DROP TABLE IF EXISTS "T 1", absent`},
	} {
		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(ctx, c.read); err != nil {
			t.Fatal(c.ddl, err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := db.ExecContext(ctx, c.ddl)
			done <- err
		}()
		time.Sleep(500 * time.Millisecond)
		if _, err := db.ExecContext(ctx, c.beside); err != nil { // which the mirror reads to ship it
			t.Errorf("%s, beside %s: %v", c.beside, c.ddl, err)
		}
		select {
		case err := <-done:
			t.Fatalf("%s did not wait: %v", c.ddl, err)
		default:
		}
		if _, err := tx.ExecContext(ctx, c.write); err != nil {
			t.Errorf("%s, beside %s: %v", c.write, c.ddl, err)
		}
		if err := tx.Commit(); err != nil {
			t.Error(c.ddl, err)
		}
		if err := <-done; err != nil {
			t.Error(c.ddl, err)
		}
	}

	// Time limits of the user's hold.
	reader, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.ExecContext(ctx, `SELECT * FROM parts2`); err != nil {
		t.Fatal(err)
	}
	for setting, code := range map[string]string{"lock_timeout": "55P03", "statement_timeout": "57014"} {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(ctx, "SET LOCAL "+setting+" = '700ms'"); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if _, err := tx.ExecContext(ctx, "ALTER TABLE parts2 ADD COLUMN late int"); sqlState(err) != code || time.Since(begun) < 600*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	}
	if err := reader.Rollback(); err != nil {
		t.Error(err)
	}
	pgtest.SameBytes(t, servers...)
}
