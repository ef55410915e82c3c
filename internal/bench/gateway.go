//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgdist/pgdist/gateway"
	"github.com/pgdist/pgdist/internal/bench/pgbouncer"
	"github.com/pgdist/pgdist/internal/pgtest"
)

const (
	gatewayChild = "gateway-child" // argument of the process that serves

	gatewayRatio   = 1.0  // to PgBouncer, throughput
	gatewayP99     = 1.2  // to PgBouncer, latency
	gatewayAdded   = 20   // µs more than PgBouncer adds, at one client
	idleClients    = 5000 // that wait
	idleTarget     = 25   // KiB each
	copyRatio      = 0.8  // to a server, COPY
	copyRows       = 1_000_000
	gatewayTimeout = 30 * time.Second
)

var gatewayClients = []int{1, 16, 64}

// gateway compares pgbench -S through the gateway with PgBouncer before one of the
// servers, and measures COPY and the memory of clients that wait.
func (b *bench) gateway(ctx context.Context) (err error) {
	f := &fleet{}
	defer func() { err = errors.Join(err, f.close()) }()
	m, err := f.mirror(ctx, accountSchema)
	if err != nil {
		return err
	}
	c, err := m.cast(ctx)
	if err != nil {
		return err
	}
	if err := m.db.Close(); err != nil { // one distributor at a time
		return err
	}
	bouncer, err := pgbouncer.Start(ctx, c.leader, database, poolSize*2)
	if err != nil {
		return err
	}
	f.onClose(bouncer.Stop)
	if version, err := pgbouncer.Version(ctx); err == nil {
		b.note("gateway: compared with %s", version)
	}
	served, err := f.serve(ctx, m.dsn)
	if err != nil {
		return err
	}
	// It has what PgBouncer has: one server, and as many connections to it.
	alone, err := f.serve(ctx, strings.Replace(m.dsn, fmt.Sprintf("pool_size=%d", poolSize), fmt.Sprintf("pool_size=%d&consistency=leader", poolSize*2), 1))
	if err != nil {
		return err
	}
	w := &doors{direct: c.leader, bouncer: bouncer, served: served, alone: alone}
	for _, mode := range []string{"simple", "extended", "prepared"} {
		for _, clients := range gatewayClients {
			if err := b.pgbench(ctx, w, mode, clients); err != nil {
				return err
			}
		}
	}
	if err := alone.stop(); err != nil {
		return err
	}
	if err := b.copies(ctx, w); err != nil {
		return err
	}
	if err := b.idle(ctx, w); err != nil {
		return err
	}
	if err := served.stop(); err != nil {
		return err
	}
	return b.alike(ctx, m, "gateway's COPY")
}

// doors are the ways to the same data.
type doors struct {
	direct  *pgtest.Server
	bouncer *pgbouncer.Bouncer
	served  *served
	alone   *served // reads at the leader only
}

// pgbench runs its SELECT through each door in turn. Reads of all servers, which are on one
// machine here, share its processors' caches: what the gateway itself takes shows where it
// reads at the leader only. PgBouncer before 1.21 knows no
// prepared statements, so with these the server itself is the one to compare with.
func (b *bench) pgbench(ctx context.Context, w *doors, mode string, clients int) error {
	workload := "pgbench -S, " + mode
	names := []string{"one server", "PgBouncer, one server", "pgdist gateway", "pgdist gateway, leader"}
	ports := []int{w.direct.Port(), w.bouncer.Port(), w.served.port, w.alone.port}
	pids := []int{0, w.bouncer.PID(), w.served.pid, w.alone.pid} // of what stands between
	if mode == "prepared" {
		names[1], ports[1] = "", 0
	}
	turns := make([][]*turn, len(names))
	b.say("%s, %s", workload, many(clients))
	for range b.reps {
		for i, port := range ports {
			if port == 0 {
				continue
			}
			before, err := processTime(pids[i])
			if err != nil {
				return err
			}
			t, err := b.pgbenchTurn(ctx, port, mode, clients)
			if err != nil {
				return fmt.Errorf("%s through %s: %w", workload, names[i], err)
			}
			after, err := processTime(pids[i])
			if err != nil {
				return err
			}
			if pids[i] != 0 {
				t.used = map[string]time.Duration{"proxy": after - before}
			}
			turns[i] = append(turns[i], t)
		}
	}
	var figures []*figure
	for i, name := range names {
		if name == "" {
			figures = append(figures, nil)
			continue
		}
		figures = append(figures, summarize(workload, clients, name, turns[i]))
		b.report.Figures = append(b.report.Figures, figures[i])
	}
	direct, theirs, ours, alone := figures[0], figures[1], figures[2], figures[3]
	title := fmt.Sprintf("%s, %s: gateway to ", workload, many(clients))
	if theirs == nil {
		b.verdict(compare(title+direct.Contender, ours, direct, 0))
		return nil
	}
	b.verdict(compare(title+theirs.Contender, ours, theirs, gatewayRatio))
	b.verdict(compare(fmt.Sprintf("%s, %s: gateway that reads at the leader to %s", workload, many(clients), theirs.Contender), alone, theirs, 0))
	b.verdict(verdict{What: title + "PgBouncer, p99", Value: ours.P99 / max(theirs.P99, 1e-9), Unit: "×", Target: gatewayP99, AtMost: true}.judged())
	if clients == 1 {
		b.verdict(verdict{
			What: workload + ", latency that the gateway adds beyond what PgBouncer adds", Value: ours.P50 - theirs.P50, Unit: "µs",
			Target: gatewayAdded, AtMost: true,
		}.judged())
	}
	return nil
}

// pgbenchTurn runs pgbench for one turn and reads the latencies from its log.
func (b *bench) pgbenchTurn(ctx context.Context, port int, mode string, clients int) (*turn, error) {
	bin, err := pgtest.BinDir()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pgdist-pgbench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	script := filepath.Join(dir, "select.sql")
	text := fmt.Sprintf("\\set aid random(1, %d)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n", accounts)
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "pgbench"), "-n", "-M", mode, "-f", script, "-c", strconv.Itoa(clients), "-j", "2",
		"-T", strconv.Itoa(max(1, int(b.seconds))), "-l", "--log-prefix", filepath.Join(dir, "log"), "-h", pgtest.Host, "-p", strconv.Itoa(port), "-U", "postgres", database)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	t := &turn{}
	if t.took, err = pgbenchTook(string(out)); err != nil {
		return nil, err
	}
	logs, err := filepath.Glob(filepath.Join(dir, "log.*"))
	if err != nil {
		return nil, err
	}
	for _, name := range logs {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(text) { // client, transaction, µs, script, …
			fields := bytes.Fields(line)
			if len(fields) < 3 {
				continue
			}
			us, err := strconv.ParseInt(string(fields[2]), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("pgbench's log: %q", line)
			}
			t.latencies = append(t.latencies, time.Duration(us)*time.Microsecond)
		}
	}
	slices.Sort(t.latencies)
	// The rate is pgbench's own, connecting excluded.
	return t, nil
}

var pgbenchRate = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \(without initial connection time\)`)
var pgbenchDone = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)

// pgbenchTook is how long the transactions took by pgbench's own rate.
func pgbenchTook(out string) (time.Duration, error) {
	rate, done := pgbenchRate.FindStringSubmatch(out), pgbenchDone.FindStringSubmatch(out)
	if rate == nil || done == nil {
		return 0, fmt.Errorf("pgbench said: %s", out)
	}
	r, err1 := strconv.ParseFloat(rate[1], 64)
	n, err2 := strconv.ParseFloat(done[1], 64)
	return time.Duration(n / r * float64(time.Second)), errors.Join(err1, err2)
}

// copies compares COPY out with a server's own.
func (b *bench) copies(ctx context.Context, w *doors) error {
	b.say("COPY of %d rows", copyRows)
	query := fmt.Sprintf("COPY (SELECT g, repeat('x', 500) FROM generate_series(1, %d) g) TO STDOUT", copyRows)
	rate := func(port int) (float64, error) {
		conn, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=postgres dbname=%s sslmode=disable", pgtest.Host, port, database))
		if err != nil {
			return 0, err
		}
		count := &counter{}
		began := time.Now()
		_, err = conn.PgConn().CopyTo(ctx, count, query)
		took := time.Since(began)
		return float64(count.n) / mebi / took.Seconds(), errors.Join(err, conn.Close(ctx))
	}
	var direct, ours []float64
	for range max(1, b.reps/2) {
		d, err := rate(w.direct.Port())
		if err != nil {
			return err
		}
		o, err := rate(w.served.port)
		if err != nil {
			return err
		}
		direct, ours = append(direct, d), append(ours, o)
	}
	grown, err := processMemory(w.served.pid, "VmHWM")
	if err != nil {
		return err
	}
	b.verdict(verdict{What: "COPY out, gateway to the server itself", Value: median(ours) / median(direct), Unit: "×", Target: copyRatio}.judged())
	b.note("gateway: COPY out %.0f MiB/s, %.0f from the server itself; peak of resident memory so far %.1f MiB", median(ours), median(direct), mib(grown))
	return nil
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// idle measures what clients cost that wait.
func (b *bench) idle(ctx context.Context, w *doors) error {
	b.say("%d clients that wait", idleClients)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	n := min(idleClients, int(limit.Cur)-200)
	before, err := processMemory(w.served.pid, "VmRSS")
	if err != nil {
		return err
	}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range n {
		conn, err := waitingClient(w.served.port)
		if err != nil {
			return err
		}
		conns = append(conns, conn)
	}
	after, err := processMemory(w.served.pid, "VmRSS")
	if err != nil {
		return err
	}
	b.verdict(verdict{What: fmt.Sprintf("memory for each of %d clients that wait", n), Value: float64(after-before) / 1024 / float64(n), Unit: "KiB", Target: idleTarget, AtMost: true}.judged())
	return nil
}

// waitingClient logs in and asks once.
func waitingClient(port int) (net.Conn, error) {
	conn, err := net.Dial("tcp", net.JoinHostPort(pgtest.Host, strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(gatewayTimeout))
	front := pgproto3.NewFrontend(conn, conn)
	front.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "postgres", "database": database}})
	for i := range 2 {
		if i == 1 {
			front.Send(&pgproto3.Query{String: "SELECT 1"})
		}
		if err := front.Flush(); err != nil {
			return conn, err
		}
		for {
			m, err := front.Receive()
			if err != nil {
				return conn, err
			}
			if e, ok := m.(*pgproto3.ErrorResponse); ok {
				return conn, errors.New(e.Message)
			}
			if _, ok := m.(*pgproto3.ReadyForQuery); ok {
				break
			}
		}
	}
	return conn, nil
}

// served is a gateway in a process of its own.
type served struct {
	cmd       *exec.Cmd
	port, pid int
	in        io.Closer
}

// serve starts this program again as the gateway.
func (f *fleet) serve(ctx context.Context, dsn string) (*served, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, gatewayChild, dsn)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &served{cmd: cmd, pid: cmd.Process.Pid, in: in}
	f.onClose(s.stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the gateway's process: %w", err)
	}
	return s, json.Unmarshal([]byte(line), &s.port)
}

// stop ends it, once.
func (s *served) stop() error {
	if s.cmd == nil {
		return nil
	}
	cmd := s.cmd
	s.cmd = nil
	return errors.Join(s.in.Close(), cmd.Wait())
}

// runGatewayChild serves until its input ends.
func runGatewayChild(dsn string) error {
	ctx, cancel := context.WithTimeout(context.Background(), gatewayTimeout)
	defer cancel()
	g, err := gateway.Open(ctx, gateway.Config{DSN: dsn, Auth: gateway.Trust})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(pgtest.Host, "0"))
	if err != nil {
		return errors.Join(err, g.Close())
	}
	go func() { _ = g.Serve(l) }() // ends with Close
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, g.Close())
}
