//go:build unix

package pgtest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/pgtest"
)

func Example() {
	server, err := pgtest.Launch(pgtest.Options{Databases: []string{"app"}, FsyncOff: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	conn, err := pgx.Connect(context.Background(), server.DSN())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close(context.Background())
	var name string
	if err := conn.QueryRow(context.Background(), "SELECT current_database()").Scan(&name); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(name)
	// Output: app
}

func query[T any](t *testing.T, s *pgtest.Server, sql string) (v T) {
	t.Helper()
	if err := pgtest.Connect(t, s.DSN()).QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestThreeAreDistinctAndDurable(t *testing.T) {
	set := pgtest.Three(t, pgtest.Options{Databases: []string{"app"}, Settings: map[string]string{"work_mem": "5MB"}})
	systems, ports := map[string]bool{}, map[int]bool{}
	for _, s := range set {
		systems[query[string](t, s, "SELECT system_identifier::text FROM pg_control_system()")] = true
		ports[s.Port()] = true
		for setting, want := range map[string]string{"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "work_mem": "5MB", "server_encoding": "UTF8"} {
			if got := query[string](t, s, "SELECT current_setting('"+setting+"')"); got != want {
				t.Errorf("%s is %s, want %s", setting, got, want)
			}
		}
	}
	if len(systems) != 3 || len(ports) != 3 {
		t.Errorf("system identifiers %v and ports %v are not distinct", systems, ports)
	}
}

func TestComesBack(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{Databases: []string{"app"}})
	s.Exec(t, "CREATE TABLE t (n int)")
	ways := []struct {
		name string
		down func() error
	}{
		{"kill", s.Kill},
		{"kill postmaster", s.KillPostmaster},
		{"fast", func() error { return s.Stop(pgtest.Fast) }},
		{"immediate", func() error { return s.Stop(pgtest.Immediate) }},
		{"smart", func() error { return s.Stop(pgtest.Smart) }},
		{"kill while frozen", func() error { return errors.Join(s.SigStop(), s.Kill()) }},
		{"fast while frozen", func() error { return errors.Join(s.SigStop(), s.Stop(pgtest.Fast)) }},
	}
	for i, way := range ways {
		s.Exec(t, fmt.Sprintf("INSERT INTO t VALUES (%d)", i))
		if err := way.down(); err != nil {
			t.Fatalf("%s: %v", way.name, err)
		}
		if s.Running() {
			t.Fatalf("%s: still running", way.name)
		}
		if conn, err := pgx.Connect(t.Context(), s.DSN()); err == nil {
			t.Fatalf("%s: still answers: %v", way.name, conn.Close(t.Context()))
		}
		if err := s.StartAgain(); err != nil {
			t.Fatalf("%s: %v", way.name, err)
		}
		if got := query1(t, s, "SELECT count(*) FROM t"); got != i+1 {
			t.Fatalf("%s: %d rows after the restart, want %d", way.name, got, i+1)
		}
	}
	port := s.Port()
	if err := s.Restart(); err != nil || s.Port() != port {
		t.Fatalf("restart: %v, port %d was %d", err, s.Port(), port)
	}
	if err := s.StartAgain(); !errors.Is(err, pgtest.ErrRunning) {
		t.Fatalf("start of a running server: %v", err)
	}
}

// A server that has lost its data is another one, at the same address, and empty.
func TestLosesData(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{Databases: []string{"app"}})
	s.Exec(t, "CREATE TABLE t (n int)")
	system := "SELECT (system_identifier % 1000000007)::int FROM pg_control_system()"
	before, port := query1(t, s, system), s.Port()
	if err := s.LoseData(); err != nil {
		t.Fatal(err)
	}
	if n := query1(t, s, "SELECT count(*) FROM pg_class WHERE relname = 't'"); n != 0 || s.Port() != port || query1(t, s, system) == before {
		t.Errorf("%d tables, port %d was %d, system %d", n, s.Port(), port, before)
	}
	if err := s.Restart(); err != nil {
		t.Error(err)
	}
}

// query1 closes its connection, as a smart shutdown needs.
func query1(t *testing.T, s *pgtest.Server, sql string) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.DSN())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(conn.QueryRow(t.Context(), sql).Scan(&n), conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestKillEndsSessionsInTheMiddleOfAQuery(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	conn := pgtest.Connect(t, s.DSN())
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "SELECT count(*) FROM generate_series(1, 10000000000)")
		failed <- err
	}()
	busy := pgtest.Connect(t, s.DSN())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for n := 0; n == 0; {
		if err := busy.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate_series(1, 1000%' AND pid <> pg_backend_pid() AND state = 'active'").Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil {
		t.Fatal("the query of a killed server succeeded")
	}
	if err := s.StartAgain(); err != nil {
		t.Fatal(err)
	}
}

func TestFrozenServerTakesConnectionsAndDoesNotAnswer(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	conn := pgtest.Connect(t, s.DSN())
	if err := s.SigStop(); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() { _, err := conn.Exec(context.Background(), "SELECT 1"); answer <- err }()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := pgx.Connect(ctx, s.DSN()); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a frozen server: %v, want a timeout", err)
	}
	select {
	case err := <-answer:
		t.Fatalf("a frozen server answered: %v", err)
	default:
	}
	if err := s.SigCont(); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Fatalf("after the thaw: %v", err)
	}
}

func TestKillBackendCrashesAndRecovers(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	s.Exec(t, "CREATE UNLOGGED TABLE sentinel (n int); INSERT INTO sentinel VALUES (1)")
	other := pgtest.Connect(t, s.DSN())
	pid := query[int](t, s, "SELECT pg_backend_pid()")
	postmaster := s.PID()
	if err := s.KillBackend(os.Getpid()); err == nil {
		t.Fatal("a process that is none of the server's was accepted")
	}
	if err := s.KillBackend(pid); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var err error
	for err == nil { // every session ends
		_, err = other.Exec(ctx, "SELECT 1")
	}
	if ctx.Err() != nil {
		t.Fatal("the other session goes on after the crash")
	}
	if err := s.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query[int](t, s, "SELECT count(*) FROM sentinel"); got != 0 || s.PID() != postmaster {
		t.Errorf("sentinel rows %d, postmaster %d was %d", got, s.PID(), postmaster)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	s, err := pgtest.Launch(pgtest.Options{FsyncOff: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SigStop(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.DataDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if err := s.StartAgain(); !errors.Is(err, pgtest.ErrClosed) {
		t.Errorf("start after close: %v", err)
	}
	again, err := pgtest.Launch(pgtest.Options{FsyncOff: true, Port: s.Port()})
	if err != nil {
		t.Fatal(err)
	}
	if again.Port() != s.Port() {
		t.Errorf("port %d, want %d", again.Port(), s.Port())
	}
	if _, err := pgtest.Launch(pgtest.Options{Port: s.Port()}); err == nil {
		t.Error("two servers on one port")
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	_, err := pgtest.Launch(pgtest.Options{Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), `unrecognized configuration parameter "no_such_setting"`) {
		t.Errorf("a bad setting: %v", err)
	}
	t.Setenv("PGDIST_PGBIN", t.TempDir())
	if _, err := pgtest.Launch(pgtest.Options{}); !errors.Is(err, pgtest.ErrNoBinaries) || !strings.Contains(err.Error(), "apt-get install postgresql") {
		t.Errorf("no programs: %v", err)
	}
}
