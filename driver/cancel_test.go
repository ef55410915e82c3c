package driver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// fuse is a context that ends itself when it is looked at for the nth time: a
// sweep over n cancels a call at every point where anything asks.
type fuse struct {
	context.Context
	left   atomic.Int64
	cancel context.CancelFunc
}

func newFuse(n int) *fuse {
	f := &fuse{}
	f.Context, f.cancel = context.WithCancel(context.Background())
	f.left.Store(int64(n))
	return f
}

func (f *fuse) look() {
	if f.left.Add(-1) == 0 {
		f.cancel()
	}
}

func (f *fuse) blown() bool { return f.left.Load() <= 0 }

func (f *fuse) Done() <-chan struct{} { f.look(); return f.Context.Done() }
func (f *fuse) Err() error            { f.look(); return f.Context.Err() }

// cancellable are ways to write the rows (n, 1) and (n, 2), both or neither.
var cancellable = map[string]func(ctx context.Context, db *sql.DB, n int) error{
	"exec": func(ctx context.Context, db *sql.DB, n int) error {
		_, err := db.ExecContext(ctx, "INSERT INTO c VALUES ($1, 1), ($1, 2)", n)
		return err
	},
	"returning": func(ctx context.Context, db *sql.DB, n int) error {
		rows, err := db.QueryContext(ctx, "INSERT INTO c VALUES ($1, 1), ($1, 2) RETURNING n", n)
		if err != nil {
			return err
		}
		for rows.Next() {
		}
		return errors.Join(rows.Err(), rows.Close())
	},
	"script": func(ctx context.Context, db *sql.DB, n int) error {
		_, err := db.ExecContext(ctx, fmt.Sprintf("INSERT INTO c VALUES (%d, 1); CREATE TABLE c%d (); INSERT INTO c VALUES (%d, 2)", n, n, n))
		return err
	},
	"prepared": func(ctx context.Context, db *sql.DB, n int) error {
		stmt, err := db.PrepareContext(ctx, "INSERT INTO c VALUES ($1, 1), ($1, 2)")
		if err != nil {
			return err
		}
		defer stmt.Close()
		_, err = stmt.ExecContext(ctx, n)
		return err
	},
	"transaction": func(ctx context.Context, db *sql.DB, n int) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // ErrTxDone once it is committed
		var before int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM c WHERE n = $1", n).Scan(&before); err != nil {
			return err
		}
		for i := before + 1; i <= 2; i++ {
			if _, err := tx.ExecContext(ctx, "INSERT INTO c VALUES ($1, $2)", n, i); err != nil {
				return err
			}
		}
		return tx.Commit()
	},
}

// TestCancelledAtEveryPoint: whatever call is cancelled, wherever, what was
// reported as done is on every server, nothing is done by half, and the session
// goes on with its settings.
func TestCancelledAtEveryPoint(t *testing.T) {
	db, servers := mirrored(t, "")
	run(t, db, "CREATE SCHEMA here; CREATE TABLE here.c (n int, i int, PRIMARY KEY (n, i)); CREATE SEQUENCE settled")
	db.SetMaxOpenConns(1) // one session, whose setting every statement below needs
	run(t, db, "SET search_path = here")
	n := 0
	for name, write := range cancellable {
		t.Run(name, func(t *testing.T) {
			for looks := 1; ; looks++ {
				n++
				ctx := newFuse(looks)
				err := write(ctx, db, n)
				blown := ctx.blown()
				ctx.cancel()
				if err != nil && !blown {
					t.Errorf("%d looks: %v", looks, err)
				}
				got := askCtx[int](t, WithRoute(context.Background(), RouteLeader), db, "SELECT count(*) FROM c WHERE n = $1", n)
				if got == 1 || err == nil && got != 2 {
					t.Errorf("%d looks: %d rows after %v", looks, got, err)
				}
				if err == nil {
					for _, s := range servers {
						if rows := contents(t, s, fmt.Sprintf("SELECT count(*) FROM here.c WHERE n = %d", n)); rows != "[[2]]" {
							t.Errorf("%d looks: acknowledged, but %s on %s", looks, rows, s.Addr())
						}
					}
				}
				if !blown {
					t.Logf("cancelled at %d points", looks-1)
					break
				}
			}
		})
	}
	run(t, db, "SELECT nextval('public.settled')")
	pgtest.SameBytes(t, servers...)
}

// TestCancelledMidWrite cancels writes that are at work on the server.
func TestCancelledMidWrite(t *testing.T) {
	db, servers := mirrored(t, "")
	run(t, db, "CREATE TABLE c (n int PRIMARY KEY); CREATE SEQUENCE settled")
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	run(t, conn, "SET application_name = 'kept'")
	acked := 0
	for i := range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*time.Millisecond)
		if _, err := conn.ExecContext(ctx, "INSERT INTO c SELECT $1 FROM pg_sleep(0.008)", i); err == nil {
			acked++
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %d ms: %v", i, err)
		}
		cancel()
		if got := ask[string](t, conn, "SHOW application_name"); got != "kept" {
			t.Errorf("after %d ms: %q", i, got)
		}
		run(t, conn, "INSERT INTO c VALUES ($1)", 100+i)
	}
	if got := askCtx[int](t, WithRoute(context.Background(), RouteLeader), conn, "SELECT count(*) FROM c"); got < 20+acked {
		t.Errorf("%d rows of %d acknowledged", got, 20+acked)
	}
	run(t, db, "SELECT nextval('public.settled')")
	pgtest.SameBytes(t, servers...)
}
