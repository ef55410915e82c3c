package driver

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// unlogged is a set with everything that a crash empties.
func unlogged(t *testing.T, params string) (*sql.DB, []*pgtest.Server) {
	t.Helper()
	db, servers := mirrored(t, params)
	run(t, db, `CREATE UNLOGGED TABLE u (k serial PRIMARY KEY, v text); CREATE UNLOGGED TABLE keyless (a int, r float8 DEFAULT random());
		CREATE TABLE tree (k int PRIMARY KEY, v text) PARTITION BY RANGE (k); CREATE TABLE low PARTITION OF tree FOR VALUES FROM (0) TO (10);
		CREATE UNLOGGED TABLE high PARTITION OF tree FOR VALUES FROM (10) TO (100); CREATE UNLOGGED SEQUENCE s; CREATE TABLE l (k int PRIMARY KEY)`)
	run(t, db, `INSERT INTO u (v) SELECT random() FROM generate_series(1, 20); INSERT INTO keyless SELECT g FROM generate_series(1, 20) g;
		INSERT INTO tree SELECT g, random() FROM generate_series(1, 50) g; INSERT INTO l SELECT generate_series(1, 20)`)
	for range 3 {
		ask[int](t, db, "SELECT nextval('s')")
	}
	pgtest.SameBytes(t, servers...)
	return db, servers
}

const unloggedRows = `SELECT (SELECT count(*) FROM u) || ' ' || (SELECT count(*) FROM keyless) || ' ' || (SELECT count(*) FROM tree) || ' ' || (SELECT last_value FROM s) || ' ' || (SELECT count(*) FROM l)`

// crash kills a backend of the server, which then starts again by itself within
// a moment, emptying what is not logged.
func crash(t *testing.T, s *pgtest.Server) {
	t.Helper()
	c := pgtest.Connect(t, s.DSN())
	var pid int
	if err := c.QueryRow(context.Background(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	if err := s.KillBackend(pid); err != nil {
		t.Fatal(err)
	}
}

// TestUnloggedFollowerCrash: a follower whose crash lasts a moment never shows
// the emptied tables, and has them again soon.
func TestUnloggedFollowerCrash(t *testing.T) {
	db, servers := unlogged(t, "")
	for i := range 2 {
		crash(t, servers[2])
		for range 100 {
			if got := ask[string](t, db, unloggedRows); got != "20 20 50 3 20" {
				t.Fatalf("round %d: read %s", i, got)
			}
		}
		settled(t, db, servers)
	}
	// It crashes, and the tables change their kind before it is back.
	if err := servers[2].Kill(); err != nil {
		t.Fatal(err)
	}
	run(t, db, `ALTER TABLE u SET LOGGED; ALTER TABLE l SET UNLOGGED; UPDATE l SET k = k + 100 WHERE k < 5; INSERT INTO u (v) VALUES ('late'); CREATE UNLOGGED TABLE made AS SELECT random() AS r`)
	run(t, db, `TRUNCATE keyless; INSERT INTO keyless VALUES (7); ALTER TABLE high SET LOGGED`)
	if err := servers[2].StartAgain(); err != nil {
		t.Fatal(err)
	}
	settled(t, db, servers)
	crash(t, servers[1])
	settled(t, db, servers)
	if got := ask[string](t, db, `SELECT (SELECT count(*) FROM made) || ' ' || (SELECT count(*) FROM l) || ' ' || (SELECT count(*) FROM u)`); got != "1 20 21" {
		t.Errorf("in the end: %s", got)
	}
}

// blind is a set whose probes and breakers see nothing.
const blind = "&probe_interval=1h&breaker_failures=100000&breaker_min_requests=100000"

// TestUnloggedCrashUnseen: nobody noticed the crash, and the server is back. No
// new connection is used, and nothing is applied, before the tables are copied.
func TestUnloggedCrashUnseen(t *testing.T) {
	for _, write := range []bool{false, true} {
		t.Run(fmt.Sprint("write ", write), func(t *testing.T) {
			db, servers := unlogged(t, blind)
			crash(t, servers[2])
			restarted(t, servers[2])
			if write {
				run(t, db, "INSERT INTO l VALUES (1000); DELETE FROM l WHERE k = 1000")
			}
			for range 100 {
				if got := ask[string](t, db, unloggedRows); got != "20 20 50 3 20" {
					t.Fatalf("read %s", got)
				}
			}
			settled(t, db, servers)
		})
	}
}

// restarted waits until a server that crashed answers again.
func restarted(t *testing.T, s *pgtest.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	for {
		c, err := pgx.Connect(ctx, s.DSN())
		if err == nil {
			var n int
			err = c.QueryRow(ctx, "SELECT count(*) FROM u").Scan(&n)
			_ = c.Close(ctx) // it has answered
			if err == nil && n == 0 {
				return
			}
		}
		if !sleep(ctx, 10*time.Millisecond) {
			t.Fatal(err)
		}
	}
}

// TestUnloggedLeaderCrash: a follower that still has the rows takes over, and the
// old leader gets them back. Whoever leads after having crashed itself leads with
// empty tables, and everybody has the same.
func TestUnloggedLeaderCrash(t *testing.T) {
	db, servers := unlogged(t, "")
	if err := servers[0].Kill(); err != nil {
		t.Fatal(err)
	}
	if got := ask[string](t, db, unloggedRows); got != "20 20 50 3 20" {
		t.Errorf("at the new leader: %s", got)
	}
	run(t, db, "INSERT INTO u (v) VALUES ('new')")
	if err := servers[0].StartAgain(); err != nil {
		t.Fatal(err)
	}
	settled(t, db, servers)
	if got := ask[string](t, db, unloggedRows); got != "21 20 50 3 20" {
		t.Errorf("with the old leader back: %s", got)
	}
	// All crash: the tables are empty, on all.
	for _, s := range servers {
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range servers {
		if err := s.StartAgain(); err != nil {
			t.Fatal(err)
		}
	}
	settled(t, db, servers)
	run(t, db, "INSERT INTO u (v) VALUES ('after'); INSERT INTO keyless VALUES (1); INSERT INTO tree VALUES (60, 'x')")
	settled(t, db, servers)
	if got := ask[string](t, db, "SELECT (SELECT count(*) FROM u) || ' ' || (SELECT count(*) FROM tree) || ' ' || (SELECT count(*) FROM l)"); got != "1 10 20" {
		t.Errorf("after all have crashed: %s", got)
	}
}

// TestUnloggedLeaderAlone: the leader crashes for a moment while the followers
// cannot take over.
func TestUnloggedLeaderAlone(t *testing.T) {
	db, servers := unlogged(t, "")
	for round := range 3 {
		crash(t, servers[0])
		for deadline := time.Now().Add(ages); ; {
			_, err := db.Exec(fmt.Sprintf("INSERT INTO u (v) VALUES ('round %d')", round))
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
		settled(t, db, servers)
	}
}

// settled waits until all servers are in sync and the same.
func settled(t *testing.T, db *sql.DB, servers []*pgtest.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	var last error
	for {
		err := pgtest.CompareServers(ctx, servers...)
		if err != nil && ctx.Err() == nil {
			last = err
		}
		if err == nil {
			waitInSync(t, db, len(servers))
			if err = pgtest.CompareServers(ctx, servers...); err == nil {
				return
			}
		}
		if !sleep(ctx, 50*time.Millisecond) {
			stats, _ := Stats(context.Background(), db)
			t.Fatalf("%v %+v", last, stats)
		}
	}
}
