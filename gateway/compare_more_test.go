package gateway

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// comparedToo are scripts for what proxies get wrong, by what it is.
var comparedToo = map[string]string{
	"one ReadyForQuery for each Sync and Query": `
		S
		S
		S
		Q SELECT 1
		S
		Q
		Z 6`,
	"discards up to Sync after an error": `
		P a|SELECT 1|
		B |nosuch
		E |0
		D S|a
		C S|a
		Q SELECT 2
		S
		Z 1
		D S|a
		S
		Z 1`,
	"one transaction before a Sync": `
		P |INSERT INTO t (id) VALUES (910)|
		B |
		E |0
		B |nosuch
		S
		Z 1
		P |INSERT INTO t (id) VALUES (910)|
		B |
		E |0
		P |SET DateStyle = 'German'|
		B |
		E |0
		P taken|SELECT 1|
		P taken|SELECT 1|
		S
		Z 1
		Q SELECT count(*) FROM t WHERE id = 910
		Q SHOW DateStyle
		Z 2`,
	"what is prepared": `
		P one|SELECT $1::int|
		P two|INSERT INTO t (id) VALUES ($1)|23
		P shown|SELECT name, statement, parameter_types, from_sql FROM pg_prepared_statements ORDER BY name|
		S
		Z 1
		Q SELECT name, statement, parameter_types, from_sql FROM pg_prepared_statements ORDER BY prepare_time
		Z 1
		B |shown
		D P|
		E |0
		S
		Z 1
		Q BEGIN
		Q CREATE TABLE going (i int)
		Z 2
		P going|SELECT i FROM going|
		S
		Z 1
		Q DROP TABLE going
		Q SELECT name, statement FROM pg_prepared_statements WHERE name <> 'going' ORDER BY name
		Q SELECT count(*) FROM pg_prepared_statements WHERE name <> 'going'
		Q COMMIT
		Z 4
		C S|one
		S
		Q SELECT name FROM pg_prepared_statements WHERE name <> 'going' ORDER BY name
		Q DEALLOCATE two
		Q PREPARE three AS SELECT 3
		Q SELECT name, from_sql FROM pg_prepared_statements WHERE name <> 'going' ORDER BY name
		Q BEGIN
		Q SELECT nosuch
		Q SELECT name FROM pg_prepared_statements
		Q ROLLBACK
		Q SELECT 1/count(*)::int FROM pg_prepared_statements WHERE name = 'none'
		Q DEALLOCATE ALL
		Q SELECT count(*) FROM pg_prepared_statements
		Z 12
		P one|SELECT $1::int|
		B |one|8
		E |0
		S
		Z 1`,
	"the default in a read-only transaction": `
		Q BEGIN READ ONLY
		Q SHOW default_transaction_read_only
		Q COMMIT
		Q BEGIN READ ONLY
		Q SELECT current_setting('default_transaction_read_only')
		Q COMMIT
		Q BEGIN READ ONLY
		Q SELECT id FROM t WHERE id = 1
		Q SELECT setting FROM pg_settings WHERE name = 'default_transaction_read_only'
		Q SHOW transaction_read_only
		Q COMMIT
		Q BEGIN READ ONLY
		Q SELECT id FROM t WHERE id = 1
		Q SHOW default_transaction_read_only
		Q DELETE FROM t WHERE id = 1
		Q ROLLBACK
		Q BEGIN
		Q SET TRANSACTION READ ONLY
		Q SHOW default_transaction_read_only
		Q COMMIT
		Q BEGIN READ ONLY
		Q SHOW transaction_read_only
		Q SHOW default_transaction_read_only
		Q COMMIT
		Z 23`,
	"a pipeline that stops": `
		P ins|INSERT INTO t (id) VALUES ($1) RETURNING id|23
		S
		Z 1
		B |ins|915
		E |0
		R
		B |ins|915
		E |0
		B |ins|916
		E |0
		R
		P |SELECT 1|
		R
		S
		Z 1
		P |DO $$BEGIN RAISE NOTICE 'soon'; END$$|
		B |
		E |0
		R
		S
		Z 1
		P |SELECT repeat('x', 20000)|
		B |
		E |0
		R
		S
		Z 1
		P |VACUUM t|
		B |
		E |0
		R
		S
		Z 1
		P |SELECT nosuch|
		R
		S
		Z 1
		Q SELECT count(*) FROM t WHERE id IN (915, 916)
		Z 1`,
	"one transaction in a string": `
		Q INSERT INTO t (id) VALUES (911); SELECT 1/0
		Q SELECT count(*) FROM t WHERE id = 911
		Q INSERT INTO t (id) VALUES (911); BEGIN; INSERT INTO t (id) VALUES (912); ROLLBACK
		Q SELECT count(*) FROM t WHERE id IN (911, 912)
		Q INSERT INTO t (id) VALUES (911); COMMIT; SELECT 1/0
		Q DELETE FROM t WHERE id = 911
		Z 6`,
	"modes of a BEGIN within a string": `
		Q SELECT 1; BEGIN READ ONLY
		Q DELETE FROM t
		Q ROLLBACK
		Q SELECT 1; BEGIN ISOLATION LEVEL SERIALIZABLE
		Z 4`,
	"empty queries": `
		Q
		Q ;;
		Q /* x */ ; -- y
		P |;|
		D S|
		B |
		D P|
		E |0
		S
		Z 4`,
	"the unnamed statement and portal": `
		P |SELECT 1|
		S
		Q SELECT 2
		B |
		S
		Z 3
		P |SELECT 1|
		S
		P |SELEC|
		S
		B |
		S
		Z 3
		B |
		S
		Z 1
		Q BEGIN
		P |SELECT 1|
		B |
		S
		Q SELECT 2
		E |0
		S
		Q ROLLBACK
		Z 5`,
	"a name that is taken": `
		P n|SELECT 1|
		P n|SELECT 1|
		S
		B |n
		E |0
		C S|n
		P n|SELECT 2|
		B |n
		E |0
		S
		Z 2`,
	"Close closes what is there": `
		P n|SELECT generate_series(1, 4)|
		B p|n
		E p|1
		C S|n
		C S|n
		C P|p
		C P|p
		E p|0
		S
		Z 1`,
	"unknown names": `
		B p|nosuch
		S
		D S|nosuch
		S
		D S|
		S
		D P|nosuch
		S
		E nosuch|0
		S
		E |0
		S
		Q SELECT 1
		Z 7`,
	"a failed Parse leaves its name free": `
		P n|SELECT nosuch|
		S
		P n|SELECT 1|
		B |n
		E |0
		S
		Z 2`,
	"one text with different types": `
		P a|SELECT $1|23
		P b|SELECT $1|25
		P c|SELECT $1|
		D S|a
		D S|b
		S
		Z 1
		B |a|x
		S
		B |b|x
		E |0
		S
		Z 2`,
	"DEALLOCATE where it stands": `
		P a|SELECT 1|
		P b|SELECT 2|
		P d|DEALLOCATE a|
		S
		B |d
		E |0
		B |a
		E |0
		S
		B |b
		E |0
		S
		Z 3
		Q SELECT 1; DEALLOCATE b; SELECT 2
		B |b
		S
		Q BEGIN
		P e|SELECT 3|
		S
		Q DEALLOCATE /* x */ "e"
		Q ROLLBACK
		B |e
		S
		Z 6
		Q deallocate prepare all; SELECT 1
		B |d
		S
		Z 2`,
	"Describe tells of formats once they are bound": `
		P a|SELECT 1::int, 'x'::text|
		D S|a
		b |a|0/1
		D P|
		E |0
		S
		Z 1
		b |a|0/1,0
		D P|
		E |0
		S
		Z 1
		b |a|0/1,0,1
		S
		Z 1`,
	"portals end with their transaction": `
		P a|SELECT generate_series(1, 4)|
		B p|a
		E p|1
		S
		E p|1
		S
		Q BEGIN
		B p|a
		E p|1
		S
		E p|1
		P c|COMMIT|
		B |c
		E |0
		E p|1
		S
		Z 5`,
	"Flush": `
		P a|SELECT 1|
		H
		R
		D S|a
		H
		R
		B |nosuch
		H
		R
		E |0
		H
		S
		Z 1`,
	"function calls": `
		= F\x00\x00\x00\x18\x00\x00\x00\xb1\x00\x00\x00\x02\x00\x00\x00\x011\x00\x00\x00\x012\x00\x00
		S
		Z 2`,
	"COPY ignores Flush and Sync": `
		Q COPY t (id) FROM STDIN
		H
		S
		d 920\n
		S
		H
		c
		Z 1
		P |COPY t (id) FROM STDIN|
		B |
		E |0
		S
		H
		d 921\n
		c
		S
		Z 1
		Q DELETE FROM t WHERE id IN (920, 921)
		Z 1`,
	"COPY data after an error is passed over": `
		Q COPY t (id) FROM STDIN
		d nonsense\n
		d 922\n
		c
		Q SELECT 1
		Z 2
		Q COPY t (id) FROM STDIN
		d nonsense\n
		f never mind
		Q SELECT 1
		Z 2`,
	"what follows a COPY may undo it": `
		P |COPY t (id) FROM STDIN|
		B |
		E |0
		d 930\n
		c
		E nosuch|0
		S
		Q SELECT id FROM t WHERE id = 930
		Z 2
		P |DELETE FROM t WHERE id = 1|
		B |
		P b|BEGIN|
		E |0
		B |nosuch
		S
		Q SELECT id FROM t WHERE id = 1
		Z 2`,
	"CopyFail in both protocols": `
		Q COPY t (id) FROM STDIN
		f simple
		Z 1
		P |COPY t (id) FROM STDIN|
		B |
		E |0
		f extended
		P |SELECT 1|
		S
		Z 1`,
	"another message ends a COPY": `
		Q COPY t (id) FROM STDIN
		Q SELECT 1
		R`,
	"and in a pipeline": `
		P |COPY t (id) FROM STDIN|
		B |
		E |0
		E |0
		S
		R`,
	"and behind what is wrong already": `
		Q COPY t (id) FROM STDIN
		d nonsense\n
		Q SELECT 1
		Z 2`,
	"settings told once, as they are in the end": `
		Q BEGIN; SET TimeZone = 'Asia/Tokyo'; ROLLBACK
		Q SET TimeZone = 'Asia/Tokyo'; RESET TimeZone
		Q BEGIN
		Q SET DateStyle = 'German'
		Q ROLLBACK
		Q SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY
		Q DELETE FROM t
		Q SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE
		Z 8`,
	"back to what the session began with": `
		Q SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY
		Q RESET ALL
		Q INSERT INTO t (id) VALUES (940)
		Q DELETE FROM t WHERE id = 940
		Z 4`,
	"a snapshot that is not there": `
		Q BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY
		Q SET TRANSACTION SNAPSHOT '00000003-0000001B-1'
		Q ROLLBACK
		Q BEGIN
		Q SET TRANSACTION SNAPSHOT '00000003-0000001B-1'
		Q ROLLBACK
		Z 6`,
	"what a connection for reads would say of itself": `
		Q SELECT current_setting('default_transaction_read_only')
		Q SELECT name, setting FROM pg_settings WHERE name LIKE '%transaction_read_only' ORDER BY name
		Q SHOW default_transaction_read_only
		Q SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ
		Q SET SESSION CHARACTERISTICS AS TRANSACTION DEFERRABLE
		Q SHOW default_transaction_isolation
		Q SHOW transaction_deferrable
		Z 7`,
	"a function call behind a pipeline": `
		B |nosuch
		= F\x00\x00\x00\x18\x00\x00\x00\xb1\x00\x00\x00\x02\x00\x00\x00\x011\x00\x00\x00\x012\x00\x00
		S
		Z 1`,
	"an unknown type behind a pipeline": `
		P a|SELECT 1|
		= y
		R`,
	"what warns outside a transaction": `
		Q SET LOCAL DateStyle = 'German'
		Q SET TRANSACTION READ ONLY
		Q SET transaction_read_only = off
		Q SET LOCAL transaction_read_only = on
		Q SET CONSTRAINTS ALL IMMEDIATE
		Q COMMIT
		Q ROLLBACK
		Q BEGIN
		Q BEGIN
		Q COMMIT
		Q SELECT 1; COMMIT
		Q SELECT 1; SET LOCAL DateStyle = 'German'
		Z 12`,
	"what deferred triggers say": `
		Q CREATE TABLE deferring (id int PRIMARY KEY)
		Q CREATE FUNCTION tells() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'told of %', new.id; IF new.id = 13 THEN RAISE EXCEPTION 'thirteen'; END IF; RETURN NULL; END $$
		Q CREATE CONSTRAINT TRIGGER tells AFTER INSERT ON deferring DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION tells()
		Z 3
		Q INSERT INTO deferring VALUES (1)
		Q INSERT INTO deferring VALUES (2) RETURNING id
		Q INSERT INTO deferring VALUES (13)
		Q INSERT INTO deferring VALUES (3), (13) RETURNING id
		Q INSERT INTO deferring VALUES (3); INSERT INTO deferring VALUES (4)
		Q INSERT INTO deferring VALUES (5); INSERT INTO deferring VALUES (13)
		Q INSERT INTO deferring VALUES (6); COMMIT; SELECT 1
		Q INSERT INTO deferring VALUES (13); COMMIT; SELECT 1
		Q BEGIN; INSERT INTO deferring VALUES (7); COMMIT
		Z 9
		P |INSERT INTO deferring VALUES (8) RETURNING id|
		B |
		E |0
		S
		P |INSERT INTO deferring VALUES (13) RETURNING id|
		B |
		E |0
		S
		Z 2
		Q DROP TABLE deferring; DROP FUNCTION tells()
		Z 1`,
	"what fails outside a transaction": `
		Q SAVEPOINT a
		Q ROLLBACK TO a
		Q RELEASE a
		Q LOCK TABLE t
		Q DECLARE c CURSOR FOR SELECT 1
		Q COMMIT AND CHAIN
		Q ROLLBACK AND CHAIN
		Q SELECT 1; SAVEPOINT a
		P |SAVEPOINT a|
		B |
		E |0
		S
		P |LOCK TABLE t|
		B |
		E |0
		S
		Z 10`,
	"errors of the gateway's own end a transaction": `
		Q BEGIN
		B |nosuch
		S
		Q SELECT 1
		Q COMMIT
		Q BEGIN
		P a|SELECT 1|
		P a|SELECT 1|
		S
		Q COMMIT
		Z 7`,
	"parameters of what takes none": `
		P |BEGIN|23
		D S|
		B |
		S
		P |BEGIN|0
		S
		P |COMMIT|
		B ||1
		S
		b ||0,0/0
		S
		Z 4`,
	"bodies that are cut short": `
		= P\x00\x00\x00\x06ab
		S
		= P\x00\x00\x00\x05\x00
		S
		= D\x00\x00\x00\x04
		S
		= D\x00\x00\x00\x06X\x00
		S
		= C\x00\x00\x00\x06X\x00
		S
		= E\x00\x00\x00\x05\x00
		S
		= H\x00\x00\x00\x05a
		S
		= Q\x00\x00\x00\x04
		Z 8`,
	"an Execute in a COPY, in one pipeline with its end": `
		P |COPY t (id) FROM STDIN|
		B |
		E |3
		E |3
		c
		S
		R`,
	"what is left of an aborted transaction's portals": `
		Q BEGIN
		P |SELECT generate_series(1, 5)|
		B |
		E |2
		P a|SELECT 1|
		B p|a
		D S|nosuch
		S
		E |2
		S
		E p|2
		S
		D P|p
		S
		Q ROLLBACK
		Z 6
		P |BEGIN|
		B |
		E |0
		E |0
		S
		E |0
		S
		D P|
		S
		Q ROLLBACK
		E |0
		S
		Z 5
		Q BEGIN
		B |nosuch
		S
		E |0
		S
		P |ROLLBACK|
		B |
		E |0
		E |0
		S
		Z 4`,
	"what SQL has prepared is closed": `
		Q PREPARE x AS SELECT 1
		C S|x
		S
		Q EXECUTE x
		Q PREPARE x AS SELECT 2
		C S|
		C S|nosuch
		S
		Q EXECUTE x
		Q BEGIN; SELECT 1/0
		C S|x
		S
		Q ROLLBACK
		Q EXECUTE x
		Z 10`,
	"a broken Parse behind a COPY": `
		P |COPY nosuch FROM STDIN|
		B q|
		E q|1
		= P\x00\x00\x00\x05\x00
		S
		Z 1
		P |COPY t (id) FROM STDIN|
		B q|
		E q|1
		= P\x00\x00\x00\x05\x00
		S
		R`,
	"a broken Bind behind a COPY": `
		P |COPY nosuch FROM STDIN|
		B q|
		E q|1
		= B\x00\x00\x00\x04
		S
		Z 1
		P |COPY t (id) FROM STDIN|
		B q|
		E q|1
		= B\x00\x00\x00\x04
		S
		R`,
	"a broken Execute behind a COPY": `
		P |COPY nosuch FROM STDIN|
		B q|
		E q|1
		= E\x00\x00\x00\x05\x00
		S
		Z 1
		P |COPY t (id) FROM STDIN|
		B q|
		E q|1
		= E\x00\x00\x00\x05\x00
		S
		R`,
	"a broken Execute without its number behind a COPY": `
		P |COPY nosuch FROM STDIN|
		B q|
		E q|1
		= E\x00\x00\x00\x04
		S
		Z 1
		P |COPY t (id) FROM STDIN|
		B q|
		E q|1
		= E\x00\x00\x00\x04
		S
		R`,
	"a broken Describe behind a COPY": `
		P |COPY nosuch FROM STDIN|
		B q|
		E q|1
		= D\x00\x00\x00\x04
		S
		Z 1
		P |COPY t (id) FROM STDIN|
		B q|
		E q|1
		= D\x00\x00\x00\x04
		S
		R`,
	"a broken Close behind a COPY": `
		P |COPY nosuch FROM STDIN|
		B q|
		E q|1
		= C\x00\x00\x00\x05P
		S
		Z 1
		P |COPY t (id) FROM STDIN|
		B q|
		E q|1
		= C\x00\x00\x00\x05P
		S
		R`,
	"a COMMIT without a transaction that fails": `
		Q INSERT INTO t (id) VALUES (930); INSERT INTO u VALUES (1, 4711); COMMIT
		Q INSERT INTO u VALUES (1, 4711); COMMIT AND CHAIN
		Z 2
		P |INSERT INTO u VALUES (1, 4711)|
		B |
		E |0
		P |COMMIT|
		B |
		E |0
		S
		Q SELECT count(*) FROM t WHERE id = 930
		Z 2`,
	"a Sync that is not empty": `
		= S\x00\x00\x00\x05a
		Z 1
		P |INSERT INTO t (id) VALUES (920)|
		B |
		E |0
		= S\x00\x00\x00\x05a
		Z 1
		P |INSERT INTO t (id) VALUES (921)|
		B |
		E |0
		H
		= S\x00\x00\x00\x05a
		Z 1
		P |SELECT nosuch|
		= S\x00\x00\x00\x05a
		Z 1
		Q SELECT count(*) FROM t WHERE id IN (920, 921)
		Q BEGIN
		= S\x00\x00\x00\x05a
		Q SELECT 1
		Q ROLLBACK
		Z 5`,
	"a Flush that is not empty": `
		P |INSERT INTO t (id) VALUES (922)|
		B |
		E |0
		= H\x00\x00\x00\x05a
		S
		Z 1
		Q SELECT count(*) FROM t WHERE id = 922
		Z 1`,
	"a cursor WITH HOLD is a portal, too": `
		Q DECLARE h CURSOR WITH HOLD FOR SELECT generate_series(1, 20)
		Z 1
		P b|BEGIN|
		B h|b
		S
		Z 1
		P s|SELECT 7|
		B h|s
		S
		Z 1
		D P|h
		E h|3
		S
		Z 1
		C P|h
		S
		Z 1
		B h|b
		E h|0
		S
		Q ROLLBACK
		Z 2`,
	"a cursor WITH HOLD, made and closed by the protocol": `
		P b|DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 20)|
		B |b
		E |3
		S
		Z 1
		C P|c
		S
		Q FETCH BACKWARD 1 FROM c
		Z 2`,
	"the unnamed portal of an aborted transaction": `
		Q BEGIN
		Z 1
		P |SELECT generate_series(1, 5)|
		B |
		E |2
		P x|SELECT 1/0|
		B y|x
		S
		E |0
		S
		D P|
		S
		Z 3
		Q ROLLBACK
		E |0
		S
		Z 2`,
	"a Describe that is too long": `
		= D\x00\x00\x4e\x24Sx
		R`,
	"an unknown type, and nothing more": `
		Q SELECT 1
		= y
		R`,
}

// TestCompareMore runs them on a plain server and through the gateway, in both pooling modes.
func TestCompareMore(t *testing.T) {
	plain := pgtest.Start(t, pgtest.Options{})
	s := newSet(t, nil)
	talk(t, plain.Addr(), nil).run(compareSchema)
	talk(t, s.addr, nil).run(compareSchema)
	addrs := map[PoolMode]string{TransactionPooling: s.addr}
	s.serve(t, func(c *Config) { c.PoolMode = SessionPooling })
	addrs[SessionPooling] = s.addr
	for _, mode := range []PoolMode{TransactionPooling, SessionPooling} { // the second time it meets what the first has left, on both sides
		for _, name := range slices.Sorted(maps.Keys(comparedToo)) {
			t.Run(string(mode)+"/"+name, func(t *testing.T) {
				script := strings.ReplaceAll(comparedToo[name], `\t`, "\t")
				server, client := talk(t, plain.Addr(), nil), talk(t, addrs[mode], nil)
				want, got := server.run(script), client.run(script)
				if server.old() {
					want, got = stricter(name, server.asNow(want)), client.asNow(got)
				}
				if slices.Contains(want, silent) {
					t.Fatalf("the script waits for too much:\n%s", strings.Join(want, "\n"))
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("the gateway (+) answers differently than PostgreSQL (-):\n%s", diff)
				}
			})
		}
	}
}

// stricter is what a server since PostgreSQL 14 answers, and the gateway whatever its
// servers are, where an older one lets pass what has no place in the protocol.
func stricter(name string, want []string) []string {
	n := len(want)
	switch {
	case name == "a Describe that is too long" && n == 0: // the older one waits for the rest of it
		return []string{"closed"}
	case n < 2 || want[n-1] != "ready I" || !strings.Contains(want[n-2], "during COPY from stdin"):
		return want
	case name == "another message ends a COPY":
		return append(want[:n-1], `error FATAL 08P01 "terminating connection because protocol synchronization was lost" detail "" position 0`, "closed")
	case name == "and in a pipeline" || strings.HasSuffix(name, "behind a COPY"): // the Sync was skipped
		return want[:n-1]
	}
	return want
}
