//go:build linux

package main

import "strings"

var failures = []hardCase{
	{what: "`PREPARE TRANSACTION` by a client", script: table + "A: BEGIN\nA: INSERT INTO t VALUES (4, 'd')\nA? PREPARE TRANSACTION 'p'\nA? ROLLBACK\nB: SELECT count(*) FROM t"},
	{what: "`synchronous_commit = off` in a session", script: table + "A: SET synchronous_commit = off\nA: INSERT INTO t VALUES (4, 'd')\nB: SELECT count(*) FROM t"},
	{what: "an administrator ends all connections to one server", fault: true, script: table + "A: SELECT count(*) FROM t\nB: SELECT count(*) FROM t\nterminate 1\npause\nC: INSERT INTO t VALUES (4, 'd')\nC: SELECT count(*) FROM t"},
	{what: "… while a transaction is open", fault: true, script: table + "A: BEGIN\nA: INSERT INTO t VALUES (4, 'd')\nterminate 1\npause\nA: INSERT INTO t VALUES (5, 'e')\nA: COMMIT\nB: SELECT count(*) FROM t"},
	{what: "a server crashes and comes back at once, while nobody writes", fault: true, script: "A: CREATE SEQUENCE s; CREATE TABLE t (id int DEFAULT nextval('s'))\nA: INSERT INTO t DEFAULT VALUES\nkill 2\nstart 2\npause\nB? SELECT count(*) FROM t\nC: INSERT INTO t DEFAULT VALUES\nC: SELECT nextval('s')"},
	{what: "a server is away for ten writes, and comes back", fault: true, script: table + "kill 2\npause\n" + strings.Repeat("B? UPDATE t SET v = v || 'x'\n", 10) + "start 2\npause\nC: SELECT v FROM t WHERE id = 1"},
	{what: "… and for DDL", fault: true, script: table + "kill 2\npause\nB? INSERT INTO t VALUES (8, 'b')\nC: ALTER TABLE t ADD x int DEFAULT 5\nC: INSERT INTO t VALUES (9, 'i', 9)\nstart 2\npause\nC: SELECT x FROM t ORDER BY id"},
	{what: "the first server is away for ten writes, and comes back", fault: true, script: table + "kill 0\npause\n" + strings.Repeat("B? UPDATE t SET v = v || 'x'\n", 12) + "start 0\npause\nC? SELECT v FROM t WHERE id = 1"},
	{what: "every acknowledged write is there after the first server is lost", fault: true, script: table + "A: INSERT INTO t VALUES (4, 'd')\nkill 0\npause\nB? SELECT 1\nC: SELECT count(*) FROM t\nstart 0"},
	{what: "single writes go on while the first server dies", fault: true, script: table + "A: SELECT 1\nkill 0\nA: INSERT INTO t VALUES (4, 'd')\nA: INSERT INTO t VALUES (5, 'e')\nstart 0\npause\nA: SELECT count(*) FROM t"},
	{what: "a sequence after the first server is lost", fault: true, script: "A: CREATE SEQUENCE s\nA: SELECT nextval('s')\nA: SELECT nextval('s')\nkill 0\npause\nB? SELECT 1\nC? SELECT nextval('s')\nstart 0\npause\nD: SELECT nextval('s') >= 3"},
}

var protocol = []hardCase{
	{what: "pipelined statements", script: table + "A batch: INSERT INTO t VALUES (4, 'd') | UPDATE t SET v = 'p' WHERE id = 1 | SELECT 1\nB: SELECT * FROM t ORDER BY id"},
	{what: "… one of which fails", script: table + "A batch: INSERT INTO t VALUES (4, 'd') | INSERT INTO t VALUES (1, 'dup') | INSERT INTO t VALUES (5, 'e')\nB: SELECT count(*) FROM t"},
	{what: "parameters of unknown type", script: "A: CREATE TABLE t (a int, b text, c numeric, d date)\nA: INSERT INTO t VALUES ($1, $2, $3, $4) <- 1, x, 1.50, 2024-02-29\nA: SELECT * FROM t WHERE c = $1 <- 1.5"},
	{what: "a user's enum as a parameter and in a result", script: "A: CREATE TYPE mood AS ENUM ('sad', 'glad')\nA: CREATE TABLE t (m mood)\nA: INSERT INTO t VALUES ($1) <- glad\nB: SELECT m FROM t WHERE m = $1 <- glad\nC: SELECT m FROM t"},
	{what: "a composite type in results of several sessions", script: "A: CREATE TYPE pair AS (a int, b text)\nA: CREATE TABLE t (p pair)\nA: INSERT INTO t VALUES ((1, 'x'))\nB: SELECT p FROM t\nC: SELECT (p).b FROM t\nD: SELECT p FROM t"},
	{what: "a prepared `SELECT *` after `ALTER TABLE`", script: table + "A: SELECT * FROM t WHERE id = $1 <- 1\nB: ALTER TABLE t ADD x int\nA? SELECT * FROM t WHERE id = $1 <- 1\nA: SELECT count(*) FROM t WHERE id > $1 <- 0"},
	{what: "a prepared `INSERT`, the table altered in between", script: "A: CREATE TABLE t (id int PRIMARY KEY)\nA prepare: INSERT INTO t VALUES ($1)\nA run: 1\nB: ALTER TABLE t ADD v text DEFAULT 'n'\nA run: 2\nB: SELECT * FROM t ORDER BY id"},
	{what: "`DateStyle` and `TimeZone` of the session in what is written", script: "A: CREATE TABLE t (d date, at timestamptz, i interval)\nA: SET DateStyle = 'SQL, DMY'; SET TimeZone = 'America/New_York'; SET IntervalStyle = 'iso_8601'\nA: INSERT INTO t VALUES ('01/02/2024', '01/02/2024 12:00', 'P1DT2H')\nB: SELECT d::text, at AT TIME ZONE 'UTC' FROM t"},
	{what: "`extra_float_digits` and `bytea_output`", script: "A: CREATE TABLE t (f float8, b bytea)\nA: SET extra_float_digits = -15; SET bytea_output = 'escape'\nA: INSERT INTO t VALUES (0.1 + 0.2, '\\x00ff')\nB: SELECT f, b FROM t"},
	{what: "`NULL`, the empty string, the empty query", script: "A: CREATE TABLE t (id int, v text)\nA: INSERT INTO t VALUES (1, ''), (2, NULL)\nA: /* nothing */\nA: SELECT id, v IS NULL FROM t ORDER BY 1"},
	{what: "the SQLSTATE of an error that a function raises", script: table + "A: CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (9, 'x'); RAISE EXCEPTION 'mine' USING ERRCODE = 'ZZ001'; END $$\nA: SELECT f()\nA: DO $$ BEGIN PERFORM f(); END $$\nB: SELECT count(*) FROM t"},
	{what: "a constraint that fails on all, in a transaction that goes on by a savepoint", script: table + "A: BEGIN\nA: SAVEPOINT s\nA: INSERT INTO t VALUES ($1, 'dup') <- 1\nA: ROLLBACK TO s\nA: INSERT INTO t VALUES ($1, 'new') <- 9\nA: COMMIT\nB: SELECT count(*) FROM t"},
	{what: "`CREATE INDEX CONCURRENTLY`, `VACUUM`", script: table + "A: CREATE INDEX CONCURRENTLY ON t (v)\nA: VACUUM t\nA: REINDEX TABLE CONCURRENTLY t"},
	{what: "DDL in a `DO` block with names computed", script: "A: DO $$ BEGIN FOR i IN 1..3 LOOP EXECUTE format('CREATE TABLE part_%s (k int PRIMARY KEY, r float8 DEFAULT random())', i); EXECUTE format('INSERT INTO part_%s VALUES (1, 1)', i); END LOOP; END $$\nB: SELECT count(*) FROM part_2"},
	{what: "`CREATE MATERIALIZED VIEW` and `REFRESH`", script: table + "A: CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM t\nA: INSERT INTO t VALUES (4, 'd')\nA: REFRESH MATERIALIZED VIEW m\nB: SELECT n FROM m"},
	{what: "`UNLOGGED` tables", script: "A: CREATE UNLOGGED TABLE u (k int PRIMARY KEY)\nA: INSERT INTO u VALUES (1)\nB: SELECT count(*) FROM u"},
}

var groups = []group{
	{"Is it a write?", routing},
	{"Values that differ", values},
	{"Order, visibility, locks", order},
	{"Protocol and definitions", protocol},
	{"Commit, failure, recovery", failures},
}
