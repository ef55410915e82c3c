//go:build linux

// Package pgpool runs a throw-away pgpool-II in its native replication mode over
// servers of pgtest's, to compare pgdist with.
package pgpool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/pgtest"
)

const (
	startLimit = 30 * time.Second
	stopLimit  = 15 * time.Second
	pollEvery  = 20 * time.Millisecond
)

// ErrMissing: there is no program to run.
var ErrMissing = errors.New("pgpool was not found: run scripts/bench-deps.sh, or point $PGDIST_PGPOOL at the program")

// Options say how to run pgpool.
type Options struct {
	Database string // that DSN names
	Children int    // the most clients at once; pgpool's default is 32
	// HealthCheck has pgpool look after its servers as often as it can, every second.
	HealthCheck bool
}

// Pool is a running pgpool-II over servers of its own.
type Pool struct {
	opts Options
	dir  string
	port int
	pid  int
	done chan struct{} // closed when the process has been waited for
}

// PID is the number of pgpool's first process.
func (p *Pool) PID() int { return p.pid }

func findProgram() (string, error) {
	if path := os.Getenv("PGDIST_PGPOOL"); path != "" {
		return path, nil
	}
	if _, err := os.Stat("/usr/sbin/pgpool"); err == nil {
		return "/usr/sbin/pgpool", nil
	}
	path, err := exec.LookPath("pgpool")
	if err != nil {
		return "", ErrMissing
	}
	return path, nil
}

// Version returns what pgpool --version says.
func Version(ctx context.Context) (string, error) {
	program, err := findProgram()
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, program, "--version").CombinedOutput() // 4.3 writes it to stderr
	return strings.TrimSpace(string(out)), err
}

// conf is native replication as pgpool's manual sets it up, on loopback,
// with what does no work here switched off: health checks, watchdog and query
// cache. What is not named keeps pgpool's default, insert_lock too.
func (p *Pool) conf(pcpPort int, servers []*pgtest.Server) string {
	var b strings.Builder
	set := func(name, value string) { fmt.Fprintf(&b, "%s = '%s'\n", name, value) }
	set("backend_clustering_mode", "native_replication")
	set("load_balance_mode", "on")
	set("replicate_select", "off") // a SELECT runs on one backend
	for i, s := range servers {
		set(fmt.Sprintf("backend_hostname%d", i), s.Host())
		set(fmt.Sprintf("backend_port%d", i), strconv.Itoa(s.Port()))
		set(fmt.Sprintf("backend_weight%d", i), "1")
		set(fmt.Sprintf("backend_data_directory%d", i), s.DataDir())
	}
	set("listen_addresses", pgtest.Host)
	set("port", strconv.Itoa(p.port))
	set("pcp_listen_addresses", pgtest.Host)
	set("pcp_port", strconv.Itoa(pcpPort))
	for _, name := range []string{"socket_dir", "pcp_socket_dir", "wd_ipc_socket_dir", "logdir"} {
		set(name, p.dir)
	}
	set("pid_file_name", filepath.Join(p.dir, "pgpool.pid"))
	set("num_init_children", strconv.Itoa(p.opts.Children))
	set("enable_pool_hba", "off")
	set("pool_passwd", "")
	if p.opts.HealthCheck {
		set("health_check_period", "1")
		set("health_check_timeout", "1")
		set("health_check_max_retries", "0")
		set("health_check_user", "postgres")
		set("health_check_database", "postgres")
		set("connect_timeout", "1000")
		set("failover_on_backend_error", "on")
	} else {
		set("health_check_period", "0")
	}
	set("sr_check_period", "0")
	set("use_watchdog", "off")
	set("memory_cache_enabled", "off")
	set("log_min_messages", "warning")
	return b.String()
}

// Start runs pgpool over the servers until Stop is called; it ends with this
// process at the latest.
func Start(ctx context.Context, servers []*pgtest.Server, opts Options) (p *Pool, err error) {
	program, err := findProgram()
	if err != nil {
		return nil, err
	}
	p = &Pool{opts: opts, done: make(chan struct{})}
	if p.dir, err = os.MkdirTemp("", "pgdist-pgpool-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Stop())
		}
	}()
	cmd, err := p.command(program, servers)
	if err != nil {
		return p, err
	}
	if err := p.spawn(cmd); err != nil {
		return p, fmt.Errorf("start %s: %w", program, err)
	}
	return p, p.waitReady(ctx)
}

// command writes the files and prepares the process, as the user postgres if
// this one is root.
func (p *Pool) command(program string, servers []*pgtest.Server) (*exec.Cmd, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	p.port = ports[0]
	files := map[string]string{"pgpool.conf": p.conf(ports[1], servers), "pcp.conf": "", "pool_hba.conf": ""}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(program, "-n", "-D", "-f", filepath.Join(p.dir, "pgpool.conf"),
		"-F", filepath.Join(p.dir, "pcp.conf"), "-a", filepath.Join(p.dir, "pool_hba.conf"))
	cmd.Dir = p.dir
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/bin", "HOME=" + p.dir, "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	if os.Geteuid() != 0 {
		return cmd, nil
	}
	uid, gid, err := postgresUser()
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return cmd, os.Chown(p.dir, uid, gid)
}

func postgresUser() (uid, gid int, err error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		return 0, 0, err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return uid, gid, errors.Join(err1, err2)
}

// spawn starts the process from a thread that lives as long as it does: the
// kernel ties "ends with its parent" to the thread.
func (p *Pool) spawn(cmd *exec.Cmd) error {
	log, err := os.Create(p.logPath())
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is for its log
			close(p.done)
		}
	}()
	return errors.Join(<-started, log.Close())
}

// DSN names the database through pgpool.
func (p *Pool) DSN() string {
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", net.JoinHostPort(pgtest.Host, strconv.Itoa(p.port)), p.opts.Database)
}

func (p *Pool) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		last := p.ask(ctx)
		if last == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("pgpool ended: %s", p.logTail())
		case <-ctx.Done():
			return fmt.Errorf("pgpool does not answer: %w\n%s", last, p.logTail())
		case <-time.After(pollEvery):
		}
	}
}

func (p *Pool) ask(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.DSN())
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "SELECT 1")
	return errors.Join(err, conn.Close(ctx))
}

// Stop ends pgpool and removes its directory. SIGINT is its fast shutdown,
// which frees its shared memory; who is left after that is killed.
func (p *Pool) Stop() error {
	var errs []error
	if p.pid != 0 {
		errs = append(errs, signalGone(p.pid, syscall.SIGINT))
		select {
		case <-p.done:
		case <-time.After(stopLimit):
			errs = append(errs, fmt.Errorf("pgpool did not stop within %v and was killed: %s", stopLimit, p.logTail()))
		}
		errs = append(errs, signalGone(-p.pid, syscall.SIGKILL))
	}
	return errors.Join(append(errs, os.RemoveAll(p.dir))...)
}

// signalGone sends a signal; that nobody is left to get it is no error.
func signalGone(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(pid, sig); !errors.Is(err, syscall.ESRCH) {
		return os.NewSyscallError("kill", err)
	}
	return nil
}

func (p *Pool) logPath() string { return filepath.Join(p.dir, "log") }

// logTail is the end of pgpool's log, for errors.
func (p *Pool) logTail() string {
	text, err := os.ReadFile(p.logPath())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// freePorts returns ports of the loopback interface that nobody listens on.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(pgtest.Host, "0"))
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
