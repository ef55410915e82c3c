//go:build versions

package driver

import (
	"context"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// What only PostgreSQL 18 can define is mirrored, though classify's grammar is older.
func TestNewerDefinitionsAreMirrored(t *testing.T) {
	bin, err := pgtest.BinDirOf(18)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGDIST_PGBIN", bin)
	db, servers := mirrored(t, "")
	ctx := context.Background()
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	run(t, db, `CREATE EXTENSION btree_gist`)
	for _, sql := range []string{
		`CREATE TABLE v (k int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2))`,
		`INSERT INTO v (k, a) VALUES (1, 1), (2, 2)`,
		`ALTER TABLE v ALTER COLUMN b SET EXPRESSION AS (a + 7)`,
		`ALTER TABLE v ADD CONSTRAINT c CHECK (a > 0) NOT ENFORCED`,
		`INSERT INTO v (k, a) VALUES (3, -1)`,
		`CREATE TABLE during (id int, d daterange, PRIMARY KEY (id, d WITHOUT OVERLAPS))`,
		`INSERT INTO during VALUES (1, '[2020-01-01,2020-02-01)')`,
		`CREATE TABLE ref (id int, d daterange, FOREIGN KEY (id, PERIOD d) REFERENCES during (id, PERIOD d))`,
		`INSERT INTO ref VALUES (1, '[2020-01-05,2020-01-15)')`,
		`UPDATE during SET d = '[2020-01-01,2020-03-01)'`,
		`MERGE INTO v USING (SELECT 1 AS k) n ON v.k = n.k WHEN MATCHED THEN UPDATE SET a = 9 RETURNING v.a`,
		`UPDATE v SET a = 10 WHERE k = 2 RETURNING OLD.a, NEW.a`,
		`CREATE VIEW seen AS SELECT k, JSON_VALUE(jsonb '{"a": 5}', '$.a' RETURNING int) AS j FROM v`,
		`CREATE OR REPLACE VIEW rows AS SELECT x.* FROM v, JSON_TABLE(jsonb '[1, 2]', '$[*]' COLUMNS (n int PATH '$')) x`,
		`CREATE MATERIALIZED VIEW kept AS SELECT JSON_QUERY(jsonb '{"a": [5]}', '$.a') AS j, k FROM v`,
		`CREATE FUNCTION merged() RETURNS SETOF int BEGIN ATOMIC MERGE INTO v USING (SELECT 2 AS k) n ON v.k = n.k WHEN MATCHED THEN UPDATE SET a = CASE WHEN v.a > 0 THEN 11 END RETURNING v.a; END`,
		`SELECT merged()`,
		`CREATE STATISTICS counted ON a, k FROM v`,
		`ALTER STATISTICS counted SET STATISTICS DEFAULT`,
		`ALTER DEFAULT PRIVILEGES GRANT SELECT ON LARGE OBJECTS TO PUBLIC`,
		`CREATE TABLE several (k int PRIMARY KEY, a int); INSERT INTO several SELECT g, g FROM generate_series(1, 5) g; ALTER TABLE several ADD COLUMN b int GENERATED ALWAYS AS (a + 1); UPDATE several SET a = 7 WHERE k = 1`,
		`CREATE TABLE filled AS SELECT JSON_VALUE(jsonb '{"a": 5}', '$.a' RETURNING int) AS j, random() AS r`,
	} {
		if _, err := db.Exec(sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	const merge = `MERGE INTO several USING (SELECT 1 AS k) n ON several.k = n.k WHEN MATCHED THEN UPDATE SET a = several.a + 1 RETURNING several.a`
	for _, step := range []struct {
		sql, state string
		a          int
	}{
		{merge + `; BEGIN; ` + merge, "", 9}, {merge, "", 10}, {`ROLLBACK`, "", 7},
		{`BEGIN; ` + merge + `; COMMIT`, "", 8},
		{`BEGIN`, "", 8}, {merge + `; COMMIT; BEGIN; ` + merge, "", 10}, {`ROLLBACK`, "", 9},
		{`BEGIN; ` + merge + `; COMMIT; ` + merge + `, FROM`, "42601", 9}, // nothing of it is run
		{`BEGIN`, "", 9}, {merge + `; SELECT FROM WHERE`, "42601", 0}, {`ROLLBACK`, "", 9},
	} {
		if _, err := conn.ExecContext(ctx, step.sql); sqlState(err) != step.state {
			t.Errorf("%s: %v", step.sql, err)
		}
		var a int
		if err := conn.QueryRowContext(ctx, `SELECT a FROM several WHERE k = 1`).Scan(&a); a != step.a || err != nil && step.a != 0 {
			t.Errorf("after %s: %d, %v", step.sql, a, err)
		}
	}
	var objects int
	if err := db.QueryRow(`SELECT count(*) FROM pg_class WHERE relname IN ('seen', 'rows', 'kept', 'counted', 'several', 'filled')`).Scan(&objects); err != nil || objects != 5 {
		t.Errorf("%d objects, %v", objects, err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{`INSERT INTO v (k, a) VALUES (4, 4)`, `ALTER TABLE v ADD COLUMN c int GENERATED ALWAYS AS (k)`, `UPDATE v SET a = 5 WHERE k = 4`} {
		if _, err := tx.Exec(sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if _, err := db.Exec(`ALTER TABLE v ADD CONSTRAINT c CHECK (a > 0) NOT UNDERSTOOD`); sqlState(err) != "42601" {
		t.Errorf("a mistake: %v", err)
	}
	var a, c int
	if err := db.QueryRow(`SELECT a, c FROM v WHERE k = 4`).Scan(&a, &c); err != nil || a != 5 || c != 4 {
		t.Errorf("%d, %d, %v", a, c, err)
	}
	pgtest.SameBytes(t, servers...)
}
