package mirror

import "testing"

// DDL whose outcome depends on where and when it runs, and DDL with rows of the
// same table in one transaction.
func TestAttackDDL(t *testing.T) {
	a := trial{schema: `
CREATE ROLE builder LOGIN; GRANT CREATE ON SCHEMA public TO builder; CREATE SCHEMA "Odd ""s"; GRANT ALL ON SCHEMA "Odd ""s" TO builder;
CREATE TABLE kl (a int, b text); CREATE TABLE kr (a int PRIMARY KEY, b text); CREATE TABLE dc (k int PRIMARY KEY);
CREATE TABLE q1 (k int PRIMARY KEY, v int); CREATE TABLE q2 (k int PRIMARY KEY, v int);
CREATE TABLE root (k int, r int, v text, PRIMARY KEY (k, r)) PARTITION BY LIST (r); CREATE TABLE leaf (k int, r int, v text, PRIMARY KEY (k, r));
CREATE TYPE ct AS (x int, y int); CREATE TABLE comp (k int PRIMARY KEY, c ct, d ct[]); CREATE TYPE mood AS ENUM ('a'); CREATE TABLE moods (m mood, n int)
`}.on(t, ground(t, 2, nil))
	a.steady("settings", func(a *arena) {
		c := a.clientAs("builder")
		a.exec(c, `SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'SQL, DMY'; SET IntervalStyle = iso_8601; SET bytea_output = escape; SET extra_float_digits = -3; SET search_path = "Odd ""s", public`)
		a.ddl(c, `CREATE TABLE st (k serial PRIMARY KEY, d timestamptz DEFAULT '2020-01-01 00:00', t text DEFAULT '\x00ff'::bytea::text)`)
		a.do(c, `INSERT INTO st DEFAULT VALUES`)
		a.ddl(c, `ALTER TABLE st ADD e timestamptz DEFAULT '02/03/2020 00:00', ADD f date DEFAULT '02/03/2020', ADD g text DEFAULT now()::text, ADD h text DEFAULT (0.1::float8 * 3)::text, ADD w name DEFAULT current_user`)
		a.ddl(c, `ALTER TABLE st ADD i interval DEFAULT '1 year 2 days', ADD u uuid DEFAULT gen_random_uuid(), ADD x float8 DEFAULT random()`)
		a.do(c, `INSERT INTO st DEFAULT VALUES`)
		a.ddl(c, `ALTER TABLE st ALTER g DROP DEFAULT, ALTER g TYPE timestamptz USING now(), ALTER f TYPE text USING f::text`)
		a.ddl(c, `ALTER TABLE st ALTER d TYPE timestamp`)
		a.ddl(c, `CREATE TABLE made AS SELECT k, random() AS r, clock_timestamp() AS c, '02/03/2020'::date::text AS d FROM st`)
		a.do(c, `UPDATE made SET r = r + 1`, `INSERT INTO st DEFAULT VALUES`)
	})
	a.steady("as another role", func(a *arena) {
		c := a.client()
		a.exec(c, `SET ROLE builder`)
		a.ddl(c, `CREATE TABLE owned (k int PRIMARY KEY)`)
		a.exec(c, `RESET ROLE`)
		a.everywhere("builder", `SELECT tableowner::text FROM pg_tables WHERE tablename = 'owned'`)
	})
	a.steady("temporary and other things dropped by one statement", func(a *arena) {
		c := a.client()
		a.ddl(c, `CREATE TABLE lasting (k int PRIMARY KEY)`)
		a.ddl(c, `CREATE VIEW "Seen" AS SELECT k FROM lasting`)
		a.ddl(c, `CREATE TABLE stays (k int)`)
		a.ddl(c, `CREATE FUNCTION lasts(int, text) RETURNS int LANGUAGE sql AS 'SELECT 1'`)
		a.exec(c, `CREATE TEMP TABLE passing (k int); CREATE TEMP TABLE stays (k int); CREATE TEMP VIEW "Glimpse" AS SELECT k FROM lasting; CREATE FUNCTION pg_temp.passes() RETURNS int LANGUAGE sql AS 'SELECT 1'`)
		a.ddl(c, `DROP FUNCTION pg_temp.passes(), lasts`)
		a.ddl(c, `DROP VIEW "Seen", "Glimpse"`)
		a.ddl(c, `DROP TABLE passing, lasting, stays`)
		a.everywhere("0", `SELECT count(*)::text FROM pg_class WHERE relname IN ('lasting', 'Seen')`)
		a.everywhere("0", `SELECT count(*)::text FROM pg_proc WHERE proname = 'lasts'`)
		a.everywhere("1", `SELECT count(*)::text FROM pg_class WHERE relname = 'stays'`)
		a.ddl(c, `DROP TABLE stays`)
	})
	a.steady("functions about temporary tables", func(a *arena) {
		c := a.client()
		a.exec(c, `CREATE TEMP TABLE passing (k int); SET check_function_bodies = on`)
		a.ddl(c, `CREATE FUNCTION fill() RETURNS void LANGUAGE sql AS 'INSERT INTO passing VALUES (1)'`)
		a.ddl(c, `CREATE FUNCTION count_it() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM passing); END'`)
		a.exec(c, `SELECT fill()`)
		a.refused(c, "0A000", "CREATE FUNCTION that depends on something temporary", `ddl: CREATE FUNCTION of_it(passing) RETURNS int LANGUAGE sql AS 'SELECT 1'`)
		a.refused(c, "0A000", "ALTER TABLE that depends on something temporary", `ddl: ALTER TABLE dc ADD p passing`)
		a.ddl(c, `CREATE FUNCTION pg_temp.of_it(passing) RETURNS int LANGUAGE sql AS 'SELECT 1'`)
		a.ddl(c, `DROP FUNCTION fill(), count_it()`)
	})
	a.steady("rows without a key, retyped", func(a *arena) {
		c := a.client()
		a.do(c, `INSERT INTO kl VALUES (1, 'x'), (1, 'x'), (3, 'y')`)
		a.tx(c, `UPDATE kl SET a = 2 WHERE b = 'x'`, `ddl: ALTER TABLE kl ALTER a TYPE text USING 'x' || a`, `DELETE FROM kl WHERE b = 'y'`)
		a.tx(c, `UPDATE kl SET b = 'z'`, `ddl: ALTER TABLE kl ADD c int`, `UPDATE kl SET c = 3 WHERE ctid = (SELECT min(ctid) FROM kl)`)
		a.tx(c, `DELETE FROM kl WHERE c IS NULL`, `ddl: ALTER TABLE kl DROP a`, `INSERT INTO kl VALUES ('n', 4)`)
		a.tx(c, `INSERT INTO kl VALUES ('p', 5)`, `ddl: ALTER TABLE kl ADD k serial PRIMARY KEY`, `UPDATE kl SET c = 9`)
		a.tx(c, `UPDATE kl SET c = 10`, `ddl: ALTER TABLE kl DROP k`, `INSERT INTO kl SELECT * FROM kl`)
	})
	a.steady("key renamed, retyped, replaced", func(a *arena) {
		c := a.client()
		a.do(c, `INSERT INTO kr VALUES (1, 'x'), (3, 'y')`)
		a.tx(c, `UPDATE kr SET a = 2 WHERE a = 1`, `ddl: ALTER TABLE kr RENAME a TO z`, `UPDATE kr SET b = z`)
		a.tx(c, `UPDATE kr SET z = 9 WHERE z = 2`, `ddl: ALTER TABLE kr ALTER z TYPE text`, `UPDATE kr SET b = 5 WHERE z = '9'`)
		a.tx(c, `UPDATE kr SET z = 19 WHERE z = '9'`, `ddl: ALTER TABLE kr DROP CONSTRAINT kr_pkey, ADD PRIMARY KEY (b)`, `UPDATE kr SET b = 6 WHERE z = '19'`)
	})
	a.steady("dropped and made again", func(a *arena) {
		c := a.client()
		a.do(c, `INSERT INTO dc VALUES (1)`)
		a.tx(c, `INSERT INTO dc VALUES (2)`, `ddl: DROP TABLE dc`, `ddl: CREATE TABLE dc (k int PRIMARY KEY)`, `INSERT INTO dc VALUES (7)`)
		a.tx(c, `ddl: CREATE TABLE brief (k int)`, `INSERT INTO brief VALUES (1)`, `ddl: DROP TABLE brief`)
	})
	a.steady("names exchanged", func(a *arena) {
		c := a.client()
		a.do(c, `INSERT INTO q1 VALUES (1, 1)`, `INSERT INTO q2 VALUES (2, 2)`)
		a.tx(c, `UPDATE q1 SET v = 5`, `UPDATE q2 SET v = 6`, `ddl: ALTER TABLE q1 RENAME TO q3`, `ddl: ALTER TABLE q2 RENAME TO q1`, `ddl: ALTER TABLE q3 RENAME TO q2`, `UPDATE q1 SET v = v + 1`)
	})
	a.steady("attached", func(a *arena) {
		c := a.client()
		a.do(c, `INSERT INTO leaf VALUES (1, 1, 'old')`)
		a.tx(c, `UPDATE leaf SET v = 'new'`, `ddl: ALTER TABLE root ATTACH PARTITION leaf FOR VALUES IN (1)`, `UPDATE root SET v = v || 'er'`)
		a.ddl(c, `CREATE TABLE leaf2 PARTITION OF root FOR VALUES IN (2)`)
		a.do(c, `UPDATE root SET r = 2`)
		a.ddl(c, `ALTER TABLE root DETACH PARTITION leaf2`)
		a.do(c, `UPDATE leaf2 SET v = 'alone'`)
	})
	a.steady("types under tables", func(a *arena) {
		c := a.client()
		a.do(c, `INSERT INTO comp VALUES (1, '(1,2)', '{"(3,4)"}')`)
		a.ddl(c, `ALTER TYPE ct ADD ATTRIBUTE z int`)
		a.do(c, `INSERT INTO comp VALUES (2, '(1,2,3)', '{"(3,4,5)"}')`, `UPDATE comp SET c.x = 9`)
		a.ddl(c, `ALTER TYPE ct DROP ATTRIBUTE y`)
		a.do(c, `UPDATE comp SET c.x = 10`)
		a.ddl(c, `ALTER TYPE mood ADD VALUE 'b' BEFORE 'a'`)
		a.do(c, `INSERT INTO moods VALUES ('b', 1), ('b', 1)`)
		a.ddl(c, `ALTER TYPE mood RENAME VALUE 'b' TO 'c'`)
		a.do(c, `DELETE FROM moods WHERE ctid = '(0,1)'`)
	})
	a.steady("truncate and rows", func(a *arena) {
		c := a.client()
		a.do(c, `INSERT INTO moods VALUES ('a', 5), ('a', 6)`)
		a.tx(c, `INSERT INTO moods VALUES ('a', 7)`, `TRUNCATE moods`, `INSERT INTO moods VALUES ('c', 8), ('c', 8)`, `DELETE FROM moods WHERE ctid = '(0,1)'`)
		a.tx(c, `TRUNCATE moods`, `INSERT INTO moods VALUES ('a', 1)`, `TRUNCATE moods, q1`, `INSERT INTO q1 VALUES (7, 7)`)
	})
}
