package driver

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// terminated is what pg_terminate_backend has a server say.
const terminated = "E\x00\x00\x00\x4fSFATAL\x00VFATAL\x00C57P01\x00Mterminating connection due to administrator command\x00\x00"

// cutting is a connection that is terminated behind the next error that it brings.
type cutting struct {
	net.Conn
	armed *atomic.Bool
}

func (c cutting) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.armed.Load() && err == nil && bytes.Contains(b[:n], []byte("C23505\x00")) {
		c.armed.Store(false)
		if at := bytes.LastIndex(b[:n], []byte{'Z', 0, 0, 0, 5, 'E'}); at > 0 {
			n = at
		}
		return n + copy(b[n:], terminated), c.Conn.Close()
	}
	return n, err
}

// A server that ends right after it has said what is wrong with a statement: the client hears
// that, and with the next statement, ROLLBACK TO a savepoint though it be, that the transaction
// is lost, by an error after which programs run it again.
func TestErrorAndThenTheEnd(t *testing.T) {
	servers := pgtest.Set(t, 1, pgtest.Options{FsyncOff: true})
	servers[0].Exec(t, `CREATE TABLE p (id int PRIMARY KEY)`)
	var armed atomic.Bool
	db, _ := openFake(t, func(c *Config) {
		for i := range c.Members {
			c.Members[i].Conn.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				return cutting{conn, &armed}, err
			}
		}
	}, servers[0].DSN())
	ctx := context.Background()
	for _, next := range []string{`ROLLBACK TO SAVEPOINT s`, `SELECT 1`, `INSERT INTO p VALUES (2)`} {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{`INSERT INTO p VALUES (1)`, `SAVEPOINT s`} {
			if _, err := tx.ExecContext(ctx, sql); err != nil {
				t.Fatal(sql, ": ", err)
			}
		}
		armed.Store(true)
		if _, err := tx.ExecContext(ctx, `INSERT INTO p VALUES ($1)`, 1); sqlState(err) != "23505" {
			t.Fatalf("the duplicate: %v", err)
		}
		if armed.Load() {
			t.Fatal("the connection was not cut")
		}
		if _, err := tx.ExecContext(ctx, next); sqlState(err) != "40001" {
			t.Errorf("%s: %v", next, err)
		}
		if _, err := tx.ExecContext(ctx, `SELECT 2`); sqlState(err) != "25P02" {
			t.Errorf("after that: %v", err)
		}
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
		var n int
		if err := db.QueryRowContext(ctx, `SELECT count(*) FROM p`).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d rows, %v", n, err)
		}
	}
	// COMMIT is ROLLBACK there, and says so.
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO p VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	if _, err := tx.ExecContext(ctx, `INSERT INTO p VALUES ($1)`, 1); sqlState(err) != "23505" {
		t.Fatalf("the duplicate: %v", err)
	}
	if err := tx.Commit(); err == nil || sqlState(err) != "" || !strings.Contains(err.Error(), "rollback") {
		t.Errorf("COMMIT of a transaction that had failed: %v", err)
	}
}
