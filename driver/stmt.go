package driver

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/engine"
)

var (
	_ driver.Stmt             = (*Stmt)(nil)
	_ driver.StmtExecContext  = (*Stmt)(nil)
	_ driver.StmtQueryContext = (*Stmt)(nil)
)

// Stmt is a prepared statement. It runs on whichever connection serves, where
// pgx keeps it prepared.
type Stmt struct {
	c      *Conn
	query  string
	inputs int
}

// PrepareContext has a server check the statement and count its parameters.
func (c *Conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	call := c.call(ctx, query)
	if call.Verdict.Class == classify.Transaction {
		return &Stmt{c: c, query: query}, nil
	}
	call.Verdict = prepareVerdict(call.Verdict, c.s.InTransaction())
	for {
		lease, err := c.s.Acquire(ctx, call)
		if err != nil {
			return nil, outward(err)
		}
		sc := lease.Conn().(*server)
		tapped := c.listen(lease, sc)
		sd, err := sc.PgConn().Prepare(ctx, "", query, nil)
		if tapped {
			sc.keep(lease, query, nil)
		}
		again, err := lease.Done(ctx, err)
		if again {
			continue
		}
		if err != nil {
			return nil, outward(err)
		}
		return &Stmt{c: c, query: query, inputs: len(sd.ParamOIDs)}, nil
	}
}

// prepareVerdict routes the preparation: outside a transaction nothing but
// reading the catalog happens; inside, it is where the statement will run.
func prepareVerdict(v *classify.Verdict, inTx bool) *classify.Verdict {
	switch {
	case v.Class == classify.Refused:
		return v
	case !inTx:
		return &classify.Verdict{Class: classify.Read}
	}
	return &classify.Verdict{Class: v.Class}
}

// Close forgets the statement; the servers' copies go with pgx's cache.
func (s *Stmt) Close() error { return nil }

// NumInput is the number of parameters.
func (s *Stmt) NumInput() int { return s.inputs }

// Exec is not implemented: database/sql uses ExecContext.
func (s *Stmt) Exec([]driver.Value) (driver.Result, error) {
	return nil, errors.New("Stmt.Exec deprecated and not implemented")
}

// ExecContext runs the statement.
func (s *Stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.c.ExecContext(ctx, s.query, args)
}

// Query is not implemented: database/sql uses QueryContext.
func (s *Stmt) Query([]driver.Value) (driver.Rows, error) {
	return nil, errors.New("Stmt.Query deprecated and not implemented")
}

// QueryContext runs the statement.
func (s *Stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.c.QueryContext(ctx, s.query, args)
}

// Route says where one statement's reads run; see WithRoute.
type Route int

const (
	// RouteDefault is what the DSN's consistency says.
	RouteDefault Route = iota
	// RouteAny is any in-sync database, even where the DSN says leader. What was
	// not found to be a read (a function thought to write) is tried as one.
	RouteAny
	// RouteLeader is the leader.
	RouteLeader
	// RouteStrict is any, and the result is released once every in-sync database
	// has reached what it saw.
	RouteStrict
)

type routeKey struct{}

// WithRoute returns a context under which statements run where route says,
// instead of where the DSN's consistency does. Writes go to the leader always.
func WithRoute(ctx context.Context, route Route) context.Context {
	return context.WithValue(ctx, routeKey{}, route)
}

func routeOf(ctx context.Context) engine.Route {
	if ctx == context.Background() {
		return engine.RouteDefault
	}
	route, _ := ctx.Value(routeKey{}).(Route)
	switch route {
	case RouteAny:
		return engine.RouteAny
	case RouteLeader:
		return engine.RouteLeader
	case RouteStrict:
		return engine.RouteStrict
	}
	return engine.RouteDefault
}
