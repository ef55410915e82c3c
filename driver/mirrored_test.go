package driver

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/mirror/mirrortest"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// ages is how long a test waits for what is certain to happen, on however slow a machine.
const ages = 3 * time.Minute

// unhurried has nobody taken for lost who is only slow, as servers are on a machine that is
// busy with other tests.
const unhurried = "&probe_timeout=3s&sync_timeout=15s"

// mirrored returns a real set of three servers, opened by its DSN.
func mirrored(tb testing.TB, params string) (*sql.DB, []*pgtest.Server) {
	tb.Helper()
	servers := pgtest.Set(tb, 3, pgtest.Options{})
	var config mirror.Config
	var hosts []string
	for _, s := range servers {
		c, err := pgconn.ParseConfig(s.DSN())
		if err != nil {
			tb.Fatal(err)
		}
		config.Members = append(config.Members, mirror.MemberConfig{Conn: c})
		hosts = append(hosts, s.Addr())
	}
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	if _, err := mirror.Init(ctx, config, mirror.InitOptions{}); err != nil {
		tb.Fatal(err)
	}
	mirrortest.CheckSync(tb, servers...)
	db, err := sql.Open(Name, "pgdist://postgres@"+strings.Join(hosts, ",")+"/postgres?sslmode=disable"+unhurried+params)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return db, servers
}

// contents describes a table on one server.
func contents(tb testing.TB, s *pgtest.Server, query string) string {
	tb.Helper()
	r := pgtest.Connect(tb, s.DSN()).PgConn().ExecParams(context.Background(), query, nil, nil, nil, nil).Read()
	if r.Err != nil {
		tb.Fatal(r.Err)
	}
	return fmt.Sprintf("%s", r.Rows)
}

// equal waits until the three servers answer a query alike; the last write is
// acknowledged, so those in sync must do so at once, one that comes back soon.
func equal(tb testing.TB, servers []*pgtest.Server, query string, wait time.Duration) {
	tb.Helper()
	deadline := time.Now().Add(wait)
	for {
		want, same := contents(tb, servers[0], query), true
		for _, s := range servers[1:] {
			same = same && contents(tb, s, query) == want
		}
		if same {
			return
		}
		if time.Now().After(deadline) {
			for i, s := range servers {
				tb.Errorf("server %d: %.300s", i, contents(tb, s, query))
			}
			return
		}
	}
}

func TestMirroredWrites(t *testing.T) {
	db, servers := mirrored(t, "")
	run(t, db, `CREATE TABLE a (id serial PRIMARY KEY, r float8 DEFAULT random(), at timestamptz DEFAULT clock_timestamp());
		CREATE TABLE b (id int PRIMARY KEY REFERENCES a ON DELETE CASCADE, v text)`)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 10 {
				tx, err := db.Begin()
				if err != nil {
					t.Error(err)
					return
				}
				var id int
				if err := tx.QueryRow("INSERT INTO a DEFAULT VALUES RETURNING id").Scan(&id); err != nil {
					t.Error(err)
				}
				if _, err := tx.Exec("INSERT INTO b VALUES ($1, $2)", id, fmt.Sprint(g, i)); err != nil {
					t.Error(err)
				}
				if err := tx.Commit(); err != nil {
					t.Error(err)
				}
				var v string
				if err := db.QueryRow("SELECT v FROM b JOIN a USING (id) WHERE id = $1", id).Scan(&v); err != nil || v != fmt.Sprint(g, i) {
					t.Errorf("read back on any member: %q %v", v, err)
				}
			}
		})
	}
	wg.Wait()
	run(t, db, "DELETE FROM a WHERE id % 3 = 0")
	run(t, db, "ALTER TABLE b ADD COLUMN n int DEFAULT 7; UPDATE b SET n = 8 WHERE id % 2 = 0; CREATE INDEX ON b (n)")
	equal(t, servers, "SELECT * FROM a ORDER BY id", 0)
	equal(t, servers, "SELECT * FROM b ORDER BY id", 0)
	run(t, db, "TRUNCATE a, b")
	equal(t, servers, "SELECT count(*) FROM b", 0)
	run(t, db, "DROP TABLE b")
	run(t, db, "VACUUM ANALYZE a")
}

// TestMirroredFailover kills the leader and a follower, in turn, under single
// statements, none of which may fail.
func TestMirroredFailover(t *testing.T) {
	db, servers := mirrored(t, "")
	run(t, db, "CREATE TABLE a (id int PRIMARY KEY)")
	ctx, cancel := context.WithCancel(context.Background())
	var next, reads atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				id := next.Add(1)
				if _, err := db.Exec("INSERT INTO a VALUES ($1)", id); err != nil {
					t.Errorf("write %d: %v", id, err)
				}
				var n int
				if err := db.QueryRow("SELECT count(*) FROM a WHERE id = $1", id).Scan(&n); err != nil || n != 1 {
					t.Errorf("read %d: %d %v", id, n, err)
				}
				reads.Add(1)
			}
		})
	}
	advance := func() {
		t.Helper()
		goal, deadline := reads.Load()+50, time.Now().Add(ages)
		for reads.Load() < goal {
			if time.Now().After(deadline) {
				t.Error("no progress")
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	advance()
	for _, i := range []int{2, 0} {
		if err := servers[i].Kill(); err != nil {
			t.Fatal(err)
		}
		waitInSync(t, db, 2)
		advance()
		if err := servers[i].StartAgain(); err != nil {
			t.Fatal(err)
		}
		waitInSync(t, db, 3)
		advance()
	}
	cancel()
	wg.Wait()
	equal(t, servers, "SELECT count(*), sum(id), max(id) FROM a", ages)
	if got := askCtx[int64](t, WithRoute(context.Background(), RouteLeader), db, "SELECT count(*) FROM a"); got != next.Load() {
		t.Errorf("%d rows of %d acknowledged", got, next.Load())
	}
}

// waitInSync waits until n members are in sync.
func waitInSync(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	deadline := time.Now().Add(ages)
	for {
		stats, err := Stats(context.Background(), db)
		have := 0
		for _, m := range stats {
			if m.InSync {
				have++
			}
		}
		if err == nil && have == n {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%d members in sync, not %d: %+v %v", have, n, stats, err)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestOpenTwiceSharesTheEngine(t *testing.T) {
	db, servers := mirrored(t, "")
	var hosts []string
	for _, s := range servers {
		hosts = append(hosts, s.Addr())
	}
	again, err := sql.Open(Name, "pgdist://postgres@"+strings.Join(hosts, ",")+"/postgres?sslmode=disable"+unhurried)
	if err != nil {
		t.Fatal(err)
	}
	engines := map[any]bool{}
	for _, db := range []*sql.DB{db, again} {
		conn, err := db.Conn(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Raw(func(dc any) error { engines[dc.(*Conn).e] = true; return nil }); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(engines) != 1 {
		t.Errorf("%d engines", len(engines))
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	ask[int](t, db, "SELECT 1") // the first still works
}

func TestOpenUninitialised(t *testing.T) {
	dsns := databases(t, 3)
	var hosts []string
	for _, s := range common.servers {
		hosts = append(hosts, s.Addr())
	}
	name := dsns[0][strings.LastIndex(dsns[0], "/"):]
	db, err := sql.Open(Name, "pgdist://postgres@"+strings.Join(hosts, ",")+name)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Ping(); err == nil || !strings.Contains(err.Error(), "pgdist init") {
		t.Errorf("the error must say what to do: %v", err)
	}
}
