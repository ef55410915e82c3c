package driver

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"reflect"

	"github.com/pgdist/pgdist/internal/engine"
)

// column keeps what is known of a column beyond its connection's loan.
type column struct {
	typeName         string
	length           int64
	hasLength        bool
	precision, scale int64
	hasPrecision     bool
	scanType         reflect.Type
}

// bufferedRows are a write's rows that were kept back until it was acknowledged,
// followed by those that did not fit.
type bufferedRows struct {
	names   []string
	columns []column
	values  []driver.Value // row after row
	at      int
	rest    *rows // nil if all rows are in values
}

// bufferRows reads a write's rows up to the limit. If that was all of them, the
// write is acknowledged before they are returned.
func (c *Conn) bufferRows(ctx context.Context, lease *engine.Lease, got driver.Rows) (driver.Rows, bool, error) {
	r := &rows{ctx: ctx, lease: lease, server: got.(serverRows)}
	b := &bufferedRows{}
	b.describe(r.server)
	limit := c.e.Config().ResultBuffer
	dest := make([]driver.Value, len(b.names))
	for size := 0; size <= limit; {
		err := r.server.Next(dest)
		if errors.Is(err, io.EOF) {
			again, err := lease.Done(ctx, r.server.Close())
			return b, again, err
		}
		if err != nil {
			again, err := lease.Done(ctx, cause(ctx, errors.Join(err, r.server.Close())))
			return nil, again, err
		}
		b.values = append(b.values, dest...)
		for _, v := range dest {
			size += sizeOf(v)
		}
	}
	if err := lease.Delivered(ctx); err != nil {
		again, err := lease.Done(ctx, errors.Join(err, r.server.Close()))
		return nil, again, err
	}
	b.rest = r
	return b, false, nil
}

// valueSize is what a value takes besides the bytes it refers to.
const valueSize = 16

func sizeOf(v driver.Value) int {
	switch v := v.(type) {
	case []byte:
		return valueSize + len(v)
	case string:
		return valueSize + len(v)
	}
	return 2 * valueSize
}

func (b *bufferedRows) describe(s serverRows) {
	b.names = s.Columns()
	b.columns = make([]column, len(b.names))
	for i := range b.columns {
		k := &b.columns[i]
		k.typeName, k.scanType = s.ColumnTypeDatabaseTypeName(i), s.ColumnTypeScanType(i)
		k.length, k.hasLength = s.ColumnTypeLength(i)
		k.precision, k.scale, k.hasPrecision = s.ColumnTypePrecisionScale(i)
	}
}

func (b *bufferedRows) Columns() []string                       { return b.names }
func (b *bufferedRows) ColumnTypeDatabaseTypeName(i int) string { return b.columns[i].typeName }
func (b *bufferedRows) ColumnTypeScanType(i int) reflect.Type   { return b.columns[i].scanType }
func (b *bufferedRows) ColumnTypeLength(i int) (int64, bool) {
	return b.columns[i].length, b.columns[i].hasLength
}
func (b *bufferedRows) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	return b.columns[i].precision, b.columns[i].scale, b.columns[i].hasPrecision
}

// Next hands out what was kept back, then reads on.
func (b *bufferedRows) Next(dest []driver.Value) error {
	if b.at+len(b.names) <= len(b.values) && len(b.names) > 0 {
		copy(dest, b.values[b.at:b.at+len(b.names)])
		b.at += len(b.names)
		return nil
	}
	if b.rest == nil {
		return io.EOF
	}
	return b.rest.Next(dest)
}

// Close ends the statement if it has not ended yet.
func (b *bufferedRows) Close() error {
	if b.rest == nil {
		return nil
	}
	return b.rest.Close()
}
