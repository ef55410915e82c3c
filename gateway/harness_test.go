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

// newSet starts a set whose gateway trusts its clients, unless change says otherwise.
func newSet(tb testing.TB, change func(*Config)) *set {
	tb.Helper()
	s := &set{servers: pgtest.Set(tb, 3, pgtest.Options{})}
	tb.Cleanup(func() { // before the servers are closed
		if !tb.Failed() {
			pgtest.SameBytes(tb, s.servers...)
		}
	})
	var config mirror.Config
	var hosts []string
	for _, server := range s.servers {
		c, err := pgconn.ParseConfig(server.DSN())
		if err != nil {
			tb.Fatal(err)
		}
		config.Members = append(config.Members, mirror.MemberConfig{Conn: c})
		hosts = append(hosts, server.Addr())
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := mirror.Init(ctx, config, mirror.InitOptions{}); err != nil {
		tb.Fatal(err)
	}
	s.dsn = "pgdist://postgres@" + strings.Join(hosts, ",") + "/postgres?sslmode=disable"
	s.serve(tb, change)
	return s
}

// serve starts a gateway before the set.
func (s *set) serve(tb testing.TB, change func(*Config)) {
	tb.Helper()
	gc := Config{DSN: s.dsn, Auth: Trust, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&gc)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
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
