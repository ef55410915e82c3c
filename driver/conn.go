package driver

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/engine"
)

var (
	_ driver.Conn               = (*Conn)(nil)
	_ driver.ConnBeginTx        = (*Conn)(nil)
	_ driver.ConnPrepareContext = (*Conn)(nil)
	_ driver.ExecerContext      = (*Conn)(nil)
	_ driver.QueryerContext     = (*Conn)(nil)
	_ driver.NamedValueChecker  = (*Conn)(nil)
	_ driver.Pinger             = (*Conn)(nil)
	_ driver.SessionResetter    = (*Conn)(nil)
	_ driver.Validator          = (*Conn)(nil)
)

// Conn is a session on the set, what sql.Conn.Raw hands out. It holds a
// connection to a server only while a statement, a transaction or state that
// lives on one server needs it.
type Conn struct {
	e       *engine.Engine
	s       *engine.Session
	onClose func() error
}

// Close ends the session.
func (c *Conn) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	err := c.s.Close(ctx)
	if c.onClose != nil {
		err = errors.Join(err, c.onClose())
	}
	return err
}

// call is what the engine needs to know of a statement.
func (c *Conn) call(ctx context.Context, query string) engine.Call {
	return engine.Call{SQL: query, Verdict: c.e.Classify(query), Route: routeOf(ctx)}
}

// ExecContext runs a statement, or several if there are no arguments, and
// returns once every in-sync database has what it wrote.
func (c *Conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	query, args, err := numbered(ctx, query, args)
	if err != nil {
		return nil, err
	}
	call := c.call(ctx, query)
	bind(&call, args)
	if len(args) == options(args) && engine.Runs(call.Verdict) {
		tag, err := c.s.Exec(ctx, call)
		if err != nil {
			return nil, outward(err)
		}
		return driver.RowsAffected(pgconn.NewCommandTag(tag).RowsAffected()), nil
	}
	for {
		lease, err := c.s.Acquire(ctx, call)
		if err != nil {
			return nil, outward(err)
		}
		sc := lease.Conn().(*server)
		tapped := c.listen(lease, sc)
		result, err := sc.ExecContext(ctx, query, args)
		if tapped {
			sc.keep(lease, query, args)
		}
		again, err := lease.Done(ctx, cause(ctx, err))
		if !again {
			return result, outward(err)
		}
	}
}

// QueryContext runs one statement. The rows of a write are handed out once every
// in-sync database has it; of a result above Config.ResultBuffer, the end is.
func (c *Conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	query, args, err := numbered(ctx, query, args)
	if err != nil {
		return nil, err
	}
	call := c.call(ctx, query)
	bind(&call, args)
	if len(args) == options(args) && len(call.Verdict.Statements) == 1 && engine.Runs(call.Verdict) {
		if _, err := c.s.Exec(ctx, call); err != nil {
			return nil, outward(err)
		}
		return noRows{}, nil
	}
	for {
		lease, err := c.s.Acquire(ctx, call)
		if err != nil {
			return nil, outward(err)
		}
		rows, again, err := c.query(ctx, lease, query, args)
		if !again {
			return rows, outward(err)
		}
	}
}

// query runs a statement on a lease, which it ends unless rows are returned.
func (c *Conn) query(ctx context.Context, lease *engine.Lease, query string, args []driver.NamedValue) (driver.Rows, bool, error) {
	sc := lease.Conn().(*server)
	tapped := c.listen(lease, sc)
	got, err := sc.QueryContext(ctx, query, args)
	if err == nil {
		if lease.BufferRows() {
			return c.bufferRows(ctx, lease, got)
		}
		r := &rows{ctx: ctx, lease: lease, server: got.(serverRows)}
		if tapped {
			r.kept = &resumption{c: c, query: query, args: args}
		}
		if lease.Repeatable() || tapped {
			err = r.lookAhead()
		}
		if err == nil {
			err = lease.Delivered(ctx)
		}
		if err == nil {
			return r, false, nil
		}
		err = errors.Join(err, got.Close())
	}
	if tapped {
		sc.keep(lease, query, args)
	}
	again, err := lease.Done(ctx, cause(ctx, err))
	return nil, again, err
}

// CheckNamedValue lets every value through: pgx itself converts them.
func (c *Conn) CheckNamedValue(*driver.NamedValue) error { return nil }

// Prepare is PrepareContext without a context.
func (c *Conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// Begin is BeginTx without options.
func (c *Conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// BeginTx begins a transaction.
func (c *Conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	var o engine.TxOptions
	switch sql.IsolationLevel(opts.Isolation) {
	case sql.LevelDefault:
	case sql.LevelReadUncommitted:
		o.Isolation = "read uncommitted"
	case sql.LevelReadCommitted:
		o.Isolation = "read committed"
	case sql.LevelRepeatableRead, sql.LevelSnapshot:
		o.Isolation = "repeatable read"
	case sql.LevelSerializable:
		o.Isolation = "serializable"
	default:
		return nil, fmt.Errorf("unsupported isolation: %v", opts.Isolation)
	}
	if opts.ReadOnly {
		o.ReadOnly = &opts.ReadOnly
	}
	if err := c.s.Begin(ctx, o); err != nil {
		return nil, outward(err)
	}
	return &tx{ctx: ctx, c: c}, nil
}

// Ping tells whether the leader answers.
func (c *Conn) Ping(ctx context.Context) error {
	const ping = "-- ping"
	call := c.call(ctx, ping)
	call.Route = engine.RouteLeader
	for {
		lease, err := c.s.Acquire(ctx, call)
		if err != nil {
			return outward(err)
		}
		sc := lease.Conn().(*server)
		tapped := c.listen(lease, sc)
		err = sc.PgConn().Ping(ctx)
		if tapped {
			sc.keep(lease, ping, nil)
		}
		again, err := lease.Done(ctx, err)
		if !again {
			return outward(err)
		}
	}
}

// ResetSession is called before the session is used again.
func (c *Conn) ResetSession(ctx context.Context) error {
	if ok, err := c.s.Reset(ctx); !ok || err != nil {
		return driver.ErrBadConn
	}
	return nil
}

// settleTimeout bounds the wait for an acknowledgement where the caller has no context.
const settleTimeout = 30 * time.Second

// IsValid is called when the session goes back to sql.DB's pool: what was done
// over Raw is acknowledged here at the latest.
func (c *Conn) IsValid() bool {
	if !c.s.Unsettled() {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	return c.s.Settle(ctx) == nil
}

// Conn returns the pgx connection to the leader, for what only pgx can do, as
// pgx's own driver does:
//
//	conn.Raw(func(dc any) error {
//		pc := dc.(*driver.Conn).Conn()
//		_, err := pc.CopyFrom(ctx, table, columns, source)
//		return err
//	})
//
// Who listens there keeps the connection, and it is broken when another member leads:
// WaitForNotification returns an error, and whoever calls it begins anew.
//
// Whatever is written there is mirrored; it is acknowledged before the next
// statement on this sql.Conn, or when that is closed. CopyFrom in this
// package waits for it. Conn returns nil if no leader can be reached.
func (c *Conn) Conn() *pgx.Conn {
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	pc, err := c.leader(ctx)
	if err != nil {
		return nil
	}
	return pc
}

func (c *Conn) leader(ctx context.Context) (*pgx.Conn, error) {
	sc, err := c.s.Raw(ctx)
	if err != nil {
		return nil, outward(err)
	}
	return sc.(*server).Conn.Conn(), nil
}

// Stats tells about each database of the set.
func (c *Conn) Stats() []MemberStats { return memberStats(c.e) }

// outward turns what the engine says to its front doors into what database/sql
// and pgx's users know.
func outward(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, engine.ErrCommitRolledBack):
		return pgx.ErrTxCommitRollback
	case errors.Is(err, engine.ErrNoTransaction):
		return pgx.ErrTxClosed
	case errors.Is(err, engine.ErrBusy), errors.Is(err, engine.ErrClosed):
		return driver.ErrBadConn // nothing was executed
	}
	return err
}
