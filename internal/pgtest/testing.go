//go:build unix

package pgtest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Start launches a server for a test and closes it when the test ends. The end
// of the server's log is shown when the test failed.
func Start(tb testing.TB, opts Options) *Server {
	tb.Helper()
	return Set(tb, 1, opts)[0]
}

// Three launches three servers at once, as Set does.
func Three(tb testing.TB, opts Options) [3]*Server {
	tb.Helper()
	return [3]*Server(Set(tb, 3, opts))
}

// Set launches n servers at once with the same options and closes them when
// the test ends.
func Set(tb testing.TB, n int, opts Options) []*Server {
	tb.Helper()
	servers, err := LaunchSet(n, opts)
	if err != nil {
		tb.Fatal(err)
	}
	for i, s := range servers {
		tb.Cleanup(func() {
			if tb.Failed() {
				tb.Logf("end of the log of server %d, %s:\n%s", i, s.Addr(), s.LogTail(4096))
			}
			if err := s.Close(); err != nil {
				tb.Error(err)
			}
		})
	}
	return servers
}

// LaunchSet launches n servers at once. If one fails, the others are closed.
func LaunchSet(n int, opts Options) ([]*Server, error) {
	servers, errs := make([]*Server, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { servers[i], errs[i] = Launch(opts) })
	}
	wg.Wait()
	for _, err := range errs {
		if err == nil {
			continue
		}
		for _, s := range servers {
			if s != nil {
				errs = append(errs, s.Close())
			}
		}
		return nil, errors.Join(errs...)
	}
	return servers, nil
}

// Connect opens a connection that is closed when the test ends.
func Connect(tb testing.TB, dsn string) *pgx.Conn {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the server may be down by now, as the test wanted
	})
	return conn
}

// Exec runs SQL text, one statement or several, in the server's default
// database and fails the test on an error.
func (s *Server) Exec(tb testing.TB, sql string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN())
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		tb.Fatalf("%s: %v\n%s", s.Addr(), err, sql)
	}
}
