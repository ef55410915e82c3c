package gateway

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// listening has scripts that must be answered as by PostgreSQL, message for message. A line that
// begins with "other: " is done by another client.
var listening = map[string]string{
	"at commit": `
		Q BEGIN; LISTEN a
		Z 1
		other: NOTIFY a, 'too early'
		Q COMMIT
		Z 1
		other: NOTIFY a, 'one'
		R`,
	"rolled back": `
		Q BEGIN; LISTEN a; ROLLBACK
		Z 1
		Q BEGIN
		Z 1
		Q LISTEN b
		Z 1
		Q SELECT 1/0
		Z 1
		Q LISTEN c
		Z 1
		Q COMMIT
		Z 1
		Q LISTEN d; SELECT 1/0
		Z 1
		other: NOTIFY a; NOTIFY b; NOTIFY c; NOTIFY d
		R
		Q SELECT pg_listening_channels()
		Z 1`,
	"savepoints": `
		Q BEGIN; LISTEN a; SAVEPOINT s; LISTEN b; UNLISTEN a; ROLLBACK TO s; LISTEN c; SAVEPOINT t; LISTEN d; RELEASE t
		Z 1
		Q SELECT pg_listening_channels()
		Z 1
		Q COMMIT
		Z 1
		Q SELECT pg_listening_channels()
		Z 1
		other: NOTIFY a, '1'; NOTIFY b, '2'; NOTIFY c, '3'; NOTIFY d, '4'
		R`,
	"own": `
		Q LISTEN a
		Z 1
		Q NOTIFY a, 'one'
		Z 1
		Q NOTIFY a, 'two'; NOTIFY b; NOTIFY a, 'three'; SELECT 1
		Z 1
		Q BEGIN
		Z 1
		Q NOTIFY a, 'four'
		Z 1
		Q SELECT 4
		Z 1
		Q COMMIT
		Z 1
		Q BEGIN; NOTIFY a, 'five'; ROLLBACK
		Z 1
		Q BEGIN; LISTEN b; NOTIFY b, 'six'; UNLISTEN a; NOTIFY a, 'seven'; COMMIT
		Z 1
		P |SELECT pg_notify('b', $1)|
		B ||eight
		E |0
		S
		Z 1
		Q DO $$ BEGIN PERFORM pg_notify('b', 'nine'); COMMIT; PERFORM pg_notify('b', 'ten'); END $$
		Z 1`,
	"not in a transaction": `
		Q LISTEN a
		Z 1
		Q BEGIN
		Z 1
		other: NOTIFY a, 'one'
		other: NOTIFY a, 'two'
		R
		Q SELECT 1
		Z 1
		Q NOTIFY a, 'three'
		Z 1
		other: NOTIFY a, 'four'
		R
		Q COMMIT
		Z 1
		Q BEGIN
		Z 1
		other: NOTIFY a, 'five'
		Q SELECT 1/0
		Z 1
		R
		Q ROLLBACK
		Z 1`,
	"unlisten": `
		Q LISTEN a; LISTEN b; LISTEN a; LISTEN c
		Z 1
		Q SELECT * FROM pg_listening_channels()
		Z 1
		Q BEGIN; UNLISTEN a
		Z 1
		other: NOTIFY a, 'gone with COMMIT'
		other: NOTIFY b, 'one'
		Q COMMIT
		Z 1
		Q BEGIN; UNLISTEN *
		Z 1
		other: NOTIFY b, 'two'
		Q ROLLBACK
		Z 1
		Q BEGIN; UNLISTEN b; LISTEN b
		Z 1
		other: NOTIFY b, 'three'
		Q COMMIT
		Z 1
		Q UNLISTEN nothing
		Z 1
		Q UNLISTEN *
		Z 1
		other: NOTIFY b, 'four'
		R
		Q SELECT pg_listening_channels()
		Z 1
		Q LISTEN d
		Z 1
		Q DISCARD ALL
		Z 1
		other: NOTIFY d, 'five'
		R
		Q LISTEN d
		Z 1
		Q RESET ALL
		Z 1
		other: NOTIFY d, 'six'
		R`,
	"names": `
		Q LISTEN Folded
		Z 1
		Q LISTEN "Quoted ""name"""
		Z 1
		Q LISTEN "é"
		Z 1
		Q SELECT pg_listening_channels() AS x
		Z 1
		other: NOTIFY FOLDED, 'é'; NOTIFY "Quoted ""name""", ''; NOTIFY "Folded"; NOTIFY "é", 'x'
		R
		Q LISTEN "long long long long long long long long long long long long long long long"
		Z 1
		Q LISTEN Looooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooong /* as it is */
		Z 1
		Q SELECT pg_listening_channels()
		Z 1
		other: NOTIFY "long long long long long long long long long long long long long lo", 'cut'
		R
		Q LISTEN ""
		Z 1
		Q LISTEN
		Z 1`,
	"pipelines": `
		P |LISTEN a|
		B |
		D P|
		E |0
		S
		Z 1
		P l|LISTEN b|
		D S|l
		B |l
		E |0
		P |SELECT 1/0|
		B |
		E |0
		S
		Z 1
		B |l
		E |0
		P |NOTIFY b, 'one'|
		B |
		E |0
		S
		Z 1
		P |SELECT pg_listening_channels()|
		B |
		D P|
		E |0
		S
		Z 1
		P s|SELECT pg_listening_channels()|
		B |s
		E |1
		E |1
		E |1
		E |0
		S
		Z 1
		Q SELECT '"long'
		Z 1
		P |LISTEN "long ""long"" long long long long long long long long long long long long"|
		B |
		E |0
		S
		Z 1
		P |SELECT 1|
		B |
		H
		R
		other: NOTIFY a, 'two'
		R
		E |0
		S
		Z 1
		P u|UNLISTEN *|
		B |u
		E |0
		S
		Z 1
		other: NOTIFY a
		R`,
	"modes": `
		Q BEGIN READ ONLY; LISTEN a; SELECT 1; COMMIT
		Z 1
		Q BEGIN; LISTEN b; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; COMMIT AND CHAIN
		Z 1
		Q LISTEN c
		Z 1
		Q ROLLBACK AND CHAIN
		Z 1
		Q COMMIT
		Z 1
		Q SELECT pg_listening_channels()
		Z 1
		Q CREATE TABLE deferred (i int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)
		Z 1
		Q BEGIN; LISTEN d; NOTIFY a, 'never'; NOTIFY d, 'never'; INSERT INTO deferred VALUES (1), (1)
		Z 1
		Q COMMIT
		Z 1
		Q SELECT pg_listening_channels()
		Z 1
		Q DROP TABLE deferred
		Z 1
		other: NOTIFY a, 'one'; NOTIFY b, 'two'; NOTIFY c, 'three'; NOTIFY d, 'four'
		R`,
	"by triggers": `
		Q CREATE TABLE told (i int PRIMARY KEY); CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_notify(''a'', NEW.i::text); RETURN NEW; END'; CREATE TRIGGER t AFTER INSERT ON told FOR EACH ROW EXECUTE FUNCTION tell()
		Z 1
		Q LISTEN a
		Z 1
		Q INSERT INTO told VALUES (1), (2)
		Z 1
		Q BEGIN; INSERT INTO told VALUES (3); SAVEPOINT s; INSERT INTO told VALUES (4); ROLLBACK TO s; COMMIT
		Z 1
		Q DROP TABLE told; DROP FUNCTION tell
		Z 1`,
}

// listenScript carries a script out and returns what the client that listens was told.
func listenScript(t *testing.T, addr, script string) []string {
	t.Helper()
	k := talk(t, addr, nil)
	k.told = true
	other := talk(t, addr, nil)
	for _, line := range strings.Split(strings.TrimSpace(script), "\n") {
		line = strings.TrimSpace(line)
		if sql, ok := strings.CutPrefix(line, "other: "); ok {
			other.run("Q " + sql + "\nZ 1")
			continue
		}
		k.line(line)
	}
	return k.log
}

// TestListen runs scripts on a plain server and through the gateway.
func TestListen(t *testing.T) {
	plain := pgtest.Start(t, pgtest.Options{})
	s := newSet(t, nil)
	for _, name := range slices.Sorted(maps.Keys(listening)) {
		t.Run(name, func(t *testing.T) {
			want := listenScript(t, plain.Addr(), listening[name])
			got := listenScript(t, s.addr, listening[name])
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the gateway (+) answers differently than PostgreSQL (-):\n%s", diff)
			}
		})
	}
}
