//go:build linux

package main

// worn makes a table whose rows lie elsewhere on one of the servers: an autovacuum
// came there at another moment.
const worn = `A: CREATE TABLE src (id int, v text, f float8) WITH (autovacuum_enabled = off)
A: INSERT INTO src SELECT g, 'v' || g, 10.0 ^ (g % 17) / 3 FROM generate_series(1, 400) g
A: DELETE FROM src WHERE id <= 200
on 1: VACUUM src
A: INSERT INTO src SELECT g, 'n' || g, 10.0 ^ (g % 19) / 7 FROM generate_series(1001, 1150) g
`

var values = []hardCase{
	{what: "`now()` in `INSERT`", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, at timestamptz)\nA: INSERT INTO t VALUES (1, now()), (2, CURRENT_TIMESTAMP), (3, 'now')\nA: INSERT INTO t SELECT 4, now()"},
	{what: "`UPDATE t SET at = CURRENT_TIMESTAMP`", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, at timestamptz)\nA: INSERT INTO t VALUES (1), (2)\nA: UPDATE t SET at = CURRENT_TIMESTAMP"},
	{what: "`now()` with bound parameters", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, at timestamptz)\nA: INSERT INTO t VALUES ($1, now()) <- 1\nA: UPDATE t SET at = now() WHERE id = $1 <- 1"},
	{what: "`clock_timestamp()`, `statement_timestamp()`, `timeofday()`, `transaction_timestamp()`", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, v text)\nA: INSERT INTO t VALUES (1, clock_timestamp()::text), (2, statement_timestamp()::text), (3, timeofday()), (4, transaction_timestamp()::text)"},
	{what: "`clock_timestamp()` alone", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, at timestamptz)\nA: INSERT INTO t VALUES (1, clock_timestamp())"},
	{what: "`CURRENT_DATE`, `LOCALTIME`, `age(…)`", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, d date, l time, a interval)\nA: INSERT INTO t VALUES (1, CURRENT_DATE, LOCALTIME, age('2000-01-01'::timestamptz)), (2, CURRENT_DATE, LOCALTIME, now() - '2000-01-01'::timestamptz)"},
	{what: "`now()` as timestamp without time zone, session in another zone", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, at timestamp, ok bool)\nA: SET TimeZone = 'Asia/Tokyo'\nA: INSERT INTO t VALUES (1, now(), NULL)\nA: UPDATE t SET ok = abs(extract(epoch FROM at - (now() AT TIME ZONE 'Asia/Tokyo'))) < 60\nA: SELECT ok FROM t"},
	{what: "`now()` in a statement that is prepared once and run twice", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, at timestamptz)\nA prepare: INSERT INTO t VALUES ($1, now())\nA run: 1\npause\nA run: 2\nA: SELECT (SELECT at FROM t WHERE id = 2) > (SELECT at FROM t WHERE id = 1)"},
	{what: "`random()`", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, r float8)\nA: INSERT INTO t VALUES (1, random())"},
	{what: "`setseed()`, then `random()`", script: "A: CREATE TABLE t (id int PRIMARY KEY, r float8)\nA? SELECT setseed(0.5)\nA: INSERT INTO t VALUES (1, random())\nA: UPDATE t SET r = r + random()"},
	{what: "`random()` of each row in `INSERT … SELECT`", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, r float8)\nA: INSERT INTO t SELECT g, random() FROM generate_series(1, 10) g\nA: SELECT count(DISTINCT r) FROM t"},
	{what: "`UPDATE … WHERE random() < 0.5`", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, v int)\nA: INSERT INTO t SELECT g, 0 FROM generate_series(1, 100) g\nA? UPDATE t SET v = 1 WHERE random() < 0.5"},
	{what: "`DELETE … ORDER BY random() LIMIT`", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, v int)\nA: INSERT INTO t SELECT g, 0 FROM generate_series(1, 100) g\nA: DELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY random() LIMIT 10)\nA: SELECT count(*) FROM t"},
	{what: "`gen_random_uuid()`", open: true, script: "A: CREATE TABLE t (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), v int)\nA: INSERT INTO t (v) VALUES (1)"},
	{what: "… whose `RETURNING` the client uses as a key", open: true, script: "A: CREATE TABLE t (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), v int)\nA? INSERT INTO t (v) VALUES (1) RETURNING id\nA: UPDATE t SET v = 2 WHERE id = (SELECT max(id::text)::uuid FROM t)\nB: SELECT count(*), max(v) FROM t"},
	{what: "`TABLESAMPLE`", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE s (id int)\nA: INSERT INTO t SELECT generate_series(1, 1000)\nA? INSERT INTO s SELECT id FROM t TABLESAMPLE BERNOULLI (20)"},
	{what: "a default of `random()` or `clock_timestamp()`", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, r float8 DEFAULT random(), at timestamptz DEFAULT clock_timestamp())\nA: INSERT INTO t (id) VALUES (1), (2)"},
	{what: "a default of `now()`", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, at timestamptz DEFAULT now())\nA: INSERT INTO t (id) VALUES (1), (2)\nA: INSERT INTO t VALUES (3, DEFAULT)"},
	{what: "a default that calls a function of the user's", open: true, script: "A: CREATE FUNCTION d() RETURNS text LANGUAGE sql AS 'SELECT md5(random()::text)'\nA: CREATE TABLE t (id int PRIMARY KEY, v text DEFAULT d())\nA: INSERT INTO t (id) VALUES (1), (2)"},
	{what: "`ALTER TABLE … ADD COLUMN … DEFAULT random()`", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY)\nA: INSERT INTO t VALUES (1), (2)\nA: ALTER TABLE t ADD r float8 DEFAULT random()"},
	{what: "a trigger that uses the clock", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, at timestamptz)\nA: CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.at := clock_timestamp(); RETURN NEW; END $$\nA: CREATE TRIGGER f BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()\nA: INSERT INTO t VALUES (1), (2)\nA: UPDATE t SET id = id + 10"},
	{what: "a `CHECK` that uses `random()`", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, CHECK (random() < 0.5))\nA? INSERT INTO t VALUES (1)\nA? INSERT INTO t VALUES (2)\nA? INSERT INTO t VALUES (3)\nA? INSERT INTO t VALUES (4)\nA? INSERT INTO t VALUES (5)\nA? INSERT INTO t VALUES (6)"},
	{what: "`SELECT nextval()`", script: "A: CREATE SEQUENCE s\nA: SELECT nextval('s')\nB: SELECT nextval('s')\nC: SELECT nextval('s')\nA: SELECT nextval('s'::regclass)"},
	{what: "`nextval($1)`", script: "A: CREATE SEQUENCE s\nA: SELECT nextval($1::text::regclass) <- s\nB: SELECT nextval($1::text::regclass) <- s\nC: SELECT nextval($1::text::regclass) <- s"},
	{what: "`setval()`", script: "A: CREATE SEQUENCE s\nA: SELECT setval('s', 100)\nB: SELECT nextval('s')\nC: SELECT nextval('s')"},
	{what: "two sequences in one statement", script: "A: CREATE SEQUENCE s; CREATE SEQUENCE s2; CREATE TABLE t (a int, b int)\nA: INSERT INTO t VALUES (nextval('s'), nextval('s2'))\nB: SELECT nextval('s') + nextval('s2')\nA: INSERT INTO t VALUES (nextval('s'), nextval('s2'))\nA: SELECT * FROM t ORDER BY 1"},
	{what: "`currval()` and `lastval()` in the transaction of the `INSERT`", script: "A: CREATE TABLE t (id serial PRIMARY KEY)\nA: BEGIN\nA: INSERT INTO t DEFAULT VALUES\nA: SELECT currval('t_id_seq'), lastval()\nA: COMMIT"},
	{what: "a failed `INSERT` consumes a value", script: "A: CREATE TABLE t (id serial PRIMARY KEY, u int UNIQUE)\nA: INSERT INTO t (u) VALUES (1)\nA: INSERT INTO t (u) VALUES (1)\nA: INSERT INTO t (u) VALUES (2) RETURNING id"},
	{what: "… and so does one that is rolled back", script: "A: CREATE TABLE t (id serial PRIMARY KEY)\nA: BEGIN\nA: INSERT INTO t DEFAULT VALUES\nA: ROLLBACK\nA: INSERT INTO t DEFAULT VALUES RETURNING id"},
	{what: "`ON CONFLICT DO NOTHING` consumes one too", script: "A: CREATE TABLE t (id serial PRIMARY KEY, u int UNIQUE)\nA: INSERT INTO t (u) VALUES (1) ON CONFLICT DO NOTHING\nA: INSERT INTO t (u) VALUES (1) ON CONFLICT DO NOTHING\nA: INSERT INTO t (u) VALUES (2) ON CONFLICT DO NOTHING RETURNING id"},
	{what: "a sequence with `CACHE 20`, several sessions", open: true, script: "A: CREATE SEQUENCE s CACHE 20; CREATE TABLE t (id int DEFAULT nextval('s'), who text)\nA: INSERT INTO t (who) VALUES ('a')\nB: INSERT INTO t (who) VALUES ('b')\nA: INSERT INTO t (who) VALUES ('a')\nC: SELECT count(DISTINCT id) FROM t"},
	{what: "`INSERT … SELECT` without `ORDER BY` into a serial table, after a vacuum on one server", open: true, script: worn + "A: CREATE TABLE t (id serial, v text)\nA: INSERT INTO t (v) SELECT v FROM src"},
	{what: "`UPDATE … WHERE id = (SELECT … LIMIT 1)`, the same", open: true, script: worn + "A: UPDATE src SET v = 'chosen' WHERE id = (SELECT id FROM src LIMIT 1)"},
	{what: "`DELETE … WHERE id IN (SELECT … LIMIT 10)`, the same", open: true, script: worn + "A: DELETE FROM src WHERE id IN (SELECT id FROM src LIMIT 10)"},
	{what: "`array_agg` and `string_agg` without `ORDER BY`, stored", open: true, script: worn + "A: CREATE TABLE t (a text, b int[])\nA: INSERT INTO t SELECT string_agg(v, ','), array_agg(id) FROM src"},
	{what: "`sum(float8)`, stored", open: true, script: worn + "A: CREATE TABLE t (s float8)\nA: INSERT INTO t SELECT sum(f) FROM src"},
	{what: "`DISTINCT ON` without `ORDER BY`, stored", open: true, script: worn + "A: CREATE TABLE t (k int, v text)\nA: INSERT INTO t SELECT DISTINCT ON (id % 10) id % 10, v FROM src"},
	{what: "`row_number() OVER ()`, stored", open: true, script: worn + "A: CREATE TABLE t (n int, v text)\nA: INSERT INTO t SELECT row_number() OVER (), v FROM src"},
	{what: "`ctid` as a key in `WHERE`", open: true, script: worn + "A: DELETE FROM src WHERE ctid = '(0,5)'\nA: SELECT count(*) FROM src"},
	{what: "`oid`s of tables, stored", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, o oid)\nA: INSERT INTO t SELECT 1, 't'::regclass::oid"},
	{what: "`xmin` and `txid_current()`, stored", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, x text)\nA: INSERT INTO t VALUES (1, txid_current()::text), (2, pg_current_xact_id()::text)\nA: UPDATE t SET x = x || ' ' || xmin::text"},
	{what: "`pg_backend_pid()`, `inet_server_port()`, `current_setting('port')`, stored", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, p text)\nA: INSERT INTO t VALUES (1, pg_backend_pid()::text), (2, inet_server_port()::text), (3, current_setting('port'))"},
	{what: "rows of system catalogs, stored", open: true, script: "A: CREATE TABLE t (k text, v text)\nA: INSERT INTO t SELECT relname, oid::text FROM pg_class WHERE relname = 't'; INSERT INTO t SELECT name, setting FROM pg_settings WHERE name IN ('data_directory', 'port')"},
	{what: "`pg_stat_…` and `pg_postmaster_start_time()`, stored", open: true, script: "A: CREATE TABLE t (v text)\nA: INSERT INTO t SELECT pg_postmaster_start_time()::text; INSERT INTO t SELECT sum(xact_commit)::text FROM pg_stat_database"},
	{what: "large objects", open: true, script: "A: CREATE TABLE t (o oid)\nA: INSERT INTO t SELECT lo_from_bytea(0, 'hello')\nA? SELECT convert_from(lo_get(o), 'UTF8') FROM t"},
	{what: "`xmlparse`, `jsonb`, numerics with trailing zeros, -0, NaN", script: "A: CREATE TABLE t (x xml, j jsonb, n numeric, f float8)\nA: INSERT INTO t VALUES (XMLPARSE(DOCUMENT '<?xml version=\"1.0\"?><a/>'), '{\"b\": 1, \"a\": 1.00}', 1.00, '-0'), (NULL, NULL, 'NaN', 'NaN')\nA: SELECT * FROM t"},
	{what: "a `SERIALIZABLE` or `REPEATABLE READ` writer with `random()`", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY, r float8)\nA: BEGIN ISOLATION LEVEL SERIALIZABLE\nA: INSERT INTO t VALUES (1, random())\nA: COMMIT\nA: BEGIN ISOLATION LEVEL REPEATABLE READ\nA: UPDATE t SET r = random()\nA: COMMIT"},
}
