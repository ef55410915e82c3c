//go:build unix

package compat

import (
	"database/sql"
	"testing"
)

// scripts runs strings of statements and notes how they end.
func scripts(db *sql.DB, note note, list ...string) {
	for _, q := range list {
		_, err := db.Exec(q)
		note("%s: %s", q, told(err))
	}
}

// TestDropThenAlter: what a transaction has dropped must not hold up the flush
// that its next DDL waits for.
func TestDropThenAlter(t *testing.T) {
	both(t, func(t *testing.T, db *sql.DB, note note) {
		scripts(db, note,
			"CREATE TABLE a (id serial PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1), (2); INSERT INTO a DEFAULT VALUES",
			"BEGIN; DROP TABLE a; ALTER TABLE b ADD COLUMN n int; COMMIT",
			"CREATE SCHEMA s; CREATE TABLE s.a (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY); INSERT INTO s.a DEFAULT VALUES",
			"DROP SCHEMA s CASCADE; ALTER TABLE b DROP COLUMN n; UPDATE b SET id = id + 10",
		)
		note("%s", schema(t, db))
		note("%s", table(t, db, "SELECT * FROM b ORDER BY id"))
	})
}

// TestFillThenConstrain: rows that a transaction changed are there when its DDL
// looks at them, on every member.
func TestFillThenConstrain(t *testing.T) {
	for name, q := range map[string]string{
		"not_null":    "ALTER TABLE f ADD COLUMN mail text; UPDATE f SET mail = 'm' || id; ALTER TABLE f ALTER COLUMN mail SET NOT NULL",
		"unique":      "DELETE FROM f WHERE id > 1 AND v = 1; CREATE UNIQUE INDEX ON f (v)",
		"check":       "UPDATE f SET v = abs(v); ALTER TABLE f ADD CHECK (v >= 0)",
		"type":        "UPDATE f SET t = '7'; ALTER TABLE f ALTER COLUMN t TYPE int USING t::int",
		"foreign_key": "INSERT INTO g SELECT DISTINCT v FROM f ON CONFLICT DO NOTHING; ALTER TABLE f ADD FOREIGN KEY (v) REFERENCES g",
		"enum":        "UPDATE f SET t = 'a'; CREATE TYPE e AS ENUM ('a', 'b'); ALTER TABLE f ALTER COLUMN t TYPE e USING t::e",
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, db *sql.DB, note note) {
				scripts(db, note, "CREATE TABLE g (id int PRIMARY KEY); CREATE TABLE f (id int PRIMARY KEY, v int, t text)",
					"INSERT INTO g VALUES (1); INSERT INTO f VALUES (1, 1, 'x'), (2, 1, 'y'), (3, -3, 'z')", q)
				note("%s", schema(t, db))
				note("%s", table(t, db, "SELECT * FROM f ORDER BY id"))
			})
		})
	}
}
