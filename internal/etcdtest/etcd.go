//go:build unix

// Package etcdtest runs throw-away etcd clusters for tests, on the loopback interface alone.
package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// Binary is the etcd to run: $PGDIST_ETCD, the one that `make deps` has unpacked, or PATH's.
func Binary() (string, error) {
	if path := os.Getenv("PGDIST_ETCD"); path != "" {
		return path, nil
	}
	const unpacked = "/usr/local/lib/pgdist/etcd"
	if _, err := os.Stat(unpacked); err == nil {
		return unpacked, nil
	}
	path, err := exec.LookPath("etcd")
	if err != nil {
		return "", errors.New("there is no etcd: run make deps, or name one in $PGDIST_ETCD")
	}
	return path, nil
}

// Cluster is an etcd of some servers. Its methods fail the test.
type Cluster struct {
	t       testing.TB
	binary  string
	dir     string
	servers []*server
	// Extra are further arguments for servers that are started from now on.
	Extra []string
}

type server struct {
	name         string
	client, peer int // ports
	cmd          *exec.Cmd
	done         chan struct{}
}

// startTimeout is how long a cluster may take until it answers.
const startTimeout = time.Minute

// Start runs an etcd of n servers until the test ends.
func Start(t testing.TB, n int, extra ...string) *Cluster {
	t.Helper()
	binary, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{t: t, binary: binary, dir: t.TempDir(), Extra: extra}
	for i := range n {
		c.servers = append(c.servers, &server{name: fmt.Sprintf("e%d", i+1), client: pgtest.Port(t), peer: pgtest.Port(t)})
	}
	t.Cleanup(c.stop)
	for i := range n {
		c.Run(i)
	}
	c.Await()
	return c
}

// Endpoints are the servers' addresses for clients, "host:port", separated by commas.
func (c *Cluster) Endpoints() string {
	var out []string
	for _, s := range c.servers {
		out = append(out, fmt.Sprintf("127.0.0.1:%d", s.client))
	}
	return strings.Join(out, ",")
}

// URL is the address of a register below prefix.
func (c *Cluster) URL(prefix string) string { return "etcd://" + c.Endpoints() + "/" + prefix }

// Run starts server i, on the data that it has.
func (c *Cluster) Run(i int) {
	c.t.Helper()
	s := c.servers[i]
	url := func(port int) string { return fmt.Sprintf("http://127.0.0.1:%d", port) }
	var all []string
	for _, o := range c.servers {
		all = append(all, o.name+"="+url(o.peer))
	}
	args := []string{"--name", s.name, "--data-dir", c.data(i), "--listen-client-urls", url(s.client), "--advertise-client-urls", url(s.client),
		"--listen-peer-urls", url(s.peer), "--initial-advertise-peer-urls", url(s.peer), "--initial-cluster", strings.Join(all, ","),
		"--initial-cluster-token", "pgdist-test", "--logger", "zap", "--log-level", "warn"}
	log, err := os.OpenFile(c.data(i)+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(c.binary, append(args, c.Extra...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	pgtest.DieWithParent(cmd.SysProcAttr)
	started := make(chan error)
	done := make(chan struct{})
	go func() { // whoever starts it must live as long: see pgtest.DieWithParent
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			//nolint:errcheck // it is killed
			cmd.Wait()
			close(done)
		}
	}()
	if err := errors.Join(<-started, log.Close()); err != nil {
		c.t.Fatal(err)
	}
	s.cmd, s.done = cmd, done
}

func (c *Cluster) data(i int) string { return filepath.Join(c.dir, c.servers[i].name) }

// Data is the directory of server i's data.
func (c *Cluster) Data(i int) string { return c.data(i) }

// Kill ends server i as a loss of power would, but for what the kernel has.
func (c *Cluster) Kill(i int) {
	c.t.Helper()
	s := c.servers[i]
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		c.t.Error(err)
	}
	<-s.done
	s.cmd = nil
}

// Freeze stops server i: its connections stay, and nobody answers. Thaw lets it go on.
func (c *Cluster) Freeze(i int) { c.signal(i, syscall.SIGSTOP) }

// Thaw ends Freeze.
func (c *Cluster) Thaw(i int) { c.signal(i, syscall.SIGCONT) }

func (c *Cluster) signal(i int, sig syscall.Signal) {
	c.t.Helper()
	if err := c.servers[i].cmd.Process.Signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

// Await waits until a majority of the servers answers.
func (c *Cluster) Await() {
	c.t.Helper()
	k := c.Client()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		try, cancel := context.WithTimeout(ctx, time.Second)
		_, err := k.Get(try, "anything")
		cancel()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			for i := range c.servers {
				if log, err := os.ReadFile(c.data(i) + ".log"); err == nil {
					c.t.Logf("%s: %s", c.servers[i].name, log)
				}
			}
			c.t.Fatalf("etcd does not answer: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Client connects to the cluster until the test ends.
func (c *Cluster) Client() *clientv3.Client {
	c.t.Helper()
	k, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(c.Endpoints(), ","), DialTimeout: 2 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := k.Close(); err != nil {
			c.t.Error(err)
		}
	})
	return k
}

func (c *Cluster) stop() {
	for i := range c.servers {
		c.Kill(i)
	}
}
