package gateway

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// console is how pgx reaches the console.
func (s *set) console(user string) string {
	return fmt.Sprintf("postgres://%s@%s/pgdist?sslmode=disable", user, s.addr)
}

// table reads a result as text, by the simple protocol, the columns' names first.
func table(tb testing.TB, conn *pgx.Conn, sql string) [][]string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	last := results[len(results)-1]
	rows := [][]string{nil}
	for _, f := range last.FieldDescriptions {
		rows[0] = append(rows[0], f.Name)
	}
	for _, r := range last.Rows {
		var row []string
		for _, v := range r {
			row = append(row, string(v))
		}
		rows = append(rows, row)
	}
	return rows
}

// cell is the value in a column of the first row that has value in column where.
func cell(rows [][]string, column, where, value string) string {
	i, j := slices.Index(rows[0], column), slices.Index(rows[0], where)
	for _, r := range rows[1:] {
		if i >= 0 && j >= 0 && r[j] == value {
			return r[i]
		}
	}
	return "(none)"
}

func TestConsole(t *testing.T) {
	stopped := make(chan bool, 1)
	reloaded := 0
	s := newSet(t, func(c *Config) {
		c.Admins = []string{"boss"}
		c.Stop = func(wait bool) { stopped <- wait }
		c.Reload = func(context.Context) ([]string, error) { reloaded++; return []string{"dsn"}, nil }
	})
	ctx := context.Background()
	k := connect(t, s.console("postgres"))
	connect(t, s.console("boss"))
	if _, err := pgx.Connect(ctx, s.console("nobody")); code(err) != "42501" {
		t.Errorf("nobody at the console: %v", err)
	}
	a := connect(t, s.url("&application_name=tester"))
	t.Run("shows", func(t *testing.T) { consoleShows(t, k) })
	t.Run("clients", func(t *testing.T) { consoleClients(t, k, a) })
	t.Run("pause", func(t *testing.T) { consolePauses(t, s, k, a) })
	t.Run("kill", func(t *testing.T) { consoleKills(t, s, k) })
	t.Run("psql", func(t *testing.T) { consolePsql(t, s) })
	for _, sql := range []string{"NONSENSE", "SHOW", "KILL x", "KILL 4711", "PAUSE nowhere", `PAUSE 'postgres'`, `PAUSE "postgres`, `PAUSE ""`, `PAUSE postgres x`, "RESUME", "SET max_clients = 3", "SHUTDOWN now"} {
		if _, err := k.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err == nil {
			t.Errorf("%s is no error", sql)
		}
	}
	config, err := pgx.ParseConfig(s.console("boss"))
	if err != nil {
		t.Fatal(err)
	}
	told := ""
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { told += n.Severity + n.Message }
	boss, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer boss.Close(ctx)
	if _, err := boss.Exec(ctx, "RELOAD"); err != nil || reloaded != 1 || told != "NOTICE"+"these settings differ now, but change only with a restart: dsn" {
		t.Errorf("RELOAD: %d times, %v; told %q", reloaded, err, told)
	}
	if _, err := k.Exec(ctx, "shutdown wait;"); err != nil || !<-stopped {
		t.Errorf("SHUTDOWN WAIT: %v", err)
	}
}

// consoleShows asks everything by both protocols.
func consoleShows(t *testing.T, k *pgx.Conn) {
	ctx := context.Background()
	for _, r := range table(t, k, "SHOW HELP")[1:] {
		if !strings.HasPrefix(r[0], "SHOW ") {
			continue
		}
		simple := table(t, k, "/* monitoring */ "+strings.ToLower(r[0])+" ;")
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec} {
			rows, err := k.Query(ctx, r[0], mode)
			if err != nil {
				t.Fatal(r[0], err)
			}
			n := 0
			for rows.Next() {
				if values, err := rows.Values(); err != nil || len(values) != len(simple[0]) {
					t.Fatalf("%s: %v %v", r[0], values, err)
				}
				n++
			}
			if rows.Err() != nil || n == 0 && r[0] != "SHOW EVENTS" {
				t.Errorf("%s in mode %v: %d rows, %v", r[0], mode, n, rows.Err())
			}
		}
	}
	var one int
	if err := k.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil || one != 1 {
		t.Errorf("SELECT 1: %d %v", one, err)
	}
	if err := k.Ping(ctx); err != nil {
		t.Error(err)
	}
	if _, err := k.Exec(ctx, "SHOW NOTHING"); code(err) != "42601" {
		t.Errorf("SHOW NOTHING: %v", err)
	}
	members := table(t, k, "SHOW MEMBERS")
	if len(members) != 4 || cell(members, "in_sync", "role", "leader") != "yes" || cell(members, "usable", "role", "follower") != "yes" {
		t.Errorf("members: %v", members)
	}
}

func consoleClients(t *testing.T, k, a *pgx.Conn) {
	ctx := context.Background()
	for _, sql := range []string{"CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)", "SELECT * FROM t"} {
		if _, err := a.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	show := func(column string) string {
		return cell(table(t, k, "SHOW CLIENTS"), column, "application_name", "tester")
	}
	eventually(t, func() bool { return show("state") == "idle" })
	if got := show("pinned"); got != "" {
		t.Errorf("pinned because of %q", got)
	}
	tx, err := a.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO t VALUES (2)"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return show("state") == "idle in transaction" && show("link") != "" })
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Exec(ctx, "CREATE TEMP TABLE mine (a int); LISTEN c"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return show("pinned") == "temp" && show("link") != "" })
	if servers := table(t, k, "SHOW SERVERS"); len(servers) < 2 || cell(servers, "state", "ptr", show("link")) != "active" {
		t.Errorf("servers: %v", servers)
	}
	if _, err := a.Exec(ctx, "SET application_name = 'other'"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return cell(table(t, k, "SHOW CLIENTS"), "state", "application_name", "other") == "idle" })
	if _, err := a.Exec(ctx, "DISCARD ALL"); err != nil {
		t.Fatal(err)
	}
	stats := table(t, k, "SHOW STATS")
	for _, column := range []string{"total_query_count", "total_xact_count", "total_received", "total_sent", "total_query_time"} {
		if n := cell(stats, column, "database", "postgres"); len(n) == 0 || n == "0" || n == "(none)" {
			t.Errorf("%s is %q", column, n)
		}
	}
}

// consolePauses has a statement under way end, another one wait and be cancelled, and a
// transaction hold PAUSE up.
func consolePauses(t *testing.T, s *set, k, a *pgx.Conn) {
	ctx := context.Background()
	b := connect(t, s.url("&application_name=waiter"))
	tx, err := a.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO t VALUES (3)"); err != nil {
		t.Fatal(err)
	}
	paused := make(chan error, 1)
	go func() {
		_, err := k.Exec(ctx, "PAUSE")
		paused <- err
	}()
	eventually(t, func() bool { return s.gateway.paused.Load() != nil })
	waited := make(chan error, 1)
	go func() {
		_, err := b.Exec(ctx, "SELECT count(*) FROM t")
		waited <- err
	}()
	other := connect(t, s.console("postgres"))
	eventually(t, func() bool {
		return cell(table(t, other, "SHOW CLIENTS"), "state", "application_name", "waiter") == "waiting"
	})
	select {
	case err := <-paused:
		t.Fatalf("PAUSE returned with a transaction open: %v", err)
	case err := <-waited:
		t.Fatalf("a statement ran during PAUSE: %v", err)
	default:
	}
	if _, err := tx.Exec(ctx, "INSERT INTO t VALUES (4)"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-paused; err != nil {
		t.Fatal(err)
	}
	if err := b.PgConn().CancelRequest(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; code(err) != "57014" {
		t.Errorf("cancelled during PAUSE: %v", err)
	}
	go func() {
		var n int
		err := b.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&n)
		if err == nil && n != 4 {
			err = fmt.Errorf("%d rows", n)
		}
		waited <- err
	}()
	eventually(t, func() bool {
		return cell(table(t, other, "SHOW POOLS"), "cl_waiting", "database", "postgres") == "1"
	})
	if got := cell(table(t, other, "SHOW DATABASES"), "paused", "name", "postgres"); got != "1" {
		t.Errorf("paused is %q", got)
	}
	if _, err := other.Exec(ctx, "PAUSE"); err == nil {
		t.Error("PAUSE twice")
	}
	if _, err := other.Exec(ctx, "RESUME"); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if _, err := other.Exec(ctx, "PAUSE postgres"); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec(ctx, "RESUME postgres"); err != nil {
		t.Fatal(err)
	}
}

func consoleKills(t *testing.T, s *set, k *pgx.Conn) {
	ctx := context.Background()
	for _, sql := range []string{"", "BEGIN; SELECT 1", "SELECT pg_sleep(30)"} {
		v := connect(t, s.url("&application_name=victim"))
		done := make(chan error, 1)
		if sql == "SELECT pg_sleep(30)" {
			go func() {
				_, err := v.Exec(ctx, sql)
				done <- err
			}()
			eventually(t, func() bool {
				return cell(table(t, k, "SHOW CLIENTS"), "state", "application_name", "victim") == "active"
			})
		} else {
			if _, err := v.Exec(ctx, sql); err != nil {
				t.Fatal(err)
			}
			done <- nil
		}
		began := time.Now()
		if _, err := k.Exec(ctx, "KILL "+cell(table(t, k, "SHOW CLIENTS"), "id", "application_name", "victim")); err != nil {
			t.Fatal(err)
		}
		<-done
		if err := v.Ping(ctx); err == nil {
			t.Errorf("after %q a client lives on", sql)
		}
		eventually(t, func() bool { return cell(table(t, k, "SHOW CLIENTS"), "id", "application_name", "victim") == "(none)" })
		if d := time.Since(began); d > 25*time.Second {
			t.Errorf("killed after %v", d)
		}
	}
}

func consolePsql(t *testing.T, s *set) {
	host, port, _ := strings.Cut(s.addr, ":")
	bin, err := pgtest.BinDir()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(bin, "psql"), "-XAt", "-h", host, "-p", port, "-U", "postgres", "-d", "pgdist", "-c", "SHOW VERSION", "-c", "show pools").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "pgdist ") || !strings.Contains(string(out), "postgres|postgres|") {
		t.Errorf("psql: %s %v", out, err)
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	within(t, ages, ok)
}

func within(t *testing.T, d time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
}

// TestConsoleNames pauses a database whose name needs quotes.
func TestConsoleNames(t *testing.T) {
	const odd = `a "b";c --d's`
	s := newSet(t, func(c *Config) { c.Databases = []string{odd, "*"} })
	k := connect(t, s.console("postgres"))
	quoted := `"` + strings.ReplaceAll(odd, `"`, `""`) + `"`
	execute(t, k, "PAUSE "+quoted+" ; /* ; */ SELECT 1; -- ;")
	if got := cell(table(t, k, "SHOW DATABASES"), "paused", "name", odd); got != "1" {
		t.Errorf("paused: %s", got)
	}
	execute(t, k, "resume "+quoted)
	said := table(t, k, "SHOW EVENTS")
	for _, what := range []string{"paused by postgres", "resumed by postgres"} {
		if got := cell(said, "database", "event", what); got != odd {
			t.Errorf("%s: of %q", what, got)
		}
	}
	if _, err := k.Exec(context.Background(), "PAUSE 'postgres'", pgx.QueryExecModeSimpleProtocol); code(err) != "42601" {
		t.Errorf("a name in single quotes: %v", err)
	}
}

// TestShutdownTells has everybody hear why a gateway that waits no longer ends, whatever they do:
// nothing in a transaction, a statement on a server, a wait for a connection to one.
func TestShutdownTells(t *testing.T) {
	for name, end := range map[string]func(s *set) error{
		"drained": func(s *set) error {
			ctx, stop := context.WithTimeout(context.Background(), 100*time.Millisecond)
			defer stop()
			if err := s.gateway.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("shut down beside open transactions: %w", err)
			}
			return nil
		},
		"at once": func(s *set) error { return s.gateway.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSet(t, func(c *Config) { c.MaxUserConnections = 2 })
			ctx := context.Background()
			execute(t, connect(t, s.url("")), "CREATE TABLE t (id int PRIMARY KEY)")
			idle, busy, waits := connect(t, s.url("")), connect(t, s.url("")), connect(t, s.url(""))
			execute(t, idle, "BEGIN; INSERT INTO t VALUES (1)")
			execute(t, busy, "BEGIN; INSERT INTO t VALUES (2)")
			heard := make(chan error, 2)
			run := func(conn *pgx.Conn, sql string) {
				_, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
				heard <- err
			}
			go run(busy, "SELECT pg_sleep(60)")
			s.awaitSleeping(t, "SELECT pg_sleep(60)", 1)
			go run(waits, "INSERT INTO t VALUES (3)")
			eventually(t, func() bool {
				n := 0
				s.gateway.each(func(c *client) {
					c.mu.Lock()
					defer c.mu.Unlock()
					if c.waiting {
						n++
					}
				})
				return n == 1
			})
			began := time.Now()
			if err := end(s); err != nil {
				t.Error(err)
			}
			t.Logf("it took %v", time.Since(began))
			for range 2 {
				if err := <-heard; code(err) != "57P01" {
					t.Errorf("who is at work hears %v", err)
				}
			}
			if _, err := idle.Exec(ctx, "COMMIT", pgx.QueryExecModeSimpleProtocol); code(err) != "57P01" {
				t.Errorf("who is in a transaction hears %v", err)
			}
		})
	}
}
