//go:build unix

package pgtest

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestTrouble(t *testing.T) {
	s := Start(t, Options{Trouble: true})
	if Start(t, Options{FsyncOff: true}).Trouble() != nil {
		t.Error("trouble without having been asked for")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := Connect(t, s.DSN())
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, shift := range []time.Duration{time.Hour, -90*time.Minute - time.Millisecond, 0} {
		do(s.Trouble().ShiftClock(shift))
		var now time.Time
		do(c.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now))
		if off := now.Sub(time.Now()) - shift; math.Abs(off.Seconds()) > 30 {
			t.Errorf("the clock, shifted by %v, is off by %v", shift, off+shift)
		}
	}
	_, err := c.Exec(ctx, "CREATE TABLE t (n int, s text)")
	do(err)
	do(s.Trouble().FillDisk(true))
	_, err = c.Exec(ctx, "INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 100) g")
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "53100" {
		t.Errorf("a row more on a full disk: %v", err)
	}
	do(s.Trouble().FillDisk(false))
	_, err = c.Exec(ctx, "INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 100) g")
	do(err)
	do(s.Trouble().BreakDisk(true))
	_, err = c.Exec(ctx, "INSERT INTO t VALUES (0)")
	if err == nil {
		t.Error("a commit on a broken disk is acknowledged")
	}
	do(s.Trouble().End())
	var n int
	for { // it has crashed, and may not have noticed yet
		c, err = pgx.Connect(ctx, s.DSN())
		if err == nil {
			err = errors.Join(c.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&n), c.Close(ctx))
		}
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(pollEvery)
	}
	if n != 100 && n != 101 {
		t.Errorf("%d rows after the crash", n)
	}
}
