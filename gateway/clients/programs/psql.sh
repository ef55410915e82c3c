#!/bin/sh
# psql, with what it does by itself: \d, \copy, \gexec, \gdesc, \watch, savepoints around statements.
run() { psql -X -a -v ON_ERROR_STOP=0 "$@" 2>&1; }
run <<'SQL'
CREATE TABLE p (id int PRIMARY KEY, v text NOT NULL DEFAULT 'x', n numeric(10,2), at date);
CREATE INDEX p_v ON p (v);
CREATE VIEW pv AS SELECT id, v FROM p;
\d p
\d+ pv
\dt
\di
\df
\dn public
\copy p (id, v, n) FROM STDIN
1	one	1.5
2	two	\N
3	drei ä	3
\.
\copy (SELECT * FROM p ORDER BY id) TO STDOUT
COPY p (id, v) FROM STDIN WITH (FORMAT csv);
4,"four, or so"
\.
COPY p TO STDOUT;
SELECT 'INSERT INTO p (id) VALUES (' || g || ')' FROM generate_series(10, 12) g \gexec
SELECT id, v, n * 2 AS double FROM p \gdesc
SELECT $1::int AS bound \gdesc
SELECT count(*) AS n FROM p \gset
\echo :n
SELECT id, v FROM p ORDER BY id \crosstabview
\set ON_ERROR_ROLLBACK on
BEGIN;
INSERT INTO p (id) VALUES (20);
INSERT INTO p (id) VALUES (20);
SELECT nosuch;
INSERT INTO p (id) VALUES (21);
COMMIT;
SELECT id FROM p WHERE id >= 20 ORDER BY id;
\set FETCH_COUNT 2
SELECT id FROM p ORDER BY id;
\unset FETCH_COUNT
\set AUTOCOMMIT off
DELETE FROM p WHERE id = 20;
ROLLBACK;
\set AUTOCOMMIT on
\timing off
SELECT 1/0;
SELECT 1; SELECT nosuch; SELECT 2;
\encoding LATIN1
SELECT v FROM p WHERE id = 3;
\encoding UTF8
\conninfo+
\errverbose
LISTEN ch;
NOTIFY ch, 'hello';
SHOW TimeZone;
\password nosuch
\sf nosuch
\l template1
\du nosuch
\dp p
SQL
psql -X -1 -c "INSERT INTO p (id) VALUES (30)" -c "SELECT max(id) FROM p" 2>&1
psql -X -c "SELECT 1; SELECT 2" -c "\\d pv" 2>&1
psql -X -At -c "VALUES (1), (2)" 2>&1
n=$(echo 'SELECT 4711 AS watched \watch 0.2' | timeout -s INT 2 psql -X 2>&1 | grep -c 4711)
[ "$n" -ge 2 ] && echo "watched"
psql -X -q -c "DROP TABLE p CASCADE" 2>&1
