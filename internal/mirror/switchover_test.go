package mirror

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/failpoint"
)

// Who asks a member for its state, and is ended by another program's request for a promise,
// asks once more: neither a switchover that has come about fails by it, nor a command that
// looks who is there.
func TestAskedAgain(t *testing.T) {
	a := trial{schema: `CREATE TABLE k (k int PRIMARY KEY)`, config: func(c *Config) { c.BlockedTimeout = ages }}.on(t, ground(t, 2, nil))
	c := a.clientOf(1)
	ended := func(ask func() error) error {
		a.exec(c, `BEGIN`, `LOCK TABLE pgdist.boot IN ACCESS EXCLUSIVE MODE`)
		done := make(chan error, 1)
		go func() { done <- ask() }()
		const asks = ` FROM pg_stat_activity WHERE query = 'SELECT pgdist.here()' AND datname = current_database() AND wait_event_type = 'Lock'`
		a.until(1, `SELECT EXISTS (SELECT 1`+asks+`)`)
		a.exec(c, `SELECT pg_terminate_backend(pid)`+asks, `ROLLBACK`)
		return <-done
	}
	err := a.set.inLoop(a.ctx(), func(ctx context.Context) error {
		a.set.leaderC.close()
		return ended(func() error { return a.set.connectLeader(ctx) })
	})
	if err != nil {
		t.Errorf("the leader: %v", err)
	}
	a.do(a.client(), `INSERT INTO k VALUES (1)`)
	a.set.Close()
	if err := ended(func() error { return askAll(a.ctx(), a.cfg)[0].err }); err != nil {
		t.Errorf("a member: %v", err)
	}
	a.open()
	a.same()
}

// A switchover that another program's proposal ends, or is in a deadlock with, is tried again.
func TestSwitchoverDisturbed(t *testing.T) {
	a := trial{schema: `CREATE TABLE k (k int PRIMARY KEY)`}.on(t, ground(t, 2, nil))
	var held sync.WaitGroup
	disturb := map[string]func(leader *pgx.Conn){
		"it ends ours": func(leader *pgx.Conn) {
			a.exec(leader, `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'relation' AND relation = 'pgdist.boot'::regclass AND mode = 'AccessExclusiveLock'`)
		},
		"each waits for the other": func(leader *pgx.Conn) { // as with one that is taking office
			a.exec(leader, `SET deadlock_timeout = '1h'`, `BEGIN`, `SELECT FROM pgdist.register FOR UPDATE`)
			held.Go(func() {
				_, _ = leader.Exec(context.Background(), `LOCK TABLE pgdist.boot IN ACCESS EXCLUSIVE MODE; ROLLBACK`, pgx.QueryExecModeSimpleProtocol)
			})
		},
	}
	for name, by := range disturb {
		old := a.set.View().Leader
		leader := a.clientOf(old)
		passed := 0
		failpoint.Watch(func(point string) {
			if point == "mirror: the leader's fence is locked" {
				if passed++; passed == 1 {
					by(leader)
				}
			}
		})
		v, err := a.set.Switchover(a.ctx(), "", ages)
		failpoint.Watch(nil)
		held.Wait()
		if err != nil || v.Leader == old || passed < 2 {
			t.Errorf("%s: %v leads, at attempt %d: %v", name, v, passed, err)
		}
		a.whole()
		a.do(a.client(), `INSERT INTO k SELECT count(*) FROM k`)
	}
	a.same()
}

// A switchover ends nobody's transaction, loses nothing, and another program notices
// no more than that somebody else leads.
func TestSwitchover(t *testing.T) {
	a := trial{schema: `CREATE TABLE k (k int PRIMARY KEY)`}.on(t, ground(t, 3, nil))
	b, _ := a.beside(nil)
	a.know(1, b)
	old := a.set.View().Leader
	host := a.set.Hosts()[a.set.View().Followers()[1]]
	// A transaction that has written is open.
	c := a.client()
	a.exec(c, `BEGIN`, `INSERT INTO k VALUES (1)`)
	if _, err := a.set.Switchover(a.ctx(), host, 500*time.Millisecond); !errors.Is(err, ErrBusyLeader) {
		t.Fatalf("beside an open transaction: %v", err)
	}
	if got := a.set.View().Leader; got != old {
		t.Fatalf("it failed, and member %d leads", got)
	}
	done := make(chan error, 1)
	go func() {
		v, err := a.set.Switchover(a.ctx(), host, ages)
		if err == nil && a.set.Hosts()[v.Leader] != host {
			err = errors.New("somebody else leads: " + v.String())
		}
		done <- err
	}()
	time.Sleep(300 * time.Millisecond)
	a.exec(c, `INSERT INTO k VALUES (2)`, `COMMIT`)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// What was committed before, and never acknowledged, is not lost.
	a.await("the other program hears of it", func() bool { return b.set.View().Leader == a.set.View().Leader })
	a.do(a.client(), `INSERT INTO k VALUES (3)`)
	a.everywhere("1,2,3", `SELECT string_agg(k::text, ',' ORDER BY k) FROM k`)
	// By force, and to whoever comes first.
	c = a.client()
	a.exec(c, `BEGIN`, `INSERT INTO k VALUES (4)`)
	v := a.set.View()
	now, err := a.set.Switchover(a.ctx(), "", 0)
	if sqlState(err) == codeFence { // the other program came first, on a machine that is slow
		now, err = a.set.View(), nil
	}
	if err != nil || now.Leader == v.Leader {
		t.Fatalf("by force: %v, %v", now, err)
	}
	if _, err := c.Exec(context.Background(), `COMMIT`, pgx.QueryExecModeSimpleProtocol); err == nil {
		t.Error("a transaction of the old leader's could still commit")
	}
	a.everywhere("1,2,3", `SELECT string_agg(k::text, ',' ORDER BY k) FROM k`)
	if _, err := a.set.Switchover(a.ctx(), "elsewhere:1", time.Second); err == nil {
		t.Error("an unknown member leads")
	}
	a.whole()
	a.same()
}
