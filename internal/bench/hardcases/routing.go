//go:build linux

package main

// table is what many cases work on.
const table = "A: CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')\n"

const writer = "A: CREATE FUNCTION w(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (i, 'w'); RETURN i; END $$\n"

var routing = []hardCase{
	{what: "`INSERT … RETURNING` through a query call", script: table + "A: INSERT INTO t VALUES (4, 'd') RETURNING id"},
	{what: "`UPDATE … RETURNING` and `DELETE … RETURNING`", script: table + "A: UPDATE t SET v = 'x' WHERE id = 1 RETURNING v\nA: DELETE FROM t WHERE id = 2 RETURNING *"},
	{what: "`SELECT` of a function that writes", script: table + writer + "A: SELECT w(4)\nB: SELECT w(5)\nC: SELECT w(6)\nA: SELECT w(4)"},
	{what: "… with a bound parameter", script: table + writer + "A: SELECT w($1::int) <- 4\nB: SELECT w($1::int) <- 5\nA: SELECT count(*) FROM t"},
	{what: "… in `WHERE`", script: table + writer + "A: SELECT id FROM t WHERE w(id + 10) > 0 ORDER BY id\nA: SELECT count(*) FROM t"},
	{what: "… in a subquery", script: table + writer + "A: SELECT (SELECT w(4))\nA: SELECT * FROM (SELECT w(5) OFFSET 0) x\nA: SELECT count(*) FROM t"},
	{what: "… behind a view", script: table + writer + "A: CREATE VIEW v AS SELECT w(max(id) + 1) AS k FROM t\nA: SELECT * FROM v\nB: SELECT * FROM v\nA: SELECT count(*) FROM t"},
	{what: "… that is written in SQL", script: table + "A: CREATE FUNCTION s(i int) RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (i, NULL) RETURNING id'\nA: SELECT s(4)\nA: SELECT * FROM s(5)\nA: SELECT count(*) FROM t"},
	{what: "a `STABLE` function that calls one that writes", script: table + writer + "A: CREATE FUNCTION st(i int) RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN w(i); END $$\nA: SELECT st(4)\nB: SELECT st(5)\nA: SELECT count(*) FROM t"},
	{what: "a function of which one overload writes", script: table + writer + "A: CREATE FUNCTION w(s text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT s'\nA: SELECT w('x'::text)\nA: SELECT w(4)\nA: SELECT count(*) FROM t"},
	{what: "an operator whose function writes", script: table + writer + "A: CREATE OPERATOR +++ (RIGHTARG = int, FUNCTION = w)\nA: SELECT +++ 4\nA: SELECT count(*) FROM t"},
	{what: "`WITH x AS (INSERT …) SELECT`", script: table + "A: WITH x AS (INSERT INTO t VALUES (4, 'd') RETURNING id) SELECT * FROM x\nA: WITH x AS (DELETE FROM t WHERE id < 3 RETURNING *), y AS (INSERT INTO t SELECT id + 10, v FROM x RETURNING id) SELECT id FROM y ORDER BY 1"},
	{what: "`EXPLAIN ANALYZE INSERT`", script: table + "A? EXPLAIN (ANALYZE, TIMING off) INSERT INTO t VALUES (4, 'd')\nA: SELECT count(*) FROM t"},
	{what: "`DO` block that writes", script: table + "A: DO $$ BEGIN INSERT INTO t VALUES (4, 'd'); END $$\nA: SELECT count(*) FROM t"},
	{what: "`CALL` of a procedure that commits in between", script: table + "A: CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (4, 'd'); COMMIT; INSERT INTO t VALUES (5, 'e'); ROLLBACK; INSERT INTO t VALUES (6, 'f'); END $$\nA: CALL p()\nA: SELECT id FROM t ORDER BY 1"},
	{what: "`COPY (INSERT … RETURNING) TO STDOUT`", script: table + "A out: COPY (INSERT INTO t VALUES (4, 'd') RETURNING id) TO STDOUT\nB: SELECT count(*) FROM t"},
	{what: "`SELECT INTO`", script: table + "A: SELECT * INTO t2 FROM t\nA: SELECT count(*) FROM t2"},
	{what: "`CREATE TABLE AS` with `random()`", open: true, script: table + "A: CREATE TABLE t2 AS SELECT id, random() AS r FROM t\nA: SELECT count(*) FROM t2"},
	{what: "`PREPARE` and `EXECUTE` of a write, in SQL", script: table + "A: PREPARE ins (int) AS INSERT INTO t VALUES ($1, 'p')\nA: EXECUTE ins(4)\nA: EXECUTE ins(5)\nA: SELECT count(*) FROM t"},
	{what: "`PREPARE` of a `SELECT` that writes", script: table + writer + "A: PREPARE sel (int) AS SELECT w($1)\nA: EXECUTE sel(4)\nA: SELECT count(*) FROM t"},
	{what: "`SELECT 1; DELETE …` in one string", script: table + "A? SELECT 1; DELETE FROM t WHERE id = 1\nB: SELECT count(*) FROM t"},
	{what: "`INSERT …; SELECT 1/0` in one string: one transaction", script: table + "A: INSERT INTO t VALUES (4, 'd'); SELECT 1/0\nB: SELECT count(*) FROM t"},
	{what: "`now()` and `RETURNING` within literals, comments and quoted names", script: `A: CREATE TABLE t (id int PRIMARY KEY, "now()" text)` + "\nA: INSERT INTO t (id, \"now()\") VALUES (1, 'now() RETURNING \"id\" CURRENT_TIMESTAMP random()') /* RETURNING */\nA: SELECT \"now()\" FROM t"},
	{what: "comments and parentheses in front", script: table + "A: /* SELECT */ INSERT INTO t VALUES (4, 'd')\nA: -- read\nA: (SELECT count(*) FROM t)\nA: ((VALUES (1)))\nA: TABLE t"},
	{what: "`SET search_path`, then a write", script: table + "A: CREATE SCHEMA s CREATE TABLE t (id int PRIMARY KEY, v text)\nA: SET search_path = s\nA: INSERT INTO t VALUES (9, 's')\nA: SELECT count(*) FROM t\nB: SELECT count(*) FROM t\nA: RESET ALL\nA: DROP SCHEMA s CASCADE"},
	{what: "`set_config('search_path', …)`, then a write", script: table + "A: CREATE TABLE logged (v text)\nA: SELECT set_config('my.tag', 'x', false)\nA: INSERT INTO logged VALUES (current_setting('my.tag', true))\nA: SELECT v FROM logged"},
	{what: "`set_config` within a transaction", script: "A: CREATE TABLE logged (v text)\nA: BEGIN\nA: SELECT set_config('my.tag', 'y', true)\nA: INSERT INTO logged VALUES (current_setting('my.tag', true))\nA: COMMIT\nA: SELECT v FROM logged"},
	{what: "`SET ROLE`, then `current_user` in a row", script: "A: CREATE TABLE who (k int PRIMARY KEY, u text DEFAULT current_user)\nA: SET ROLE pg_write_all_data\nA: INSERT INTO who VALUES (1)\nA: RESET ROLE\nA: INSERT INTO who VALUES (2)\nA: SELECT * FROM who ORDER BY 1"},
	{what: "`DISCARD ALL`", script: table + "A: SET DateStyle = 'German'\nA: DISCARD ALL\nA: SHOW DateStyle\nA: SELECT '2024-02-29'::date::text"},
	{what: "temporary tables", script: table + "A: CREATE TEMP TABLE tt AS SELECT id + 10 AS id FROM t\nA: SELECT count(*) FROM tt\nA: INSERT INTO t SELECT id, 't' FROM tt\nA: SELECT count(*) FROM t\nB: SELECT count(*) FROM tt"},
	{what: "advisory locks exclude", script: "A: SELECT pg_advisory_lock(4711)\nB: SELECT pg_try_advisory_lock(4711)\nC: SELECT pg_try_advisory_lock(4711)\nD: SELECT pg_try_advisory_lock(4711)\nA: SELECT pg_advisory_unlock(4711)\nB: SELECT pg_try_advisory_lock(4711)\nC: SELECT pg_try_advisory_lock(4711)"},
	{what: "advisory locks of transactions", script: "A: BEGIN\nA: SELECT pg_advisory_xact_lock(1)\nB: SELECT pg_try_advisory_xact_lock(1)\nC: SELECT pg_try_advisory_xact_lock(1)\nD: SELECT pg_try_advisory_xact_lock(1)\nA: COMMIT\nB: SELECT pg_try_advisory_xact_lock(1)"},
	{what: "`LISTEN` hears a `NOTIFY` once", script: "A: LISTEN ch\nB: NOTIFY ch, 'x'\nA hear:"},
	{what: "`LISTEN` hears `pg_notify()` of others, wherever they read", script: "A: LISTEN ch\nB: SELECT 1\nB? SELECT pg_notify('ch', 'x')\nC? SELECT pg_notify('ch', 'y')\nD? SELECT pg_notify('ch', 'z')\nA hear:"},
	{what: "a trigger that notifies", script: table + "A: CREATE FUNCTION n() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('ch', NEW.v); RETURN NEW; END $$\nA: CREATE TRIGGER n AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION n()\nB: LISTEN ch\nA: INSERT INTO t VALUES (4, 'd'), (5, 'e')\nB hear:"},
	{what: "cursors", script: table + "A: BEGIN\nA: DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id\nA: FETCH 2 FROM c\nA: UPDATE t SET v = 'u' WHERE CURRENT OF c\nA: FETCH 2 FROM c\nA: COMMIT\nB: SELECT * FROM t ORDER BY id"},
	{what: "cursors `WITH HOLD`", script: table + "A: BEGIN\nA: DECLARE c CURSOR WITH HOLD FOR SELECT id FROM t ORDER BY id\nA: COMMIT\nA: FETCH 2 FROM c\nB: DELETE FROM t WHERE id = 3\nA: FETCH 2 FROM c\nA: CLOSE c"},
	{what: "`COPY FROM STDIN`", script: table + "A copy: COPY t FROM STDIN | 4,d;5,e;6,\\N\nB: SELECT count(*) FROM t"},
	{what: "`COPY FROM STDIN` that fails half way", script: table + "A copy: COPY t FROM STDIN | 4,d;5,e;1,x\nB: SELECT count(*) FROM t\nA: INSERT INTO t VALUES (4, 'after')"},
	{what: "`COPY FROM STDIN` with defaults that differ", open: true, script: "A: CREATE TABLE t (id int, r float8 DEFAULT random(), at timestamptz DEFAULT clock_timestamp())\nA copy: COPY t (id) FROM STDIN | 1;2;3\nB: SELECT count(*) FROM t"},
	{what: "a write in `BEGIN READ ONLY`", script: table + "A: BEGIN READ ONLY\nA: SELECT count(*) FROM t\nA: INSERT INTO t VALUES (4, 'd')\nA: ROLLBACK\nA: INSERT INTO t VALUES (4, 'd')\nB: SELECT count(*) FROM t"},
	{what: "`SET default_transaction_read_only`", script: table + "A: SET default_transaction_read_only = on\nA: INSERT INTO t VALUES (4, 'd')\nA: SET default_transaction_read_only = off\nA: INSERT INTO t VALUES (5, 'd')\nB: SELECT count(*) FROM t"},
	{what: "`MERGE`", script: table + "A: MERGE INTO t USING (VALUES (1, 'm'), (9, 'n')) s(id, v) ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v)\nB: SELECT * FROM t ORDER BY id"},
	{what: "`TRUNCATE … RESTART IDENTITY`", script: "A: CREATE TABLE t (id serial PRIMARY KEY, v text)\nA: INSERT INTO t (v) VALUES ('a'), ('b')\nA: TRUNCATE t RESTART IDENTITY\nA: INSERT INTO t (v) VALUES ('c') RETURNING id"},
	{what: "`INSTEAD OF` triggers and rules", script: table + "A: CREATE VIEW v AS SELECT * FROM t\nA: CREATE RULE r AS ON INSERT TO v DO INSTEAD INSERT INTO t VALUES (NEW.id, 'rule')\nA: INSERT INTO v VALUES (8, 'x')\nA: SELECT * FROM t ORDER BY id"},
}
