package pgtest

import (
	"errors"
	"fmt"
)

var (
	// ErrNoBinaries says that PostgreSQL's server programs were not found.
	ErrNoBinaries = errors.New("no PostgreSQL server programs found: apt-get install postgresql, or point $PGDIST_PGBIN at the directory that holds initdb and postgres")
	// ErrRunning says that the operation needs a server that is down.
	ErrRunning = errors.New("the server is running: stop or kill it first")
	// ErrNotRunning says that the operation needs a server that is up.
	ErrNotRunning = errors.New("the server is not running: start it with StartAgain")
	// ErrClosed says that the server has been closed and its directory removed.
	ErrClosed = errors.New("the server is closed and its directory is gone: launch another")
	// ErrNoUser says that no account fit to run PostgreSQL was found.
	ErrNoUser = errors.New("PostgreSQL does not run as root, and neither the user postgres nor nobody exists: create one, or run as another user")
)

// Error is a failed operation on one server.
type Error struct {
	Op     string // what was tried, such as "start" or "initdb"
	Server string // host:port, or empty before the server had one
	Err    error  // why it failed
	Log    string // the end of the server's log or the program's output; may be empty
}

// Error tells the operation, the server, the cause and the end of the log.
func (e *Error) Error() string {
	s := "pgtest: " + e.Op
	if e.Server != "" {
		s += " " + e.Server
	}
	s += ": " + e.Err.Error()
	if e.Log != "" {
		s += "\n--- end of its log ---\n" + e.Log
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func opError(op string, err error) error {
	return &Error{Op: op, Err: err}
}

func (s *Server) opError(op string, err error) error {
	return &Error{Op: op, Server: s.Addr(), Err: err, Log: s.LogTail(4096)}
}

var errExited = errors.New("the server ended while it was starting")

func errTimeout(what string, last error) error {
	if last == nil {
		return fmt.Errorf("timed out waiting for %s", what)
	}
	return fmt.Errorf("timed out waiting for %s: %w", what, last)
}
