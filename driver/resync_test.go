package driver

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// An application notices nothing of a member whose server is replaced by an empty one
// and copied: no error, and no read, on whichever member, that lacks what was
// acknowledged before. A database with types of its own: their numbers change.
func TestResyncUnderAnApplication(t *testing.T) {
	db, servers := mirrored(t, "&balance=round_robin")
	run(t, db, `CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE n (id int PRIMARY KEY, v int, m mood); INSERT INTO n SELECT g, 0, 'ok' FROM generate_series(1, 4) g;
		CREATE TABLE bulk (id int PRIMARY KEY, v text); INSERT INTO bulk SELECT g, md5(g::text) FROM generate_series(1, 20000) g`)
	var stop atomic.Bool
	var wg sync.WaitGroup
	var writes, reads atomic.Int64
	for id := 1; id <= 4; id++ {
		var acked atomic.Int64
		wg.Go(func() {
			for v := int64(1); !stop.Load(); v++ {
				if _, err := db.Exec("UPDATE n SET v = $2 WHERE id = $1", id, v); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				acked.Store(v)
				writes.Add(1)
				time.Sleep(5 * time.Millisecond)
			}
		})
		wg.Go(func() {
			for !stop.Load() {
				least := acked.Load()
				var v int64
				var m string
				if err := db.QueryRow("SELECT v, m FROM n WHERE id = $1", id).Scan(&v, &m); err != nil || v < least || m != "ok" {
					t.Errorf("read %d %q, acknowledged was %d: %v", v, m, least, err)
					return
				}
				reads.Add(1)
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	port := servers[2].Port()
	if err := servers[2].Close(); err != nil {
		t.Fatal(err)
	}
	s, err := pgtest.Launch(pgtest.Options{Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	servers[2] = s
	config := membersOf(t, servers)
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	res, err := mirror.Resync(ctx, config, mirror.ResyncOptions{Member: s.Addr(), Report: t.Logf})
	if err != nil || !res.InSync {
		t.Errorf("%+v, %v", res, err)
	}
	for readsOf(t, s) == 0 && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d writes, %d reads, %+v", writes.Load(), reads.Load(), res)
	pgtest.SameBytes(t, servers...)
}

// readsOf counts the connections that an application has to a server.
func readsOf(t *testing.T, s *pgtest.Server) (n int) {
	t.Helper()
	if err := pgtest.Connect(t, s.DSN()).QueryRow(context.Background(), `SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT v, m FROM n%' AND pid <> pg_backend_pid()`).Scan(&n); err != nil {
		t.Error(err)
	}
	return n
}

// membersOf is how package mirror is told of servers.
func membersOf(t *testing.T, servers []*pgtest.Server) (config mirror.Config) {
	t.Helper()
	for _, s := range servers {
		c, err := pgconn.ParseConfig(s.DSN())
		if err != nil {
			t.Fatal(err)
		}
		config.Members = append(config.Members, mirror.MemberConfig{Conn: c})
	}
	return config
}
