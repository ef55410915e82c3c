package gateway

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestSignals: clients end and cancel each other by the numbers that they know.
func TestSignals(t *testing.T) {
	s := newSet(t, nil)
	ctx := context.Background()
	admin := connect(t, s.url(""))
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
		for _, busy := range []bool{false, true} {
			for function, want := range map[string]string{"pg_terminate_backend": "57P01", "pg_cancel_backend": "57014"} {
				other, done := connect(t, s.url("")), make(chan error, 1)
				if pid := other.PgConn().PID(); pid < firstID {
					t.Fatalf("a client's number is %d", pid)
				}
				if busy {
					sleep := fmt.Sprintf("SELECT pg_sleep(30), %d", other.PgConn().PID())
					go func() {
						_, err := other.Exec(ctx, sleep, pgx.QueryExecModeSimpleProtocol)
						done <- err
					}()
					s.awaitSleeping(t, sleep, 1)
				}
				var ok bool
				err := admin.QueryRow(ctx, "SELECT "+function+"($1)", mode, int32(other.PgConn().PID())).Scan(&ok)
				if mode == pgx.QueryExecModeSimpleProtocol {
					err = admin.QueryRow(ctx, fmt.Sprintf("select %s(%d)", function, other.PgConn().PID()), mode).Scan(&ok)
				}
				if err != nil || !ok {
					t.Fatalf("%s: %v %v", function, ok, err)
				}
				if !busy {
					_, err := other.Exec(ctx, "SELECT 1", pgx.QueryExecModeSimpleProtocol)
					if function == "pg_cancel_backend" && err != nil || function == "pg_terminate_backend" && err == nil {
						t.Errorf("after %s of an idle client: %v", function, err)
					}
					continue
				}
				select {
				case err := <-done:
					if code(err) != want {
						t.Errorf("%s: the other client hears %v", function, err)
					}
				case <-time.After(ages):
					t.Errorf("%s: the other client hears nothing", function)
				}
			}
		}
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		own := connect(t, s.url(""))
		if _, err := own.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())", mode); code(err) != "57P01" || !own.IsClosed() {
			t.Errorf("who ends itself hears %v", err)
		}
	}
	var ok bool
	if err := admin.QueryRow(ctx, "SELECT pg_cancel_backend(2147483647)", pgx.QueryExecModeSimpleProtocol).Scan(&ok); err != nil || ok {
		t.Errorf("nobody's number: %v %v", ok, err)
	}
}
