package driver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/engine"
	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// endSQL ends the sessions of programs that have a transaction open, as a leader does
// that is lost; other than that it stays the leader.
const endSQL = `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'`

// replaySet is a set whose transactions are run again.
type replaySet struct {
	db      *sql.DB
	servers []*pgtest.Server
	admin   *mirror.Set // another program's view of it
}

func newReplaySet(t *testing.T, params string) *replaySet {
	t.Helper()
	db, servers := mirrored(t, "&replay=on"+params)
	s := &replaySet{db: db, servers: servers}
	run(t, db, `CREATE TABLE acct (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, r float8 DEFAULT random(), at timestamptz DEFAULT clock_timestamp());
		CREATE TABLE log (tx text, k int, PRIMARY KEY (tx, k)); CREATE SEQUENCE seq;
		INSERT INTO acct SELECT g, 100 FROM generate_series(1, 20) g`)
	return s
}

// leader is the index of the server that leads.
func (s *replaySet) leader(t *testing.T) int {
	t.Helper()
	stats, err := Stats(context.Background(), s.db)
	if err != nil {
		t.Fatal(err)
	}
	for i, server := range s.servers {
		for _, m := range stats {
			if m.Leader && m.Host == server.Addr() {
				return i
			}
		}
	}
	t.Fatal("no leader")
	return 0
}

// end ends the open transactions' sessions on the leader.
func (s *replaySet) end(t *testing.T) {
	t.Helper()
	onServer(t, s.servers[s.leader(t)].DSN(), endSQL)
}

// switchover makes another member lead, whoever has a transaction open.
func (s *replaySet) switchover(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	if s.admin == nil {
		var config mirror.Config
		for _, server := range s.servers {
			c, err := pgconn.ParseConfig(server.DSN())
			if err != nil {
				t.Fatal(err)
			}
			config.Members = append(config.Members, mirror.MemberConfig{Conn: c})
		}
		set, err := mirror.Open(ctx, config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(set.Close)
		s.admin = set
	}
	if _, err := s.admin.Switchover(ctx, "", 0); err != nil {
		t.Fatal(err)
	}
}

func (s *replaySet) stats(t *testing.T) ReplayStats {
	t.Helper()
	stats, err := Replays(context.Background(), s.db)
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

// describe runs a statement in a transaction and describes what came of it.
func describe(tx *sql.Tx, query string, args ...any) string {
	return strings.ReplaceAll(table(tx, query, args...), "\n", "|")
}

// replaySteps are the statements of a transaction with about everything in it that can
// be run again; k makes its rows its own. One of them waits, so that a server can be lost
// while it runs.
func replaySteps(k int) []func(*sql.Tx) string {
	name := replayName(k)
	exec := func(query string, args ...any) func(*sql.Tx) string {
		return func(tx *sql.Tx) string {
			r, err := tx.Exec(query, args...)
			if err != nil {
				return told(err)
			}
			n, _ := r.RowsAffected()
			return fmt.Sprint(n)
		}
	}
	query := func(query string, args ...any) func(*sql.Tx) string {
		return func(tx *sql.Tx) string { return describe(tx, query, args...) }
	}
	return []func(*sql.Tx) string{
		query("SELECT id, n FROM acct WHERE id <= $1 ORDER BY id", 3),
		exec("INSERT INTO log VALUES ($1, $2), ($1, $3)", name, 1, 2),
		query("INSERT INTO log VALUES ($1, 3) RETURNING tx, k", name),
		exec("SET LOCAL work_mem = '1234kB'"),
		query("SHOW work_mem"),
		exec("SAVEPOINT s"),
		exec("INSERT INTO log VALUES ($1, 3)", name), // 23505
		exec("ROLLBACK TO SAVEPOINT s"),
		func(tx *sql.Tx) string {
			stmt, err := tx.Prepare("UPDATE log SET k = k + $2 WHERE tx = $1 AND k < $3")
			if err != nil {
				return told(err)
			}
			defer stmt.Close()
			r, err := stmt.Exec(name, 0, 9)
			if err != nil {
				return told(err)
			}
			n, _ := r.RowsAffected()
			return fmt.Sprint(n)
		},
		query("SELECT pg_sleep(0.1), count(*) FROM log WHERE tx = $1", name),
		exec("DECLARE c CURSOR FOR SELECT g FROM generate_series(1, 9) g"),
		query("FETCH 4 FROM c"),
		query("FETCH 4 FROM c"),
		exec("SELECT 1; INSERT INTO log VALUES ('" + name + "', 4)"),
		exec("CREATE TABLE " + name + " (id int PRIMARY KEY, b bytea)"),
		exec("INSERT INTO "+name+" SELECT g, $1 FROM generate_series(1, 5) g", []byte{0, 1, 2}),
		query("SELECT * FROM " + name + " ORDER BY 1"),
		exec("TRUNCATE " + name),
		query("SELECT set_config('my.own', $1, true)", name),
		query("SELECT current_setting('my.own'), g, repeat('x', 500) FROM generate_series(1, 200) g"),
		exec("NOTIFY n, 'x'"),
		query("SELECT pg_advisory_xact_lock(7)"),
		exec("nonsense"), // 42601, and the transaction is aborted
		exec("ROLLBACK TO SAVEPOINT s"),
		query("SELECT tx, k FROM log WHERE tx = $1 ORDER BY k", name),
	}
}

func replayName(k int) string { return fmt.Sprintf("tx_%d_", k) }

// TestReplayAtEachStatement loses the leader's connection before each statement of a
// transaction, during one, and at COMMIT. The program notices nothing, and what it wrote is
// there once.
func TestReplayAtEachStatement(t *testing.T) {
	s := newReplaySet(t, "")
	n := len(replaySteps(0))
	var want []string
	for k := -1; k <= n; k++ { // first without any loss
		tx, err := s.db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		for i, step := range replaySteps(k + 1) {
			if i == k {
				s.end(t)
			}
			got := step(tx)
			got = strings.ReplaceAll(got, replayName(k+1), "NAME")
			if k < 0 {
				want = append(want, got)
			} else if got != want[i] {
				t.Errorf("lost before statement %d: statement %d says %.300s; undisturbed, it said %.300s", k, i, got, want[i])
			}
		}
		if k == n {
			s.end(t)
		}
		if err := tx.Commit(); err != nil {
			t.Errorf("lost before statement %d: COMMIT says %v", k, told(err))
		}
		if rows := ask[int](t, s.db, "SELECT count(*) FROM log WHERE tx = $1", replayName(k+1)); rows != 3 {
			t.Errorf("lost before statement %d: %d rows are left", k, rows)
		}
	}
	// Before the first statement nothing is lost, and a read before the first write just moves.
	if got := s.stats(t); got.Done != uint64(n+1)-2 || got.Done != got.Tried || got.Differed+got.Unfit != 0 {
		t.Errorf("%+v for %d losses", got, n+1)
	}
	pgtest.SameBytes(t, s.servers...)
}

// TestReplayFailovers loses the leader itself: killed, stopped, and replaced on request;
// between statements, while one runs, and while COMMIT is under way.
func TestReplayFailovers(t *testing.T) {
	s := newReplaySet(t, "")
	run(t, s.db, `CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END';
		CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON log DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.k = 5) EXECUTE FUNCTION linger()`)
	kill := func() func() {
		victim := s.servers[s.leader(t)]
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := victim.StartAgain(); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop := func() func() {
		victim := s.servers[s.leader(t)]
		if err := victim.SigStop(); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := victim.SigCont(); err != nil {
				t.Fatal(err)
			}
		}
	}
	replace := func() func() { s.switchover(t); return func() {} }
	for i, c := range []struct {
		what   string
		fault  func() func()
		during string // between, statement or commit
	}{
		{"replaced between statements", replace, "between"},
		{"replaced during a statement", replace, "statement"},
		{"replaced during COMMIT", replace, "commit"},
		{"killed during COMMIT", kill, "commit"},
		{"stopped during a statement", stop, "statement"},
		{"killed between statements", kill, "between"},
	} {
		name := fmt.Sprint("f", i)
		before := s.stats(t)
		tx, err := s.db.BeginTx(context.Background(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
		if err != nil {
			t.Fatal(err)
		}
		run(t, tx, "INSERT INTO log VALUES ($1, 1)", name)
		if got := ask[int](t, tx, "UPDATE acct SET n = n + 1 WHERE id = 1 RETURNING n"); got != 101+i {
			t.Errorf("%s: n is %d", c.what, got)
		}
		repair, struck := make(chan func(), 1), make(chan struct{})
		strike := func(is string, delay time.Duration) {
			if is == c.during {
				go func() {
					time.Sleep(delay)
					repair <- c.fault()
					close(struck)
				}()
			}
		}
		if c.during == "between" {
			repair <- c.fault()
		}
		strike("statement", 100*time.Millisecond)
		if got := ask[int](t, tx, "SELECT count(*) FROM log, pg_sleep(0.5) WHERE tx = $1", name); got != 1 {
			t.Errorf("%s: %d rows", c.what, got)
		}
		if c.during == "statement" {
			<-struck // before COMMIT, on however slow a machine
		}
		run(t, tx, "INSERT INTO log VALUES ($1, 5)", name)
		strike("commit", 100*time.Millisecond)
		if err := tx.Commit(); err != nil {
			t.Errorf("%s: COMMIT says %v", c.what, told(err))
		}
		(<-repair)()
		waitInSync(t, s.db, 3)
		if got := ask[int](t, s.db, "SELECT count(*) FROM log WHERE tx = $1", name); got != 2 {
			t.Errorf("%s: %d rows are left", c.what, got)
		}
		if got := ask[int](t, s.db, "SELECT n FROM acct WHERE id = 1"); got != 101+i {
			t.Errorf("%s: n is %d, applied more or less than once", c.what, got)
		}
		after := s.stats(t)
		t.Logf("%s: %+v", c.what, after)
		if c.during != "commit" && after.Done != before.Done+1 { // a COMMIT may have been kept
			t.Errorf("%s: it was not run again: %+v", c.what, after)
		}
	}
	pgtest.SameBytes(t, s.servers...)
}

// TestReplayOnlyWhatIsOver: a transaction is run again once the mirror says that the attempt
// before left nothing, and not otherwise.
func TestReplayOnlyWhatIsOver(t *testing.T) {
	for _, c := range []struct {
		outcome  engine.Outcome
		atCommit bool
		state    string
		rows     int // what is left
		runs     int64
	}{
		{engine.RolledBack, false, "", 1, 2},
		{engine.RolledBack, true, "", 1, 2},
		{engine.Committed, false, "40001", 0, 1}, // COMMIT was not sent: whatever this is, it is not understood
		{engine.Committed, true, "", 0, 1},       // the fake says so
	} {
		db, fake, dsns := three(t, func(c *Config) { c.Replay = ReplayOn })
		fake.outcome = c.outcome
		for _, dsn := range dsns { // the first time, COMMIT kills its own backend
			onServer(t, dsn, `CREATE SEQUENCE runs; CREATE SEQUENCE deaths;
				CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF nextval(''deaths'') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5); END IF; RETURN NULL; END';
				CREATE CONSTRAINT TRIGGER die AFTER INSERT ON w DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.id = 1) EXECUTE FUNCTION die();
				CREATE FUNCTION count_runs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM nextval(''runs''); RETURN NULL; END';
				CREATE TRIGGER count_runs AFTER INSERT ON w FOR EACH ROW EXECUTE FUNCTION count_runs()`)
		}
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		run(t, tx, "INSERT INTO w VALUES ($1)", 2-pgNumber(c.atCommit))
		if !c.atCommit {
			onServer(t, dsns[0], endSQL)
			if _, err := tx.Exec("SELECT 1"); sqlState(err) != c.state {
				t.Errorf("%+v: %v", c, told(err))
			}
		}
		if err := tx.Commit(); sqlState(err) != "" || (err == nil) != (c.state == "") {
			t.Errorf("%+v: COMMIT: %v", c, told(err))
		}
		if rows := ask[int](t, db, "/* pgdist: leader */ SELECT count(*) FROM w"); rows != c.rows {
			t.Errorf("%+v: %d rows are left", c, rows)
		}
		if runs := ask[int64](t, db, "/* pgdist: leader */ SELECT last_value FROM runs"); runs != c.runs {
			t.Errorf("%+v: it ran %d times", c, runs)
		}
		if len(fake.asked) != 1 {
			t.Errorf("%+v: the mirror was asked %d times", c, len(fake.asked))
		}
	}
}

// TestReplayDiffers: another result than before is 40001, and names the statement.
func TestReplayDiffers(t *testing.T) {
	s := newReplaySet(t, "")
	for _, c := range []struct {
		name, first, meanwhile string
		differs                bool
	}{
		{"a row changed", "SELECT n FROM acct WHERE id = 1", "UPDATE acct SET n = n + 1 WHERE id = 1", true},
		{"a row came", "SELECT id FROM acct", "INSERT INTO acct VALUES (21, 1)", true},
		{"another row changed", "SELECT n FROM acct WHERE id = 1", "UPDATE acct SET n = n + 1 WHERE id = 2", false},
		{"chance", "SELECT random()", "", true},
		{"the clock", "SELECT now()", "", true},
		{"chance that nobody saw", "INSERT INTO acct VALUES (31, 1)", "", false},
		{"a sequence", "SELECT nextval('seq')", "SELECT nextval('seq')", true},
		{"a count of rows", "UPDATE acct SET n = n WHERE id < 0 OR id > 40", "INSERT INTO acct VALUES (41, 1)", true},
		{"an error", "INSERT INTO acct VALUES (51, 1)", "INSERT INTO acct VALUES (51, 1)", true},
	} {
		conn, err := s.db.Conn(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		tx, err := conn.BeginTx(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		run(t, tx, "INSERT INTO log VALUES ($1, 0)", c.name)
		describe(tx, c.first)
		s.end(t)
		if c.meanwhile != "" {
			run(t, s.db, c.meanwhile)
		}
		_, err = tx.Exec("INSERT INTO log VALUES ($1, 1)", c.name)
		if !c.differs {
			if err != nil {
				t.Errorf("%s: %v", c.name, told(err))
			}
			if err := tx.Commit(); err != nil {
				t.Errorf("%s: %v", c.name, told(err))
			}
		} else {
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != "40001" || !strings.Contains(pe.Detail, "Statement 2 of the transaction: ") || pe.Hint == "" {
				t.Errorf("%s: %v", c.name, told(err))
			}
			if _, err := tx.Exec("SELECT 1"); sqlState(err) != "25P02" {
				t.Errorf("%s: the next statement: %v", c.name, err)
			}
			if err := tx.Commit(); !errors.Is(err, pgx.ErrTxCommitRollback) {
				t.Errorf("%s: COMMIT: %v", c.name, err)
			}
		}
		run(t, conn, "SELECT 1")
		if got, want := ask[int](t, s.db, "SELECT count(*) FROM log WHERE tx = $1", c.name), 2*pgNumber(!c.differs); got != want {
			t.Errorf("%s: %d rows are left", c.name, got)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := s.stats(t); got.Differed != 7 || got.Done != 2 || got.Tried != 9 {
		t.Errorf("%+v", got)
	}
}

func pgNumber(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestReplayKeepsModes: the new transaction has the isolation level and the access mode of
// the lost one, and the session's settings.
func TestReplayKeepsModes(t *testing.T) {
	s := newReplaySet(t, "")
	conn, err := s.db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	run(t, conn, "SET search_path = public, pg_catalog; SET my.own = 'x'")
	tx, err := conn.BeginTx(context.Background(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	run(t, tx, "SET my.own = 'y'")
	run(t, tx, "INSERT INTO log VALUES ('m', 1)")
	s.end(t)
	if got := ask[int](t, tx, "SELECT count(*) FROM acct"); got != 20 {
		t.Errorf("%d rows", got)
	}
	run(t, s.db, "DELETE FROM acct WHERE id = 20") // not seen by a snapshot
	if got := ask[int](t, tx, "SELECT count(*) FROM acct"); got != 20 {
		t.Errorf("the transaction was run again in another isolation level: %d rows", got)
	}
	if got := ask[string](t, tx, "SHOW transaction_isolation"); got != "repeatable read" {
		t.Error(got)
	}
	if got := ask[string](t, tx, "SELECT current_setting('search_path') || current_setting('my.own')"); got != "public, pg_catalogy" {
		t.Error(got)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if got := ask[string](t, conn, "SELECT current_setting('my.own')"); got != "x" {
		t.Error("after ROLLBACK: ", got)
	}

	ro, err := conn.BeginTx(context.Background(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := ask[int](t, ro, "SELECT count(*) FROM acct"); got != 19 {
			t.Errorf("%d rows", got)
		}
		for _, server := range s.servers {
			onServer(t, server.DSN(), endSQL)
		}
	}
	if _, err := ro.Exec("INSERT INTO log VALUES ('m', 2)"); sqlState(err) != "25006" {
		t.Errorf("a write in a READ ONLY transaction: %v", err)
	}
	if err := ro.Rollback(); err != nil {
		t.Fatal(err)
	}
	if got := s.stats(t); got.Done != 4 || got.Tried != 4 {
		t.Errorf("%+v", got)
	}
}

// TestReplayUnfit: what cannot be run again hears 40001, as without replay.
func TestReplayUnfit(t *testing.T) {
	s := newReplaySet(t, "&replay_limit=16kB")
	for name, c := range map[string]struct{ before, first string }{
		"a temporary table":          {"", "CREATE TEMP TABLE tt (i int)"},
		"an advisory lock":           {"", "SELECT pg_advisory_lock(1)"},
		"a cursor that is held":      {"", "DECLARE c CURSOR WITH HOLD FOR SELECT 1"},
		"a pinned session":           {"LISTEN x", "SELECT 1"},
		"more than the limit":        {"", "SELECT length('" + strings.Repeat("x", 20<<10) + "')"},
		"off for the session itself": {"SET pgdist.replay = off", "SELECT 1"},
	} {
		conn, err := s.db.Conn(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if c.before != "" {
			run(t, conn, c.before)
		}
		tx, err := conn.BeginTx(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		run(t, tx, "INSERT INTO log VALUES ($1, 0)", name)
		describe(tx, c.first)
		s.end(t)
		if _, err := tx.Exec("INSERT INTO log VALUES ($1, 1)", name); sqlState(err) != "40001" {
			t.Errorf("%s: %v", name, told(err))
		}
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
		run(t, conn, "DISCARD ALL") // sql.DB hands the session to the next
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := s.stats(t); got.Unfit != 5 || got.Tried != 0 {
		t.Errorf("%+v", got)
	}
	if got := ask[int](t, s.db, "SELECT count(*) FROM log"); got != 0 {
		t.Errorf("%d rows are left", got)
	}
}

// TestReplayCopy: rows that were loaded by COPY are loaded again, if they are within the limit.
func TestReplayCopy(t *testing.T) {
	s := newReplaySet(t, "&replay_limit=64kB")
	ctx := context.Background()
	conn, err := s.db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, rows := range []int{100, 10000} {
		name, state := fmt.Sprint("copy", rows), ""
		if rows > 1000 {
			state = "40001"
		}
		tx, err := conn.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		n, err := CopyFrom(ctx, conn, pgx.Identifier{"log"}, []string{"tx", "k"}, pgx.CopyFromSlice(rows, func(i int) ([]any, error) { return []any{name, i}, nil }))
		if err != nil || n != int64(rows) {
			t.Errorf("%d rows: %v", n, told(err))
		}
		s.end(t)
		if err := tx.Commit(); sqlState(err) != state {
			t.Errorf("%d rows: COMMIT: %v", rows, told(err))
		}
		if got, want := ask[int](t, s.db, "SELECT count(*) FROM log WHERE tx = $1", name), rows*pgNumber(state == ""); got != want {
			t.Errorf("%d rows are left of %d", got, rows)
		}
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	run(t, tx, "INSERT INTO log VALUES ('lost', 0)")
	_, err = CopyFrom(ctx, conn, pgx.Identifier{"log"}, []string{"tx", "k"}, pgx.CopyFromSlice(9, func(i int) ([]any, error) {
		if i == 5 {
			s.end(t)
			onServer(t, s.servers[s.leader(t)].DSN(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'active' AND query ILIKE 'copy%'")
		}
		return []any{"lost", i}, nil
	}))
	if sqlState(err) != "40001" {
		t.Errorf("the source was read in part: %v", told(err))
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
}

// TestReplayWithinAResult loses the server while the program reads a long result: it goes
// on on the other one where it was, if what came before is the same.
func TestReplayWithinAResult(t *testing.T) {
	s := newReplaySet(t, "")
	for name, meanwhile := range map[string]string{"": "", "changed": "UPDATE acct SET at = clock_timestamp()", "fewer": "UPDATE acct SET n = 1"} {
		tx, err := s.db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		run(t, tx, "INSERT INTO log VALUES ($1, 1)", "long"+name)
		rows, err := tx.Query("SELECT g, repeat(md5(g || at::text), 20) FROM acct, generate_series(1, n * 200) g WHERE id = $1 ORDER BY g", 1)
		if err != nil {
			t.Fatal(err)
		}
		n, wrong := 0, 0
		for rows.Next() {
			var id int
			var v string
			if err := rows.Scan(&id, &v); err != nil {
				t.Fatal(err)
			}
			if n++; id != n || len(v) != 640 && meanwhile == "" {
				wrong++
			}
			if n == 1000 {
				onServer(t, s.servers[s.leader(t)].DSN(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT g, repeat%'")
				if meanwhile != "" {
					run(t, s.db, meanwhile)
				}
			}
		}
		err = rows.Err()
		if meanwhile == "" {
			if err != nil || n != 20000 || wrong > 0 {
				t.Errorf("%d rows, %d wrong: %v", n, wrong, told(err))
			}
			if err := tx.Commit(); err != nil {
				t.Error(told(err))
			}
			continue
		}
		if sqlState(err) != "40001" || !strings.Contains(told(err), "Statement 2") {
			t.Errorf("%s: %d rows and %v", name, n, told(err))
		}
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
		run(t, s.db, "UPDATE acct SET n = 100")
	}
	if got := ask[string](t, s.db, "SELECT string_agg(tx, ' ') FROM log"); got != "long" {
		t.Errorf("%q is left", got)
	}
}

// TestReplayBank moves money between accounts while leaders die. With replay=on a program
// hears 40001 only if somebody else changed what it had read. Nothing is applied twice, or
// lost: every transfer writes a row under its own number, and the sum stays.
func TestReplayBank(t *testing.T) {
	const seed = 11
	t.Log("seed ", seed)
	s := newReplaySet(t, "")
	work, end := context.WithCancel(context.Background())
	var done, differed atomic.Int64
	var wg sync.WaitGroup
	transfer := func(rnd *rand.Rand, name string, k int) error {
		from := 1 + rnd.IntN(20)
		to := 1 + (from+rnd.IntN(19))%20
		tx, err := s.db.Begin()
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // ErrTxDone
		for _, id := range []int{min(from, to), max(from, to)} {
			var n int
			if err := tx.QueryRow("SELECT n FROM acct WHERE id = $1 FOR UPDATE", id).Scan(&n); err != nil {
				return err
			}
			change := 1 - 2*pgNumber(id == from)
			if _, err := tx.Exec("UPDATE acct SET n = $2 WHERE id = $1", id, n+change); err != nil {
				return err
			}
		}
		if _, err := tx.Exec("INSERT INTO log VALUES ($1, $2)", name, k); err != nil {
			return err
		}
		return tx.Commit()
	}
	for c := range 6 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(c)))
			for k := 1; work.Err() == nil; {
				err := transfer(rnd, fmt.Sprint("c", c), k)
				switch {
				case err == nil:
					done.Add(1)
					k++
				case sqlState(err) == "40001" && strings.Contains(told(err), "another result"):
					differed.Add(1)
				default:
					t.Errorf("client %d: %v", c, told(err))
					return
				}
			}
			run(t, s.db, "INSERT INTO log SELECT 'done', max(k) * 10 + $2 FROM log WHERE tx = $1", fmt.Sprint("c", c), c)
		})
	}
	for range 3 {
		time.Sleep(500 * time.Millisecond)
		victim := s.servers[s.leader(t)]
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		waitInSync(t, s.db, 2)
		time.Sleep(300 * time.Millisecond)
		if err := victim.StartAgain(); err != nil {
			t.Fatal(err)
		}
		waitInSync(t, s.db, 3)
	}
	end()
	wg.Wait()
	got := s.stats(t)
	t.Logf("%d transfers, %d heard 40001; %+v", done.Load(), differed.Load(), got)
	if sum := ask[int](t, s.db, "SELECT sum(n) FROM acct"); sum != 2000 {
		t.Errorf("the sum is %d", sum)
	}
	if rows := ask[int64](t, s.db, "SELECT count(*) FROM log WHERE tx <> 'done'"); rows != done.Load() {
		t.Errorf("%d transfers are recorded, %d were acknowledged", rows, done.Load())
	}
	if got.Done == 0 {
		t.Error("no transaction was run again")
	}
	pgtest.SameBytes(t, s.servers...)
}
