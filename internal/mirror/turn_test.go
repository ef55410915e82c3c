package mirror

import (
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// A program that opens the set and has much to flush is alive: whoever waits for the turn meanwhile
// does not end it. Programs that were started together, after a loss of power say, ended each other
// for as long as each had more to do than the wait for the turn is long.
func TestOpeningIsNotEndedByOthers(t *testing.T) {
	r := newRig(t, 2, `CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0)`)
	epoch := itoa(uint32(r.set.View().Epoch))
	r.set.Close()
	for _, s := range r.servers { // another one, which shares the turns
		s.Exec(t, `SELECT pgdist.enrol('ghost', 'ghost', `+epoch+`, '1 s')`)
	}
	a, b, other := r.clientOf(1), r.clientOf(1), pgtest.Connect(t, r.servers[0].DSN())
	for _, q := range []string{`UPDATE t SET v = 1`, `BEGIN`, `LOCK TABLE t`} {
		c := a
		if q != `UPDATE t SET v = 1` {
			c = b
		}
		if _, err := c.Exec(r.ctx(), q); err != nil {
			t.Fatal(err)
		}
	}
	r.cfg.BlockedTimeout = ages // nobody is ended for what he holds up
	opened := make(chan error, 1)
	go func() {
		set, err := Open(r.ctx(), r.cfg)
		r.set = set
		opened <- err
	}()
	holder := func() (pid int) {
		if err := other.QueryRow(r.ctx(), `SELECT coalesce(max(l.pid), 0) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid AND a.query LIKE '%pgdist.batch(%' AND a.wait_event_type = 'Lock'
			WHERE l.locktype = 'advisory' AND l.granted`).Scan(&pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	r.await("a flush has the turn, and waits", func() bool { return holder() != 0 })
	first := holder()
	for began := time.Now(); time.Since(began) < 3*time.Second; {
		var got bool
		if err := other.QueryRow(r.ctx(), `SELECT pgdist.turn($1)`, turnWait).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got {
			t.Fatal("the turn was taken from it")
		}
	}
	if now := holder(); now != first {
		t.Errorf("its session was ended: %d, now %d", first, now)
	}
	if _, err := b.Exec(r.ctx(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.set.Close)
	r.same()
}
