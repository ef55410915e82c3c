package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// set is a real set of three servers with a gateway before it.
type set struct {
	servers []*pgtest.Server
	dsn     string
	gateway *Server
	addr    string
}

// ages is how long a test waits for what is certain to happen, on however slow a machine.
const ages = 3 * time.Minute

// unhurried has nobody taken for lost who is only slow, as servers are on a machine that is
// busy with other tests.
const unhurried = "&probe_timeout=3s&sync_timeout=15s"

// rotating has no client get the connection to a server that it had last: that each transaction
// has another one is nothing that a client should see.
const rotating = "&pool_rotate=on"

// sleeping counts the servers' processes that sleep in a statement like that.
func (s *set) sleeping(like string) (n int, err error) {
	for _, server := range s.servers {
		conn, cerr := pgx.Connect(context.Background(), server.DSN())
		if cerr != nil {
			return 0, cerr
		}
		var here int
		err = errors.Join(err, conn.QueryRow(context.Background(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE $1", like).Scan(&here), conn.Close(context.Background()))
		n += here
	}
	return n, err
}

// awaitSleeping waits until there are n; any goroutine of a test may.
func (s *set) awaitSleeping(tb testing.TB, like string, n int) {
	tb.Helper()
	for end := time.Now().Add(ages); ; time.Sleep(10 * time.Millisecond) {
		if got, err := s.sleeping(like); err != nil || got >= n || time.Now().After(end) {
			if err != nil || got < n {
				tb.Errorf("%d processes sleep in %s (%v)", got, like, err)
			}
			return
		}
	}
}

// newSet starts a set whose gateway trusts its clients, unless change says otherwise.
func newSet(tb testing.TB, change func(*Config)) *set {
	tb.Helper()
	s := &set{servers: pgtest.Set(tb, 3, pgtest.Options{})}
	var config mirror.Config
	tb.Cleanup(func() { // before the servers are closed
		if !tb.Failed() {
			shipRest(tb, config)
			pgtest.SameBytes(tb, s.servers...)
		}
	})
	var hosts []string
	for _, server := range s.servers {
		c, err := pgconn.ParseConfig(server.DSN())
		if err != nil {
			tb.Fatal(err)
		}
		config.Members = append(config.Members, mirror.MemberConfig{Conn: c})
		hosts = append(hosts, server.Addr())
	}
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	if _, err := mirror.Init(ctx, config, mirror.InitOptions{}); err != nil {
		tb.Fatal(err)
	}
	s.dsn = "pgdist://postgres@" + strings.Join(hosts, ",") + "/postgres?sslmode=disable" + rotating + unhurried
	s.serve(tb, change)
	return s
}

// mirror opens the set beside the gateway.
func (s *set) mirror(tb testing.TB) *mirror.Set {
	tb.Helper()
	var config mirror.Config
	for _, server := range s.servers {
		c, err := pgconn.ParseConfig(server.DSN())
		if err != nil {
			tb.Fatal(err)
		}
		config.Members = append(config.Members, mirror.MemberConfig{Conn: c})
	}
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	m, err := mirror.Open(ctx, config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(m.Close)
	return m
}

// shipRest has followers given what a client had committed that hung up: nobody waited for its
// acknowledgement, and the gateway has ended since.
func shipRest(tb testing.TB, config mirror.Config) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	config.Logger = slog.New(slog.DiscardHandler)
	m, err := mirror.Open(ctx, config)
	if err != nil {
		tb.Error(err)
		return
	}
	defer m.Close()
	if err := m.Flush(ctx); err != nil {
		tb.Error(err)
	}
}

// serve starts a gateway before the set.
func (s *set) serve(tb testing.TB, change func(*Config)) {
	tb.Helper()
	gc := Config{DSN: s.dsn, Auth: Trust, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&gc)
	}
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	g, err := Open(ctx, gc)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	tb.Cleanup(func() {
		if err := g.Close(); err != nil {
			tb.Error(err)
		}
		if err := <-served; !errors.Is(err, ErrServerClosed) {
			tb.Errorf("Serve returned %v", err)
		}
	})
	s.gateway, s.addr = g, l.Addr().String()
}

// url is how pgx reaches the gateway.
func (s *set) url(params string) string {
	return fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable%s", s.addr, params)
}
