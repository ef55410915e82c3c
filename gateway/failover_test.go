package gateway

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestFailover kills one server after another under clients: their connections stay,
// single statements see nothing, and no acknowledged write is lost.
func TestFailover(t *testing.T) {
	s := newSet(t, nil)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	admin := connect(t, s.url(""))
	if _, err := admin.Exec(ctx, "CREATE TABLE acked (client int, n int, r double precision DEFAULT random(), PRIMARY KEY (client, n)); CREATE TABLE hot (id int PRIMARY KEY, n int); INSERT INTO hot SELECT g, 0 FROM generate_series(1, 20) g"); err != nil {
		t.Fatal(err)
	}
	const clients = 12
	var acked [clients]int
	var retried, done atomic.Int64
	var wg sync.WaitGroup
	work, end := context.WithCancel(ctx)
	for i := range clients {
		conn := connect(t, s.url(""))
		rnd := rand.New(rand.NewPCG(7, uint64(i)))
		wg.Go(func() {
			for work.Err() == nil {
				acked[i]++
				var err error
				switch {
				case i%3 == 0:
					_, err = conn.Exec(ctx, "INSERT INTO acked (client, n) VALUES ($1, $2)", i, acked[i])
				case i%3 == 1:
					_, err = conn.Exec(ctx, "INSERT INTO acked (client, n) VALUES ($1, $2) RETURNING r", pgx.QueryExecModeSimpleProtocol, i, acked[i])
				default:
					err = inTx(ctx, conn, i, acked[i], 1+rnd.IntN(20), &retried)
				}
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				var n int
				if err := conn.QueryRow(ctx, "SELECT count(*) FROM acked WHERE client = $1", i).Scan(&n); err != nil || n != acked[i] {
					t.Errorf("client %d sees %d of its %d rows (%v)", i, n, acked[i], err)
					return
				}
				done.Add(1)
			}
		})
	}
	for round := range 6 {
		time.Sleep(700 * time.Millisecond)
		victim := s.servers[s.gateway.leader(t, s)]
		if round%2 == 1 {
			victim = s.servers[(s.gateway.leader(t, s)+1)%3]
		}
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		if err := victim.StartAgain(); err != nil {
			t.Fatal(err)
		}
		s.whole(t)
	}
	end()
	wg.Wait()
	t.Logf("%d statements, %d transactions run again", done.Load(), retried.Load())
	for i := range clients {
		var n int
		if err := admin.QueryRow(ctx, "SELECT count(*) FROM acked WHERE client = $1", i).Scan(&n); err != nil || n != acked[i] {
			t.Errorf("client %d: %d of %d rows (%v)", i, n, acked[i], err)
		}
	}
}

// inTx writes in a transaction, again while that is what the error asks for.
func inTx(ctx context.Context, conn *pgx.Conn, client, n, hot int, retried *atomic.Int64) error {
	for {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "UPDATE hot SET n = n + 1 WHERE id = $1", hot); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "INSERT INTO acked (client, n) VALUES ($1, $2)", client, n)
			return err
		})
		if code(err) != "40001" || conn.IsClosed() {
			return err
		}
		retried.Add(1)
	}
}

// leader is the index of the server that leads.
func (g *Server) leader(tb testing.TB, s *set) int {
	tb.Helper()
	for _, m := range g.engine.Stats() {
		for i, server := range s.servers {
			if m.Leader && m.Host == server.Addr() {
				return i
			}
		}
	}
	tb.Fatal("no leader")
	return 0
}

// whole waits until all servers are in sync.
func (s *set) whole(tb testing.TB) {
	tb.Helper()
	for deadline := time.Now().Add(ages); ; time.Sleep(50 * time.Millisecond) {
		n := 0
		for _, m := range s.gateway.engine.Stats() {
			if m.InSync {
				n++
			}
		}
		if n == len(s.servers) {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("%d servers are in sync", n)
		}
	}
}
