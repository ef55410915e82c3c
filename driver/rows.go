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
	r.row++
	r.lease.Waiting(r.row)
	err := r.server.Next(dest)
	r.lease.Waiting(0)
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
