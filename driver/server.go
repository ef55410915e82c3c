package driver

import (
	"context"
	"database/sql/driver"
	"errors"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgdist/pgdist/internal/engine"
)

// server is a connection to one server: pgx's own driver connection, whose
// types and values are therefore the client's.
type server struct {
	*stdlib.Conn
	engine.OverPgConn
	wire *holdConn // nil on connections that only read
	tap  *tap      // on all
}

// PgConn is the protocol connection below.
func (s *server) PgConn() *pgconn.PgConn { return s.OverPgConn.PgConn }

// Close ends the connection, by pgx's driver.
func (s *server) Close() error { return s.Conn.Close() }

// Hold has hook called before the client hears that a command outside a
// transaction is over; nil calls it off.
func (s *server) Hold(hook func() error) {
	switch {
	case s.wire == nil:
	case hook == nil:
		s.wire.hook.Store(nil)
	default:
		s.wire.listens.Store(false)
		s.wire.hook.Store(&hook)
	}
}

// Listens tells whether a client has listened over the raw connection.
func (s *server) Listens() bool { return s.wire != nil && s.wire.listens.Load() }

// Ahead has a statement sent with what comes next, and its answer swallowed.
func (s *server) Ahead(sql string) { s.wire.Ahead(sql) }

// Unsent takes it back and tells whether it was still there.
func (s *server) Unsent() bool { return s.wire != nil && s.wire.Unsent() }

// Forget drops what pgx has prepared: servers read the constants in a text when they prepare
// it, by the settings of whoever was served then.
func (s *server) Forget(ctx context.Context) error { return s.Conn.Conn().DeallocateAll(ctx) }

// dial connects with pgx's driver.
func dial(ctx context.Context, config *pgx.ConnConfig) (engine.ServerConn, error) {
	s := &server{}
	writes := engine.Writes(config)
	config = config.Copy()
	config.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
		if !writes {
			s.tap = &tap{Conn: conn} // the last of several attempts is the one that stays
			return s.tap, nil
		}
		s.wire = &holdConn{tap: tap{Conn: conn}}
		s.tap = &s.wire.tap
		return s.wire, nil
	}
	c, err := stdlib.GetConnector(*config).Connect(ctx)
	if err != nil {
		return nil, err
	}
	s.Conn = c.(*stdlib.Conn)
	s.OverPgConn = engine.OverPgConn{PgConn: s.Conn.Conn().PgConn()}
	return s, nil
}

// cause translates pgx's driver's way of saying that nothing was sent.
func cause(ctx context.Context, err error) error {
	if errors.Is(err, driver.ErrBadConn) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return engine.ErrNotSent
	}
	return err
}
