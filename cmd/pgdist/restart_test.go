//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// mainVariable makes this program the command itself, in a process of its own.
const mainVariable = "PGDIST_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainVariable) != "" {
		main()
	}
	os.Exit(m.Run())
}

// TestRestart restarts a gateway in place under clients that come and go: none of them is refused,
// and a transaction that is open is finished first.
func TestRestart(t *testing.T) {
	three := pgtest.Set(t, 3, pgtest.Options{})
	pgdist(t, "init", dsn("postgres", three...)).want(t, statusOK)
	dir := t.TempDir()
	path, file := filepath.Join(dir, ".s.PGSQL.6432"), filepath.Join(dir, "pgdist.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("gateway:\n  auth: trust\n  listen: ['127.0.0.1:0', "+path+"]\n  admin: '127.0.0.1:0'\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	out := &output{}
	cmd := exec.Command(os.Args[0], "gateway", dsn("postgres", three...), "--config", file)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), mainVariable+"=1"), out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // if it is still there
	addr, admin := out.wait(t, `serving at (127\S+)`), out.wait(t, `status at (\S+)`)
	ctx := context.Background()
	connect := func(network string) (*pgx.Conn, error) {
		if network == "unix" {
			return pgx.Connect(ctx, "host="+dir+" port=6432 user=postgres dbname=postgres")
		}
		return pgx.Connect(ctx, "postgres://postgres@"+addr+"/postgres?sslmode=disable")
	}
	first, err := connect("tcp")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Exec(ctx, "CREATE TABLE t (id int PRIMARY KEY); BEGIN; INSERT INTO t VALUES (1)", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	idle, err := connect("tcp")
	if err != nil {
		t.Fatal(err)
	}
	// a configuration that is wrong by now leaves all as it is
	write("  max_clients: many\n")
	if err := cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	out.wait(t, `no restart: .*max_clients`)
	write("  max_clients: 77\n")

	stop, done := make(chan struct{}), sync.WaitGroup{}
	var mu sync.Mutex
	came := map[string]int{}
	for i := range 12 {
		network := []string{"tcp", "unix"}[i%2]
		done.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := connect(network)
				if err != nil {
					t.Errorf("%s: who came during the restart is refused: %v", network, err)
					return
				}
				var one int
				if err := conn.QueryRow(ctx, "SELECT 1", pgx.QueryExecModeSimpleProtocol).Scan(&one); err != nil {
					t.Errorf("%s: who came during the restart is not served: %v", network, err)
				}
				_ = conn.Close(ctx)
				mu.Lock()
				came[network]++
				mu.Unlock()
			}
		})
	}
	counts := func() int {
		mu.Lock()
		defer mu.Unlock()
		return min(came["tcp"], came["unix"])
	}
	more := func(n int) {
		t.Helper()
		for from, end := counts(), time.Now().Add(ages); counts() < from+n; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) || t.Failed() {
				t.Fatalf("clients do not come any more: %v\n%s", came, out)
			}
		}
	}
	more(20)
	if err := cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Exec(ctx, "COMMIT"); err != nil { // it was waited for
		t.Errorf("a transaction that was open: %v", err)
	}
	out.wait(t, `(?s)serving at 127.*serving at 127`)
	for what, conn := range map[string]*pgx.Conn{"idle": idle, "in a transaction": first} {
		if _, err := conn.Exec(ctx, "SELECT 1"); err != nil {
			t.Errorf("a client that was %s hears %v", what, err)
		}
		_ = conn.Close(ctx)
	}
	if again := out.wait(t, `(?s).*serving at (127\S+)`); again != addr {
		t.Errorf("it serves at %s after the restart, and at %s before", again, addr)
	}
	for n := 3; n < 6; n++ { // who comes in the wrong moment is seldom
		more(20)
		if err := cmd.Process.Signal(syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		out.wait(t, fmt.Sprintf(`(?s)(serving at 127.*){%d}`, n))
	}
	more(20)
	close(stop)
	done.Wait()
	last, err := connect("tcp")
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := last.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows %v", n, err)
	}
	_ = last.Close(ctx)
	if r, err := http.Get("http://" + admin + "/status.json"); err != nil || r.StatusCode != 200 {
		t.Errorf("status: %v %v", r, err)
	} else {
		body := make([]byte, 64<<10)
		k, _ := r.Body.Read(body)
		_ = r.Body.Close()
		if !strings.Contains(string(body[:k]), `"max_clients":77`) {
			t.Errorf("the new configuration is not in force: %s", body[:k])
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's path is left behind: %v", err)
	}
}

// TestHandedOver: sockets are told apart by their addresses, and a list that makes no sense is refused.
func TestHandedOver(t *testing.T) {
	t.Setenv(socketsVariable, "nonsense")
	if _, err := handedOver(); err == nil {
		t.Error("nonsense is taken")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	copied, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(socketsVariable, fmt.Sprintf(`[{"fd":%d,"address":"a:1","admin":true}]`, copied))
	list, err := handedOver()
	if err != nil || len(list) != 1 || os.Getenv(socketsVariable) != "" {
		t.Fatal(list, err)
	}
	if _, ok := take(&list, "a:1", false); ok {
		t.Error("a socket for metrics serves clients")
	}
	s, ok := take(&list, "a:1", true)
	if !ok || len(list) != 0 || s.Addr().String() != l.Addr().String() {
		t.Errorf("%v %t", s, ok)
	}
	if err := errors.Join(s.Close(), f.Close(), l.Close()); err != nil {
		t.Error(err)
	}
}
