//go:build unix

package torture_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgdist/pgdist/internal/pgtest"
	"github.com/pgdist/pgdist/internal/torture"
)

// kinds returns the kinds of all violations in err.
func kinds(err error) map[string]bool {
	found := map[string]bool{}
	var walk func(error)
	walk = func(err error) {
		if v, ok := err.(*torture.Violation); ok {
			found[v.Kind] = true
		}
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range many.Unwrap() {
				walk(e)
			}
		}
	}
	walk(err)
	return found
}

// Each change to a good database is one that a bad mirror could make.
func TestBadDatabasesAreFlagged(t *testing.T) {
	_, base := open(t, pgtest.Options{FsyncOff: true})
	h := run(t, base, torture.Options{Clients: 6, Ops: 220, Seed: 11})
	if err := h.Check(t.Context(), base); err != nil {
		t.Fatal(err)
	}
	const ledger = "(SELECT op FROM torture.ledger WHERE kind = '%s' ORDER BY op LIMIT 1)"
	op := func(kind string) string { return fmt.Sprintf(ledger, kind) }
	for _, c := range []struct{ name, damage, want string }{
		{"an acknowledged op is gone", "DELETE FROM torture.ledger WHERE op = " + op("ranks"), "lost write: ledger"},
		{"its row is gone", "DELETE FROM torture.items WHERE op IN (SELECT op FROM torture.items LIMIT 1)", "lost write: item"},
		{"a rolled back op is there", "INSERT INTO torture.ledger (op, kind) SELECT g, 'rollback' FROM generate_series((1::bigint << 48) + 1, (1::bigint << 48) + 100) AS g ON CONFLICT DO NOTHING", "phantom write: rollback"},
		{"an op that nobody sent", "INSERT INTO torture.ledger (op, kind) VALUES ((1::bigint << 48) + 99999, 'stranger')", "was never sent"},
		{"other random values", "UPDATE torture.items SET rnd = random()", "wrong value: item"},
		{"a deleted item is back", "SET session_replication_role = replica; INSERT INTO torture.items (op) SELECT (1::bigint << 48) + (c::bigint << 32) + g FROM generate_series(0, 5) AS c, generate_series(1, 300) AS g ON CONFLICT DO NOTHING", "is there again"},
		{"bank sum", "UPDATE torture.accounts SET balance = balance + 1 WHERE id = 3", "bank sum"},
		{"half a counter", "UPDATE torture.counters SET n = n - 1 WHERE id = 0", "broken invariant: counters"},
		{"half a grid", "UPDATE torture.grid SET n = n + 1 WHERE id = 0", "broken invariant: grid"},
		{"audited twice", "INSERT INTO torture.audit SELECT * FROM torture.audit LIMIT 1", "audit has each op once"},
		{"not audited", "DELETE FROM torture.audit WHERE ctid = (SELECT min(ctid) FROM torture.audit)", "audit has each op once"},
		{"outer update after the nested one", "UPDATE torture.nested SET v = v - 1 WHERE touches > 0", "nested triggers"},
		{"nested lost", "UPDATE torture.nested SET (touches, v, echo) = (0, 0, 0)", "nested touches"},
		{"replaced row lost", "DELETE FROM torture.latest WHERE op = (SELECT max(op) FROM torture.latest)", "broken invariant: latest"},
		{"key not moved", "UPDATE torture.moving SET op = 0 WHERE op > 0", "key moves"},
		{"key moved, row left behind", "DELETE FROM torture.moving WHERE op > 0", "key moves"},
		{"row in two partitions", "INSERT INTO torture.regions SELECT id, 'elsewhere', op FROM torture.regions", "one region each"},
		{"partition move lost", "UPDATE torture.regions SET op = 0", "partition moves"},
		{"equal key kept its old bytes", "UPDATE torture.alike SET n = n + 0.000, ns = ns || 1.000", "equal keys' bytes"},
		{"swap half done", "DELETE FROM torture.slots WHERE pos = 2", "broken invariant: slots"},
		{"rank half done", "UPDATE torture.ranks SET rank = -1 WHERE rank = 1", "broken invariant: ranks"},
		{"conflict lost", "UPDATE torture.tally SET n = n + 1 WHERE key = (SELECT min(key) FROM torture.tally)", "broken invariant: tally"},
		{"merge lost", "DELETE FROM torture.stock_log WHERE ctid = (SELECT min(ctid) FROM torture.stock_log WHERE delta <> 0)", "broken invariant: stock"},
		{"cascade lost", "SET session_replication_role = replica; DELETE FROM torture.parents WHERE id = (SELECT max(id) FROM torture.parents); RESET session_replication_role", "broken invariant: families"},
		{"grandchild lost", "DELETE FROM torture.grandchildren WHERE n = 1", "broken invariant: families"},
		{"job given to another", "SET session_replication_role = replica; UPDATE torture.jobs SET taken = -taken WHERE taken > 0; RESET session_replication_role", "wrong value: take"},
		{"job taken twice", "INSERT INTO torture.ledger (op, kind, key) SELECT 1, 'take', key FROM torture.ledger WHERE kind = 'take' LIMIT 1", "jobs taken once"},
		{"duplicate lost", "DELETE FROM torture.events WHERE ctid = (SELECT min(ctid) FROM torture.events)", "broken invariant: events"},
		{"duplicate twice", "INSERT INTO torture.events SELECT * FROM torture.events LIMIT 1", "broken invariant: events"},
		{"copy cut short", "DELETE FROM torture.copied WHERE line = 0", "broken invariant: copied"},
		{"overlap", "ALTER TABLE torture.bookings DROP CONSTRAINT bookings_during_excl; INSERT INTO torture.bookings (op, during) SELECT op, during FROM torture.bookings LIMIT 1", "bookings overlap"},
		{"truncate without its rows", "DELETE FROM torture.scratch WHERE n = 5", "broken invariant: scratch"},
		{"half a transaction", "DELETE FROM torture.rights WHERE op = (SELECT max(op) FROM torture.rights)", "left and right"},
		{"zoo", `UPDATE "Torture ""Zoo"""."Wéird ""Täble"" 'x'" SET "Op.Id" = -"Op.Id"`, "zoo in the ledger"},
	} {
		tx, err := base.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for statement := range strings.SplitSeq(c.damage, "; ") {
			if _, err := tx.ExecContext(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		if err := h.Check(t.Context(), tx); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v\nwant %q", c.name, err, c.want)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
}

func database(t *testing.T, s *pgtest.Server, name, template string) *sql.DB {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s", name, template))
	if err = errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgx", s.DSN(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// liar is a driver that breaks one promise now and then.
type liar struct {
	driver.Connector
	stale driver.Connector
	lie   string
	calls atomic.Int64
}

func (l *liar) now() bool { return l.calls.Add(1)%10 == 0 }

func (l *liar) Connect(ctx context.Context) (driver.Conn, error) {
	truth, err := l.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	stale, err := l.stale.Connect(ctx)
	if err != nil {
		return nil, errors.Join(err, truth.Close())
	}
	return &lyingConn{Conn: truth.(*stdlib.Conn), stale: stale.(*stdlib.Conn), liar: l}, nil
}

type lyingConn struct {
	*stdlib.Conn
	stale *stdlib.Conn
	liar  *liar
	inTx  bool
}

func (c *lyingConn) Close() error { return errors.Join(c.Conn.Close(), c.stale.Close()) }

func (c *lyingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.liar.lie == "stale read" && !c.inTx && strings.HasPrefix(query, "SELECT op FROM torture.ledger WHERE op = ANY") {
		return c.stale.QueryContext(ctx, query, args)
	}
	return c.Conn.QueryContext(ctx, query, args)
}

func (c *lyingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	lies := !c.inTx && strings.Contains(query, "'counter'") && c.liar.now()
	if lies && c.liar.lie == "not executed" {
		return driver.RowsAffected(1), nil
	}
	result, err := c.Conn.ExecContext(ctx, query, args)
	if lies && c.liar.lie == "error after success" {
		return nil, &pgconn.PgError{Severity: "ERROR", Code: "40001", Message: "could not serialize access"}
	}
	if lies && c.liar.lie == "visible failure" {
		return nil, &pgconn.PgError{Severity: "FATAL", Code: "57P01", Message: "terminating connection"}
	}
	if lies && c.liar.lie == "wrong error" {
		return nil, &pgconn.PgError{Severity: "ERROR", Code: "25006", Message: "cannot execute UPDATE in a read-only transaction"}
	}
	return result, err
}

func (c *lyingConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	tx, err := c.Conn.BeginTx(ctx, opts)
	c.inTx = err == nil
	return &lyingTx{Tx: tx, conn: c}, err
}

type lyingTx struct {
	driver.Tx
	conn *lyingConn
}

func (tx *lyingTx) Commit() error {
	tx.conn.inTx = false
	if tx.conn.liar.lie == "commit rolls back" && tx.conn.liar.now() {
		return tx.Tx.Rollback()
	}
	if err := tx.Tx.Commit(); err != nil && tx.conn.liar.lie != "failed commit succeeds" {
		return err
	}
	return nil
}

func (tx *lyingTx) Rollback() error {
	tx.conn.inTx = false
	if tx.conn.liar.lie == "rollback commits" {
		return tx.Tx.Commit()
	}
	return tx.Tx.Rollback()
}

// Each lie is one that a distributor could tell.
func TestLyingDriversAreFlagged(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{FsyncOff: true})
	base := database(t, s, "base", "template1")
	create(t, base)
	if err := base.Close(); err != nil {
		t.Fatal(err)
	}
	only := []string{"counter", "transfer tx", "rollback tx", "failed commit tx", "read back", "pair tx"}
	for i, c := range []struct {
		lie  string
		want []string
	}{
		{"none", nil},
		{"stale read", []string{torture.StaleRead}},
		{"not executed", []string{torture.LostWrite, torture.StaleRead}},
		{"error after success", []string{torture.PhantomWrite, torture.UnexpectedError, torture.DirtyRead}},
		{"visible failure", []string{torture.UnexpectedError}},
		{"wrong error", []string{torture.UnexpectedError, torture.PhantomWrite}},
		{"commit rolls back", []string{torture.LostWrite}},
		{"rollback commits", []string{torture.PhantomWrite, torture.DirtyRead}},
		{"failed commit succeeds", []string{torture.UnexpectedError}},
	} {
		name := fmt.Sprintf("lie%d", i)
		truth := database(t, s, name, "base")
		cfg, err := pgx.ParseConfig(s.DSN(name))
		if err != nil {
			t.Fatal(err)
		}
		old, err := pgx.ParseConfig(s.DSN("base"))
		if err != nil {
			t.Fatal(err)
		}
		db := sql.OpenDB(&liar{Connector: stdlib.GetConnector(*cfg), stale: stdlib.GetConnector(*old), lie: c.lie})
		h, err := torture.Run(t.Context(), db, torture.Options{Clients: 4, Ops: 80, Seed: 3, Only: only})
		if err = errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		err = h.Check(t.Context(), truth)
		if len(c.want) == 0 && err != nil {
			t.Errorf("%s: %v", c.lie, err)
		}
		for _, want := range c.want {
			if !kinds(err)[want] {
				t.Errorf("%s: no %s in %.2000v", c.lie, want, err)
			}
		}
		if err := truth.Close(); err != nil {
			t.Error(err)
		}
	}
}
