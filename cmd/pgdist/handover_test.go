//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/gateway"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// process is a gateway in a process of its own.
type process struct {
	*exec.Cmd
	out   *output
	addr  string
	ended chan error
}

// start starts one, by a program which is this one.
func start(t *testing.T, program string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(program, append([]string{"gateway"}, args...)...), out: &output{}, ended: make(chan error, 1)}
	p.Env, p.Stdout, p.Stderr = append(os.Environ(), mainVariable+"=1"), p.out, p.out
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.Wait() }()
	t.Cleanup(func() { _ = p.Process.Kill() }) // if it is still there
	p.addr = p.out.wait(t, `serving at (127\S+)`)
	return p
}

// again restarts it in place, and waits until it serves for the time of that number.
func (p *process) again(t *testing.T, number int) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	p.out.wait(t, fmt.Sprintf(`(?s)(serving at 127.*){%d}`, number))
}

func (p *process) connect(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), "postgres://postgres@"+p.addr+"/postgres?sslmode=disable")
	if err != nil {
		t.Fatalf("%v\n%s", err, p.out)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// TestRestartClients restarts a gateway in place under clients that are connected: those that wait,
// with what they have prepared and set, and those that run short transactions notice nothing.
func TestRestartClients(t *testing.T) {
	three := pgtest.Set(t, 3, pgtest.Options{})
	pgdist(t, "init", dsn("postgres", three...)).want(t, statusOK)
	p := start(t, os.Args[0], dsn("postgres", three...), "--auth", "trust", "--listen", "127.0.0.1:0", "--drain", "20s")
	ctx := context.Background()
	admin := p.connect(t)
	if _, err := admin.Exec(ctx, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, 0 FROM generate_series(0, 7) i", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	idle := make([]*pgx.Conn, 300)
	for i := range idle {
		idle[i] = p.connect(t)
		if _, err := idle[i].Prepare(ctx, "mine", fmt.Sprintf("SELECT $1::int + %d, current_setting('work_mem')", i)); err != nil {
			t.Fatal(err)
		}
		if _, err := idle[i].Exec(ctx, fmt.Sprintf("SET work_mem = '%dkB'", 1100+i)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string) {
		t.Helper()
		for i, conn := range idle {
			var n int
			var set string
			if err := conn.QueryRow(ctx, "mine", 7).Scan(&n, &set); err != nil || n != 7+i || set != fmt.Sprintf("%dkB", 1100+i) {
				t.Fatalf("%s client %d gets %d, %s: %v\n%s", when, i, n, set, err, p.out)
			}
		}
	}
	check("before,")
	inTx, pinned := p.connect(t), p.connect(t)
	if _, err := inTx.Exec(ctx, "BEGIN; UPDATE t SET n = n + 1 WHERE id = 0", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	if _, err := pinned.Exec(ctx, "CREATE TEMP TABLE mine AS SELECT 1 AS x"); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var load sync.WaitGroup
	var longest, transactions atomic.Int64
	for i := range 6 {
		conn := p.connect(t)
		load.Go(func() {
			for !stop.Load() {
				began := time.Now()
				if err := short(ctx, conn, i+1); err != nil {
					t.Errorf("a short transaction fails: %v", err)
					return
				}
				transactions.Add(1)
				if d := int64(time.Since(began)); d > longest.Load() {
					longest.Store(d)
				}
			}
		})
	}
	end := make(chan error, 1)
	go func() {
		time.Sleep(2 * time.Second)
		_, err := inTx.Exec(ctx, "COMMIT")
		end <- err
	}()
	p.again(t, 2)
	if err := <-end; err != nil {
		t.Errorf("a transaction that was open: %v", err)
	}
	check("after a restart,")
	cancel(t, idle[5])
	_, err := pinned.Exec(ctx, "SELECT x FROM mine")
	var pe *pgconn.PgError
	if err == nil || errors.As(err, &pe) && pe.Code != "57P01" {
		t.Errorf("a client with a temporary table hears %v", err)
	}
	var n int
	if err := inTx.QueryRow(ctx, "SELECT n FROM t WHERE id = 0").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d %v", n, err)
	}
	p.again(t, 3)
	check("after two restarts,")
	stop.Store(true)
	load.Wait()
	var sum int64
	if err := admin.QueryRow(ctx, "SELECT sum(n) FROM t WHERE id > 0").Scan(&sum); err != nil || sum != transactions.Load() {
		t.Errorf("%d transactions are there of %d: %v", sum, transactions.Load(), err)
	}
	t.Logf("%d transactions, the longest %v", sum, time.Duration(longest.Load()))
	if t.Failed() {
		t.Log(p.out)
	}

	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-p.ended; err != nil {
		t.Errorf("%v\n%s", err, p.out)
	}
}

// TestRestartAfterTheLast: a restart in place goes on without waiting for anybody else to connect, whoever has
// connected while it waited for a transaction.
func TestRestartAfterTheLast(t *testing.T) {
	three := pgtest.Set(t, 3, pgtest.Options{})
	pgdist(t, "init", dsn("postgres", three...)).want(t, statusOK)
	p := start(t, os.Args[0], dsn("postgres", three...), "--auth", "trust", "--listen", "127.0.0.1:0")
	ctx := context.Background()
	inTx := p.connect(t)
	if _, err := inTx.Exec(ctx, "BEGIN"); err != nil {
		t.Fatal(err)
	}
	if err := p.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	p.out.wait(t, `msg=restart`)
	late := p.connect(t)
	if _, err := inTx.Exec(ctx, "COMMIT"); err != nil {
		t.Fatal(err)
	}
	p.out.wait(t, `(?s)(serving at 127.*){2}`)
	for _, conn := range []*pgx.Conn{inTx, late} {
		if _, err := conn.Exec(ctx, "SELECT 1"); err != nil {
			t.Errorf("afterwards: %v\n%s", err, p.out)
		}
	}
}

// short is a transaction that adds 1 to a row's n.
func short(ctx context.Context, conn *pgx.Conn, id int) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	var n int
	if err := tx.QueryRow(ctx, "SELECT n FROM t WHERE id = $1", id).Scan(&n); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "UPDATE t SET n = $1 WHERE id = $2", n+1, id); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	var now int
	if err := conn.QueryRow(ctx, "SELECT n FROM t WHERE id = $1", id).Scan(&now); err != nil || now != n+1 {
		return fmt.Errorf("%d after %d: %w", now, n, err)
	}
	return nil
}

// cancel checks that a request to cancel arrives.
func cancel(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	over, done := make(chan struct{}), make(chan error, 1)
	go func() {
		var err error
		for err == nil { // one that comes before the statement is lost
			select {
			case <-over:
				done <- nil
				return
			case <-time.After(300 * time.Millisecond):
				err = conn.PgConn().CancelRequest(context.Background())
			}
		}
		done <- err
	}()
	_, err := conn.Exec(context.Background(), "SELECT pg_sleep(60)")
	close(over)
	var pe *pgconn.PgError
	if e := <-done; e != nil || !errors.As(err, &pe) || pe.Code != "57014" {
		t.Errorf("a request to cancel (%v) leads to %v", e, err)
	}
}

// TestRestartClientsEnd: clients that the program on disk cannot take are told that they end.
func TestRestartClientsEnd(t *testing.T) {
	three := pgtest.Set(t, 3, pgtest.Options{})
	pgdist(t, "init", dsn("postgres", three...)).want(t, statusOK)
	hears := func(t *testing.T, conn *pgx.Conn) {
		t.Helper()
		ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
		defer stop()
		_, err := conn.WaitForNotification(ctx)
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "57P01" {
			t.Errorf("the client hears %v", err)
		}
	}
	// replace puts a program in another's place on disk, which tells the version given, and otherwise
	// is the command with further arguments.
	replace := func(t *testing.T, path, version, more string) {
		t.Helper()
		text := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = version ]; then echo '%s'; exit; fi\nexec '%s' \"$@\" %s\n", version, os.Args[0], more)
		next := path + ".next"
		if err := os.WriteFile(next, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	takes := fmt.Sprintf("%s%d", takesLine, gateway.HandoverFormat)
	for _, c := range []struct {
		name, version, more, says string
		code                      int
	}{
		{"format", fmt.Sprintf("%s%d", takesLine, gateway.HandoverFormat+1), "", `(?s)does not take clients.*serving at`, 0},
		{"no format", "pgdist 0.1", "", `(?s)does not take clients.*serving at`, 0},
		{"flag", takes, "--nosuch", `unknown flag: --nosuch`, statusFailed},
		{"opening", takes, "--admin 192.0.2.1:1", `192.0.2.1`, statusFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "pgdist")
			if text, err := os.ReadFile(os.Args[0]); err != nil {
				t.Fatal(err)
			} else if err := os.WriteFile(path, text, 0o700); err != nil {
				t.Fatal(err)
			}
			p := start(t, path, dsn("postgres", three...), "--auth", "trust", "--listen", "127.0.0.1:0")
			conn := p.connect(t)
			replace(t, path, c.version, c.more)
			if err := p.Process.Signal(syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
			hears(t, conn)
			p.out.wait(t, c.says)
			if c.code != 0 {
				var ee *exec.ExitError
				if err := <-p.ended; !errors.As(err, &ee) || ee.ExitCode() != c.code {
					t.Errorf("it ends with %v", err)
				}
				return
			}
			if err := p.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := <-p.ended; err != nil {
				t.Errorf("%v\n%s", err, p.out)
			}
		})
	}
	t.Run("stopped", func(t *testing.T) { // while it waits for a transaction
		path := filepath.Join(t.TempDir(), ".s.PGSQL.6432")
		p := start(t, os.Args[0], dsn("postgres", three...), "--auth", "trust", "--listen", "127.0.0.1:0", "--listen", path, "--drain", "2s")
		idle, inTx := p.connect(t), p.connect(t)
		if _, err := inTx.Exec(context.Background(), "BEGIN; SELECT txid_current()", pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
		if err := p.Process.Signal(syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		p.out.wait(t, `msg=restart`)
		if err := p.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		hears(t, idle)
		if err := <-p.ended; err != nil {
			t.Errorf("%v\n%s", err, p.out)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket's path is left behind: %v", err)
		}
	})
	if v := pgdist(t, "version"); !takesClients(v.out) || takesClients(strings.ReplaceAll(v.out, takesLine, takesLine+"1")) {
		t.Errorf("which clients the program takes is told as\n%s", v.out)
	}
}
