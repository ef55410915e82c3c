package gateway

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestOperationsUnderLoad pauses and resumes while clients work and others look, then kills
// the leader: nobody hears an error, nothing is done during a pause, and who looks learns
// what happened.
func TestOperationsUnderLoad(t *testing.T) {
	s := newSet(t, nil)
	h := s.gateway.AdminHandler()
	ctx := context.Background()
	k, watcher := connect(t, s.console("postgres")), connect(t, s.console("postgres"))
	admin := connect(t, s.url(""))
	if _, err := admin.Exec(ctx, "CREATE TABLE t (client int, n int, PRIMARY KEY (client, n))"); err != nil {
		t.Fatal(err)
	}
	work, end := context.WithCancel(ctx)
	var done, looks, retried atomic.Int64
	var wg sync.WaitGroup
	const clients = 8
	for i := range clients {
		conn := connect(t, s.url(""))
		wg.Go(func() {
			for n := 1; work.Err() == nil; n++ {
				if err := operationsStep(ctx, conn, i, n, &retried); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Go(func() {
		for work.Err() == nil {
			for _, sql := range []string{"SHOW CLIENTS", "SHOW SERVERS", "SHOW POOLS", "SHOW STATS", "SHOW LISTS"} {
				if _, err := watcher.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
					t.Error(err)
					return
				}
			}
			fetch(t, h, "/metrics", nil)
			fetch(t, h, "/status.json", nil)
			looks.Add(1)
			time.Sleep(5 * time.Millisecond)
		}
	})
	for range 5 {
		if _, err := k.Exec(ctx, "PAUSE"); err != nil {
			t.Fatal(err)
		}
		before := done.Load()
		time.Sleep(100 * time.Millisecond)
		// What was answered before may be counted late: one step of each client, and no more.
		if after := done.Load(); after > before+clients {
			t.Errorf("%d were done during a pause", after-before)
		}
		if _, err := k.Exec(ctx, "RESUME"); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return done.Load() > before+clients })
	}
	victim := s.servers[s.gateway.leader(t, s)]
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	says := func(text string) bool {
		return strings.Contains(strings.Join(flat(table(t, k, "SHOW EVENTS")), "\n"), text)
	}
	eventually(t, func() bool { return says(victim.Addr()+" is excluded") && says("before: "+victim.Addr()) })
	eventually(t, func() bool {
		_, body := fetch(t, h, "/metrics", nil)
		return strings.Contains(body, "pgdist_failovers_total 1")
	})
	if code, _ := fetch(t, h, "/readyz", nil); code != 200 {
		t.Errorf("not ready with a new leader: %d", code)
	}
	if err := victim.StartAgain(); err != nil {
		t.Fatal(err)
	}
	within(t, ages, func() bool { return says(victim.Addr() + " is in sync again") })
	end()
	wg.Wait()
	t.Logf("%d steps, %d transactions run again, %d looks", done.Load(), retried.Load(), looks.Load())
}

func flat(rows [][]string) (list []string) {
	for _, r := range rows {
		list = append(list, r...)
	}
	return list
}

// operationsStep does one thing of several kinds.
func operationsStep(ctx context.Context, conn *pgx.Conn, client, n int, retried *atomic.Int64) error {
	const insert = "INSERT INTO t VALUES ($1, $2)"
	switch n % 3 {
	case 0:
		_, err := conn.Exec(ctx, insert, client, n)
		return err
	case 1:
		var count int
		return conn.QueryRow(ctx, "SELECT count(*) FROM t WHERE client = $1", client).Scan(&count)
	}
	for {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, insert, client, n)
			return err
		})
		if code(err) != "40001" {
			return err
		}
		retried.Add(1)
	}
}

// TestConsoleWithoutServers: the console is there when it is needed most.
func TestConsoleWithoutServers(t *testing.T) {
	s := newSet(t, func(c *Config) {
		c.Auth, c.Users, c.Admins = SCRAM, map[string]string{"boss": "secret"}, []string{"boss"}
	})
	h := s.gateway.AdminHandler()
	for _, server := range s.servers {
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	k := connect(t, s.console("boss:secret"))
	if rows := table(t, k, "SHOW MEMBERS"); len(rows) != 4 {
		t.Errorf("%v", rows)
	}
	eventually(t, func() bool { code, _ := fetch(t, h, "/readyz", nil); return code == 503 })
	if code, _ := fetch(t, h, "/status.json", nil); code != 200 {
		t.Errorf("status.json: %d", code)
	}
	for _, server := range s.servers {
		if err := server.StartAgain(); err != nil {
			t.Fatal(err)
		}
	}
	// With a leader it is ready; followers may take their time.
	eventually(t, func() bool { code, _ := fetch(t, h, "/readyz", nil); return code == 200 })
}
