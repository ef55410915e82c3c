package mirror

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A prepared transaction has no backend that could be ended. On a follower it
// costs the set that follower, by name, until somebody ends it; at the leader it
// is rolled back. Nowhere does it stop the set.
func TestAttackPreparedLocks(t *testing.T) {
	g := ground(t, 3, map[string]string{"max_prepared_transactions": "5"})
	// The driver's DDL: lock, flush, statement.
	const conflict = 500 * time.Millisecond
	a := trial{schema: `CREATE TABLE t (k int PRIMARY KEY, v int); CREATE TABLE o (k serial PRIMARY KEY)`, config: func(c *Config) { c.BlockedTimeout = conflict }}.on(t, g)
	c := a.client()
	a.do(c, `INSERT INTO t VALUES (1, 1)`)
	bounded := func(c *pgx.Conn, sql string) {
		t.Helper()
		began := time.Now()
		a.tx(c, sql)
		a.do(c, `INSERT INTO o DEFAULT VALUES`)
		if took := time.Since(began); took > ages/6 {
			t.Errorf("%s and a write after it took %v", sql, took)
		}
	}

	t.Run("on a follower", func(t *testing.T) {
		f := a.clientOf(3)
		a.exec(f, `BEGIN`, `LOCK TABLE t IN ACCESS SHARE MODE`, `PREPARE TRANSACTION 'forgotten'`)
		bounded(c, `ddl: ALTER TABLE t ADD COLUMN w int`)
		if v := a.set.View(); v.Has(3) || !v.Has(2) {
			t.Errorf("the view is %v", v)
		}
		for deadline := time.Now().Add(ages); ; {
			// Between attempts its state is "catching up", without an error.
			if n := a.set.members.get(3).note.Load(); n.Err != nil && strings.Contains(n.Err.Error(), "forgotten") {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("its state does not name the transaction: %+v", n)
			}
			time.Sleep(5 * time.Millisecond)
		}
		a.exec(f, `ROLLBACK PREPARED 'forgotten'`)
		a.same()
	})
	t.Run("at the leader", func(t *testing.T) {
		before := a.set.View()
		x := a.client()
		a.exec(c, `UPDATE t SET v = 2`)
		a.exec(x, `BEGIN`, `LOCK TABLE t IN ACCESS EXCLUSIVE MODE`, `PREPARE TRANSACTION 'it''s mine'`)
		began := time.Now()
		a.do(c, `INSERT INTO o DEFAULT VALUES`)
		if took := time.Since(began); took > ages/6 {
			t.Errorf("a write took %v", took)
		}
		a.unchanged(before)
		if got := a.query(before.Leader, `SELECT count(*)::text FROM pg_prepared_xacts`); got != "0" {
			t.Errorf("%s prepared transactions are left", got)
		}
		a.everywhere("2", `SELECT v::text FROM t`)
		a.same()
	})
}

// ddl_conflict_timeout above sync_timeout: a follower whose apply waits for a lock
// is not dead, and is given that time before anybody is ended.
func TestLongConflictTimeout(t *testing.T) {
	a := trial{schema: `CREATE TABLE t (k int PRIMARY KEY)`, config: func(c *Config) {
		c.BlockedTimeout, c.Health.SyncTimeout = 6*time.Second, 3*time.Second
	}}.on(t, ground(t, 2, nil))
	before := a.set.View()
	x := a.clientOf(a.follower())
	a.exec(x, `BEGIN`, `SELECT * FROM t`)
	began := time.Now()
	a.tx(a.client(), `ddl: ALTER TABLE t ADD COLUMN v int`)
	if took := time.Since(began); took < 5*time.Second || took > ages/6 {
		t.Errorf("the DDL took %v", took)
	}
	a.unchanged(before)
	a.same()
}
