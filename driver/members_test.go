package driver

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// An application notices nothing of a member that is added and of the leader that is
// removed, but that it reads from the one and not from the other; so does one that is
// configured as in the beginning and opened afterwards.
func TestMembersComeAndGoUnderAnApplication(t *testing.T) {
	db, servers := mirrored(t, "&balance=round_robin")
	run(t, db, `CREATE TABLE n (id int PRIMARY KEY, v int); INSERT INTO n SELECT g, 0 FROM generate_series(1, 4) g`)
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
				if err := db.QueryRow("SELECT v FROM n WHERE id = $1", id).Scan(&v); err != nil || v < least {
					t.Errorf("read %d, acknowledged was %d: %v", v, least, err)
					return
				}
				reads.Add(1)
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	defer func() {
		stop.Store(true)
		wg.Wait()
	}()
	var config mirror.Config
	for _, s := range append(slices.Clone(servers), pgtest.Set(t, 1, pgtest.Options{})...) {
		c, err := pgconn.ParseConfig(s.DSN())
		if err != nil {
			t.Fatal(err)
		}
		config.Members = append(config.Members, mirror.MemberConfig{Conn: c})
		if len(config.Members) > len(servers) {
			servers = append(servers, s)
		}
	}
	added := config.Members[3]
	config.Members = config.Members[:3]
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	if _, err := mirror.Add(ctx, config, mirror.AddOptions{Member: added, Votes: -1, Jobs: 2, Report: t.Logf}); err != nil {
		t.Fatal(err)
	}
	// ports are those that a hundred reads come from.
	ports := func() (seen []uint16) {
		for range 100 {
			var port uint16
			if err := db.QueryRow("SELECT inet_server_port()").Scan(&port); err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(seen, port) {
				seen = append(seen, port)
			}
		}
		return seen
	}
	for deadline := time.Now().Add(ages); ; time.Sleep(20 * time.Millisecond) {
		seen := ports()
		if slices.Contains(seen, added.Conn.Port) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("reads come from %v, none from the member that was added, %d", seen, added.Conn.Port)
		}
	}
	if _, err := mirror.Remove(ctx, config, mirror.RemoveOptions{Host: config.Members[0].Host(), Wait: ages, Report: t.Logf}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(ages); ; time.Sleep(20 * time.Millisecond) {
		seen := ports()
		if !slices.Contains(seen, config.Members[0].Conn.Port) && len(seen) == 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after the removal of %d reads come from %v", config.Members[0].Conn.Port, seen)
		}
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d writes, %d reads", writes.Load(), reads.Load())
	if writes.Load() < 100 || reads.Load() < 100 {
		t.Errorf("only %d writes and %d reads", writes.Load(), reads.Load())
	}
	pgtest.SameBytes(t, servers[1:]...)
}
