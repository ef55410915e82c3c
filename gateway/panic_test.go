package gateway

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/engine"
)

// Words at which a trap panics: when a client's bytes are read, when a server is written to,
// when a server's bytes are read.
const (
	trapIn   = "TRAP-IN"
	trapOut  = "TRAP-OUT"
	trapBack = "TRAP-BACK"
)

// trap is a connection that panics when it meets a word, in whatever goroutine uses it.
type trap struct {
	net.Conn
	read, write string
}

func (c *trap) NetConn() net.Conn { return c.Conn }

func (c *trap) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.read != "" && bytes.Contains(b[:n], []byte(c.read)) {
		panic(c.read)
	}
	return n, err
}

func (c *trap) Write(b []byte) (int, error) {
	if c.write != "" && bytes.Contains(b, []byte(c.write)) {
		panic(c.write)
	}
	return c.Conn.Write(b)
}

type trapListener struct{ net.Listener }

func (l trapListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &trap{Conn: conn, read: trapIn}, nil
}

// trapServers has the connections to servers trapped, and connecting itself while dial is set.
func trapServers(t *testing.T, dial *atomic.Bool) {
	open := openEngine
	t.Cleanup(func() { openEngine = open })
	openEngine = func(ctx context.Context, ec engine.Config) (*engine.Engine, error) {
		for _, m := range ec.Members {
			base := m.Conn.DialFunc
			m.Conn.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if dial.Load() {
					panic("no dialling")
				}
				conn, err := base(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return &trap{Conn: conn, read: trapBack, write: trapOut}, nil
			}
		}
		return open(ctx, ec)
	}
}

// lockedBuffer is a log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestPanic has the gateway panic wherever it works for a client. That client hears XX000 and
// is closed, its connection to a server with it; everybody else goes on.
func TestPanic(t *testing.T) {
	var dial atomic.Bool
	trapServers(t, &dial)
	log := &lockedBuffer{}
	s := newSet(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.gateway.Serve(trapListener{l}) }() // ends with the gateway
	addr := l.Addr().String()
	by := talk(t, s.addr, nil) // a bystander, with a transaction open all the time
	by.run("Q CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b'); CREATE USER late\nZ 1\nQ BEGIN\nZ 1\nQ UPDATE t SET v = 'c' WHERE id = 2\nZ 1")
	ctx := context.Background()
	for _, c := range []struct{ name, script string }{
		{"while it waits for its client", "Q SELECT '" + trapIn + "'"},
		{"in a transaction, on the way to a server", "Q BEGIN\nQ UPDATE t SET v = 'x' WHERE id = 1\nZ 2\nQ SELECT '" + trapOut + "'"},
		{"in a transaction, on the way back", "Q BEGIN\nQ UPDATE t SET v = 'x' WHERE id = 1\nZ 2\nQ SELECT 'TRAP-' || 'BACK'"},
		{"in a transaction that reads", "Q BEGIN\nQ SELECT v FROM t\nZ 2\nQ SELECT 'TRAP-' || 'BACK'"},
		{"while its client is silent in a transaction", "Q BEGIN\nQ UPDATE t SET v = 'x' WHERE id = 1\nZ 2\nQ " + trapIn},
		{"in a read", "Q SELECT 'TRAP-' || 'BACK'"},
		{"in a write", "Q UPDATE t SET v = 'x' WHERE id = 1 RETURNING 'TRAP-' || 'BACK'"},
		{"in a pipeline", "P |UPDATE t SET v = 'x' WHERE id = 1|\nB |\nE |\nP |SELECT concat('TRAP-', 'BACK')|\nB |\nE |\nS"},
		{"in a pipeline that was flushed", "P |UPDATE t SET v = 'x' WHERE id = 1|\nB |\nE |\nH\nQ SELECT '" + trapOut + "'"},
		{"in what the session carries out", "Q SET application_name = '" + trapOut + "'"},
		{"in DDL", "Q CREATE TABLE \"" + trapOut + "\" (a int PRIMARY KEY)"},
		{"in a string of statements", "Q BEGIN; UPDATE t SET v = 'x' WHERE id = 1; SELECT 'TRAP-' || 'BACK'; COMMIT"},
		{"in a helper that writes", "Q SELECT length('" + strings.Repeat("x", 2*asyncWrite) + trapOut + "')"},
		{"in a helper that copies", "Q COPY t FROM STDIN\nR\nd 3\tx\\n\nd 4\t" + trapIn + "\\n"},
		{"while it copies", "Q COPY t FROM STDIN\nR\nd 3\tx\\n\nd 4\t" + trapOut + "\\n"},
		{"with a connection for itself alone", "Q CREATE TEMP TABLE tmp (a int)\nZ 1\nQ SELECT '" + trapOut + "'"},
		{"while it listens", "Q LISTEN ch\nZ 1\nQ SELECT 1\nZ 1\nQ " + trapIn},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := s.gateway.measures.panics.Load()
			k := talk(t, addr, nil)
			k.run(c.script + "\nZ 9")
			k.closesWith(t, "XX000")
			s.unharmed(t, before, by)
		})
	}
	for encoding, code := range map[string]string{"LATIN1": "XX000", "UTF8": "57P01"} { // on a connection of its own, and on the shared one
		t.Run("while it overhears in "+encoding, func(t *testing.T) {
			before := s.gateway.measures.panics.Load()
			k := talk(t, addr, map[string]string{"client_encoding": encoding})
			k.run("Q LISTEN ch\nZ 1")
			if _, err := connect(t, s.url("")).Exec(ctx, "SELECT pg_notify('ch', 'TRAP-' || 'BACK')"); err != nil {
				t.Fatal(err)
			}
			k.until(1)
			k.closesWith(t, code)
			s.unharmed(t, before, by)
		})
	}
	t.Run("during log-in", func(t *testing.T) {
		before := s.gateway.measures.panics.Load()
		for _, name := range []string{trapIn, trapOut} {
			k := &talker{tb: t, patience: patience}
			k.connect(addr, map[string]string{"application_name": name})
			k.closesWith(t, "XX000")
		}
		s.unharmed(t, before, by)
	})
	t.Run("while it connects", func(t *testing.T) {
		before := s.gateway.measures.panics.Load()
		dial.Store(true)
		_, err := pgconn.Connect(ctx, "postgres://late@"+addr+"/postgres?sslmode=disable")
		dial.Store(false)
		if code(err) != "XX000" {
			t.Error(err)
		}
		s.unharmed(t, before, by)
	})
	by.log = nil
	if got := strings.Join(by.run("Q COMMIT\nZ 1\nQ SELECT id, v FROM t ORDER BY id\nZ 1"), "\n"); !strings.Contains(got, `data ["1" "a"]`) || !strings.Contains(got, `data ["2" "c"]`) {
		t.Errorf("what a panic had under way is not undone, or the bystander's work is:\n%s", got)
	}
	if !strings.Contains(log.String(), "panic_test.go") {
		t.Error("the log has no stack")
	}
}

// closesWith wants the connection's last answer to be an error of that code.
func (t *talker) closesWith(tb testing.TB, code string) {
	tb.Helper()
	n := len(t.log)
	if n < 2 || t.log[n-1] != "closed" || !strings.HasPrefix(t.log[n-2], "error FATAL "+code) {
		tb.Errorf("the client hears %q", t.log[max(0, n-4):])
	}
}

// unharmed wants a panic to be counted, nobody else to have noticed, and no connection but the
// bystander's to be in use.
func (s *set) unharmed(t *testing.T, before uint64, by *talker) {
	t.Helper()
	if s.gateway.measures.panics.Load() == before {
		t.Error("no panic is counted")
	}
	by.log = nil
	if got := by.run("Q SELECT v FROM t WHERE id = 2\nZ 1"); got[len(got)-1] != "ready T" {
		t.Fatalf("the bystander hears %q", got)
	}
	var used int
	for end := time.Now().Add(ages); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		used = 0
		for _, m := range s.gateway.engine.Stats() {
			used += m.ReadPool.InUse + m.WritePool.InUse
		}
		if used == 1 {
			break
		}
	}
	if used != 1 {
		t.Errorf("%d connections are in use", used)
	}
	_, body := fetch(t, s.gateway.AdminHandler(), "/metrics", nil)
	if strings.Contains(body, "pgdist_panics_total 0") {
		t.Error("the metrics know of no panic")
	}
}
