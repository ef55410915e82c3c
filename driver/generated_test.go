package driver

import (
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// TestGeneratedBySettings: what PostgreSQL takes for immutable, though a session's settings
// change it, is generated on all servers alike, or the statement is refused.
func TestGeneratedBySettings(t *testing.T) {
	db, servers := mirrored(t, "")
	d := defined{t, db}
	d.session([]string{
		`CREATE DOMAIN ratio AS float8; CREATE TABLE f (k int PRIMARY KEY, v ratio, g text GENERATED ALWAYS AS (v::text) STORED); CREATE TABLE b (v bytea, g text NOT NULL GENERATED ALWAYS AS (lower(v::text)) STORED UNIQUE)`,
		`CREATE TABLE x (k int PRIMARY KEY, v bytea, g xml GENERATED ALWAYS AS (xmlelement(name a, v)) STORED)`,
		`CREATE TABLE p (k int, v point) PARTITION BY LIST ((v::text)); CREATE TABLE p1 PARTITION OF p FOR VALUES IN ('(0.3,0.2)'); CREATE TABLE p2 PARTITION OF p DEFAULT`,
		`CREATE TABLE same (k int PRIMARY KEY, v float8, g text GENERATED ALWAYS AS (k::text) STORED, h float8 GENERATED ALWAYS AS (v * 2) STORED); CREATE TABLE late (k int PRIMARY KEY, v float8); INSERT INTO late VALUES (1, 1.0 / 3)`,
		`INSERT INTO f VALUES (1, 1.0 / 3); INSERT INTO b VALUES ('a'), ('b'); INSERT INTO x VALUES (1, 'a'); INSERT INTO p VALUES (1, '(0.1,0.2)'); SET extra_float_digits = 3; INSERT INTO f VALUES (2, 2.0 / 3)`,
		`SET extra_float_digits = -3`,
		`fails 0A000: INSERT INTO f VALUES (3, 1.0 / 3)`,
		`fails 0A000: UPDATE f SET v = v + 1`,
		`fails 0A000: INSERT INTO f VALUES (1, 1) ON CONFLICT (k) DO UPDATE SET v = 1.0 / 7`,
		`fails 0A000: INSERT INTO p VALUES (1, point(0.1 + 0.2, 0.2))`,
		`fails 0A000: ALTER TABLE late ADD COLUMN g text GENERATED ALWAYS AS (v::text) STORED`,
		`fails 0A000: DO $$ BEGIN ALTER TABLE late ADD COLUMN g text GENERATED ALWAYS AS (v::text) STORED; END $$`,
		`INSERT INTO same VALUES (1, 1.0 / 3); UPDATE late SET v = v + 1; DELETE FROM f WHERE k = 2`,
		`RESET extra_float_digits; SET bytea_output = escape`,
		`fails 0A000: UPDATE b SET v = v || 'x'`,
		`fails 0A000: DO $$ BEGIN UPDATE b SET v = v || 'x'; END $$`,
		`RESET bytea_output; SET xmlbinary = hex`,
		`fails 0A000: INSERT INTO x VALUES (2, 'b')`,
		`RESET xmlbinary; ALTER TABLE late ADD COLUMN g text GENERATED ALWAYS AS (v::text) STORED; UPDATE b SET v = v || 'x'`,
		`SET extra_float_digits = 0`,
		`fails 0A000: UPDATE late SET v = 1.0 / 7`,
		`RESET extra_float_digits; ALTER TABLE p DETACH PARTITION p2; ALTER TABLE late DROP COLUMN g; SET extra_float_digits = 0; UPDATE late SET v = 1.0 / 7; INSERT INTO p2 VALUES (2, point(0.1 + 0.2, 0.2))`,
	})
	pgtest.SameBytes(t, servers...)
}
