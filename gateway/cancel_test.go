package gateway

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/engine"
)

// A cancel request that comes in the moment between the wait for a connection and the
// statement is the statement's: neither does it get lost, nor is the connection, nor does it
// end what comes next.
func TestCancelAtTheEndOfTheWait(t *testing.T) {
	s := newSet(t, nil)
	ctx := context.Background()
	c := s.lone(t)
	const sql = "SELECT pg_sleep(60)"
	call := engine.Call{SQL: sql, Verdict: classify.NewCache(1 << 16).Classify(sql)}
	c.mu.Lock()
	c.waiting = true
	c.renew()
	c.mu.Unlock()
	lease, err := c.session.Acquire(c.ctx, call)
	if err != nil {
		t.Fatal(err)
	}
	c.cancel(ctx)
	if c.ctx.Err() == nil {
		t.Fatal("a cancel request did not end the wait")
	}
	u := lease.Conn().(*upstream)
	u.out = appendText(u.out[:0], msgQuery, sql)
	if err := u.send(); err != nil {
		t.Fatal(err)
	}
	for !s.active(t, u) { // one that comes before the statement would be lost
		time.Sleep(time.Millisecond)
	}
	c.under(u)
	var failed error
	if err := u.conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for ready := false; !ready; {
		typ, body, err := u.in.next()
		if err != nil {
			t.Fatal("the statement was not cancelled: ", err)
		}
		switch typ {
		case msgError:
			failed = errorOf(body)
		case msgReady:
			u.ready(body)
			ready = true
		}
	}
	if code(failed) != "57014" {
		t.Errorf("the statement hears %v", failed)
	}
	if err := u.conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	c.served(lease)
	if again, err := lease.Done(ctx, failed); again || code(err) != "57014" {
		t.Errorf("again %t, %v", again, err)
	}
	if u.IsClosed() {
		t.Error("the connection is lost")
	}
	if err := c.ctx.Err(); err != nil {
		t.Error("the next statement would hear ", err)
	}
	if err := c.session.Close(ctx); err != nil {
		t.Error(err)
	}
}

// lone is a client without a connection, for the test to play its part.
func (s *set) lone(tb testing.TB) *client {
	tb.Helper()
	connect(tb, s.url("")) // so that its user is known
	src := s.gateway.source
	s.gateway.mu.Lock()
	t := src.tenants["postgres"]
	s.gateway.mu.Unlock()
	c := &client{server: s.gateway, source: src, user: "postgres", params: map[string]string{}, statements: map[string]*statement{}, portals: map[string]*portal{}}
	c.renew()
	c.session = src.engine.NewSession(engine.SessionOptions{Tenant: t.Tenant, Owner: c, Listener: listener{c}})
	return c
}

// active tells whether a server is at work for u.
func (s *set) active(tb testing.TB, u *upstream) (yes bool) {
	tb.Helper()
	for _, server := range s.servers {
		if server.Addr() != u.conn.RemoteAddr().String() {
			continue
		}
		conn := connect(tb, server.DSN())
		if err := conn.QueryRow(context.Background(), "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep')", u.pid).Scan(&yes); err != nil {
			tb.Fatal(err)
		}
	}
	return yes
}

// What ends a wait does nothing to a connection once that is over.
func TestWatch(t *testing.T) {
	s := newSet(t, nil)
	c := s.lone(t)
	lease, err := c.session.Acquire(context.Background(), engine.Call{SQL: "SELECT 1", Verdict: classify.NewCache(1 << 16).Classify("SELECT 1")})
	if err != nil {
		t.Fatal(err)
	}
	u := lease.Conn().(*upstream)
	for i := range 2000 {
		ctx, cancel := context.WithCancel(context.Background())
		stop := u.watch(ctx)
		if i%2 == 0 {
			cancel()
		} else {
			go cancel()
		}
		fine := stop()
		if fine == u.IsClosed() {
			t.Fatalf("of use: %t, closed: %t", fine, u.IsClosed())
		}
		<-ctx.Done()
		u.closed.Store(false)
		if !fine {
			time.Sleep(time.Millisecond) // it may still be at it
			u.closed.Store(false)
			if err := u.conn.SetDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if _, err := u.Run(context.Background(), "SELECT 1"); err != nil {
			t.Fatal("over a connection that was of use: ", err)
		}
	}
	if _, err := lease.Done(context.Background(), nil); err != nil {
		t.Error(err)
	}
	if err := c.session.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestCancelAfterComparing: a statement is described anew on a connection that lacks it, before
// it runs there. A cancel request reaches it none the less.
func TestCancelAfterComparing(t *testing.T) {
	s := newSet(t, nil)
	k := talk(t, s.addr, nil)
	k.run(`
		P s|SELECT pg_sleep(60)|
		D S|s
		S
		Q BEGIN
		Q CREATE TABLE written (i int)
		Z 3
		B |s
		E |0
		S`)
	k.flush()
	s.awaitSleeping(t, "SELECT pg_sleep(60)%", 1)
	s.gateway.mu.Lock()
	c := s.gateway.clients[k.pid]
	s.gateway.mu.Unlock()
	c.cancel(t.Context())
	k.patience = 30 * time.Second
	if k.until(1); !strings.Contains(strings.Join(k.log, "\n"), "57014") {
		t.Errorf("the client hears %q", k.log)
	}
}
