package mirror

import (
	"strings"
	"testing"
	"time"
)

// Locks held by clients, and tables rewritten while a batch waits for one.
func TestAttackLocks(t *testing.T) {
	g := ground(t, 2, map[string]string{"max_prepared_transactions": "5"})
	const schema = `CREATE TABLE t (k int PRIMARY KEY, v int); CREATE TABLE o (k int PRIMARY KEY); CREATE TABLE s (k serial PRIMARY KEY); CREATE TABLE kl (a int, b text)`
	t.Run("held", func(t *testing.T) {
		a := trial{config: func(c *Config) { quiet(c); c.BlockedTimeout = time.Second }, schema: schema}.on(t, g)
		soon := func(a *arena, c Change) {
			a.t.Helper()
			began := time.Now()
			if err := a.set.Ack(a.ctx(), a.set.View().Term, c); err != nil {
				a.t.Fatal(err)
			}
			if took := time.Since(began); took > ages/6 {
				a.t.Errorf("the acknowledgement took %v", took)
			}
		}
		a.do(a.client(), `INSERT INTO t VALUES (1, 1)`, `INSERT INTO s DEFAULT VALUES`)
		a.steady("truncate open, nothing to ship", func(a *arena) {
			x, c := a.client(), a.client()
			a.exec(x, `BEGIN`, `TRUNCATE t`)
			a.exec(c, `INSERT INTO o VALUES (1)`)
			soon(a, Change{})
			a.exec(x, `COMMIT`) // nobody had to end it
		})
		a.steady("truncate open, keys to ship", func(a *arena) {
			x, c := a.client(), a.client()
			a.exec(c, `INSERT INTO t VALUES (2, 2)`)
			a.exec(x, `BEGIN`, `TRUNCATE t`)
			a.exec(c, `INSERT INTO o VALUES (2)`)
			soon(a, Change{})
			if _, err := x.Exec(a.ctx(), `COMMIT`); err == nil {
				a.t.Error("the blocking transaction could commit")
			}
			a.everywhere("1", `SELECT count(*)::text FROM t WHERE k = 2`)
		})
		a.steady("restart identity open", func(a *arena) {
			x, c := a.client(), a.client()
			a.exec(x, `BEGIN`, `TRUNCATE s RESTART IDENTITY`)
			a.exec(c, `INSERT INTO o VALUES (3)`)
			soon(a, Change{Sequences: true})
			_ = x.Close(a.ctx()) // it may have been ended
		})
		a.steady("follower's reader in the way", func(a *arena) {
			x := a.clientOf(a.follower())
			a.exec(x, `BEGIN READ ONLY`, `LOCK TABLE t IN ACCESS SHARE MODE`, `SELECT * FROM t, kl`)
			a.exec(a.client(), `INSERT INTO kl VALUES (1, 'x')`, `TRUNCATE t, kl`, `INSERT INTO kl VALUES (2, 'y')`)
			soon(a, Change{})
			a.exec(x, `COMMIT`)
		})
	})
	t.Run("rewritten", func(t *testing.T) {
		a := trial{config: func(c *Config) { quiet(c); c.BlockedTimeout = time.Minute }, schema: schema}.on(t, g)
		lead := a.set.View().Leader
		behind := func(a *arena, dml, want string, sql ...string) {
			a.t.Helper()
			c, x := a.client(), a.client()
			a.do(c, `DELETE FROM t`, `DELETE FROM kl`, `INSERT INTO t VALUES (1, 1), (2, 2)`, `INSERT INTO kl VALUES (1, 'a'), (1, 'a')`)
			a.exec(c, dml)
			a.exec(x, `BEGIN`)
			for _, q := range sql {
				if text, ok := strings.CutPrefix(q, "ddl: "); ok {
					a.announce(x, text)
					q = text
				}
				a.exec(x, q)
			}
			done := make(chan error, 1)
			go func() { done <- a.set.Ack(a.ctx(), a.set.View().Term, Change{}) }()
			a.until(lead, mirrorWaits)
			a.exec(x, `COMMIT`)
			if err := <-done; err != nil {
				a.t.Fatal(err)
			}
			// No other flush has come since: what followers hold now was acknowledged.
			a.everywhere(want, `SELECT string_agg(k || '=' || v, ',' ORDER BY k) FROM t`)
		}
		a.steady("alter type", func(a *arena) {
			behind(a, `UPDATE t SET v = 100 WHERE k = 1`, "1=100,2=2", `ddl: ALTER TABLE t ALTER v TYPE bigint`)
		})
		a.steady("truncate and rows", func(a *arena) {
			behind(a, `UPDATE t SET v = 100 WHERE k = 1`, "1=7,2=8", `TRUNCATE t`, `INSERT INTO t VALUES (1, 7), (2, 8)`)
		})
		a.steady("vacuum full", func(a *arena) { // rewritten, and nothing changed
			c := a.client()
			a.exec(c, `UPDATE t SET v = 9`, `VACUUM FULL t`)
			a.ack()
		})
	})
	t.Run("snapshot of an earlier term", func(t *testing.T) {
		a := trial{schema: schema}.on(t, g)
		a.set.Close()
		c, x, w := a.clientOf(1), a.clientOf(1), a.clientOf(1)
		a.exec(c, `BEGIN ISOLATION LEVEL REPEATABLE READ`, `SELECT * FROM o`)
		a.exec(x, `BEGIN`, `INSERT INTO o VALUES (60)`)
		a.exec(w, `BEGIN`, `SELECT * FROM o`)
		// A change of leader, as another distributor would have it.
		a.exec(a.clientOf(1), `SELECT pgdist.promise(10, true, 2000)`)
		if _, err := w.Exec(a.ctx(), `INSERT INTO o VALUES (63)`); sqlState(err) != "25006" {
			t.Errorf("a write between the promise and the office: %v", err)
		}
		a.exec(a.clientOf(1), `SELECT pgdist.accept(10, jsonb_set(jsonb_set(view, '{epoch}', '10'), '{term}', '10')) FROM pgdist.register`, `SELECT pgdist.activate(10)`)
		if _, err := x.Exec(a.ctx(), `COMMIT`); err == nil {
			t.Error("a writer of the earlier term could commit")
		}
		if _, err := c.Exec(a.ctx(), `INSERT INTO o VALUES (61)`); sqlState(err) != "40001" {
			t.Errorf("a write under a snapshot of an earlier term: %v", err)
		}
		a.open()
		a.do(a.client(), `INSERT INTO o VALUES (62)`)
		a.same()
		a.everywhere("62", `SELECT string_agg(k::text, ',') FROM o`)
	})
}
