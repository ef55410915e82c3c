package mirror

import (
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// lazyWAL keeps what is not forced to disk off it for long, so that a crash
// loses it for certain.
var lazyWAL = map[string]string{"wal_writer_delay": "10s", "checkpoint_timeout": "1h"}

// rolledBack runs a transaction that leaves nothing and returns its number.
func (a *arena) rolledBack(c *pgx.Conn, sql ...string) string {
	a.t.Helper()
	a.exec(c, `BEGIN`)
	a.exec(c, sql...)
	xid := a.xid(c)
	a.exec(c, `ROLLBACK`)
	return xid
}

func (a *arena) xid(c *pgx.Conn) string {
	a.t.Helper()
	var xid string
	if err := c.QueryRow(a.ctx(), `SELECT pg_current_xact_id()::text`).Scan(&xid); err != nil {
		a.t.Fatal(err)
	}
	return xid
}

// A transaction number that a crash takes back is given to a stranger, whose
// rows must reach the followers all the same.
func TestAttackReusedNumbers(t *testing.T) {
	g := ground(t, 2, lazyWAL)
	const schema = `CREATE TABLE k (k int PRIMARY KEY, v text); CREATE TABLE kl (v text); CREATE SEQUENCE s`
	t.Run("the position never claims it", func(t *testing.T) {
		a := trial{config: quiet, schema: schema}.on(t, g)
		c := a.client()
		a.do(c, `INSERT INTO k VALUES (1, 'a')`)
		for range 3 {
			xid := a.rolledBack(c, `INSERT INTO k VALUES (2, 'b')`)
			a.do(c, `SELECT nextval('s')`) // so that there is something to ship
			xmax := a.query(a.follower(), `SELECT pg_snapshot_xmax(snap)::text FROM pgdist.position`)
			if x, m := number64(t, xid), number64(t, xmax); m > x {
				t.Errorf("transaction %d was rolled back, and the position claims all below %d", x, m)
			}
			// Older than a transaction in progress, newer than one rolled back.
			open := a.client()
			a.exec(open, `BEGIN`, `INSERT INTO k VALUES (3, 'c')`)
			a.do(c, `INSERT INTO k VALUES (4, 'd')`)
			a.exec(open, `COMMIT`)
			a.ack()
			a.do(c, `DELETE FROM k WHERE k > 1`)
			a.same()
		}
	})
	t.Run("the same leader again", func(t *testing.T) {
		a := trial{config: quiet, schema: schema}.on(t, g)
		c, victim := a.clientOf(1), a.clientOf(1)
		a.do(c, `INSERT INTO k VALUES (1, 'a')`)
		xid := a.rolledBack(c, `INSERT INTO k VALUES (2, 'b')`, `INSERT INTO kl VALUES ('b')`)
		a.do(c, `SELECT nextval('s')`)
		v := a.set.View()
		// The follower is stopped, so that nobody but member 1 can lead.
		if err := a.server(2).SigStop(); err != nil {
			t.Fatal(err)
		}
		if err := a.server(1).KillBackend(int(victim.PgConn().PID())); err != nil {
			t.Fatal(err)
		}
		if now := a.newTerm(v); now.Leader != 1 {
			t.Fatalf("led by %v", now)
		}
		c = a.clientOf(1)
		for {
			a.exec(c, `BEGIN`, `INSERT INTO k SELECT coalesce(max(k), 0) + 1, 'acknowledged' FROM k`, `INSERT INTO kl VALUES ('acknowledged')`)
			now := a.xid(c)
			a.exec(c, `COMMIT`)
			if number64(t, now) >= number64(t, xid) {
				t.Logf("number %s was rolled back, %s came next", xid, now)
				break
			}
		}
		if err := a.server(2).SigCont(); err != nil {
			t.Fatal(err)
		}
		a.ack()
		a.same()
	})
}

// What followers hold, the leader's disk holds.
func TestAttackAsynchronousCommits(t *testing.T) {
	g := ground(t, 3, lazyWAL)
	a := trial{config: quiet, schema: `CREATE TABLE k (k int PRIMARY KEY, v text); CREATE TABLE kl (v text);
CREATE FUNCTION off() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('synchronous_commit', 'off', true); RETURN NULL; END $$;
CREATE TABLE df (k int PRIMARY KEY); CREATE CONSTRAINT TRIGGER late AFTER INSERT ON df DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION off();`}.on(t, g)
	for _, x := range []struct {
		name string
		sql  []string
	}{
		{"set local", []string{`BEGIN`, `INSERT INTO k VALUES (1, 'a')`, `INSERT INTO kl VALUES ('a')`, `SET LOCAL synchronous_commit = off`, `COMMIT`}},
		{"deferred trigger", []string{`BEGIN`, `INSERT INTO df VALUES (1)`, `INSERT INTO kl VALUES ('b')`, `SET LOCAL synchronous_commit = on`, `COMMIT`}},
	} {
		a.sub(x.name, func(a *arena) {
			a.do(a.client(), x.sql...)
			old := a.killLeader()
			a.do(a.client(), `INSERT INTO kl VALUES ('c')`)
			a.start(old)
			a.same() // without the gate the old leader lacks for ever what it had shipped
		})
	}
	// Big batches take another way to the same gate.
	a.sub("in pieces", func(a *arena) {
		a.do(a.client(), `SET synchronous_commit = off`, `INSERT INTO k SELECT g, 'x' FROM generate_series(100, 6000) g`)
		old := a.killLeader()
		a.start(old)
		a.same()
	})
}

func number64(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
