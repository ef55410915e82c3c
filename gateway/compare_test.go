package gateway

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgdist/pgdist/internal/pgtest"
)

const compareSchema = `Q CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TABLE t (id int PRIMARY KEY, v text, m mood, n numeric DEFAULT 0); CREATE TABLE u (id serial PRIMARY KEY, t int REFERENCES t DEFERRABLE INITIALLY DEFERRED)
Z 1
Q INSERT INTO t SELECT g, 'v' || g, 'happy' FROM generate_series(1, 50) g
Z 1
Q CREATE FUNCTION shout(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'shouting %', $1; RETURN upper($1); END $$
Z 1`

// compared are scripts whose answers must be those of a plain server.
var compared = map[string]string{
	"simple": `
		Q SELECT 1 AS one, 'x' AS x
		Z 1
		Q SELECT * FROM t WHERE id < 3 ORDER BY id
		Z 1
		Q
		Z 1
		Q ;
		Z 1
		Q -- nothing
		Z 1
		Q SELECT 1; SELECT 2; SELECT 3
		Z 1
		Q SELECT 1; SELECT nosuch; SELECT 3
		Z 1
		Q SELEC 1
		Z 1
		Q SELECT 1/0
		Z 1
		Q VALUES (1), (2)
		Z 1
		Q SELECT shout('a')
		Z 1`,
	"writes": `
		Q INSERT INTO t VALUES (100, 'a') RETURNING id, v
		Z 1
		Q UPDATE t SET v = 'b' WHERE id = 100
		Z 1
		Q INSERT INTO t VALUES (100, 'a')
		Z 1
		Q INSERT INTO u (t) VALUES (4711)
		Z 1
		Q BEGIN
		Q INSERT INTO u (t) VALUES (4711)
		Q COMMIT
		Z 3
		Q DELETE FROM t WHERE id = 100
		Z 1
		Q INSERT INTO t VALUES (101, 'a'); INSERT INTO t VALUES (101, 'b')
		Z 1
		Q SELECT count(*) FROM t WHERE id > 50
		Z 1`,
	"transactions": `
		Q BEGIN
		Z 1
		Q SELECT 1
		Z 1
		Q INSERT INTO t VALUES (200, 'x')
		Z 1
		Q SAVEPOINT a
		Z 1
		Q SELECT nosuch
		Z 1
		Q SELECT 1
		Z 1
		Q ROLLBACK TO a
		Z 1
		Q SELECT v FROM t WHERE id = 200
		Z 1
		Q ROLLBACK
		Z 1
		Q SELECT v FROM t WHERE id = 200
		Z 1
		Q BEGIN; INSERT INTO t VALUES (201, 'y'); COMMIT; SELECT v FROM t WHERE id = 201; DELETE FROM t WHERE id = 201
		Z 1
		Q BEGIN
		Z 1
		Q SELECT nosuch
		Z 1
		Q COMMIT
		Z 1
		Q COMMIT
		Z 1
		Q ROLLBACK
		Z 1
		Q BEGIN ISOLATION LEVEL SERIALIZABLE
		Z 1
		Q SHOW transaction_isolation
		Z 1
		Q END
		Z 1
		Q START TRANSACTION READ ONLY
		Z 1
		Q DELETE FROM t
		Z 1
		Q ROLLBACK
		Z 1`,
	"settings": `
		Q SET DateStyle = 'German'
		Z 1
		Q SELECT date '2026-01-02'
		Z 1
		Q BEGIN
		Z 1
		Q SET TimeZone = 'Asia/Tokyo'
		Z 1
		Q ROLLBACK
		Z 1
		Q SHOW TimeZone
		Z 1
		Q SET application_name = 'me'
		Z 1
		Q SHOW application_name
		Z 1
		Q RESET application_name
		Z 1
		Q SHOW application_name
		Z 1
		Q RESET ALL
		Z 1
		Q SELECT date '2026-01-02'
		Z 1
		Q SET nosuch = 1
		Z 1
		Q SELECT set_config('DateStyle', 'SQL', false)
		Z 1
		Q DISCARD ALL
		Z 1
		Q SHOW DateStyle
		Z 1
		Q SET client_encoding = 'LATIN1'
		Z 1
		Q SHOW client_encoding
		Z 1`,
	"extended": `
		P |SELECT $1::int + 1
		B ||41
		D P|
		E |0
		S
		Z 1
		P s1|SELECT v FROM t WHERE id = $1
		D S|s1
		S
		Z 1
		B |s1|3
		D P|
		E |0
		S
		Z 1
		B |s1|4
		E |0
		B |s1|5
		E |0
		S
		Z 1
		P s1|SELECT 1
		S
		Z 1
		C S|s1
		S
		Z 1
		B |s1|4
		E |0
		S
		Z 1
		D S|s1
		S
		Z 1
		C S|nosuch
		C P|nosuch
		S
		Z 1
		E nosuch|0
		S
		Z 1
		P |SELECT nosuch
		B |
		E |0
		S
		Z 1
		P |SELECT 1/$1::int
		B ||0
		E |0
		S
		Z 1
		P ||
		B |
		D P|
		E |0
		S
		Z 1
		S
		S
		Z 2`,
	"extended writes": `
		P w|INSERT INTO t (id, v) VALUES ($1, $2) RETURNING id
		D S|w
		S
		Z 1
		B |w|300|a
		D P|
		E |0
		S
		Z 1
		B |w|301|a
		E |0
		B |w|302|a
		E |0
		S
		Z 1
		B |w|303|a
		E |0
		B |w|303|a
		E |0
		B |w|304|a
		E |0
		S
		Z 1
		Q SELECT id FROM t WHERE id >= 300 ORDER BY id
		Z 1
		P |DELETE FROM t WHERE id >= $1
		B ||300
		E |0
		S
		Z 1
		P d|INSERT INTO u (t) VALUES (4711)
		B |d
		E |0
		S
		Z 1`,
	"extended control": `
		P |BEGIN
		B |
		D P|
		E |0
		P |INSERT INTO t (id, v) VALUES (400, $1)
		B ||x
		D P|
		E |0
		S
		Z 1
		P |SELECT v FROM t WHERE id = 400
		B |
		D P|
		E |0
		P |COMMIT
		B |
		E |0
		S
		Z 1
		P |SET DateStyle = 'SQL'
		D S|
		B |
		D P|
		E |0
		S
		Z 1
		P |CREATE TABLE made (id int PRIMARY KEY)
		B |
		E |0
		S
		Z 1
		P |INSERT INTO made VALUES (1)
		B |
		E |0
		P |INSERT INTO made VALUES (1)
		B |
		E |0
		P |DROP TABLE made
		B |
		E |0
		S
		Z 1
		P |DROP TABLE made
		B |
		E |0
		S
		Z 1
		P b|BEGIN
		P e|END
		S
		Z 1
		B |b
		E |0
		S
		B |e
		E |0
		S
		Z 2
		Q DELETE FROM t WHERE id = 400
		Z 1`,
	"portals": `
		Q BEGIN
		Z 1
		P p|SELECT id FROM t ORDER BY id
		B c1|p
		E c1|2
		S
		Z 1
		E c1|2
		S
		Z 1
		D P|c1
		S
		Z 1
		E c1|0
		S
		Z 1
		C P|c1
		S
		Z 1
		E c1|0
		S
		Z 1
		Q ROLLBACK
		Z 1
		P |SELECT id FROM t ORDER BY id
		B |
		E |3
		S
		Z 1
		E |3
		S
		Z 1
		Q BEGIN
		Z 1
		B c2|p
		S
		Z 1
		Q INSERT INTO t VALUES (0, 'new')
		Z 1
		E c2|1
		S
		Z 1
		Q FETCH 2 FROM c2
		Z 1
		Q ROLLBACK
		Z 1`,
	"flush": `
		P f|SELECT v FROM t WHERE id = $1
		D S|f
		H
		R
		B |f|2
		D P|
		E |0
		H
		R
		B |f|3
		E |0
		S
		Z 1
		P |INSERT INTO t (id) VALUES (500)
		B |
		E |0
		H
		R
		P |SELECT nosuch
		H
		R
		P |SELECT 1
		B |
		E |0
		H
		S
		Z 1
		Q SELECT * FROM t WHERE id = 500
		Z 1`,
	"errors in a pipeline": `
		P |SELECT 1
		B |
		E |0
		P |SELECT nosuch
		B |
		E |0
		P |SELECT 2
		B |
		E |0
		S
		P |SELECT 3
		B |
		E |0
		S
		Z 2
		Q BEGIN
		Z 1
		P |INSERT INTO t (id) VALUES (600)
		B |
		E |0
		P |INSERT INTO t (id) VALUES (600)
		B |
		E |0
		S
		P |SELECT 1
		B |
		E |0
		S
		Z 2
		Q COMMIT
		Z 1`,
	"prepared by SQL": `
		Q PREPARE p AS SELECT v FROM t WHERE id = $1
		Z 1
		Q EXECUTE p(3)
		Z 1
		Q DEALLOCATE p
		Z 1
		Q EXECUTE p(3)
		Z 1
		P proto|SELECT 7
		S
		Z 1
		Q DEALLOCATE proto
		Z 1
		B |proto
		E |0
		S
		Z 1
		P a|SELECT 1
		P b|SELECT 2
		S
		Z 1
		Q DEALLOCATE ALL
		Z 1
		B |a
		S
		Z 1
		P a|SELECT 3
		B |a
		E |0
		S
		Z 1
		Q DISCARD ALL
		Z 1
		B |a
		S
		Z 1`,
	"copy out": `
		Q COPY (SELECT id, v FROM t WHERE id < 4 ORDER BY id) TO STDOUT
		Z 1
		Q COPY nosuch TO STDOUT
		Z 1
		P |COPY (SELECT 1) TO STDOUT
		B |
		E |0
		S
		Z 1`,
	"copy in": `
		Q COPY t (id, v) FROM STDIN
		d 700\ta\n701\tb\n
		d 702\tc\n
		c
		Z 1
		Q SELECT id FROM t WHERE id >= 700 ORDER BY id
		Z 1
		Q COPY t (id, v) FROM STDIN
		d 703\ta\n
		f changed my mind
		Z 1
		Q COPY t (id, v) FROM STDIN
		d nonsense\n
		R
		d 704\tx\n
		c
		Q SELECT 1
		Z 1
		Q BEGIN
		Z 1
		Q COPY t (id, v) FROM STDIN
		d 705\ta\n
		c
		Z 1
		Q ROLLBACK
		Z 1
		P |COPY t (id, v) FROM STDIN
		B |
		E |0
		S
		R
		d 706\ta\n
		c
		S
		Z 1
		P |COPY t (id, v) FROM STDIN
		B |
		E |0
		d 707\ta\n
		d 708\ta\n
		c
		S
		Z 1
		P |COPY t (id, v) FROM STDIN
		B |
		E |0
		S
		R
		d nonsense\n
		R
		c
		S
		Z 1
		Q SELECT id FROM t WHERE id >= 700 ORDER BY id
		Z 1
		Q COPY t (id) FROM STDIN; SELECT 5
		d 709\n
		c
		Z 1
		Q DELETE FROM t WHERE id >= 700
		Z 1`,
	"types": `
		Q SELECT m FROM t WHERE id = 1
		Z 1
		Q SELECT array_agg(m) FROM t WHERE id < 3
		Z 1
		Q SELECT t FROM t WHERE id = 1
		Z 1
		P |SELECT $1::mood, m FROM t WHERE id = 2
		D S|
		B ||sad
		D P|
		E |0
		S
		Z 1`,
	"odd messages": `
		d stray
		c
		Q SELECT 1
		Z 1
		P x|SELECT 1; SELECT 2
		S
		Z 1
		P |SELECT $1
		B |
		S
		Z 1
		H
		S
		Z 1
		= Q\x00\x00\x00\x0aabc\x00de
		R`,
	queryForSync: `
		P |SELECT 1
		B |
		E |0
		Q SELECT 2
		S
		Z 1
		S
		Z 1`,
	"unknown message": `
		= y\x00\x00\x00\x04
		R`,
	"short length": `
		= Q\x00\x00\x00\x03
		R`,
	"listen": `
		Q LISTEN c
		Z 1
		Q NOTIFY c, 'one'
		Z 1
		Q BEGIN
		Z 1
		Q NOTIFY c, 'two'
		Z 1
		Q COMMIT
		Z 1
		Q UNLISTEN c
		Z 1
		Q NOTIFY c, 'three'
		Z 1`,
	"temporary": `
		Q CREATE TEMP TABLE x (a int)
		Z 1
		Q INSERT INTO x VALUES (1)
		Z 1
		Q SELECT * FROM x
		Z 1
		P |SELECT a FROM x
		B |
		D P|
		E |0
		S
		Z 1
		Q DISCARD TEMP
		Z 1
		Q SELECT * FROM x
		Z 1`,
	"cursors": `
		Q BEGIN
		Z 1
		Q DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id
		Z 1
		Q FETCH 2 FROM c
		Z 1
		Q MOVE 2 FROM c
		Z 1
		Q FETCH c
		Z 1
		Q CLOSE c
		Z 1
		Q END
		Z 1
		Q DECLARE c CURSOR WITH HOLD FOR SELECT id FROM t ORDER BY id
		Z 1
		Q FETCH 2 FROM c
		Z 1
		Q CLOSE ALL
		Z 1`,
	"do and call": `
		Q DO $$ BEGIN RAISE NOTICE 'hello'; END $$
		Z 1
		Q CREATE PROCEDURE twice() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t (id) VALUES (800); COMMIT; INSERT INTO t (id) VALUES (801); END $$
		Z 1
		Q CALL twice()
		Z 1
		P |CALL twice()
		B |
		D P|
		E |0
		S
		Z 1
		Q DELETE FROM t WHERE id >= 800
		Z 1
		Q DROP PROCEDURE twice
		Z 1`,
	"positions": `
		Q SELECT 1; SET TimeZone = 'UTC'; SELECT nosuch
		Z 1
		Q SET TimeZone = 'UTC'; SELECT 'ä', nosuch
		Z 1`,
}

// TestCompare runs scripts of messages on a plain server and through the gateway.
func TestCompare(t *testing.T) {
	plain := pgtest.Start(t, pgtest.Options{})
	s := newSet(t, nil)
	talk(t, plain.Addr(), nil).run(compareSchema)
	talk(t, s.addr, nil).run(compareSchema)
	for _, name := range slices.Sorted(maps.Keys(compared)) {
		t.Run(name, func(t *testing.T) {
			script := compared[name]
			script = strings.ReplaceAll(script, `\t`, "\t")
			server, client := talk(t, plain.Addr(), nil), talk(t, s.addr, nil)
			want, got := server.run(script), client.run(script)
			if server.old() {
				want, got = server.asNow(want), client.asNow(got)
			}
			if i := slices.Index(want, "ready T"); name == queryForSync && i >= 0 {
				want[i] = "ready I" // since PostgreSQL 18: of what the Sync that is still to come has ended in the gateway already
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the gateway (+) answers differently than PostgreSQL (-):\n%s", diff)
			}
		})
	}
}

// queryForSync is a Query where a Sync would be due.
const queryForSync = "query instead of sync"

// TestNothingIsLeftBehind has sessions leave in the middle of what a rollback does not undo:
// the next one on their connection must not meet it.
func TestNothingIsLeftBehind(t *testing.T) {
	s := newSet(t, nil)
	for _, script := range []string{
		"Q PREPARE leftover AS SELECT 7; SELECT 1/0\nZ 1",
		"Q SELECT pg_advisory_lock(4711); SELECT 1/0\nZ 1",
		"Q BEGIN\nQ PREPARE leftover AS SELECT 7; SELECT 1/0\nQ ROLLBACK\nZ 3",
		"P |PREPARE leftover AS SELECT 7|\nB |\nE |0\nP |SELECT 1/0|\nB |\nE |0\nS\nZ 1",
		"P |SELECT 7|\nB |\nS\nZ 1",
	} {
		k := talk(t, s.addr, nil)
		k.run(script)
		_ = k.conn.Close()
		for range 4 {
			k := talk(t, s.addr, nil)
			got := strings.Join(k.run("Q BEGIN\nQ SELECT 1 FROM pg_prepared_statements WHERE name = 'leftover' UNION ALL SELECT 2 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND pid = pg_backend_pid()\nQ COMMIT\nQ EXECUTE leftover\nZ 4\nB |\nE |\nS\nZ 1"), "\n")
			if strings.Contains(got, "data") || strings.Contains(got, "BindComplete") {
				t.Errorf("after %q the next session finds\n%s", script, got)
			}
			_ = k.conn.Close()
		}
	}
}
