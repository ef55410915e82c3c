package driver

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgdist/pgdist/internal/engine"
)

// server is a connection to one server: pgx's own driver connection, whose
// types and values are therefore the client's.
type server struct{ *stdlib.Conn }

// PgConn is the protocol connection below.
func (s server) PgConn() *pgconn.PgConn { return s.Conn.Conn().PgConn() }

// dial connects with pgx's driver.
func dial(ctx context.Context, config *pgx.ConnConfig) (engine.ServerConn, error) {
	c, err := stdlib.GetConnector(*config).Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &server{c.(*stdlib.Conn)}, nil
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
