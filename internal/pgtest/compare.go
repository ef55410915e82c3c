package pgtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// shown is how many differing rows or objects an error names.
const shown = 5

// DifferenceError says that two databases do not hold the same bytes.
type DifferenceError struct {
	A, B  string   // DSNs
	Where []string // one entry per table, sequence or group of objects; never empty
}

// Error names what differs and the first differing rows.
func (e *DifferenceError) Error() string {
	return fmt.Sprintf("pgtest: databases differ\n  A: %s\n  B: %s\n%s", e.A, e.B, strings.Join(e.Where, "\n"))
}

// Compare returns a *DifferenceError unless all databases hold the same rows,
// sequence positions and schema (see Contents). Each is read at one snapshot;
// that these are of the same moment is up to the caller.
func Compare(ctx context.Context, dsns ...string) error {
	if len(dsns) < 2 {
		return fmt.Errorf("pgtest: %d databases given to compare, need two or more", len(dsns))
	}
	views, contents := make([]*view, len(dsns)), make([]*Contents, len(dsns))
	defer func() {
		for _, v := range views {
			if v != nil {
				_ = v.close() // it was read only
			}
		}
	}()
	errs := make([]error, len(dsns))
	var wg sync.WaitGroup
	for i, dsn := range dsns {
		wg.Go(func() {
			if views[i], errs[i] = openView(ctx, dsn); errs[i] == nil {
				contents[i], errs[i] = views[i].contents(ctx)
			}
			if errs[i] != nil {
				errs[i] = fmt.Errorf("pgtest: digest %s: %w", dsn, errs[i])
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for i := range dsns[1:] {
		where, err := differences(ctx, views[0], views[i+1], contents[0], contents[i+1])
		if err != nil {
			return err
		}
		if len(where) > 0 {
			return &DifferenceError{A: dsns[0], B: dsns[i+1], Where: where}
		}
	}
	return nil
}

func differences(ctx context.Context, a, b *view, ca, cb *Contents) (where []string, err error) {
	onlyA, onlyB := setDifference(ca.Schema, cb.Schema)
	where = appendOnly(where, "schema", onlyA, onlyB)
	for _, name := range unionKeys(ca.Sequences, cb.Sequences) {
		if x, y := ca.Sequences[name], cb.Sequences[name]; x != y {
			where = append(where, fmt.Sprintf("sequence %s: A %q, B %q", name, x, y))
		}
	}
	for _, name := range unionKeys(ca.Tables, cb.Tables) {
		x, inA := ca.Tables[name]
		y, inB := cb.Tables[name]
		if x == y || !inA || !inB {
			continue // one that exists on one side only is in the schema's differences
		}
		onlyA, onlyB, err := differingRows(ctx, a, b, name)
		if err != nil {
			return nil, fmt.Errorf("pgtest: compare table %s: %w", name, err)
		}
		where = appendOnly(where, fmt.Sprintf("table %s (rows: A %d, B %d)", name, x.Count, y.Count), onlyA, onlyB)
	}
	return where, nil
}

func appendOnly(where []string, what string, onlyA, onlyB []string) []string {
	if len(onlyA)+len(onlyB) == 0 {
		return where
	}
	var b strings.Builder
	b.WriteString(what)
	for side, lines := range map[string][]string{"A": onlyA, "B": onlyB} {
		for i, line := range lines {
			if i == shown {
				fmt.Fprintf(&b, "\n  only in %s: … (%d or more)", side, len(lines))
				break
			}
			fmt.Fprintf(&b, "\n  only in %s: %.1000s", side, line)
		}
	}
	return append(where, b.String())
}

// setDifference compares two multisets.
func setDifference(a, b []string) (onlyA, onlyB []string) {
	count := map[string]int{}
	for _, line := range a {
		count[line]++
	}
	for _, line := range b {
		count[line]--
	}
	for _, line := range slices.Sorted(maps.Keys(count)) {
		for ; count[line] > 0; count[line]-- {
			onlyA = append(onlyA, line)
		}
		for ; count[line] < 0; count[line]++ {
			onlyB = append(onlyB, line)
		}
	}
	return onlyA, onlyB
}

func unionKeys[V any](a, b map[string]V) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

// differingRows merges both tables' sorted rows and returns the first that only
// one side has.
func differingRows(ctx context.Context, a, b *view, table string) (onlyA, onlyB []string, err error) {
	ra, err := a.tx.Query(ctx, rowsSQL(table))
	if err != nil {
		return nil, nil, err
	}
	defer ra.Close()
	rb, err := b.tx.Query(ctx, rowsSQL(table))
	if err != nil {
		return nil, nil, err
	}
	defer rb.Close()
	next := func(rows pgx.Rows) (string, bool) {
		if !rows.Next() {
			return "", false
		}
		return string(rows.RawValues()[0]), true
	}
	x, okA := next(ra)
	y, okB := next(rb)
	for (okA || okB) && len(onlyA)+len(onlyB) <= 2*shown {
		switch {
		case okA && okB && x == y:
			x, okA = next(ra)
			y, okB = next(rb)
		case !okB || okA && x < y:
			onlyA = append(onlyA, x)
			x, okA = next(ra)
		default:
			onlyB = append(onlyB, y)
			y, okB = next(rb)
		}
	}
	ra.Close()
	rb.Close()
	return onlyA, onlyB, errors.Join(ra.Err(), rb.Err())
}

// CompareServers compares every database of the servers, templates excepted.
func CompareServers(ctx context.Context, servers ...*Server) error {
	if len(servers) < 2 {
		return fmt.Errorf("pgtest: %d servers given to compare, need two or more", len(servers))
	}
	names := map[string]bool{}
	for _, s := range servers {
		databases, err := s.databases(ctx)
		if err != nil {
			return err
		}
		for _, name := range databases {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		dsns := make([]string, len(servers))
		for i, s := range servers {
			dsns[i] = s.DSN(name)
		}
		if err := Compare(ctx, dsns...); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) databases(ctx context.Context) ([]string, error) {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return nil, s.opError("list databases", err)
	}
	rows, err := conn.Query(ctx, "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return names, errors.Join(err, conn.Close(ctx))
}

// SameBytes fails the test unless all databases of all servers are equal, as
// Compare defines it.
func SameBytes(tb testing.TB, servers ...*Server) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := CompareServers(ctx, servers...); err != nil {
		tb.Error(err)
	}
}

// Digest fails the test unless the databases at all DSNs are equal, as Compare
// defines it.
func Digest(tb testing.TB, dsns ...string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := Compare(ctx, dsns...); err != nil {
		tb.Error(err)
	}
}
