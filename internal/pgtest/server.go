//go:build unix

package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Host is the address every server listens on.
const Host = "127.0.0.1"

// Server is one PostgreSQL server and its data directory. All methods are safe
// for concurrent use; those that start, stop or kill it take turns.
type Server struct {
	opts     Options
	bin, dir string
	acc      account
	port     int
	lock     *os.File // of dir
	portLock *os.File
	env      []string // in addition
	trouble  *Trouble

	mu      sync.Mutex // guards what follows, held while the state changes
	proc    *postmaster
	stopped []int // by SigStop, in the order of stopping
	closed  bool
}

// Launch creates a server, starts it and returns once it accepts queries. The
// caller closes it. Errors are *Error, with the end of the server's log.
func Launch(opts Options) (*Server, error) {
	s, err := create(opts)
	if err != nil {
		return nil, err
	}
	if err := s.StartAgain(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.createDatabases(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// create prepares a data directory and a port; nothing runs yet.
func create(opts Options) (*Server, error) {
	bin := opts.Bin
	if bin == "" {
		var err error
		if bin, err = BinDir(); err != nil {
			return nil, opError("launch", err)
		}
	}
	acc, err := serverAccount()
	if err != nil {
		return nil, opError("launch", err)
	}
	base, err := baseDir()
	if err != nil {
		return nil, opError("launch", err)
	}
	tmpl, err := template(base, bin, acc, opts.InitArgs)
	if err != nil {
		return nil, err
	}
	home, err := serversDir(base)
	if err != nil {
		return nil, opError("launch", err)
	}
	s := &Server{opts: opts, bin: bin, acc: acc}
	if s.dir, s.lock, err = newServerDir(home, acc); err != nil {
		return nil, opError("launch", err)
	}
	if err := s.prepare(base, tmpl); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) prepare(base, tmpl string) (err error) {
	if err := copyTemplate(tmpl, s.DataDir(), s.acc); err != nil {
		return err
	}
	if s.port, s.portLock, err = reservePort(base, s.opts.Port); err != nil {
		return opError("launch", err)
	}
	if s.opts.Trouble {
		if err := s.prepareTrouble(base); err != nil {
			return opError("launch", err)
		}
	}
	return appendFile(filepath.Join(s.DataDir(), "postgresql.conf"), s.opts.conf(s.port))
}

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func (s *Server) createDatabases() error {
	if len(s.opts.Databases) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.opts.startTimeout())
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return s.opError("create databases", err)
	}
	for _, name := range s.opts.Databases {
		if name == "postgres" {
			continue
		}
		if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
			return errors.Join(s.opError("create database "+name, err), conn.Close(ctx))
		}
	}
	return conn.Close(ctx)
}

// Host returns the server's address, always 127.0.0.1.
func (s *Server) Host() string { return Host }

// Port returns the server's TCP port; it stays the same over restarts.
func (s *Server) Port() int { return s.port }

// Addr returns host:port.
func (s *Server) Addr() string { return net.JoinHostPort(Host, strconv.Itoa(s.port)) }

// DataDir returns the server's data directory.
func (s *Server) DataDir() string { return filepath.Join(s.dir, "data") }

// DSN returns a URL for the database, by default the first of
// Options.Databases, or "postgres".
func (s *Server) DSN(database ...string) string {
	name := "postgres"
	switch {
	case len(database) > 0:
		name = database[0]
	case len(s.opts.Databases) > 0:
		name = s.opts.Databases[0]
	}
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", s.Addr(), escape(name))
}

// PID returns the postmaster's process id, or 0 when the server is down.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.runningLocked() {
		return 0
	}
	return s.proc.pid
}

// Running tells whether the postmaster lives; a stopped one (SigStop) does.
func (s *Server) Running() bool { return s.PID() != 0 }

// WaitReady waits until the server answers a query, for Options.StartTimeout
// or until ctx ends. It returns early, with an error, when the server is down.
func (s *Server) WaitReady(ctx context.Context) error {
	s.mu.Lock()
	proc := s.proc
	s.mu.Unlock()
	if proc == nil {
		return s.opError("wait for", ErrNotRunning)
	}
	return s.waitReady(ctx, proc)
}

func (s *Server) waitReady(ctx context.Context, proc *postmaster) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.startTimeout())
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var last error
	for {
		if last = s.ask(ctx); last == nil {
			return nil
		}
		select {
		case <-proc.done:
			return s.opError("start", errors.Join(errExited, proc.err))
		case <-ctx.Done():
			return s.opError("start", errTimeout("the server to accept queries", last))
		case <-tick.C:
		}
	}
}

// ask runs one query on a connection of its own.
func (s *Server) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	var answer *pgconn.PgError
	if errors.As(err, &answer) && (answer.Code == "3D000" || answer.Code == "55000") {
		return nil // somebody has dropped the database, or was killed while he did
	}
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "SELECT 1")
	return errors.Join(err, conn.Close(ctx))
}

// Close kills the server if it runs and removes its directory. Closing twice
// is harmless.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.killLocked()
	err = errors.Join(err, discard(s.dir, s.lock))
	if s.portLock != nil {
		err = errors.Join(err, s.portLock.Close())
	}
	s.opts.logf("pgtest: closed %s", s.Addr())
	return err
}
