package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/failpoint"
)

// leavingSchema has code that leaves something on its connection, by all the ways in which
// a statement may run it.
const leavingSchema = `
	CREATE TABLE seen (id serial PRIMARY KEY, v text);
	CREATE TABLE logged (id int PRIMARY KEY);
	CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES logged ON DELETE CASCADE);
	CREATE FUNCTION tenant(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.tenant', $1, false) $$;
	CREATE FUNCTION steady(text) RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN set_config('app.tenant', $1, false); END $$;
	CREATE FUNCTION outer_one(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN tenant($1); END $$;
	CREATE FUNCTION shortly(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.tenant', $1, true) $$;
	CREATE FUNCTION anything(text, text) RETURNS text LANGUAGE sql AS $$ SELECT set_config($1, $2, false) $$;
	CREATE FUNCTION runs(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE $1; END $$;
	CREATE FUNCTION scratch() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE scratch (x int); END $$;
	CREATE FUNCTION passing() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE passed (x int) ON COMMIT DROP; END $$;
	CREATE FUNCTION locked() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(4711); END $$;
	CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET work_mem = '9MB'; RETURN NULL; END $$;
	CREATE TRIGGER fires AFTER INSERT OR DELETE ON child FOR EACH ROW EXECUTE FUNCTION fires();
	CREATE VIEW hidden AS SELECT steady('by the view') AS v;
	CREATE PROCEDURE parts() LANGUAGE plpgsql AS $$ BEGIN SET work_mem = '7MB'; COMMIT; SET work_mem = '8MB'; END $$`

const (
	seesTenant   = `coalesce(nullif(current_setting('app.tenant', true), ''), 'none')`
	seesMemory   = `current_setting('work_mem')`
	seesScratch  = `(to_regclass('scratch') IS NOT NULL)::text`
	seesLock     = `(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())::text`
	seesPrepared = `(SELECT count(*) FROM pg_prepared_statements WHERE name = 'leftover')::text`
)

// TestWhatFunctionsLeave: what a function, a trigger or a block of code has left on its
// connection is the session's, wherever it goes on, and nobody else meets it.
func TestWhatFunctionsLeave(t *testing.T) {
	s := newSet(t, func(c *Config) { c.DSN += "&pool_size=2" })
	ctx := context.Background()
	execute(t, connect(t, s.url("")), leavingSchema)
	s.keeps(t, false)
	for _, c := range []struct {
		name       string
		run        []string
		sees       string
		own, other string
		pinned     bool // it has to stay where it is
	}{
		{"a function", []string{"SELECT tenant('a')"}, seesTenant, "a", "none", false},
		{"a function that is no write", []string{"SELECT steady('a')"}, seesTenant, "a", "none", false},
		{"a function that calls one", []string{"SELECT outer_one('a')"}, seesTenant, "a", "none", false},
		{"a function of the session's own", []string{"CREATE OR REPLACE FUNCTION late() RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.tenant', 'late', false) $$", "SELECT late()"}, seesTenant, "late", "none", false},
		{"a function made in the transaction", []string{"BEGIN", "CREATE OR REPLACE FUNCTION later() RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.tenant', 'later', false) $$", "SELECT later()", "COMMIT"}, seesTenant, "later", "none", false},
		{"a setting that is local", []string{"SELECT shortly('a')"}, seesTenant, "none", "none", false},
		{"a setting taken back", []string{"SELECT tenant('a')", "SELECT tenant('')"}, seesTenant, "none", "none", false},
		{"a name that does not show", []string{"SELECT anything('app.tenant', 'a')"}, seesTenant, "a", "none", true},
		{"a text that is given", []string{"SELECT runs('SET work_mem = ''5MB''')"}, seesMemory, "5MB", "4MB", false},
		{"a view", []string{"SELECT * FROM hidden"}, seesTenant, "by the view", "none", false},
		{"a block", []string{"DO $$ BEGIN SET work_mem = '6MB'; PERFORM tenant('a'); END $$"}, seesMemory, "6MB", "4MB", false},
		{"a block that calls one", []string{"DO $$ BEGIN PERFORM tenant('a'); END $$"}, seesTenant, "a", "none", false},
		{"a procedure", []string{"CALL parts()"}, seesMemory, "8MB", "4MB", false},
		{"a trigger", []string{"INSERT INTO logged VALUES (1)", "INSERT INTO child VALUES (1, 1)"}, seesMemory, "9MB", "4MB", false},
		{"a trigger behind a foreign key", []string{"DELETE FROM logged WHERE id = 1"}, seesMemory, "9MB", "4MB", false},
		{"a transaction", []string{"BEGIN", "SELECT tenant('a')", "COMMIT"}, seesTenant, "a", "none", false},
		{"a transaction rolled back", []string{"BEGIN", "SELECT tenant('a')", "ROLLBACK"}, seesTenant, "none", "none", false},
		{"a READ ONLY transaction", []string{"BEGIN READ ONLY", "SELECT steady('a')", "COMMIT"}, seesTenant, "a", "none", false},
		{"RESET ALL", []string{"SELECT tenant('a')", "RESET ALL"}, seesTenant, "none", "none", false},
		{"a temporary table", []string{"SELECT scratch()"}, seesScratch, "true", "false", true},
		{"a temporary table in a transaction", []string{"BEGIN", "SELECT scratch()", "COMMIT"}, seesScratch, "true", "false", true},
		{"a temporary table that is gone", []string{"SELECT passing()"}, seesScratch, "false", "false", false},
		{"a lock", []string{"SELECT locked()"}, seesLock, "1", "0", true},
		{"a lock that a rollback leaves", []string{"BEGIN", "SELECT locked()", "ROLLBACK"}, seesLock, "1", "0", true},
		{"a lock of a statement that fails", []string{"!SELECT locked(), 1/(random() * 0)::int"}, seesLock, "1", "0", true},
		{"a prepared statement", []string{"SELECT runs('PREPARE leftover AS SELECT 1')"}, seesPrepared, "1", "0", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := connect(t, s.url(""))
			for _, sql := range c.run {
				fails := sql[0] == '!'
				if fails {
					sql = sql[1:]
				}
				if _, err := a.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); (err != nil) != fails {
					t.Fatal(sql, err)
				}
			}
			s.sees(t, "the session", a, c.sees, c.own)
			for i := range 3 {
				b := connect(t, s.url(""))
				s.sees(t, fmt.Sprintf("another session (%d)", i), b, c.sees, c.other)
				_ = b.Close(ctx)
			}
			s.sees(t, "the session, afterwards", a, c.sees, c.own)
			s.keeps(t, c.pinned)
			_ = a.Close(ctx)
			s.keeps(t, false)
		})
	}
}

// keeps waits until a client that does nothing has a connection for itself, or none has.
func (s *set) keeps(t *testing.T, want bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); s.leased() > 0 != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("a connection is kept for one session: %v", !want)
			return
		}
	}
}

// sees asks on a connection for reads and on one for writes.
func (s *set) sees(t *testing.T, who string, conn *pgx.Conn, what, want string) {
	t.Helper()
	for _, sql := range []string{"SELECT " + what, "INSERT INTO seen (v) SELECT " + what + " RETURNING v"} {
		var got string
		if err := conn.QueryRow(context.Background(), sql, pgx.QueryExecModeSimpleProtocol).Scan(&got); err != nil || got != want {
			t.Errorf("%s sees %q, want %q (%v): %s", who, got, want, err, sql)
		}
	}
}

// TestReadOnlyTransactionsThatAct: an advisory lock and a notification are the leader's affair also in
// a READ ONLY transaction that has begun on a follower, and its session can write afterwards.
func TestReadOnlyTransactionsThatAct(t *testing.T) {
	s := newSet(t, func(c *Config) { c.DSN += "&weights=0,1,1" }) // reads go to followers
	ctx := context.Background()
	listener := connect(t, s.url(""))
	if _, err := listener.Exec(ctx, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); LISTEN c", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		begin, act string
		fails      bool // perhaps, the first time; after that such transactions begin at the leader
	}{
		{"BEGIN READ ONLY", "SELECT pg_try_advisory_lock(1)", false},
		{"BEGIN READ ONLY", "SELECT pg_try_advisory_xact_lock(1)", false},
		{"BEGIN READ ONLY", "NOTIFY c", false},
		{"BEGIN READ ONLY", "SELECT pg_notify('c', '')", false},
		{"BEGIN READ ONLY; SET LOCAL work_mem = '5MB'", "NOTIFY c", true},
		{"BEGIN READ ONLY; SELECT now()", "NOTIFY c", true},
		{"BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ", "SELECT pg_try_advisory_lock(1)", true},
		{"BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ", "NOTIFY c", true},
	} {
		t.Run(c.begin+"; "+c.act, func(t *testing.T) {
			a, b := connect(t, s.url("")), connect(t, s.url(""))
			for try := 0; ; try++ {
				execute(t, a, c.begin)
				execute(t, a, "SELECT * FROM t")
				_, err := a.Exec(ctx, c.act, pgx.QueryExecModeSimpleProtocol)
				if err == nil {
					break
				}
				if code(err) != "40001" || !c.fails || try > 0 {
					t.Fatal(err)
				}
				execute(t, a, "ROLLBACK")
			}
			if c.act != "NOTIFY c" && c.act != "SELECT pg_notify('c', '')" {
				var got bool
				if err := b.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock(1)").Scan(&got); err != nil || got {
					t.Errorf("another session got the same lock: %v %v", got, err)
				}
			}
			execute(t, a, "COMMIT")
			if c.act == "NOTIFY c" || c.act == "SELECT pg_notify('c', '')" {
				limited, cancel := context.WithTimeout(ctx, ages)
				defer cancel()
				if _, err := listener.WaitForNotification(limited); err != nil {
					t.Error(err)
				}
			}
			execute(t, a, "INSERT INTO t VALUES (2); DELETE FROM t WHERE id = 2")
			_ = a.Close(ctx)
			_ = b.Close(ctx)
		})
	}
}

// TestTransactionsThatFunctionsRoot: a cursor, a setting or a lock that a function which is no write
// makes in a transaction is there to its end, though the transaction has only read so far.
func TestTransactionsThatFunctionsRoot(t *testing.T) {
	s := newSet(t, func(c *Config) { c.DSN += "&weights=0,1,1" }) // reads go to followers
	ctx := context.Background()
	execute(t, connect(t, s.url("")), `
		CREATE TABLE t (id int PRIMARY KEY);
		INSERT INTO t VALUES (1);
		CREATE FUNCTION opens() RETURNS refcursor STABLE LANGUAGE plpgsql AS $$ DECLARE c refcursor := 'c'; BEGIN OPEN c FOR SELECT id::text FROM t; RETURN c; END $$;
		CREATE FUNCTION shortly() RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN set_config('app.tenant', 'a', true); END $$;
		CREATE FUNCTION locks() RETURNS boolean STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN pg_try_advisory_xact_lock(1); END $$;
		CREATE FUNCTION notifies() RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('c', ''); RETURN ''; END $$;
		CREATE FUNCTION port() RETURNS int STABLE LANGUAGE sql AS 'SELECT inet_server_port()';
		CREATE VIEW viewed AS SELECT opens()`)
	a := connect(t, s.url(""))
	port := func(sql string) (n int) {
		if err := a.QueryRow(ctx, sql, pgx.QueryExecModeSimpleProtocol).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for end := time.Now().Add(ages); port("SELECT port()") == port("/* pgdist: leader */ SELECT inet_server_port()"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what the functions are does not become known")
		}
	}
	for _, c := range []struct{ begin, run, then, want string }{
		{"BEGIN", "SELECT opens()", "FETCH c", "1"},
		{"BEGIN", "SELECT * FROM viewed", "FETCH c", "1"},
		{"BEGIN READ ONLY", "SELECT opens()", "FETCH c", "1"},
		{"BEGIN", "SELECT shortly()", "SELECT " + seesTenant, "a"},
		{"BEGIN", "SELECT shortly()", "UPDATE t SET id = id RETURNING " + seesTenant, "a"},
		{"BEGIN READ ONLY", "SELECT shortly()", "SELECT " + seesTenant, "a"},
	} {
		t.Run(c.begin+"; "+c.run+"; "+c.then, func(t *testing.T) {
			var got string
			execute(t, a, c.begin)
			execute(t, a, "SELECT * FROM t")
			execute(t, a, c.run)
			if err := a.QueryRow(ctx, c.then, pgx.QueryExecModeSimpleProtocol).Scan(&got); err != nil || got != c.want {
				t.Errorf("%q, want %q (%v)", got, c.want, err)
			}
			execute(t, a, "COMMIT")
		})
	}
	for _, begin := range []string{"BEGIN", "BEGIN READ ONLY"} {
		b := connect(t, s.url(""))
		var first, second bool
		for _, conn := range []*pgx.Conn{a, b} {
			execute(t, conn, begin)
			execute(t, conn, "SELECT * FROM t")
		}
		err := a.QueryRow(ctx, "SELECT locks()", pgx.QueryExecModeSimpleProtocol).Scan(&first)
		if err2 := b.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock(1)", pgx.QueryExecModeSimpleProtocol).Scan(&second); err != nil || err2 != nil || !first || second {
			t.Errorf("%s: a lock is got by %v and by %v (%v, %v)", begin, first, second, err, err2)
		}
		execute(t, a, "COMMIT")
		execute(t, b, "COMMIT")
	}
	listener := connect(t, s.url(""))
	execute(t, listener, "LISTEN c")
	execute(t, a, "SELECT notifies()")
	limited, cancel := context.WithTimeout(ctx, ages)
	defer cancel()
	if _, err := listener.WaitForNotification(limited); err != nil {
		t.Error("what a function notifies that is no write:", err)
	}
}

// TestSnapshotsThatPrepare: who has read in a snapshot may prepare by SQL, as pg_dump does; if it writes
// afterwards it is told, once, that this is lost.
func TestSnapshotsThatPrepare(t *testing.T) {
	s := newSet(t, nil)
	ctx := context.Background()
	a := connect(t, s.url(""))
	execute(t, a, "CREATE TABLE t (id int PRIMARY KEY)")
	execute(t, a, "BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
	execute(t, a, "SELECT count(*) FROM pg_class")
	execute(t, a, "PREPARE one AS SELECT 1")
	execute(t, a, "EXECUTE one")
	execute(t, a, "COMMIT")
	execute(t, a, "EXECUTE one")
	if _, err := a.Exec(ctx, "INSERT INTO t VALUES (1)", pgx.QueryExecModeSimpleProtocol); code(err) != "57P01" {
		t.Errorf("a write where it cannot be: %v", err)
	}
	execute(t, a, "INSERT INTO t VALUES (1)")
	execute(t, a, "CREATE TABLE u (id int PRIMARY KEY)")
}

// TestFunctionsThatOthersHaveJustMade: what a function leaves is its session's from the moment on at which another
// session's CREATE FUNCTION is committed.
func TestFunctionsThatOthersHaveJustMade(t *testing.T) {
	s := newSet(t, func(c *Config) { c.DSN += "&pool_size=2" })
	ctx := context.Background()
	maker, a := connect(t, s.url("")), connect(t, s.url(""))
	execute(t, maker, "CREATE TABLE seen (id serial PRIMARY KEY, v text)")
	committed, goOn, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var once sync.Once
	failpoint.Watch(func(name string) {
		if strings.HasSuffix(name, "the leader has committed") {
			once.Do(func() { close(committed); <-goOn })
		}
	})
	t.Cleanup(func() { failpoint.Watch(nil) })
	go func() {
		_, err := maker.Exec(ctx, "CREATE FUNCTION tenant(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.tenant', $1, false) $$")
		done <- err
	}()
	<-committed
	failpoint.Watch(nil)
	_, err := a.Exec(ctx, "SELECT tenant('a')")
	close(goOn)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	s.sees(t, "the session", a, seesTenant, "a")
	for i := range 3 {
		b := connect(t, s.url(""))
		s.sees(t, fmt.Sprintf("another session (%d)", i), b, seesTenant, "none")
		_ = b.Close(ctx)
	}
	s.sees(t, "the session, afterwards", a, seesTenant, "a")
}
