//go:build linux

// Package pgbouncer runs a throw-away PgBouncer in transaction pooling before one
// server of pgtest's, to compare the gateway with.
package pgbouncer

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
	startLimit = 20 * time.Second
	stopLimit  = 10 * time.Second
)

// ErrMissing: there is no program to run.
var ErrMissing = errors.New("pgbouncer was not found: run scripts/bench-deps.sh, or point $PGDIST_PGBOUNCER at the program")

// Bouncer is a running PgBouncer.
type Bouncer struct {
	dir, database string
	port, pid     int
	done          chan struct{} // closed when the process has been waited for
}

// PID is its process's number, Port where it listens on loopback.
func (b *Bouncer) PID() int  { return b.pid }
func (b *Bouncer) Port() int { return b.port }

func findProgram() (string, error) {
	if path := os.Getenv("PGDIST_PGBOUNCER"); path != "" {
		return path, nil
	}
	if _, err := os.Stat("/usr/sbin/pgbouncer"); err == nil {
		return "/usr/sbin/pgbouncer", nil
	}
	path, err := exec.LookPath("pgbouncer")
	if err != nil {
		return "", ErrMissing
	}
	return path, nil
}

// Version returns the first line of what pgbouncer --version says.
func Version(ctx context.Context) (string, error) {
	program, err := findProgram()
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, program, "--version").CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line, err
}

// conf is PgBouncer's default configuration but for what is said here.
func (b *Bouncer) conf(server *pgtest.Server, pool int) string {
	return fmt.Sprintf(`[databases]
%s = host=%s port=%d user=postgres
[pgbouncer]
listen_addr = %s
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = transaction
default_pool_size = %d
max_client_conn = 10000
log_connections = 0
log_disconnections = 0
`, b.database, server.Host(), server.Port(), pgtest.Host, b.port, filepath.Join(b.dir, "users.txt"), pool)
}

// Start runs PgBouncer before server until Stop is called; it ends with this
// process at the latest. pool is its connections to the server.
func Start(ctx context.Context, server *pgtest.Server, database string, pool int) (b *Bouncer, err error) {
	program, err := findProgram()
	if err != nil {
		return nil, err
	}
	b = &Bouncer{database: database, done: make(chan struct{})}
	if b.dir, err = os.MkdirTemp("", "pgdist-pgbouncer-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Stop())
		}
	}()
	if b.port, err = freePort(); err != nil {
		return b, err
	}
	for name, text := range map[string]string{"pgbouncer.ini": b.conf(server, pool), "users.txt": "\"postgres\" \"\"\n"} {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o644); err != nil {
			return b, err
		}
	}
	cmd := exec.Command(program, filepath.Join(b.dir, "pgbouncer.ini"))
	cmd.Dir = b.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	if os.Geteuid() == 0 { // it refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			return b, err
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2, os.Chown(b.dir, uid, gid)); err != nil {
			return b, err
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if err := b.spawn(cmd); err != nil {
		return b, fmt.Errorf("start %s: %w", program, err)
	}
	return b, b.waitReady(ctx)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(pgtest.Host, "0"))
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// spawn starts the process from a thread that lives as long as it does: the kernel
// ties "ends with its parent" to the thread.
func (b *Bouncer) spawn(cmd *exec.Cmd) error {
	log, err := os.Create(filepath.Join(b.dir, "log"))
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
			b.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is for its log
			close(b.done)
		}
	}()
	return errors.Join(<-started, log.Close())
}

func (b *Bouncer) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	dsn := fmt.Sprintf("host=%s port=%d user=postgres dbname=%s sslmode=disable default_query_exec_mode=simple_protocol", pgtest.Host, b.port, b.database)
	for {
		conn, err := pgx.Connect(ctx, dsn)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-b.done:
			text, _ := os.ReadFile(filepath.Join(b.dir, "log"))
			return fmt.Errorf("pgbouncer ended: %s", text)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends it and removes its files.
func (b *Bouncer) Stop() error {
	if b.pid != 0 {
		_ = syscall.Kill(b.pid, syscall.SIGINT) // it may have ended
		select {
		case <-b.done:
		case <-time.After(stopLimit):
			_ = syscall.Kill(b.pid, syscall.SIGKILL)
			<-b.done
		}
	}
	return os.RemoveAll(b.dir)
}
