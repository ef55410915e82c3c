//go:build versions

package driver

import (
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
	} {
		if _, err := db.Exec(sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
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
