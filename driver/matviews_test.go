package driver

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// matviewed is a set with materialized views that cannot be computed twice alike.
func matviewed(t *testing.T) (*sql.DB, []*pgtest.Server) {
	t.Helper()
	db, servers := mirrored(t, "")
	run(t, db, `CREATE TABLE base (k int PRIMARY KEY, v text); INSERT INTO base SELECT g, 'v' || g FROM generate_series(1, 50) g`)
	run(t, db, `CREATE MATERIALIZED VIEW mv AS SELECT k, v, random() AS r, clock_timestamp() AS at FROM base; CREATE UNIQUE INDEX ON mv (k)`)
	run(t, db, `CREATE MATERIALIZED VIEW over_mv (key, "Odd ""c") AS SELECT k, r FROM mv, pg_sleep(0.5) WHERE k < 10; CREATE VIEW plain AS SELECT * FROM over_mv`)
	run(t, db, `CREATE MATERIALIZED VIEW never AS SELECT k FROM base WITH NO DATA`)
	return db, servers
}

// populated names the materialized views with data on a server.
func populated(t *testing.T, s *pgtest.Server) string {
	t.Helper()
	return contents(t, s, "SELECT relname FROM pg_class WHERE relkind = 'm' AND relispopulated ORDER BY relname")
}

const digestOfMV = `SELECT md5(string_agg(m::text, ',' ORDER BY k)) FROM mv m`

// readers asks a query many times, from many sessions, so that every member would
// be asked that may be, and checks that all answers are alike.
func readers(t *testing.T, db *sql.DB, query string) string {
	t.Helper()
	want := ask[string](t, db, query)
	for range 12 {
		if got := ask[string](t, db, query); got != want {
			t.Fatalf("%s: %q after %q", query, got, want)
		}
	}
	return want
}

// TestMatviewReads: whatever way a materialized view is read, the answer is the
// leader's.
func TestMatviewReads(t *testing.T) {
	db, servers := matviewed(t)
	for i, want := range []string{"[[mv] [over_mv]]", "[]", "[]"} {
		if got := populated(t, servers[i]); got != want {
			t.Errorf("server %d holds data in %s, want %s", i, got, want)
		}
	}
	run(t, db, `CREATE FUNCTION of_mv() RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT sum(r)::text FROM mv); END $$;
		CREATE FUNCTION catching() RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN of_mv(); EXCEPTION WHEN OTHERS THEN RETURN 'caught'; END $$;
		CREATE FUNCTION dynamic() RETURNS text STABLE LANGUAGE plpgsql AS $$ DECLARE s text; BEGIN EXECUTE 'SELECT sum(r)::text FROM m' || 'v' INTO s; RETURN s; EXCEPTION WHEN OTHERS THEN RETURN 'caught'; END $$;
		CREATE VIEW by_function AS SELECT catching() AS c`)
	for _, q := range []string{digestOfMV, `SELECT sum("Odd ""c")::text FROM plain`, `SELECT of_mv()`, `SELECT catching()`, `SELECT dynamic()`, `SELECT c FROM by_function`,
		`/* pgdist: any */ SELECT sum(r)::text FROM MV`, `WITH x AS (SELECT r FROM "mv") SELECT max(r)::text FROM x`} {
		if got := readers(t, db, q); got == "" || got == "caught" {
			t.Errorf("%s: %q", q, got)
		}
	}
	var n int
	if err := db.QueryRow("SELECT count(*) FROM never").Scan(&n); sqlState(err) != "55000" {
		t.Errorf("a materialized view without data was read: %d %v", n, err)
	}
	before := readers(t, db, digestOfMV)
	run(t, db, "REFRESH MATERIALIZED VIEW CONCURRENTLY mv")
	if after := readers(t, db, digestOfMV); after == before {
		t.Error("REFRESH … CONCURRENTLY changed nothing")
	}
	run(t, db, "BEGIN; REFRESH MATERIALIZED VIEW mv; REFRESH MATERIALIZED VIEW never; ROLLBACK")
	if got := populated(t, servers[0]); got != "[[mv] [over_mv]]" {
		t.Errorf("after a rollback: %s", got)
	}
	pgtest.SameBytes(t, servers...)
}

// TestMatviewUnseenRetry: what the engine does not know to read a materialized
// view fails on a follower and is run again at the leader.
func TestMatviewUnseenRetry(t *testing.T) {
	db, _ := matviewed(t)
	ctx := context.Background()
	run(t, db, `CREATE FUNCTION hidden() RETURNS text STABLE LANGUAGE plpgsql AS $$ DECLARE s text; BEGIN EXECUTE 'SELECT sum(r)::text FROM m' || 'v' INTO s; RETURN s; END $$`)
	const q = `SELECT hidden()`
	readers(t, db, q)
	for _, o := range []*sql.TxOptions{nil, {ReadOnly: true}, {ReadOnly: true, Isolation: sql.LevelRepeatableRead}} {
		for range 6 {
			tx, err := db.BeginTx(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			var s string
			if err := tx.QueryRow(q).Scan(&s); err != nil {
				t.Errorf("%+v: %v", o, err)
			}
			if err := tx.Commit(); err != nil {
				t.Error(err)
			}
		}
	}
	// Too late to move: it is to be run again, and then succeeds.
	late := func() error {
		tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back
		var s string
		if err := tx.QueryRow("SELECT count(*) FROM base").Scan(&s); err != nil {
			return err
		}
		if err := tx.QueryRow(q).Scan(&s); err != nil {
			return err
		}
		return tx.Commit()
	}
	for range 6 {
		if err := late(); err != nil && sqlState(err) != "40001" {
			t.Fatal(err)
		}
	}
	if err := late(); err != nil {
		t.Errorf("run again: %v", err)
	}
}

// TestMatviewFailover: the new leader holds data in what held data, the old one
// comes back without any, and nobody ever reads of an empty one.
func TestMatviewFailover(t *testing.T) {
	db, servers := matviewed(t)
	run(t, db, "ALTER MATERIALIZED VIEW never RENAME TO sometimes")
	run(t, db, "CREATE TABLE one (d int); INSERT INTO one VALUES (1); CREATE MATERIALIZED VIEW frail AS SELECT 1 / d AS q FROM one; UPDATE one SET d = 0")
	run(t, db, "CREATE FUNCTION refresher() RETURNS int LANGUAGE plpgsql AS $$ BEGIN REFRESH MATERIALIZED VIEW sometimes; RETURN 1; END $$")
	ask[int](t, db, "SELECT refresher()") // nothing after it ships the state, too
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			var n int
			if err := db.QueryRow("SELECT (SELECT count(*) FROM sometimes) + (SELECT count(*) FROM plain)").Scan(&n); err != nil || n != 59 {
				t.Errorf("a read meanwhile: %d %v", n, err)
			}
		}
	}()
	if err := servers[0].Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(ages); ; {
		if view := ask[string](t, db, "SELECT inet_server_port()::text || current_setting('transaction_read_only') FROM mv LIMIT 1"); view != "" || time.Now().After(deadline) {
			break
		}
	}
	readers(t, db, digestOfMV)
	cancel()
	<-done
	var n int
	if err := db.QueryRow("SELECT q FROM frail").Scan(&n); sqlState(err) != "55000" {
		t.Errorf("what could not be filled: %d %v", n, err)
	}
	if err := servers[0].StartAgain(); err != nil {
		t.Fatal(err)
	}
	waitInSync(t, db, 3)
	if s := status(t, servers); !strings.Contains(s, "frail: ") || !strings.Contains(s, "division by zero") {
		t.Errorf("the status says nothing of what could not be filled: %s", s)
	}
	holding := 0
	for i, s := range servers {
		switch got := populated(t, s); got {
		case "[[mv] [over_mv] [sometimes]]":
			holding++
			if i == 0 {
				t.Error("the old leader still holds data")
			}
		case "[]":
		default:
			t.Errorf("server %d holds data in %s", i, got)
		}
	}
	if holding != 1 {
		t.Errorf("%d servers hold data", holding)
	}
	run(t, db, "UPDATE one SET d = 1; REFRESH MATERIALIZED VIEW frail")
	if got := ask[int](t, db, "SELECT q FROM frail"); got != 1 {
		t.Errorf("refreshed: %d", got)
	}
	pgtest.SameBytes(t, servers...)
}

// status is what an onlooker is told of the servers' errors.
func status(t *testing.T, servers []*pgtest.Server) string {
	t.Helper()
	var c mirror.Config
	for _, s := range servers {
		conn, err := pgconn.ParseConfig(s.DSN())
		if err != nil {
			t.Fatal(err)
		}
		c.Members = append(c.Members, mirror.MemberConfig{Conn: conn})
	}
	st, err := mirror.Inspect(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	var errs []string
	for _, m := range st.Members {
		errs = append(errs, m.Error)
	}
	return strings.Join(errs, "\n")
}
