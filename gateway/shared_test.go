package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// TestListenersShare has many clients listen over few connections to servers.
func TestListenersShare(t *testing.T) {
	s := newSet(t, nil)
	const many, each = 200, 5
	ctx, stop := context.WithTimeout(context.Background(), ages)
	defer stop()
	var wg sync.WaitGroup
	var conns [many]*pgx.Conn
	for i := range many {
		conns[i] = connect(t, s.url(""))
		execute(t, conns[i], fmt.Sprintf("LISTEN everybody; LISTEN only_%d", i%10))
	}
	admin := connect(t, strings.Replace(s.url(""), "/postgres?", "/"+consoleName+"?", 1)+"&default_query_exec_mode=simple_protocol")
	servers := table(t, admin, "SHOW SERVERS")
	if len(servers) > 12 {
		t.Errorf("%d clients that listen cost %d connections to servers", many, len(servers))
	}
	if got := cell(servers, "state", "purpose", "listen"); got != "active" {
		t.Errorf("the connection by which clients listen is %q", got)
	}
	if got := cell(table(t, admin, "SHOW CLIENTS"), "pinned", "database", "postgres"); got != "" {
		t.Errorf("a client that listens is pinned because of %q", got)
	}
	if got := cell(table(t, admin, "SHOW CLIENTS"), "channels", "database", "postgres"); got != "2" {
		t.Errorf("a client that listens to two channels listens to %q", got)
	}
	for i := range many {
		wg.Go(func() {
			for n := range each + 1 {
				want := fmt.Sprintf("everybody %d", n)
				if n == each {
					want = fmt.Sprintf("only_%d x", i%10)
				}
				got, err := conns[i].WaitForNotification(ctx)
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				if g := got.Channel + " " + got.Payload; g != want {
					t.Errorf("client %d hears %q instead of %q", i, g, want)
				}
			}
		})
	}
	sender := connect(t, s.url(""))
	for n := range each {
		execute(t, sender, fmt.Sprintf("NOTIFY everybody, '%d'", n))
	}
	execute(t, sender, "SELECT pg_notify('only_' || i, 'x') FROM generate_series(0, 9) i")
	wg.Wait()
	for i := range many {
		_ = conns[i].Close(ctx)
	}
	leader := connect(t, s.servers[s.gateway.leader(t, s)].DSN())
	eventually(t, func() bool { // nothing is left behind
		h := s.gateway.hub
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.line != nil && len(h.line.channels) == 0 && len(h.line.trips) == 0
	})
	var n int
	if err := leader.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND query LIKE '%LISTEN%'").Scan(&n); err != nil || n > 2 {
		t.Errorf("%d connections have listened (%v)", n, err)
	}
}

// TestListenGapless has clients begin and end listening while others notify: each hears, in
// order and once, all that was committed after its LISTEN was answered, nothing that was
// committed before it was sent, and knows its own.
func TestListenGapless(t *testing.T) {
	s := newSet(t, func(c *Config) { c.DSN += "&pool_size=1" }) // one process notifies for all
	ctx, stop := context.WithTimeout(context.Background(), ages)
	defer stop()
	var sent, begun atomic.Int64 // the number notified last, whose COMMIT was answered; and sent
	end := make(chan struct{})
	var senders, wg sync.WaitGroup
	senders.Go(func() {
		conn := connect(t, s.url(""))
		for n := int64(1); ; n++ {
			select {
			case <-end:
				return
			default:
			}
			begun.Store(n)
			if _, err := conn.Exec(ctx, fmt.Sprintf("NOTIFY tick, '%d'", n)); err != nil {
				t.Error(err)
				return
			}
			sent.Store(n)
		}
	})
	const clients, rounds = 6, 12
	for i := range clients {
		conn := connect(t, s.url(""))
		wg.Go(func() {
			hear := func() (n int64, own bool) {
				got, err := conn.WaitForNotification(ctx)
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return -1, false
				}
				if got.Channel == "own" {
					who := 0
					if _, err := fmt.Sscan(got.Payload, &who); err != nil {
						t.Error(err)
					}
					if mine := got.PID == conn.PgConn().PID(); mine != (who == i) {
						t.Errorf("client %d hears %d of client %d (own: %t)", i, got.PID, who, mine)
					}
					return 0, who == i
				}
				if got.PID == conn.PgConn().PID() {
					t.Errorf("client %d takes %q for its own", i, got.Payload)
				}
				if _, err := fmt.Sscan(got.Payload, &n); err != nil {
					t.Error(err)
				}
				return n, false
			}
			for range rounds {
				before := sent.Load()
				if _, err := conn.Exec(ctx, "BEGIN; LISTEN tick; LISTEN own; COMMIT"); err != nil {
					t.Error(err)
					return
				}
				after := begun.Load() // what is begun after that is committed after LISTEN
				n, _ := hear()
				for n == 0 {
					n, _ = hear()
				}
				if n <= before || n > after+1 {
					t.Errorf("client %d hears %d first, after %d and before %d", i, n, before, after+1)
				}
				if _, err := conn.Exec(ctx, fmt.Sprintf("NOTIFY own, '%d'", i)); err != nil {
					t.Error(err)
					return
				}
				for own, k := false, 0; !own || k < 20; k++ {
					next, mine := hear()
					own = own || mine
					switch {
					case next < 0:
						return
					case next == 0:
					case next != n+1:
						t.Errorf("client %d hears %d after %d", i, next, n)
						fallthrough
					default:
						n = next
					}
				}
				if _, err := conn.Exec(ctx, "UNLISTEN *"); err != nil {
					t.Error(err)
					return
				}
				for { // what had been received before the answer
					limited, cancel := context.WithTimeout(ctx, time.Millisecond)
					_, err := conn.WaitForNotification(limited)
					cancel()
					if err != nil {
						break
					}
				}
			}
		})
	}
	wg.Wait()
	close(end)
	senders.Wait()
}

// TestListenFailover: who listens when the leader is lost is told so, after what was notified
// before; the others are not, and a transaction that was about to listen may be tried again.
func TestListenFailover(t *testing.T) {
	s := newSet(t, nil)
	ctx, stop := context.WithTimeout(context.Background(), ages)
	defer stop()
	idle := talk(t, s.addr, nil)
	idle.run("Q LISTEN a\nZ 1")
	inTx := talk(t, s.addr, nil)
	inTx.run("Q LISTEN a\nZ 1\nQ BEGIN\nZ 1\nQ SELECT 1\nZ 1")
	later := connect(t, s.url(""))
	if _, err := later.Exec(ctx, "BEGIN; LISTEN a"); err != nil {
		t.Fatal(err)
	}
	former := connect(t, s.url(""))
	execute(t, former, "LISTEN a")
	execute(t, former, "UNLISTEN a")
	execute(t, former, "NOTIFY a, 'heard'")
	idle.log, inTx.log = nil, nil
	victim := s.gateway.leader(t, s)
	if err := s.servers[victim].Kill(); err != nil {
		t.Fatal(err)
	}
	const lost = `error FATAL 57P01 "the leader's connection was lost, and with it what this session listens for" detail "" position 0`
	idle.until(1)
	if got := strings.Join(idle.log, "\n"); got != "notification a heard\n"+lost+"\nclosed" {
		t.Errorf("who waits hears\n%s", got)
	}
	inTx.run("Q ROLLBACK\nZ 2")
	if got := strings.Join(inTx.log, "\n"); !strings.HasSuffix(got, lost+"\nclosed") || !strings.Contains(got, "notification a heard\n") {
		t.Errorf("who is in a transaction hears\n%s", got)
	}
	if _, err := later.Exec(ctx, "COMMIT"); err != nil {
		t.Errorf("who was about to listen: %v", err)
	}
	execute(t, former, "NOTIFY a, 'on the new leader'")
	if n, err := later.WaitForNotification(ctx); err != nil || n.Payload != "on the new leader" {
		t.Errorf("who has listened since: %v, %v", n, err)
	}
	if err := s.servers[victim].StartAgain(); err != nil {
		t.Fatal(err)
	}
	s.whole(t)
	again := connect(t, s.url("")) // the connection alone is lost
	execute(t, again, "LISTEN a")
	leader := s.gateway.leader(t, s)
	execute(t, connect(t, s.servers[leader].DSN()), fmt.Sprintf("SELECT pg_terminate_backend(%d)", s.gateway.hub.line.u.pid))
	if _, err := again.WaitForNotification(ctx); code(err) != "57P01" {
		t.Errorf("who listened by a connection that was ended: %v", err)
	}
	again = connect(t, s.url("")) // another one leads, and no connection is lost
	execute(t, again, "LISTEN a")
	own := connect(t, s.url("&client_encoding=LATIN1")) // the same for who has a connection of its own
	execute(t, own, "LISTEN a")
	m := s.mirror(t)
	if _, err := m.Switchover(ctx, s.servers[(leader+1)%3].Addr(), ages); err != nil {
		t.Fatal(err)
	}
	if _, err := again.WaitForNotification(ctx); code(err) != "57P01" {
		t.Errorf("who listened to a leader that is one no more: %v", err)
	}
	limited, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := own.WaitForNotification(limited); code(err) != "57P01" {
		t.Errorf("who listened to it on a connection of its own: %v", err)
	}
}

// TestListenDeaf: a client that does not take what it is notified of holds nobody up, and is
// ended with an error that says why once it does.
func TestListenDeaf(t *testing.T) {
	s := newSet(t, nil)
	ctx, stop := context.WithTimeout(context.Background(), ages)
	defer stop()
	deaf := talk(t, s.addr, nil)
	deaf.run("Q LISTEN a\nZ 1")
	busy := talk(t, s.addr, nil)
	busy.run("Q LISTEN a\nZ 1\nQ BEGIN\nZ 1")
	good := connect(t, s.url(""))
	execute(t, good, "LISTEN a")
	sender := connect(t, s.url(""))
	const rows, rounds, size = 200, 30, 7000 // what sockets take, and more
	for range rounds {
		execute(t, sender, fmt.Sprintf("SELECT pg_notify('a', repeat('x', %d) || i) FROM generate_series(1, %d) i", size, rows))
		for n := range rows {
			if _, err := good.WaitForNotification(ctx); err != nil {
				t.Fatalf("who reads has heard %d: %v", n, err)
			}
		}
	}
	s.gateway.each(func(c *client) {
		if e := c.ear; e != nil {
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.size > earLimit+size+2*newsSize {
				t.Errorf("%d bytes are kept for %s", e.size, c)
			}
		}
	})
	busy.run("Q COMMIT\nZ 2")
	deaf.until(1)
	for who, k := range map[string]*talker{"who does not read": deaf, "who is in a transaction": busy} {
		n := len(k.log)
		if n < 3 || k.log[n-1] != "closed" || !strings.HasPrefix(k.log[n-2], `error FATAL 54000 "too many notifications wait for this session, which does not take them"`) {
			t.Errorf("%s hears at the end: %.200q", who, k.log[max(0, n-2):])
		}
	}
}

// TestListenByGoroutine: clients that no loop can watch are told as promptly.
func TestListenByGoroutine(t *testing.T) {
	cert, _ := certificate(t)
	s := newSet(t, func(c *Config) { c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
	ctx, stop := context.WithTimeout(context.Background(), ages)
	defer stop()
	conn := connect(t, strings.Replace(s.url(""), "sslmode=disable", "sslmode=require", 1))
	execute(t, conn, "LISTEN a")
	sender := connect(t, s.url(""))
	for n := range 50 {
		execute(t, sender, fmt.Sprintf("NOTIFY a, '%d'", n))
		got, err := conn.WaitForNotification(ctx)
		if err != nil || got.Payload != fmt.Sprint(n) {
			t.Fatalf("notification %d: %v %v", n, got, err)
		}
		if n%5 == 0 {
			execute(t, conn, "SELECT 1")
		}
	}
}

// TestListenInOtherEncodings: who is not told in UTF-8 listens on a connection of its own, or is
// told that it cannot.
func TestListenInOtherEncodings(t *testing.T) {
	s := newSet(t, nil)
	plain := pgtest.Start(t, pgtest.Options{})
	script := "Q LISTEN \"\xe9\"\nZ 1\nQ NOTIFY \"\xe9\", '\xe9\xe9'\nZ 1\nQ LISTEN b\nZ 1\nQ UNLISTEN \"\xe9\"\nZ 1\nQ NOTIFY \"\xe9\"; NOTIFY b\nZ 1\nQ SELECT pg_listening_channels()\nZ 1"
	latin := map[string]string{"client_encoding": "LATIN1"}
	want, got := talk(t, plain.Addr(), latin).run(script), talk(t, s.addr, latin).run(script)
	if strings.Join(want, "\n") != strings.Join(got, "\n") {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	k := talk(t, s.addr, nil)
	k.run("Q LISTEN a\nZ 1\nQ SET client_encoding = 'LATIN1'\nZ 1\nQ LISTEN b\nZ 1\nQ NOTIFY a, 'x'\nZ 1")
	if log := strings.Join(k.log, "\n"); !strings.Contains(log, "error ERROR 0A000") || !strings.Contains(log, "notification a x") {
		t.Errorf("got\n%s", log)
	}
	execute(t, connect(t, s.url("")), "NOTIFY a, 'é'")
	k.until(1)
	if log := strings.Join(k.log[len(k.log)-2:], "\n"); !strings.HasPrefix(log, "error FATAL 0A000") || !strings.HasSuffix(log, "closed") {
		t.Errorf("got\n%s", log)
	}
}
