package mirror

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/pgdist/pgdist/health"
)

// An index that its maker has left behind at the leader, invalid, costs no follower its
// place: neither when it is dropped, nor when the member follows another and the index is
// made again.
func TestLeftoverIndexes(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE w (id int PRIMARY KEY, n int); INSERT INTO w SELECT g, 1 FROM generate_series(1, 5) g`)
	leave := func() {
		t.Helper()
		c := r.client()
		if _, err := c.Exec(r.ctx(), `SELECT set_config('pgdist.ddl', 'CREATE UNIQUE INDEX odd ON w (n)', false)`); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(r.ctx(), `CREATE UNIQUE INDEX CONCURRENTLY odd ON w (n)`); err == nil {
			t.Fatal("there are no duplicates")
		}
	}
	leave()
	r.ddl(r.client(), `DROP INDEX IF EXISTS odd`) // unless the leader has done it already
	r.do(r.client(), `INSERT INTO w VALUES (10, 1)`)
	r.inSync(3)
	r.same()

	leave()
	old := r.set.View().Leader
	if err := r.server(old).Kill(); err != nil {
		t.Fatal(err)
	}
	r.inSync(2)
	if err := r.server(old).StartAgain(); err != nil {
		t.Fatal(err)
	}
	r.inSync(3)
	r.ddl(r.client(), `CREATE INDEX odd ON w (n)`)
	r.do(r.client(), `INSERT INTO w VALUES (11, 1)`)
	r.inSync(3)
	r.same()
}

// An index that nobody will finish making is dropped wherever it is: from a member that
// crashed meanwhile before it is in sync again, from others soon. One that is being made is
// left alone, and no difference.
func TestUnfinishedIndexes(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE w (id int PRIMARY KEY, n int); INSERT INTO w SELECT g, g FROM generate_series(1, 5) g`)
	// begin has somebody make an index, who waits for a transaction that is open.
	begin := func(name string) (made chan error, end func()) {
		t.Helper()
		open, maker := r.client(), r.client()
		if _, err := open.Exec(r.ctx(), `BEGIN; UPDATE w SET n = n + 1 WHERE id = 1`); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf(`CREATE INDEX %s ON w (n)`, name)
		if _, err := maker.Exec(r.ctx(), `SELECT set_config('pgdist.ddl', $1, false)`, text); err != nil {
			t.Fatal(err)
		}
		made = make(chan error, 1)
		go func() {
			_, err := maker.Exec(context.Background(), fmt.Sprintf(`CREATE INDEX CONCURRENTLY %s ON w (n)`, name))
			made <- err
		}()
		lead := r.set.View().Leader
		r.await("an index is half made", func() bool { return r.halfMade(lead) == 1 })
		return made, func() {
			if _, err := open.Exec(r.ctx(), `COMMIT`); err != nil {
				t.Fatal(err)
			}
		}
	}
	made, end := begin("one")
	for _, id := range r.set.View().InSync {
		m := r.set.members.get(id)
		c, err := m.connect(r.ctx())
		if err == nil {
			_, err = r.set.unmade(r.ctx(), c, m, false)
			c.close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := said(r.verify(VerifyOptions{})); len(got) > 0 {
		t.Errorf("an index that is being made is a difference: %q", got)
	}
	end()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	r.ack()
	r.same()

	made, _ = begin("two") // its server crashes
	old := r.set.View().Leader
	if err := r.server(old).Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-made; err == nil {
		t.Error("it was made by a server that is dead")
	}
	r.inSync(2)
	if err := r.server(old).StartAgain(); err != nil {
		t.Fatal(err)
	}
	r.inSync(3)
	if n := r.halfMade(old); n > 0 {
		t.Errorf("%d half made indexes are at a member that was taken back", n)
	}
	r.same()

	made, _ = begin("three") // another member leads, so nobody wants to hear of it when it is made
	old = r.set.View().Leader
	if _, err := r.set.Switchover(r.ctx(), "", 0); err != nil {
		t.Fatal(err)
	}
	if err := <-made; err == nil {
		t.Error("it was made at a follower")
	}
	r.await("it is dropped from a follower", func() bool { return r.halfMade(old) == 0 })
	r.same()

	made, end = begin("four") // who makes it is ended
	old = r.set.View().Leader
	if _, err := r.client().Exec(r.ctx(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%CONCURRENTLY four%' AND pid <> pg_backend_pid()`); err != nil {
		t.Fatal(err)
	}
	if err := <-made; err == nil {
		t.Error("it was made by somebody who was ended")
	}
	end() // as long as anybody has the table in use it stays
	r.await("it is dropped from the leader", func() bool { return r.halfMade(old) == 0 })
	r.same()
}

// An index that was left half made, and that is whole once the table can be locked to drop it,
// stays: so does one whose maker came to the end meanwhile.
func TestUnfinishedIndexThatIsFinished(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE w (id int PRIMARY KEY, n int); INSERT INTO w SELECT g, 1 FROM generate_series(1, 5) g`)
	lead := r.set.View().Leader
	owner, maker := r.client(), r.client()
	if _, err := owner.Exec(r.ctx(), `BEGIN; LOCK TABLE w IN ACCESS SHARE MODE`); err != nil { // so that nobody can drop it
		t.Fatal(err)
	}
	if _, err := maker.Exec(r.ctx(), `SELECT set_config('pgdist.ddl', 'CREATE UNIQUE INDEX odd ON w (n)', false)`); err != nil {
		t.Fatal(err)
	}
	if _, err := maker.Exec(r.ctx(), `CREATE UNIQUE INDEX CONCURRENTLY odd ON w (n)`); err == nil {
		t.Fatal("there are no duplicates")
	}
	if _, err := owner.Exec(r.ctx(), `UPDATE w SET n = id; REINDEX INDEX odd`); err != nil {
		t.Fatal(err)
	}
	m := r.set.members.get(lead)
	c, err := m.connect(r.ctx())
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	dropped := make(chan error, 1)
	go func() {
		_, err := r.set.unmade(context.Background(), c, m, true)
		dropped <- err
	}()
	looker := r.clientOf(lead)
	r.await("somebody waits for the table", func() bool {
		var waits bool
		if err := looker.QueryRow(r.ctx(), `SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'w'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted)`).Scan(&waits); err != nil {
			t.Fatal(err)
		}
		return waits
	})
	if _, err := owner.Exec(r.ctx(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	if err := <-dropped; err != nil {
		t.Fatal(err)
	}
	var valid bool
	if err := looker.QueryRow(r.ctx(), `SELECT coalesce(bool_and(indisvalid), false) FROM pg_index WHERE indexrelid = to_regclass('odd')`).Scan(&valid); err != nil {
		t.Fatal(err)
	}
	if !valid {
		t.Error("an index that was whole is dropped from the leader")
	}
	r.ddl(r.client(), `DROP INDEX IF EXISTS odd`)
	r.inSync(3)
	r.same()
}

// TestUnfinishedDrops: an index whose DROP INDEX CONCURRENTLY was cut off is invalid where that
// ran, and others have it. It goes everywhere, where that one still leads, or is made whole again.
func TestUnfinishedDrops(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE w (id int PRIMARY KEY, n int); INSERT INTO w SELECT g, g FROM generate_series(1, 50) g;
		CREATE INDEX one ON w (n); CREATE UNIQUE INDEX two ON w (n, id); CREATE INDEX three ON w ((n + 1)) WHERE n > 3; CREATE INDEX four ON w (n DESC)`)
	// begin has somebody run a statement in several transactions, who waits for one that is open.
	begin := func(announce, sql, open string) (done chan error, end func()) {
		t.Helper()
		holder, maker := r.client(), r.client()
		for _, one := range []string{`BEGIN ISOLATION LEVEL REPEATABLE READ`, open} {
			if _, err := holder.Exec(r.ctx(), one); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := maker.Exec(r.ctx(), `SELECT set_config('pgdist.ddl', $1, false)`, announce); err != nil {
			t.Fatal(err)
		}
		done = make(chan error, 1)
		go func() {
			_, err := maker.Exec(context.Background(), sql)
			done <- err
		}()
		lead := r.set.View().Leader
		r.await("an index is invalid, and its maker waits", func() bool { return r.halfMade(lead) == 1 })
		return done, func() { _ = holder.Close(r.ctx()) }
	}
	drop := func(name string) (chan error, func()) {
		t.Helper()
		return begin(`DROP INDEX `+name, `DROP INDEX CONCURRENTLY `+name, `SELECT count(*) FROM w`)
	}
	cut := func(done chan error) {
		t.Helper()
		if err := <-done; err == nil {
			t.Error("it was not cut off")
		}
	}
	has := func(name string, members int) {
		t.Helper()
		for _, id := range r.set.View().InSync {
			c, n := r.clientOf(id), 0
			if err := errors.Join(c.QueryRow(r.ctx(), `SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass($1) AND indisvalid`, name).Scan(&n), c.Close(r.ctx())); err != nil {
				t.Fatal(err)
			}
			members -= n
		}
		if members != 0 {
			t.Errorf("index %s: %d members more or less have it than should", name, members)
		}
		r.same()
	}

	done, end := drop("one") // who drops it is ended
	old := r.set.View().Leader
	if _, err := r.client().Exec(r.ctx(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DROP INDEX CONC%'`); err != nil {
		t.Fatal(err)
	}
	cut(done)
	end()
	r.await("it is dropped at the leader", func() bool { return r.halfMade(old) == 0 })
	r.ack()
	has("one", 0)

	back := func(meanwhile ...string) {
		t.Helper()
		old := r.set.View().Leader
		if err := r.server(old).Kill(); err != nil {
			t.Fatal(err)
		}
		r.inSync(2)
		for _, sql := range meanwhile {
			r.ddl(r.client(), sql)
		}
		if err := r.server(old).StartAgain(); err != nil {
			t.Fatal(err)
		}
		r.inSync(3)
	}
	done, _ = drop("two") // the server crashes, and another one leads
	back()
	cut(done)
	has("two", 3)

	done, end = drop("three") // another one leads
	old = r.set.View().Leader
	if _, err := r.set.Switchover(r.ctx(), "", ages); err != nil {
		t.Fatal(err)
	}
	end()
	cut(done)
	r.await("it is made anew at a follower", func() bool { return r.halfMade(old) == 0 })
	r.inSync(3)
	has("three", 3)

	done, _ = drop("four") // as two, and it is dropped meanwhile
	back(`DROP INDEX four`)
	cut(done)
	has("four", 0)

	// It was about to be made, and is made at another member under the same name, while this is away.
	done, _ = begin(`CREATE INDEX five ON w (n, id)`, `CREATE INDEX CONCURRENTLY five ON w (n, id)`, `SELECT count(*) FROM pg_class`)
	lead := r.set.View().Leader
	c := r.clientOf(lead)
	r.await("it waits for old snapshots", func() bool {
		var ready bool
		if err := c.QueryRow(r.ctx(), `SELECT indisready FROM pg_index WHERE indexrelid = 'five'::regclass`).Scan(&ready); err != nil {
			t.Fatal(err)
		}
		return ready
	})
	back(`CREATE INDEX five ON w (n, id)`)
	cut(done)
	has("five", 3)
}

// halfMade counts indexes at a member that are not valid.
func (r *rig) halfMade(id health.MemberID) (n int) {
	r.t.Helper()
	c := r.clientOf(id)
	if err := errors.Join(c.QueryRow(r.ctx(), `SELECT count(*) FROM pg_index WHERE NOT indisvalid`).Scan(&n), c.Close(r.ctx())); err != nil {
		r.t.Fatal(err)
	}
	return n
}
