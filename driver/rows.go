package driver

import (
	"context"
	"database/sql/driver"
	"io"
	"reflect"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgdist/pgdist/internal/engine"
)

// serverRows is what the rows of pgx's driver can tell.
type serverRows interface {
	driver.Rows
	driver.RowsColumnTypeDatabaseTypeName
	driver.RowsColumnTypeLength
	driver.RowsColumnTypePrecisionScale
	driver.RowsColumnTypeScanType
}

var (
	_ serverRows = (*stdlib.Rows)(nil)
	_ serverRows = (*rows)(nil)
	_ serverRows = (*bufferedRows)(nil)
)

// rows are read from the server as the client asks for them.
type rows struct {
	ctx    context.Context
	lease  *engine.Lease
	server serverRows
	row    int64
	over   bool
	ahead  ahead
	kept   *resumption // nil unless the transaction is kept
}

// ahead are rows read before the client asked for any: while nothing has been
// delivered, a read can be run again on another server unseen. Small results are
// thus either complete or not begun.
type ahead struct {
	few    [6]driver.Value // most reads yield one row of a few columns
	values []driver.Value  // row after row
	ended  bool            // the server has said that there are no more
}

// What is read ahead at most.
const (
	aheadRows  = 32
	aheadBytes = 16 << 10
)

// lookAhead reads the first rows. Its error is the server's.
func (r *rows) lookAhead() error {
	n := len(r.server.Columns())
	if n == 0 {
		return nil
	}
	a := &r.ahead
	a.values = a.few[:0]
	for row, size := 0, 0; row < aheadRows && size < aheadBytes; row++ {
		at := len(a.values)
		a.values = append(a.values, make([]driver.Value, n)...)
		err := r.server.Next(a.values[at:])
		if err == io.EOF {
			a.values, a.ended = a.values[:at], true
			return nil
		}
		if err != nil {
			return err
		}
		r.took()
		for _, v := range a.values[at:] {
			size += sizeOf(v)
		}
	}
	return nil
}

func (r *rows) Columns() []string { return r.server.Columns() }
func (r *rows) ColumnTypeDatabaseTypeName(i int) string {
	return r.server.ColumnTypeDatabaseTypeName(i)
}
func (r *rows) ColumnTypeLength(i int) (int64, bool)  { return r.server.ColumnTypeLength(i) }
func (r *rows) ColumnTypeScanType(i int) reflect.Type { return r.server.ColumnTypeScanType(i) }
func (r *rows) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	return r.server.ColumnTypePrecisionScale(i)
}

// Next reads a row. The end of a write's rows is told once it is acknowledged.
func (r *rows) Next(dest []driver.Value) error {
	if r.over {
		return io.EOF
	}
	if len(r.ahead.values) > 0 {
		n := copy(dest, r.ahead.values)
		r.ahead.values = r.ahead.values[n:]
		return nil
	}
	for {
		r.row++
		var err error = io.EOF
		if !r.ahead.ended {
			r.lease.Waiting(r.row)
			err = r.server.Next(dest)
			r.lease.Waiting(0)
		}
		if err == nil {
			r.took()
			return nil
		}
		if err == io.EOF {
			err = nil
		}
		again, err := r.finish(err)
		switch {
		case err != nil:
			return err
		case !again:
			return io.EOF
		}
	}
}

// took counts a row that the server has given.
func (r *rows) took() {
	if r.kept != nil {
		r.kept.read++
	}
}

// Close reads what is left and ends the statement.
func (r *rows) Close() error {
	if r.over {
		return nil
	}
	for {
		r.row++
		r.lease.Waiting(r.row)
		again, err := r.finish(r.server.Close())
		if !again {
			return err
		}
	}
}

// finish ends the statement. If again is true its server was lost, and it goes on where
// it was on another one.
func (r *rows) finish(err error) (again bool, _ error) {
	r.over = true
	if cerr := r.server.Close(); err == nil {
		err = cerr
	}
	if k := r.kept; k != nil {
		r.lease.Conn().(*server).keep(r.lease, k.query, k.args)
		if k.constant() {
			r.lease.Resumable()
		}
	}
	again, err = r.lease.Done(r.ctx, err)
	if !again {
		return false, outward(err)
	}
	r.over, r.ahead.ended = false, false
	if err := r.resume(); err != nil {
		r.over = true
		return false, err
	}
	return true, nil
}

// noRows is the result of a statement that has none.
type noRows struct{}

func (noRows) Columns() []string         { return nil }
func (noRows) Close() error              { return nil }
func (noRows) Next([]driver.Value) error { return io.EOF }
