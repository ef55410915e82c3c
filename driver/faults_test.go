package driver

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/engine"
)

func TestLeaderLostInTransaction(t *testing.T) {
	db, fake, servers := mortal(t, nil)
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tx, err := conn.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	run(t, tx, "INSERT INTO w VALUES (1)")
	if err := servers[0].Kill(); err != nil {
		t.Fatal(err)
	}
	fake.publish(func(v *health.View) { v.Leader, v.Term, v.InSync = 2, v.Epoch, []health.MemberID{2, 3} })
	if _, err := tx.Exec("INSERT INTO w VALUES (2)"); sqlState(err) != "40001" {
		t.Errorf("a statement: %v", err)
	}
	if _, err := tx.Exec("SELECT 1"); sqlState(err) != "25P02" {
		t.Errorf("the next: %v", err)
	}
	if err := tx.Commit(); !errors.Is(err, pgx.ErrTxCommitRollback) {
		t.Errorf("COMMIT: %v", err)
	}
	run(t, conn, "INSERT INTO w VALUES (3)") // the session is usable at once
	if ask[int](t, conn, "/* pgdist: leader */ SELECT id FROM w") != 3 {
		t.Error("not written to the new leader")
	}
	if got := seen(t, db, context.Background(), 200, "SELECT id FROM t"); got[1] != 0 {
		t.Errorf("reads on the lost member: %v", got)
	}
}

func TestAutocommitSurvivesLeaderLoss(t *testing.T) {
	db, fake, servers := mortal(t, nil)
	run(t, db, "INSERT INTO w VALUES (0)")
	if err := servers[0].Kill(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := db.Exec("INSERT INTO w VALUES (1)")
		done <- err
	}()
	fake.publish(func(v *health.View) { v.Leader, v.Term, v.InSync = 2, v.Epoch, []health.MemberID{2, 3} })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if ask[int](t, db, "/* pgdist: leader */ SELECT count(*) FROM w") != 1 {
		t.Error("not on the new leader")
	}
}

func TestStoppedMemberIsLeftWhenExcluded(t *testing.T) {
	db, fake, servers := mortal(t, func(c *Config) { c.Balance = RoundRobin })
	seen(t, db, context.Background(), 12, "SELECT id FROM t")
	if err := servers[2].SigStop(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 12)
	for range 12 {
		go func() {
			var id int
			done <- db.QueryRow("SELECT id FROM t").Scan(&id)
		}()
	}
	deadline := time.Now().Add(ages)
	for stats, err := Stats(context.Background(), db); err != nil || stats[2].Outstanding == 0; stats, err = Stats(context.Background(), db) {
		if time.Now().After(deadline) {
			t.Fatal("no read hangs on the stopped server")
		}
		runtime.Gosched()
	}
	fake.publish(func(v *health.View) { v.InSync = []health.MemberID{1, 2} })
	for range 12 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := servers[2].SigCont(); err != nil {
		t.Fatal(err)
	}
	fake.publish(func(v *health.View) { v.InSync = []health.MemberID{1, 2, 3} })
	if got := seen(t, db, context.Background(), 12, "SELECT id FROM t"); len(got) != 3 {
		t.Errorf("after its return: %v", got)
	}
}

// terminateAll ends all other connections to the database.
const terminateAll = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()`

func TestTerminatedBackendsAreInvisible(t *testing.T) {
	db, _, dsns := three(t, func(c *Config) { c.Balance = RoundRobin })
	for round := range 5 {
		run(t, db, "INSERT INTO w VALUES ($1)", round)
		seen(t, db, context.Background(), 6, "SELECT id FROM t")
		for _, dsn := range dsns {
			onServer(t, dsn, terminateAll)
		}
	}
	if got := askCtx[int](t, WithRoute(context.Background(), RouteLeader), db, "SELECT count(*) FROM w"); got != 5 {
		t.Errorf("%d rows", got)
	}
}

func TestLostCommitIsResolved(t *testing.T) {
	for _, c := range []struct {
		outcome engine.Outcome
		state   string
	}{{engine.Committed, ""}, {engine.RolledBack, "40001"}} {
		db, fake, dsns := three(t, nil)
		fake.outcome = c.outcome
		for _, dsn := range dsns { // COMMIT kills its own backend
			onServer(t, dsn, `CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5); RETURN NULL; END';
				CREATE CONSTRAINT TRIGGER die AFTER INSERT ON w DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()`)
		}
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		run(t, tx, "INSERT INTO w VALUES (1)")
		if err := tx.Commit(); sqlState(err) != c.state {
			t.Errorf("outcome %v: %v", c.outcome, err)
		}
		if len(fake.asked) != 1 || fake.asked[0].Conn == "" || fake.asked[0].PID == 0 || fake.asked[0].Started == "" || fake.asked[0].Term != 1 {
			t.Errorf("asked: %+v", fake.asked)
		}
		if c.outcome == engine.Committed {
			var id int
			if err := db.QueryRow("INSERT INTO w VALUES (2) RETURNING id").Scan(&id); err != nil || id != 2 {
				t.Errorf("an autocommit write keeps its result: %d %v", id, err)
			}
		}
	}
}
