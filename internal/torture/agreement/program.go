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
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"os/signal"
	"runtime/pprof"
	"sync"
	"syscall"
	"time"

	"github.com/pgdist/pgdist/driver"
	"github.com/pgdist/pgdist/gateway"
	"github.com/pgdist/pgdist/internal/engine"
	"github.com/pgdist/pgdist/internal/failpoint"
	"github.com/pgdist/pgdist/internal/mirror"
)

// setup is what a program is told at its start, in the environment variable setupVar.
type setup struct {
	Gateway bool   // else it holds the driver
	DSN     string // with the program's own links as hosts
	Listen  string // the gateway's address
}

const setupVar = "PGDIST_AGREEMENT_PROGRAM"

// event is a line that a program writes to its standard output.
type event struct {
	Control string `json:",omitempty"` // where it answers Requests and Orders; it is ready
	Point   string `json:",omitempty"` // a failpoint that it has come to …
	Action  Action `json:",omitempty"` // … and does this at, as it was told
	Err     string `json:",omitempty"` // why it ends
}

// Order tells a program what to do at a failpoint, once.
type Order struct {
	Point  string
	Action Action
	After  int           // passes to let go first
	Pause  time.Duration // of Pause
}

// Action is what happens at a failpoint.
type Action string

const (
	Die    Action = "die"    // as by kill -9
	Freeze Action = "freeze" // as by SIGSTOP, until the test thaws it
	Pause  Action = "pause"  // only who passes stands still, the rest of the program works
)

// program is the process's state.
type program struct {
	out io.Writer
	cfg mirror.Config
	db  *sql.DB // nil in a gateway

	mu     sync.Mutex // guards what follows, and out
	orders map[string]Order
}

// Main runs as a program, and exits, if this process was started as one. A test
// binary calls it first of all.
func Main() {
	text := os.Getenv(setupVar)
	if text == "" {
		return
	}
	p := &program{out: os.Stdout, orders: map[string]Order{}}
	if err := p.run(text); err != nil {
		p.say(event{Err: err.Error()})
		os.Exit(1)
	}
	os.Exit(0)
}

func (p *program) run(text string) error {
	var s setup
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	failpoint.Watch(p.pass)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ec, err := engine.Parse(s.DSN)
	if err != nil {
		return err
	}
	for _, m := range ec.Members {
		p.cfg.Members = append(p.cfg.Members, mirror.MemberConfig{Conn: &m.Conn.Config})
	}
	p.cfg.Logger = log
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	slow := time.AfterFunc(openTimeout-10*time.Second, func() { // for whoever wonders what it waits for
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
	})
	end := make(chan error, 2)
	if s.Gateway {
		err = p.serveGateway(ctx, s, log, end)
	} else {
		err = p.openDriver(ctx, s, log)
	}
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	slow.Stop()
	server := rpc.NewServer()
	if err := server.RegisterName("Program", &Program{p}); err != nil {
		return err
	}
	go server.Accept(l)
	p.say(event{Control: l.Addr().String()})
	go func() { // the test closes it to have the program end in peace
		_, err := io.Copy(io.Discard, bufio.NewReader(os.Stdin))
		end <- err
	}()
	err = <-end
	if p.db != nil {
		err = errors.Join(err, p.db.Close())
	}
	return err
}

func (p *program) openDriver(ctx context.Context, s setup, log *slog.Logger) error {
	conf, err := driver.ParseConfig(s.DSN)
	if err != nil {
		return err
	}
	conf.Logger = log
	connector, err := driver.NewConnector(conf)
	if err != nil {
		return err
	}
	p.db = sql.OpenDB(connector)
	return again(ctx, func() error { return p.db.PingContext(ctx) })
}

func (p *program) serveGateway(ctx context.Context, s setup, log *slog.Logger, end chan error) error {
	var g *gateway.Server
	err := again(ctx, func() (err error) {
		g, err = gateway.Open(ctx, gateway.Config{DSN: s.DSN, Auth: gateway.Trust, Logger: log})
		return err
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", s.Listen)
	if err != nil {
		return err
	}
	go func() { end <- g.Serve(l) }()
	return nil
}

// openTimeout is how long a program tries to open its set.
const openTimeout = 2 * time.Minute

// again opens a set as whoever keeps a program running would: until it succeeds.
func again(ctx context.Context, open func() error) error {
	var last error
	for {
		err := open()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, last, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (p *program) say(e event) {
	text, err := json.Marshal(e)
	if err != nil {
		panic(err) // three strings
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = p.out.Write(append(text, '\n')) // if the test is gone so is the program, soon
}

// pass is called at every failpoint.
func (p *program) pass(name string) {
	p.mu.Lock()
	o, armed := p.orders[name]
	switch {
	case !armed:
	case o.After > 0:
		o.After--
		p.orders[name] = o
		armed = false
	default:
		delete(p.orders, name)
	}
	p.mu.Unlock()
	if !armed {
		return
	}
	p.say(event{Point: name, Action: o.Action})
	switch o.Action {
	case Die:
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // nothing can go wrong
		select {}
	case Freeze:
		// The signal may take a while to reach all threads: this one would go on past the point.
		awake := make(chan os.Signal, 1)
		signal.Notify(awake, syscall.SIGCONT)
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		<-awake
		signal.Stop(awake)
	case Pause:
		time.Sleep(o.Pause)
	}
}

// Program is what the test asks of a program, by net/rpc.
type Program struct{ p *program }

// Do runs an operation.
func (c *Program) Do(r Request, a *Answer) error {
	if c.p.db == nil {
		return errors.New("a gateway is asked by its own protocol")
	}
	*a = do(context.Background(), c.p.db, r)
	return nil
}

// Arm replaces all orders.
func (c *Program) Arm(orders []Order, _ *struct{}) error {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	clear(c.p.orders)
	for _, o := range orders {
		c.p.orders[o.Point] = o
	}
	return nil
}

// Operation is what an operator's command does, with the members that Hosts names.
type Operation struct {
	Do      Command
	Hosts   []string
	Host    string        // of the member that is meant
	Wait    time.Duration // of Switchover and Remove, for open transactions
	Witness bool          // of Add
	Votes   int           // of Add
}

// Command is one of pgdist's.
type Command string

const (
	Switchover Command = "switchover"
	Resync     Command = "resync"
	Add        Command = "add"
	Remove     Command = "remove"
)

// operationTimeout bounds an operation, and how long a copy is waited for to be in sync.
const operationTimeout = 40 * time.Second

// Operate does what a command would do.
func (c *Program) Operate(o Operation, _ *struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), operationTimeout)
	defer cancel()
	cfg := mirror.Config{Logger: c.p.cfg.Logger}
	first := c.p.cfg.Members[0].Conn
	for _, h := range o.Hosts {
		cfg.Members = append(cfg.Members, mirror.MemberConfig{Conn: mirror.At(first, h)})
	}
	yes := func(string) error { return nil }
	switch o.Do {
	case Switchover:
		s, err := mirror.Open(ctx, cfg)
		if err != nil {
			return err
		}
		defer s.Close()
		_, err = s.Switchover(ctx, "", o.Wait)
		return err
	case Resync:
		r, err := mirror.Resync(ctx, cfg, mirror.ResyncOptions{Member: o.Host, Force: true, Wait: operationTimeout / 2, Confirm: yes})
		if err == nil && !r.InSync {
			err = fmt.Errorf("the copy at %s was not taken back", o.Host)
		}
		return err
	case Add:
		_, err := mirror.Add(ctx, cfg, mirror.AddOptions{Member: mirror.MemberConfig{Conn: mirror.At(first, o.Host)}, Witness: o.Witness, Votes: o.Votes, Wait: operationTimeout / 2, Confirm: yes})
		return err
	case Remove:
		_, err := mirror.Remove(ctx, cfg, mirror.RemoveOptions{Host: o.Host, Wait: o.Wait})
		return err
	}
	return fmt.Errorf("no such command: %q", o.Do)
}
