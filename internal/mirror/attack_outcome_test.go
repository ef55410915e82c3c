package mirror

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// attempt describes the transaction that c begins next.
func (a *arena) attempt(c *pgx.Conn) Attempt {
	a.t.Helper()
	v := a.set.View()
	at := Attempt{Conn: c.Config().RuntimeParams["pgdist.conn"], PID: c.PgConn().PID(), Leader: v.Leader, Term: v.Term, Since: a.set.Acked()}
	err := c.QueryRow(a.ctx(), `SELECT to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') FROM pg_stat_activity WHERE pid = pg_backend_pid()`).Scan(&at.Started)
	if err != nil {
		a.t.Fatal(err)
	}
	return at
}

// last is the number of the last transaction that c journaled in.
func last(a *arena, c *pgx.Conn) string {
	a.t.Helper()
	var s string
	if err := c.QueryRow(a.ctx(), `SELECT current_setting('pgdist.last')`).Scan(&s); err != nil {
		a.t.Fatal(err)
	}
	return s
}

func (a *arena) outcome(at Attempt, want bool) {
	a.t.Helper()
	began := time.Now()
	got, err := a.set.Resolve(a.ctx(), at)
	if err != nil || got != want {
		a.t.Errorf("committed: got %v, %v; want %v", got, err, want)
	}
	if took := time.Since(began); took > ages/3 {
		a.t.Errorf("the answer took %v", took)
	}
}

// A COMMIT whose answer was lost has one outcome, and it is the one told.
func TestAttackOutcome(t *testing.T) {
	a := trial{config: quiet, schema: `CREATE TABLE k (k int PRIMARY KEY); CREATE TABLE kl (a int);
		CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO k VALUES (100); COMMIT; INSERT INTO k VALUES (101); COMMIT; INSERT INTO k VALUES (102); END $$;
		CREATE PROCEDURE p3(i int) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO k VALUES (i); COMMIT; INSERT INTO k VALUES (i + 1); END $$`}.on(t, ground(t, 3, nil))
	gone := `SELECT NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = `
	a.sub("leader alive", func(a *arena) {
		c := a.client()
		a.do(c, `INSERT INTO k VALUES (0)`)
		at := a.attempt(c)
		a.exec(c, `BEGIN`, `INSERT INTO k VALUES (1)`, `COMMIT`)
		a.outcome(at, true)
		a.until(at.Leader, gone+itoa(at.PID)+`)`)
		c = a.client()
		at = a.attempt(c)
		a.exec(c, `BEGIN`, `INSERT INTO kl VALUES (2)`)
		a.outcome(at, false)
		if _, err := c.Exec(a.ctx(), `COMMIT`); err == nil {
			a.t.Error("it was said to be rolled back, and could commit")
		}
		c, other := a.client(), a.client()
		at = a.attempt(c)
		a.exec(c, `BEGIN`)
		a.exec(other, `INSERT INTO k VALUES (3)`)
		a.outcome(at, false) // a stranger's write is not its own
		c = a.client()
		at = a.attempt(c)
		at.Started = "1999-01-01 00:00:00.000000" // its process number was given out again
		a.exec(c, `BEGIN`, `INSERT INTO k VALUES (4)`)
		a.outcome(at, false)
		a.exec(c, `ROLLBACK`)
		a.everywhere("0,1,3", `SELECT string_agg(k::text, ',' ORDER BY k) FROM k`)
	})
	a.sub("written in a later term of the same leader", func(a *arena) {
		c := a.client()
		at := a.attempt(c)
		a.exec(c, `SELECT 1`)
		at.Term-- // as somebody has it who has not heard that this leader took office again
		a.exec(c, `BEGIN`, `INSERT INTO k VALUES (5)`)
		a.outcome(at, false)
		if _, err := c.Exec(a.ctx(), `COMMIT`); err == nil {
			a.t.Error("it was said to be rolled back, and could commit")
		}
	})
	a.sub("procedure that commits", func(a *arena) {
		c := a.client()
		at := a.attempt(c)
		a.do(c, `CALL p()`)
		a.outcome(at, true)
	})
	a.sub("procedure lost in part", func(a *arena) {
		c := a.client()
		at := a.attempt(c)
		a.do(c, `CALL p3(200)`) // the others have all of it
		at.Parts, at.Last = true, last(a, c)
		whole := at
		at = a.attempt(c)
		a.do(c, `INSERT INTO k VALUES (210)`)
		a.exec(c, `INSERT INTO k VALUES (211)`) // as a procedure's last part, which stays at the leader
		at.Parts, at.Last = true, last(a, c)
		none := a.attempt(c)
		a.exec(c, `INSERT INTO k VALUES (212)`)
		none.Parts, none.Last = true, last(a, c)
		old := a.killLeader()
		a.outcome(whole, true)
		a.outcome(none, false)
		if _, err := a.set.Resolve(a.ctx(), at); !errors.Is(err, ErrInPart) {
			t.Errorf("the first part is kept, the second is lost: got %v", err)
		}
		at.Last = ""
		if _, err := a.set.Resolve(a.ctx(), at); !errors.Is(err, ErrInPart) {
			t.Errorf("nobody knows how many parts there were: got %v", err)
		}
		a.start(old)
		a.whole()
		a.everywhere("200,201,210", `SELECT string_agg(k::text, ',' ORDER BY k) FROM k WHERE k BETWEEN 200 AND 299`)
	})
	a.sub("leader killed after the flush", func(a *arena) {
		c := a.client()
		at := a.attempt(c)
		a.do(c, `INSERT INTO k VALUES (10)`)
		old := a.killLeader()
		a.outcome(at, true)
		a.start(old)
		a.whole()
	})
	a.sub("leader killed before the flush", func(a *arena) {
		c := a.client()
		at := a.attempt(c)
		a.exec(c, `INSERT INTO k VALUES (11)`, `INSERT INTO kl VALUES (11)`)
		old := a.killLeader()
		a.outcome(at, false)
		a.do(a.client(), `INSERT INTO k VALUES (12)`)
		a.start(old)
		a.whole()
		a.outcome(at, false)
		a.everywhere("", `SELECT coalesce(string_agg(k::text, ','), '') FROM k WHERE k = 11`)
	})
	a.sub("leader stopped", func(a *arena) {
		c := a.client()
		at := a.attempt(c)
		a.exec(c, `INSERT INTO k VALUES (13)`)
		v := a.set.View()
		if err := a.server(v.Leader).SigStop(); err != nil {
			a.t.Fatal(err)
		}
		a.outcome(at, false)
		a.do(a.client(), `INSERT INTO k VALUES (14)`)
		if err := a.server(v.Leader).SigCont(); err != nil {
			a.t.Fatal(err)
		}
		a.whole()
		a.outcome(at, false)
		a.everywhere("14", `SELECT string_agg(k::text, ',') FROM k WHERE k IN (13, 14)`)
	})
}

// Capture must not make transactions conflict that have nothing to do with each other.
func TestAttackSerializable(t *testing.T) {
	a := trial{schema: `CREATE TABLE s (k int PRIMARY KEY, v int, pad text) WITH (fillfactor = 10);
		INSERT INTO s SELECT g, 0, repeat('x', 100) FROM generate_series(1, 64) g`}.on(t, ground(t, 2, nil))
	const clients, each = 8, 40 // each has a page of its own, with room for all versions of its row: none touches the index
	var failed atomic.Int32
	var wg sync.WaitGroup
	for i := range clients {
		c := a.client()
		a.exec(c, `SET default_transaction_isolation = serializable; SET enable_seqscan = off; SET jit = off`) // what is off costs so much that all would be compiled
		wg.Go(func() {
			for n := range each {
				tx, err := c.Begin(a.ctx())
				if err == nil {
					_, err = tx.Exec(a.ctx(), `SELECT v FROM s WHERE k = $1`, i*8+1)
				}
				if err == nil {
					_, err = tx.Exec(a.ctx(), `UPDATE s SET v = v + $1 WHERE k = $2`, n, i*8+1)
				}
				if err == nil {
					err = tx.Commit(a.ctx())
				} else {
					_ = tx.Rollback(a.ctx()) // what failed is told by err
				}
				if sqlState(err) == "40001" {
					failed.Add(1)
				} else if err != nil {
					a.t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := failed.Load(); n > clients*each/20 {
		t.Errorf("%d of %d disjoint transactions failed to serialize", n, clients*each)
	}
	a.same()
}
