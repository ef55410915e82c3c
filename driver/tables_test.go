package driver

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// long is a name of as many bytes as there may be.
var long = strings.Repeat("ü", 31) + "x"

// shapes are scripts about tables of every shape, each a client's session, like
// definitions; rows and shapes change in turn.
var shapes = map[string][]string{
	"no key": {
		`CREATE TABLE bag (a int, b text, c numeric)`, `INSERT INTO bag SELECT g % 3, NULL, 1.0 FROM generate_series(1, 9) g`, `INSERT INTO bag VALUES (1, '', 1.00), (1, NULL, 1.00), (NULL, NULL, NULL), (NULL, NULL, NULL)`,
		`UPDATE bag SET b = 'u' WHERE ctid IN (SELECT min(ctid) FROM bag GROUP BY a)`, `DELETE FROM bag WHERE ctid = (SELECT max(ctid) FROM bag WHERE a IS NULL)`, `UPDATE bag SET c = c + 0.00 WHERE a = 1`,
		`BEGIN; DELETE FROM bag WHERE a = 2; INSERT INTO bag VALUES (2, NULL, 1.0), (2, NULL, 1.0); ALTER TABLE bag DROP COLUMN b; INSERT INTO bag VALUES (5, 5.50); UPDATE bag SET a = 6 WHERE a = 5; COMMIT`,
		`CREATE TABLE bag2 (LIKE bag); INSERT INTO bag2 SELECT * FROM bag; INSERT INTO bag2 SELECT * FROM bag2; TRUNCATE bag; INSERT INTO bag VALUES (1, 1), (1, 1)`,
		`DELETE FROM bag2 WHERE a = 1; ALTER TABLE bag2 ADD id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY; UPDATE bag2 SET c = 0 WHERE id % 2 = 0; ALTER TABLE bag2 DROP COLUMN id; UPDATE bag2 SET a = a + 1`,
	},
	"keys of every type": {
		`CREATE EXTENSION citext; CREATE TYPE e AS ENUM ('a', 'b', 'c'); CREATE DOMAIN d AS e NOT NULL; CREATE DOMAIN dr AS int4range; CREATE DOMAIN da AS e[]; CREATE TYPE pair0 AS (n numeric); CREATE DOMAIN dp AS pair0; CREATE DOMAIN dm AS nummultirange; CREATE DOMAIN dd AS d; CREATE TYPE pair AS (n numeric, e e); CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level1', deterministic = false)`,
		`CREATE TABLE ke (k e PRIMARY KEY, v int); CREATE TABLE kd (k d PRIMARY KEY, v int); CREATE TABLE kdd (r dr, a da, p dp, m dm, e dd, v int, PRIMARY KEY (r, a, p, m, e)); CREATE TABLE kd1 (r dr PRIMARY KEY); CREATE TABLE kd2 (a da PRIMARY KEY); CREATE TABLE kd3 (p dp PRIMARY KEY); CREATE TABLE kr (k int4range, m e, v int, PRIMARY KEY (m, k)); CREATE TABLE kp (k pair PRIMARY KEY, v int);
			CREATE TABLE ka (k e[] PRIMARY KEY, v int); CREATE TABLE kc (k citext, l text COLLATE ci, v int, PRIMARY KEY (k, l)); CREATE TABLE kn (k numeric PRIMARY KEY, v int); CREATE TABLE kb (k bytea, j jsonb, v int, PRIMARY KEY (j, k))`,
		`INSERT INTO ke VALUES ('a', 1), ('c', 1); INSERT INTO kd VALUES ('b', 1); INSERT INTO kdd VALUES ('[1,2)', '{a}', ROW(1.0), '{[1,2)}', 'a', 1); INSERT INTO kd1 VALUES ('[1,5)'); INSERT INTO kd2 VALUES ('{a,c}'); INSERT INTO kd3 VALUES (ROW(1.0)); INSERT INTO kr VALUES ('[1,5)', 'a', 1), ('empty', 'a', 1); INSERT INTO kp VALUES ((1.0, 'a'), 1), ((NULL, NULL), 1);
			INSERT INTO ka VALUES ('{a,b}', 1), ('{}', 1), ('{NULL}', 1); INSERT INTO kc VALUES ('Ab', 'Straße', 1); INSERT INTO kn VALUES (1.0, 1), ('NaN', 1), (0, 1); INSERT INTO kb VALUES ('\x00', '{"a": 1.0}', 1)`,
		`UPDATE ke SET k = 'b' WHERE k = 'c'; UPDATE kd SET k = 'c'; UPDATE kdd SET r = '[2,5)', p = ROW(1.00), m = '{}'; UPDATE kd1 SET r = 'empty'; UPDATE kd2 SET a = '{}'; UPDATE kd3 SET p = ROW(1.00); UPDATE kr SET k = '[2,3)', m = 'b' WHERE k = '[1,5)'; UPDATE kp SET k = (1.00, 'a') WHERE k = (1, 'a')::pair; UPDATE ka SET k = '{c}' WHERE k = '{}'; UPDATE kc SET k = 'aB', l = 'STRASSE';
			UPDATE kn SET k = 1.000 WHERE k = 1; UPDATE kn SET k = -0.00 WHERE k = 0; UPDATE kb SET j = '{"a": 1.00}'`,
		`ALTER TYPE e RENAME VALUE 'a' TO 'z'`, `ALTER TYPE e ADD VALUE 'y' BEFORE 'z'`, `UPDATE ke SET v = 2; INSERT INTO ke VALUES ('y', 5); UPDATE ka SET v = 2; DELETE FROM kp WHERE k = (NULL, NULL)::pair; UPDATE kn SET v = v + 1`,
		`BEGIN; DELETE FROM kn; INSERT INTO kn VALUES (1.00000, 9); COMMIT`, `ALTER TABLE kn ALTER k TYPE float8; UPDATE kn SET k = '-0' WHERE k = 1`,
	},
	"trees": {
		`CREATE TABLE tree (k int, r int, v text, u uuid DEFAULT gen_random_uuid(), PRIMARY KEY (k, r)) PARTITION BY RANGE (r); CREATE TABLE t1 PARTITION OF tree FOR VALUES FROM (0) TO (10) PARTITION BY HASH (k);
			CREATE TABLE t1a PARTITION OF t1 FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE t1b PARTITION OF t1 FOR VALUES WITH (MODULUS 2, REMAINDER 1); CREATE TABLE t2 PARTITION OF tree DEFAULT`,
		`INSERT INTO tree SELECT g, g, 'v' FROM generate_series(1, 30) g`, `UPDATE tree SET r = r + 10 WHERE r < 15`, `UPDATE tree SET r = r % 10, v = 'moved' WHERE r > 20`, `DELETE FROM t1a`, `UPDATE t2 SET v = 'leaf'`,
		`CREATE TABLE t3 (v text, u uuid, gone int, r int NOT NULL, k int NOT NULL); ALTER TABLE t3 DROP COLUMN gone; INSERT INTO t3 VALUES ('x', gen_random_uuid(), 100, 1)`,
		`BEGIN; UPDATE t3 SET v = 'y'; DELETE FROM tree WHERE r BETWEEN 100 AND 200; ALTER TABLE tree ATTACH PARTITION t3 FOR VALUES FROM (100) TO (200); UPDATE tree SET r = 150 WHERE r = 12; COMMIT`,
		`INSERT INTO tree VALUES (1, 101, 'n') ON CONFLICT (k, r) DO UPDATE SET v = 'c'; INSERT INTO tree VALUES (1, 101, 'n') ON CONFLICT (k, r) DO UPDATE SET v = 'conflict'`,
		`BEGIN; ALTER TABLE tree DETACH PARTITION t3; UPDATE t3 SET k = k + 1000; INSERT INTO tree VALUES (5, 105, 'default now'); COMMIT`, `TRUNCATE t1`, `INSERT INTO tree SELECT g, g % 10 FROM generate_series(40, 50) g`,
		`CREATE TABLE nokey (a int, b text) PARTITION BY LIST (a); CREATE TABLE n1 PARTITION OF nokey FOR VALUES IN (1); CREATE TABLE n2 PARTITION OF nokey DEFAULT; INSERT INTO nokey VALUES (1, 'a'), (1, 'a'), (2, 'b')`,
		`UPDATE nokey SET a = 2 WHERE ctid = '(0,1)' AND tableoid = 'n1'::regclass`, `UPDATE n2 SET b = NULL`, `TRUNCATE n1`, `INSERT INTO nokey VALUES (1, NULL)`,
	},
	"constraints": {
		`CREATE EXTENSION btree_gist; CREATE TABLE room (k int, during tstzrange, EXCLUDE USING gist (k WITH =, during WITH &&) DEFERRABLE INITIALLY DEFERRED); INSERT INTO room VALUES (1, '[2024-01-01,2024-01-02)'), (1, '[2024-01-02,2024-01-03)'), (1, NULL)`,
		`BEGIN; UPDATE room SET during = '[2024-01-02,2024-01-03)' WHERE lower(during) = '2024-01-01'; UPDATE room SET during = '[2024-01-01,2024-01-02)' WHERE ctid = (SELECT min(ctid) FROM room WHERE during IS NOT NULL); COMMIT`,
		`fails 23P01: INSERT INTO room VALUES (1, '[2024-01-01,2024-02-01)')`,
		`CREATE TABLE ring (k int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, pos int UNIQUE DEFERRABLE); INSERT INTO ring SELECT g, g FROM generate_series(1, 5) g`, `UPDATE ring SET pos = pos % 5 + 1`, `BEGIN; UPDATE ring SET k = 6 - k; SET CONSTRAINTS ALL IMMEDIATE; COMMIT`, `BEGIN; UPDATE ring SET k = 1; DELETE FROM ring WHERE pos > 1; COMMIT`,
		`CREATE TABLE x (k int PRIMARY KEY, y int); CREATE TABLE y (k int PRIMARY KEY REFERENCES x DEFERRABLE INITIALLY DEFERRED); ALTER TABLE x ADD FOREIGN KEY (y) REFERENCES y DEFERRABLE INITIALLY DEFERRED`, `BEGIN; INSERT INTO x VALUES (1, 1); INSERT INTO y VALUES (1); COMMIT`,
		`fails 23503: INSERT INTO y VALUES (2)`, `BEGIN; DELETE FROM x; DELETE FROM y; COMMIT`,
		`CREATE TABLE gen (id int GENERATED ALWAYS AS IDENTITY (START 5 INCREMENT 5) PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED UNIQUE); INSERT INTO gen (a) VALUES (1), (2); INSERT INTO gen (id, a) OVERRIDING SYSTEM VALUE VALUES (7, 7)`,
		`UPDATE gen SET id = DEFAULT WHERE a = 7`, `ALTER TABLE gen ALTER b DROP EXPRESSION; UPDATE gen SET b = 100 + id; ALTER TABLE gen ALTER id SET GENERATED BY DEFAULT; INSERT INTO gen VALUES (1000, 1, 1); ALTER TABLE gen ALTER id DROP IDENTITY; INSERT INTO gen VALUES (1001, 1, 2)`,
	},
	"names": {
		`CREATE SCHEMA "` + long + `"; CREATE TABLE "` + long + `"."` + long + `" ("` + long + `" int PRIMARY KEY, "pgdist_i" text, "NEW" int, "old" serial, "ctid " int)`, `INSERT INTO "` + long + `"."` + long + `" VALUES (1, 'a', 2), (2, NULL, 3); UPDATE "` + long + `"."` + long + `" SET "NEW" = "old" + 1`,
		`ALTER TABLE "` + long + `"."` + long + `" RENAME TO pgdist; UPDATE "` + long + `".pgdist SET "NEW" = 0; ALTER SCHEMA "` + long + `" RENAME TO "pgdist "; DELETE FROM "pgdist ".pgdist WHERE "old" = 1`,
		`CREATE TABLE journal (id int PRIMARY KEY, term int); INSERT INTO journal VALUES (1, 1); CREATE TABLE "pgdist_1" (tab int, keys text[]); INSERT INTO "pgdist_1" VALUES (1, '{a}'); CREATE FUNCTION c_1() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE SCHEMA "pgdist2" CREATE TABLE boot (one bool)`,
		`INSERT INTO pgdist2.boot VALUES (c_1() = 1)`, `CREATE TABLE "information_schema" (k int PRIMARY KEY); INSERT INTO "information_schema" VALUES (1)`, `CREATE TABLE empty (); INSERT INTO empty DEFAULT VALUES; INSERT INTO empty DEFAULT VALUES`,
		`CREATE SCHEMA "s\"; CREATE TABLE "my\" (id int PRIMARY KEY, "c\\" text); CREATE TABLE "s\"."its ""q"" {a,b}\""" (id int PRIMARY KEY REFERENCES "my\"); INSERT INTO "my\" VALUES (1, '\'); INSERT INTO "s\"."its ""q"" {a,b}\""" VALUES (1)`,
		`ALTER TABLE "my\" ADD "d\" int DEFAULT 7`, `CREATE INDEX "i\" ON "my\" ("c\\")`, `TRUNCATE "my\", "s\"."its ""q"" {a,b}\"""`, `ALTER TABLE "s\"."its ""q"" {a,b}\""" RENAME TO "\"; INSERT INTO "my\" VALUES (2); INSERT INTO "s\"."\" VALUES (2); DROP INDEX "i\"; ALTER TABLE "my\" DROP "c\\"`,
	},
	"columns that come and go": {
		`CREATE TABLE c (a int, b text, k int PRIMARY KEY, d float8); INSERT INTO c SELECT g, 'b', g, random() FROM generate_series(1, 20) g`, `ALTER TABLE c DROP COLUMN b; UPDATE c SET d = random() WHERE k % 2 = 0`,
		`BEGIN; UPDATE c SET a = -1 WHERE k < 5; ALTER TABLE c DROP COLUMN a; ALTER TABLE c ADD COLUMN a text DEFAULT md5(random()::text); UPDATE c SET a = 'x' WHERE k = 6; INSERT INTO c (k) VALUES (21); COMMIT`,
		`BEGIN; ALTER TABLE c DROP CONSTRAINT c_pkey; UPDATE c SET k = 1 WHERE k < 3; INSERT INTO c (k) VALUES (1); COMMIT`, `DELETE FROM c WHERE ctid = (SELECT min(ctid) FROM c WHERE k = 1)`, `ALTER TABLE c ALTER k TYPE numeric USING k / 2.0; UPDATE c SET d = 0 WHERE k > 5`,
		`ALTER TABLE c ADD id bigserial; ALTER TABLE c ADD PRIMARY KEY (id); UPDATE c SET id = id + 100; ALTER TABLE c ADD g tsvector GENERATED ALWAYS AS (to_tsvector('english', coalesce(a, ''))) STORED; INSERT INTO c (k, a) VALUES (0.5, 'running dogs')`,
	},
}

// TestMirroredTables: tables of every shape, whatever is done to their rows and to
// them, end equal on those that were there and on one that finds it all at once.
func TestMirroredTables(t *testing.T) {
	for name, script := range shapes {
		t.Run(name, func(t *testing.T) {
			db, servers := mirrored(t, "")
			d := defined{t, db}
			half := len(script) / 2
			d.session(script[:half])
			pgtest.SameBytes(t, servers...)
			if err := servers[2].Kill(); err != nil {
				t.Fatal(err)
			}
			d.session(script[half:])
			pgtest.SameBytes(t, servers[:2]...)
			if err := servers[2].StartAgain(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), ages)
			defer cancel()
			for err := pgtest.CompareServers(ctx, servers...); err != nil; err = pgtest.CompareServers(ctx, servers...) {
				if ctx.Err() != nil || !sleep(ctx, 100*time.Millisecond) {
					t.Fatalf("after its return: %v", err)
				}
			}
		})
	}
}
