//go:build unix

package agreement

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // the gateways' clients

	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
	"github.com/pgdist/pgdist/internal/torture/history"
)

// kind is what a program holds.
type kind struct {
	gateway bool
	strict  bool // all its reads are linearizable
}

// cluster is a set of servers with programs on it.
type cluster struct {
	t        *verdict
	servers  []*pgtest.Server // members, and those that may become one
	conn     *pgconn.Config   // to any of them but for the address
	roll     roll
	programs []*runner
	plainDB  *sql.DB // a server that pgdist has nothing to do with
	major    int     // version of all servers
	mixed    []*mixed
	copying  atomic.Int32 // copies under way, which DDL all the time would break off, again and again
	points   chan hit     // failpoints at which programs do as they were told
}

// hit is a failpoint reached by a program.
type hit struct {
	r     *runner
	life  *pgtest.Program // the one it is in
	point string
	does  Action
}

// runner is one program, over all its lives.
type runner struct {
	c     *cluster
	n     int
	kind  kind
	links []*pgtest.Link // to each server
	setup setup

	mu     sync.Mutex // guards what follows
	proc   *pgtest.Program
	stdin  io.Closer
	client *rpc.Client
	db     *sql.DB // through its gateway
	ready  chan struct{}
	lives  int

	heard sync.WaitGroup // who listens to its lives
}

// newCluster starts a set of members and programs, with the workloads' tables, and a
// server that is not used yet.
func newCluster(t *verdict, members int, kinds []kind) *cluster {
	t.Helper()
	o := pgtest.Options{Trouble: true, Settings: map[string]string{"deadlock_timeout": "50ms",
		"synchronous_commit": "off"}} // it is pgdist that has acknowledged writes be on disk
	c := &cluster{t: t, servers: pgtest.Set(t, members+1, o), roll: roll{unclear: map[int]bool{}}, points: make(chan hit, 100)}
	var err error
	if c.conn, err = pgconn.ParseConfig(c.servers[0].DSN()); err != nil {
		t.Fatal(err)
	}
	for i := range members {
		c.roll.add(i)
	}
	for n, k := range kinds {
		c.programs = append(c.programs, c.newRunner(n, k))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	// The members are known by the addresses of the first program's links, which may
	// then copy one of them afresh.
	named := mirror.Config{}
	for i := range members {
		named.Members = append(named.Members, mirror.MemberConfig{Conn: mirror.At(c.conn, c.host(i))})
	}
	if _, err := mirror.Init(ctx, named, mirror.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, r := range c.programs {
		if err := r.start(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, r := range c.programs {
			if err := r.end(); err != nil {
				t.Error(err)
			}
			r.heard.Wait()
		}
	})
	if err := c.upAll(ctx); err != nil {
		t.Fatal(err)
	}
	for _, q := range schema {
		c.must(ctx, q)
	}
	c.beside(ctx)
	return c
}

// beside starts the plain server that the mixed workload is compared with.
func (c *cluster) beside(ctx context.Context) {
	c.t.Helper()
	var err error
	if c.plainDB, err = sql.Open("pgx", pgtest.Start(c.t, pgtest.Options{FsyncOff: true}).DSN()); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := c.plainDB.Close(); err != nil {
			c.t.Error(err)
		}
	})
	if err := c.plainDB.QueryRowContext(ctx, "SELECT current_setting('server_version_num')::int / 10000").Scan(&c.major); err != nil {
		c.t.Fatal(err)
	}
	for _, q := range mixedSchema {
		c.must(ctx, q)
		if _, err := c.plainDB.ExecContext(ctx, q); err != nil {
			c.t.Fatalf("%s: %v", q, err)
		}
	}
}

// must runs SQL through the first program.
func (c *cluster) must(ctx context.Context, query string) {
	c.t.Helper()
	a := c.programs[0].ask(ctx, Request{Workload: "any", F: "sql", Value: quoted(query), Timeout: time.Minute})
	if a.Type != history.OK {
		c.t.Fatalf("%s: %s", query, a.Error)
	}
}

func quoted(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and lists of them
	}
	return text
}

func (c *cluster) newRunner(n int, k kind) *runner {
	r := &runner{c: c, n: n, kind: k, ready: make(chan struct{})}
	for _, s := range c.servers {
		r.links = append(r.links, pgtest.NewLink(c.t, s.Addr()))
	}
	r.setup = setup{Gateway: k.gateway}
	if k.gateway {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			c.t.Fatal(err)
		}
		r.setup.Listen = l.Addr().String() // the same over all its lives
		if err := l.Close(); err != nil {
			c.t.Fatal(err)
		}
	}
	return r
}

// start begins a life of the program. It does not wait until it is ready.
func (r *runner) start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r.setup.DSN = r.dsn()
	text, err := json.Marshal(r.setup)
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), setupVar+"="+string(text))
	r.lives++
	cmd.Stderr = &lineWriter{t: r.c.t, name: fmt.Sprintf("program %d, life %d", r.n, r.lives)}
	// A pipe of our own, not the command's, which is closed when the program ends: what
	// it said last would be lost.
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout = in
	if r.stdin, err = cmd.StdinPipe(); err != nil {
		return errors.Join(err, out.Close(), in.Close())
	}
	if r.proc, err = pgtest.StartProgram(cmd); err != nil {
		return errors.Join(err, out.Close(), in.Close())
	}
	ready, life := r.ready, r.proc
	r.heard.Go(func() {
		r.listen(out, ready, life)
		_ = out.Close() // it was only read from
		r.forget(ready)
	})
	return in.Close()
}

// listen hears what the program says until it ends.
func (r *runner) listen(out io.Reader, ready chan struct{}, life *pgtest.Program) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			r.c.t.Errorf("program %d says %q", r.n, lines.Text())
			continue
		}
		switch {
		case e.Err != "":
			r.c.t.Logf("program %d ends: %s", r.n, e.Err)
		case e.Point != "":
			r.c.points <- hit{r, life, e.Point, e.Action}
		case e.Control != "":
			if err := r.connect(e.Control); err != nil {
				r.c.t.Logf("program %d is gone again: %v", r.n, err)
				continue
			}
			close(ready)
		}
	}
}

// forget has nobody ask a program that is gone, unless it lives again by now.
func (r *runner) forget(life chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ready == life {
		r.client = nil
	}
}

func (r *runner) connect(control string) error {
	conn, err := net.Dial("tcp", control)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.client = rpc.NewClient(conn)
	if r.kind.gateway {
		if r.db, err = sql.Open("pgx", "postgres://postgres@"+r.setup.Listen+"/"+r.c.conn.Database+"?sslmode=disable"); err != nil {
			return err
		}
		r.db.SetMaxIdleConns(20)
	}
	return nil
}

// awaitReady waits until the program serves clients, or its life is over.
func (r *runner) awaitReady(ctx context.Context) error {
	r.mu.Lock()
	ready, proc := r.ready, r.proc
	r.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-proc.Done():
		return fmt.Errorf("program %d ended at its start: %w", r.n, errors.Join(proc.Err()))
	case <-ctx.Done():
		return fmt.Errorf("program %d is not ready: %w", r.n, ctx.Err())
	}
}

// bury forgets a life that is over.
func (r *runner) bury() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.proc.Kill()
	if r.db != nil {
		err = errors.Join(err, r.db.Close())
	}
	_ = r.stdin.Close()
	r.client, r.db, r.ready = nil, nil, make(chan struct{})
	return err
}

// revive ends the program's life, if it is not over yet, and begins another.
func (r *runner) revive(ctx context.Context) error {
	if err := r.bury(); err != nil {
		return err
	}
	if err := r.start(); err != nil {
		return err
	}
	return r.awaitReady(ctx)
}

// end lets the program end in peace, and looks whether it does.
func (r *runner) end() error {
	r.mu.Lock()
	proc, stdin := r.proc, r.stdin
	r.mu.Unlock()
	if proc == nil {
		return nil
	}
	if !proc.Ended() {
		_ = proc.SigCont()
		_ = stdin.Close()
		select {
		case <-proc.Done():
		case <-time.After(20 * time.Second):
			return errors.Join(fmt.Errorf("program %d does not end", r.n), r.bury())
		}
	}
	return r.bury()
}

// call asks the program over its control connection.
func (r *runner) call(ctx context.Context, method string, args, reply any) error {
	r.mu.Lock()
	client := r.client
	r.mu.Unlock()
	if client == nil {
		return errNotThere
	}
	call := client.Go("Program."+method, args, reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		return call.Error
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errNotThere: the program does not run, so nothing was asked of it.
var errNotThere = errors.New("the program does not run")

// ask has the program run an operation.
func (r *runner) ask(ctx context.Context, q Request) Answer {
	r.mu.Lock()
	db, client := r.db, r.client
	r.mu.Unlock()
	if client == nil {
		return Answer{Type: history.Fail, Error: errNotThere.Error()}
	}
	if db != nil {
		return do(ctx, db, q)
	}
	// Longer than the program itself takes: if it is frozen nobody keeps the time there.
	ctx, cancel := context.WithTimeout(ctx, q.Timeout+2*time.Second)
	defer cancel()
	var a Answer
	if err := r.call(ctx, "Do", q, &a); err != nil {
		if strings.HasSuffix(q.F, "read") {
			return Answer{Type: history.Fail, Error: err.Error()}
		}
		return Answer{Type: history.Info, Error: err.Error()}
	}
	return a
}

// arm gives all programs orders; those that do not run get none.
func (c *cluster) arm(ctx context.Context, orders ...Order) {
	for _, r := range c.programs {
		if err := r.call(ctx, "Arm", orders, &struct{}{}); err != nil && !errors.Is(err, errNotThere) {
			c.t.Logf("program %d was not armed: %v", r.n, err)
		}
	}
}

// disarm has a program come to no failpoint any more, and waits until it has heard that
// or is at one.
func (c *cluster) disarm(ctx context.Context, p *runner) error {
	for range 20 {
		limited, over := context.WithTimeout(ctx, time.Second)
		err := p.call(limited, "Arm", []Order{}, &struct{}{})
		over()
		if !errors.Is(err, context.DeadlineExceeded) || len(c.points) > 0 { // else it has heard it, or its life is over
			return nil
		}
	}
	return fmt.Errorf("program %d does not hear that it is to come to no failpoint any more", p.n)
}

// upAll heals and starts whatever is broken or gone, and waits until all is as it was.
func (c *cluster) upAll(ctx context.Context) error {
	if err := c.heal(ctx); err != nil {
		return err
	}
	return c.whole(ctx)
}

// heal heals and starts whatever is broken or gone.
func (c *cluster) heal(ctx context.Context) error {
	for _, r := range c.programs {
		for _, l := range r.links {
			l.Heal()
		}
		r.mu.Lock()
		proc := r.proc
		r.mu.Unlock()
		if !proc.Ended() {
			if err := proc.SigCont(); err != nil && !proc.Ended() {
				return err
			}
		}
	}
	for _, s := range c.servers {
		if err := s.Trouble().End(); err != nil {
			return err
		}
		if !s.Running() {
			if err := s.StartAgain(); err != nil {
				return err
			}
		} else if err := s.SigCont(); err != nil {
			return err
		}
	}
	for _, r := range c.programs {
		r.mu.Lock()
		dead := r.proc.Ended()
		r.mu.Unlock()
		if dead {
			if err := r.revive(ctx); err != nil {
				return err
			}
		} else if err := r.awaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// whole waits until all members are in sync.
func (c *cluster) whole(ctx context.Context) error {
	for last := ""; ; {
		// One whose disk is broken or full may have got up, and end later.
		for _, s := range c.servers {
			if !s.Running() {
				if err := s.StartAgain(); err != nil {
					return err
				}
			}
		}
		st, err := mirror.Inspect(ctx, c.config())
		if err != nil {
			last = err.Error()
		} else {
			last = fmt.Sprintf("%v %+v", st.View, st.Members)
			if !slices.ContainsFunc(st.Members, func(m mirror.MemberStatus) bool { return !m.InSync && m.Role != "witness" }) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not all members are in sync: %s: %w", last, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
