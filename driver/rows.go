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
	r.row++
	var err error = io.EOF
	if !r.ahead.ended {
		r.lease.Waiting(r.row)
		err = r.server.Next(dest)
		r.lease.Waiting(0)
	}
	if err == nil {
		return nil
	}
	if err == io.EOF {
		err = nil
	}
	if err = r.finish(err); err != nil {
		return err
	}
	return io.EOF
}

// Close reads what is left and ends the statement.
func (r *rows) Close() error {
	if r.over {
		return nil
	}
	r.row++
	r.lease.Waiting(r.row)
	return r.finish(r.server.Close())
}

func (r *rows) finish(err error) error {
	r.over = true
	if cerr := r.server.Close(); err == nil {
		err = cerr
	}
	_, err = r.lease.Done(r.ctx, err)
	return outward(err)
}

// noRows is the result of a statement that has none.
type noRows struct{}

func (noRows) Columns() []string         { return nil }
func (noRows) Close() error              { return nil }
func (noRows) Next([]driver.Value) error { return io.EOF }
