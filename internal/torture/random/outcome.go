package random

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	pgdist "github.com/pgdist/pgdist/driver"
)

// outcome is what a client hears of a step, as far as it must be the same from
// any server.
type outcome struct {
	state string // SQLSTATE, "" for success, "client" for an error of the client's own library
	count int64
	rows  []string // sorted: no statement here promises an order
	err   error
}

func (o outcome) String() string {
	switch {
	case o.err != nil:
		return fmt.Sprintf("%s (%v)", o.state, o.err)
	case o.rows != nil:
		return fmt.Sprintf("%d rows: %.600s", len(o.rows), strings.Join(o.rows, " | "))
	}
	return fmt.Sprintf("%d rows affected", o.count)
}

func (o outcome) same(p outcome) bool {
	return o.state == p.state && o.count == p.count && slices.Equal(o.rows, p.rows)
}

// run sends a step over a connection of either driver.
func run(ctx context.Context, conn *sql.Conn, s Step) outcome {
	var o outcome
	args := make([]any, len(s.Args))
	for i, a := range s.Args {
		if args[i] = a; a == null {
			args[i] = nil
		}
	}
	switch {
	case s.Copy != nil:
		o.count, o.err = bulk(ctx, conn, s.Copy)
	case s.Rows:
		o.rows, o.err = query(ctx, conn, s.SQL)
	default:
		var r sql.Result
		if r, o.err = conn.ExecContext(ctx, s.SQL, args...); o.err == nil {
			o.count, o.err = r.RowsAffected()
		}
	}
	if o.err != nil {
		o.state, o.count, o.rows = stateOf(o.err), 0, nil
	}
	return o
}

// stateOf is the error's SQLSTATE, or what stands for it.
func stateOf(err error) string {
	var s interface{ SQLState() string }
	switch {
	case errors.As(err, &s):
		return s.SQLState()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, driver.ErrBadConn):
		return "lost"
	}
	return "client"
}

func query(ctx context.Context, conn *sql.Conn, text string) ([]string, error) {
	rows, err := conn.QueryContext(ctx, text)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	out := []string{}
	for rows.Next() {
		values, dest := make([]any, len(names)), make([]any, len(names))
		for i := range dest {
			dest[i] = &values[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return nil, err
		}
		out = append(out, fmt.Sprintf("%q", values))
	}
	slices.Sort(out)
	return out, rows.Err()
}

// bulk sends COPY, with every value in the form that pgx has for its text.
func bulk(ctx context.Context, conn *sql.Conn, c *Copy) (n int64, err error) {
	source := func() pgx.CopyFromSource {
		return pgx.CopyFromSlice(len(c.Data), func(i int) ([]any, error) {
			row := make([]any, len(c.Data[i]))
			for j, v := range c.Data[i] {
				if row[j] = v; v == null {
					row[j] = nil
				}
			}
			return row, nil
		})
	}
	err = conn.Raw(func(dc any) error {
		if plain, ok := dc.(*stdlib.Conn); ok {
			n, err = plain.Conn().CopyFrom(ctx, c.Table, c.Columns, source())
			return err
		}
		return errNotPlain
	})
	if errors.Is(err, errNotPlain) {
		return pgdist.CopyFrom(ctx, conn, c.Table, c.Columns, source())
	}
	return n, err
}

var errNotPlain = errors.New("not pgx's own connection")

// refused tells whether pgdist says that it does not do that, and what. The
// server's own 0A000 has neither Routine nor hints of ours.
func refused(err error) (message string, ours bool) {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "0A000" {
		return "", false
	}
	return pe.Message, pe.Routine == "pgdist" || strings.Contains(pe.Where, "pgdist.")
}

// refusals are the parts of messages by which pgdist may refuse a step, and why
// the generator makes such steps.
var refusals = map[string]string{
	"cannot be mirrored": "tables that a statement makes unfit, such as by taking rights from their owner",
	"triggers of pgdist": "triggers of users whose names begin as ours do",
}

// excused tells whether a refusal is on the list.
func excused(message string) bool {
	for part := range refusals {
		if strings.Contains(message, part) {
			return true
		}
	}
	return false
}
