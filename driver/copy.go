package driver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/engine"
)

// CopyFrom loads rows into a table by COPY and returns how many once every
// in-sync database has them. Within a transaction of conn's, COMMIT waits for that.
// Should its server be lost meanwhile, the source cannot be read again: the error is 40001
// (nothing was loaded: run it again) or, if nobody can be asked what became of it, 08007. If all
// was loaded there is none, and the number is of the rows that the source gave.
func CopyFrom(ctx context.Context, conn *sql.Conn, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (n int64, err error) {
	err = conn.Raw(func(dc any) error {
		c, ok := dc.(*Conn)
		if !ok {
			return fmt.Errorf("pgdist: CopyFrom needs a connection of driver %q, not %T", Name, dc)
		}
		if c.s.InTransaction() {
			n, err = c.copyInTx(ctx, table, columns, source)
			return outward(err)
		}
		pc, err := c.leader(ctx)
		if err != nil {
			return err
		}
		given := &countedSource{CopyFromSource: source}
		n, err = pc.CopyFrom(ctx, table, columns, given)
		lost := err != nil && pc.IsClosed() && ctx.Err() == nil
		settled := outward(c.s.Settle(ctx))
		switch {
		case !lost || given.Err() != nil:
			return errors.Join(err, settled)
		case settled == nil:
			n = given.n
		}
		return settled
	})
	return n, err
}

// countedSource counts the rows that it gave.
type countedSource struct {
	pgx.CopyFromSource
	n int64
}

func (s *countedSource) Next() bool {
	if !s.CopyFromSource.Next() {
		return false
	}
	s.n++
	return true
}

// copyVerdict is on a COPY that pgx makes.
var copyVerdict = &classify.Verdict{
	Class: classify.Write, Because: "loads rows", Statements: []classify.Statement{{Class: classify.Write, Tag: "COPY", Sequences: true, End: -1}},
}

// copyInTx is CopyFrom as a statement of the transaction that is open. If its server is lost
// meanwhile the source cannot be read again; once it is done, it can be run again like others.
func (c *Conn) copyInTx(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (int64, error) {
	lease, err := c.s.Acquire(ctx, engine.Call{SQL: "COPY " + table.Sanitize() + " FROM STDIN", Verdict: copyVerdict})
	if err != nil {
		return 0, err
	}
	sc := lease.Conn().(*server)
	tapped := c.listen(lease, sc)
	var n int64
	if err = lease.Delivered(ctx); err == nil {
		n, err = sc.Conn.Conn().CopyFrom(ctx, table, columns, source)
	}
	if tapped {
		sc.keep(lease, "", nil)
	}
	_, err = lease.Done(ctx, err)
	return n, err
}
