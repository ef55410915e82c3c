package mirror

import (
	"slices"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

const bobs = `CREATE ROLE bob; CREATE TABLE t (k int PRIMARY KEY); ALTER TABLE t OWNER TO bob; CREATE TABLE u (k int PRIMARY KEY); ALTER TABLE u OWNER TO bob`

// A leader that is lost before what it gave away was journaled has lost its place: no tail
// tells of it.
func TestReassignedTail(t *testing.T) {
	r := newRig(t, 3, bobs)
	old := r.set.View().Leader
	c := r.client()
	r.set.Close()
	if _, err := c.Exec(r.ctx(), `DO $$ BEGIN REASSIGN OWNED BY bob TO postgres; END $$`); err != nil {
		t.Fatal(err)
	}
	if err := r.server(old).Kill(); err != nil {
		t.Fatal(err)
	}
	r.open()
	r.do(r.client(), `INSERT INTO t VALUES (0)`)
	if err := r.server(old).StartAgain(); err != nil {
		t.Fatal(err)
	}
	r.await("the old leader to have lost its place", func() bool { return r.set.States()[old] == textLost })
}

// A table that is given away while a DROP OWNED waits for it is not dropped, here or there.
func TestReassignedUnderDropOwned(t *testing.T) {
	r := newRig(t, 3, bobs)
	epoch := r.set.View().Epoch
	gives, drops := r.client(), r.client()
	r.do(gives, `BEGIN`, `DO $$ BEGIN REASSIGN OWNED BY bob TO postgres; END $$`)
	done := make(chan error, 1)
	go func() {
		_, err := drops.Exec(r.ctx(), `DO $$ BEGIN DROP OWNED BY bob; END $$`)
		done <- err
	}()
	r.await("DROP OWNED to wait", func() bool {
		var waits bool
		err := gives.QueryRow(r.ctx(), `SELECT pg_backend_pid() = ANY (pg_blocking_pids($1))`, drops.PgConn().PID()).Scan(&waits)
		return err == nil && waits
	})
	r.do(gives, `COMMIT`)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.do(gives, `INSERT INTO t VALUES (1)`)
	r.same()
	if v := r.set.View(); v.Epoch != epoch {
		t.Errorf("it cost somebody his place: %v", v)
	}
}

// A follower whose owners are not the leader's, for whatever reason, refuses a DROP OWNED that
// would take a table from it which the leader keeps.
func TestDropOwnedTakesNothingFromFollowers(t *testing.T) {
	r := newRig(t, 3, bobs)
	odd := r.set.View().InSync[0]
	if odd == r.set.View().Leader {
		odd = r.set.View().InSync[1]
	}
	c := r.client()
	r.ddl(c, `ALTER TABLE t OWNER TO postgres`)
	r.same()
	behind := pgtest.Connect(t, r.server(odd).DSN())
	r.do(behind, `SET session_replication_role = replica`, `ALTER TABLE t OWNER TO bob`)
	r.ddl(c, `DROP OWNED BY bob`)
	there := func() (is bool) {
		if err := behind.QueryRow(r.ctx(), `SELECT to_regclass('t') IS NOT NULL`).Scan(&is); err != nil {
			t.Fatal(err)
		}
		return is
	}
	r.await("the follower to leave", func() bool { return !there() || !slices.Contains(r.set.View().InSync, odd) })
	time.Sleep(time.Second) // what it is offered again it refuses again
	if !there() {
		t.Error("the follower has lost a table that the leader has")
	}
}
