package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgdist/pgdist/internal/engine"
)

// flown runs f and tells how many statements loops have carried out meanwhile.
func (s *set) flown(f func()) uint64 {
	before := s.gateway.loops.flown()
	f()
	return s.gateway.loops.flown() - before
}

// parked tells how many clients are parked.
func (s *set) parked() (n int) {
	s.gateway.each(func(c *client) {
		if c.sock != nil && c.sock.riding() != nil {
			n++
		}
	})
	return n
}

// warm runs a text until its verdict is known and a loop carries it out.
func warm(t *testing.T, s *set, k *talker, script string) {
	t.Helper()
	eventually(t, func() bool { return s.flown(func() { k.run(script) }) > 0 })
	k.log = nil
}

// same compares what a plain server and the gateway answer to a script.
func same(t *testing.T, s *set, plain, ours *talker, script string) {
	t.Helper()
	plain.log, ours.log = nil, nil
	want := slices.Clone(plain.run(script))
	if got := ours.run(script); !slices.Equal(got, want) {
		t.Errorf("%s\nplain server:\n\t%s\ngateway:\n\t%s", script, strings.Join(want, "\n\t"), strings.Join(got, "\n\t"))
	}
}

// flights begins a set with a table, a client of a server and one of the gateway.
func flights(t *testing.T, change func(*Config)) (s *set, plain, ours *talker) {
	t.Helper()
	s = newSet(t, func(c *Config) {
		c.DSN = strings.Replace(c.DSN, rotating, "", 1) // loops carry out what has a connection at once
		if change != nil {
			change(c)
		}
	})
	admin := connect(t, s.url(""))
	if _, err := admin.Exec(context.Background(), "CREATE TABLE f (id int PRIMARY KEY, v text); INSERT INTO f SELECT g, 'v' || g FROM generate_series(1, 1000) g", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	return s, talk(t, s.servers[s.gateway.leader(t, s)].Addr(), nil), talk(t, s.addr, nil)
}

const (
	flyQuery    = "Q SELECT v FROM f WHERE id = 7\nZ 1"
	flyPipeline = "P |SELECT v FROM f WHERE id = $1|\nB ||8\nD P|\nE |0\nS\nZ 1"
	flyNamed    = "B |named|9\nD P|\nE |0\nS\nZ 1"
	prepare     = "P named|SELECT v FROM f WHERE id = $1|\nD S|named\nS\nZ 1"
)

// TestFlights: what loops carry out is answered as a plain server does, in whatever pieces
// it comes and whatever comes with it.
func TestFlights(t *testing.T) {
	s, plain, ours := flights(t, nil)
	for _, k := range []*talker{plain, ours} {
		k.run(prepare)
	}
	for _, script := range []string{flyQuery, flyPipeline, flyNamed} {
		warm(t, s, ours, script)
		if n := s.flown(func() { same(t, s, plain, ours, script) }); n != 1 {
			t.Errorf("%d statements are carried out by a loop:\n%s", n, script)
		}
	}
	t.Run("pieces", func(t *testing.T) {
		for _, script := range []string{flyQuery, flyPipeline, flyNamed} {
			for size := 1; size < 70; size += 3 {
				same(t, s, plain, ours, fmt.Sprintf("~ %d\n%s\n~ 0", size, script))
			}
		}
	})
	together := func(scripts ...string) string {
		all := strings.ReplaceAll(strings.Join(scripts, "\n"), "\nZ 1", "")
		return all + fmt.Sprintf("\nZ %d", len(scripts))
	}
	for name, script := range map[string]string{
		"several queries":          together(flyQuery, flyQuery, flyQuery),
		"several pipelines":        together(flyNamed, flyPipeline, flyNamed),
		"both kinds":               together(flyNamed, flyQuery, flyPipeline, flyQuery),
		"a query and half another": "Q SELECT v FROM f WHERE id = 7\n= Q\\x00\\x00\nZ 1\n= \\x00\\x0dSELECT 1\\x00\nZ 1",
		"a transaction":            together("Q BEGIN\nZ 1", flyQuery, "Q COMMIT\nZ 1", flyQuery),
		"an error":                 together(flyQuery, "Q SELECT 1/0\nZ 1", flyQuery),
		"an error of a row":        "Q SELECT 1/(id-7) FROM f WHERE id < 10\nZ 1\n" + flyQuery,
		"an error in a pipeline":   "P |SELECT 1/(id-$1) FROM f WHERE id < 10|\nB ||7\nD P|\nE |0\nS\nZ 1\n" + flyNamed,
		"a write":                  together(flyQuery, "Q UPDATE f SET v = v WHERE id = 7\nZ 1", flyQuery),
		"no rows":                  "Q SELECT v FROM f WHERE id = -1\nZ 1",
		"some of the rows":         "P |SELECT v FROM f ORDER BY id|\nB ||\nE |3\nS\nZ 1",
		"two statements":           "Q SELECT 1; SELECT 2\nZ 1",
		"a notice":                 "Q SELECT v FROM f WHERE id = 7 -- nothing\nZ 1",
		"many rows":                "Q SELECT g, repeat('x', 100) FROM generate_series(1, 1000) g\nZ 1",
		"a long row":               "Q SELECT repeat('x', 100000)\nZ 1",
		"nearly too much":          "Q SELECT repeat('x', 15900)\nZ 1\nQ SELECT repeat('x', 16200)\nZ 1\nQ SELECT repeat('x', 16384)\nZ 1",
		"a statement that is not":  "B |none|\nE |0\nS\nZ 1\n" + flyQuery,
		"no Sync":                  "B |named|1\nE |0\nH\nR\nS\nZ 1",
		"bad query":                "= Q\\x00\\x00\\x00\\x0aSELECT\nZ 1\n" + flyQuery,
		"zero in a query":          "= Q\\x00\\x00\\x00\\x0eSELECT\\x001\\x00\\x00\nZ 1\n" + flyQuery,
		"a setting":                "Q SET TimeZone = 'Asia/Tokyo'\nZ 1\n" + flyQuery + "\nQ SHOW TimeZone\nZ 1\nQ RESET TimeZone\nZ 1\n" + flyQuery,
		"a query ends the unnamed": "P |SELECT v FROM f WHERE id = $1|\nB ||8\nE |0\nS\nZ 1\n" + flyQuery + "\nB ||8\nE |0\nS\nZ 1",
		"description of a portal":  "P |SELECT id, v FROM f WHERE id = $1|\nB ||8\nD P|\nE |0\nS\nZ 1",
		"the statement described":  "P |SELECT id, v FROM f WHERE id = $1|\nB ||8\nD S|\nE |0\nS\nZ 1",
		"named portal":             "B p|named|9\nD P|p\nE p|0\nS\nZ 1\nE p|0\nS\nZ 1",
	} {
		t.Run(name, func(t *testing.T) {
			for range 3 { // the first time, the verdict may not be known
				same(t, s, plain, ours, script)
			}
		})
	}
	t.Run("closed behind", func(t *testing.T) { // what was asked is answered to who sends no more
		k := talk(t, s.addr, nil)
		warm(t, s, k, flyQuery)
		k.line("Q SELECT v FROM f WHERE id = 7")
		k.flush()
		if err := k.conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		k.until(1)
		if got := k.log; len(got) != 4 || got[3] != "ready I" {
			t.Errorf("%q", got)
		}
		if rest, err := io.ReadAll(k.conn); len(rest) != 0 || err != nil {
			t.Errorf("after that: %q, %v", rest, err)
		}
		eventually(t, func() bool { return s.gateway.count() <= 2 }) // the admin's and ours
	})
}

// terminate ends the servers' processes that run a text, from beside the gateway. One that
// is run again elsewhere at once may be ended there, too.
func terminate(t *testing.T, s *set, like string) (n int) {
	t.Helper()
	for _, server := range s.servers {
		conn := connect(t, server.DSN())
		var here int
		if err := conn.QueryRow(context.Background(), "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1 AND pid <> pg_backend_pid()", like).Scan(&here); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close(context.Background())
		n += here
	}
	return n
}

// TestFlightLosesServer ends the server's process when part of the answer has come already:
// the client gets the answer from elsewhere, whole and once.
func TestFlightLosesServer(t *testing.T) {
	s, _, ours := flights(t, nil)
	// The first rows fill what a server keeps back, so they arrive while it goes on.
	script := "Q SELECT id, repeat('x', 400), CASE WHEN id > 25 THEN pg_sleep(0.3) END FROM f WHERE id <= 30\nZ 1"
	warm(t, s, ours, script)
	for range 3 {
		done := make(chan []string, 1)
		go func() { ours.log = nil; done <- slices.Clone(ours.run(script)) }()
		s.awaitSleeping(t, "%repeat%", 1)
		if terminate(t, s, "%repeat%") == 0 {
			t.Error("no process runs it")
		}
		log := <-done
		rows := 0
		for _, line := range log {
			if strings.HasPrefix(line, "data") {
				rows++
			}
		}
		if rows != 30 || log[len(log)-1] != "ready I" || log[len(log)-2] != "complete SELECT 30" {
			t.Errorf("%d rows, then %q", rows, log[len(log)-2:])
		}
	}
}

// TestFlightCancelled: a cancel request ends what its client runs, and never what another
// client runs over the same connection afterwards.
func TestFlightCancelled(t *testing.T) {
	s, _, _ := flights(t, func(c *Config) { c.DSN += "&pool_size=1" })
	ctx := context.Background()
	victim := connect(t, s.url(""))
	query := func(conn *pgx.Conn, sql string) error {
		_, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		return err
	}
	for range 5 { // it is known from here on
		if err := query(victim, "SELECT pg_sleep(0.001)"); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- query(victim, "SELECT pg_sleep(30)") }()
	s.awaitSleeping(t, "%pg_sleep(30)%", 1)
	if err := victim.PgConn().CancelRequest(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; code(err) != "57014" {
		t.Errorf("who cancels hears %v", err)
	}
	work, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	cancelled, others := 0, 0
	for range 4 {
		conn := connect(t, s.url(""))
		wg.Go(func() {
			for work.Err() == nil {
				// Long enough for a request to arrive during it that was meant for what ran before it.
				if err := query(conn, "SELECT pg_sleep(0.01)"); err != nil {
					t.Errorf("who does not cancel hears %v", err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 300 {
			went := make(chan struct{})
			go func() { defer close(went); _ = victim.PgConn().CancelRequest(ctx) }()
			switch err := query(victim, fmt.Sprintf("SELECT pg_sleep(0.%04d)", i%40)); {
			case err == nil:
				others++
			case code(err) == "57014":
				cancelled++
			default:
				t.Errorf("who cancels hears %v", err)
			}
			<-went
		}
		end()
	})
	if n := s.flown(wg.Wait); n < 100 {
		t.Errorf("only %d statements are carried out by loops", n)
	}
	t.Logf("%d were cancelled, %d were not", cancelled, others)
}

// TestFlightWaitsForCancel: while a cancel request is on its way to a server, the connection is
// nobody else's, though the statement is over; and the loop serves others.
func TestFlightWaitsForCancel(t *testing.T) {
	s, _, ours := flights(t, nil)
	victim := talk(t, s.addr, nil)
	warm(t, s, victim, "Q SELECT pg_sleep(0.01)\nZ 1")
	warm(t, s, ours, flyQuery)
	var c *client
	s.gateway.each(func(o *client) {
		if o.conn.RemoteAddr().String() == victim.conn.LocalAddr().String() {
			c = o
		}
	})
	eventually(t, func() bool { return c.sock.riding() != nil })
	done := make(chan []string, 1)
	go func() { done <- victim.run("Q SELECT pg_sleep(2)\nZ 1") }()
	var u *upstream
	eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		u = c.serving
		return u != nil
	})
	under, arrives, cancelled := make(chan struct{}), make(chan struct{}), make(chan struct{})
	request := u.cancel
	u.cancel = func(context.Context) error { close(under); <-arrives; return nil }
	go func() { c.cancel(context.Background()); close(cancelled) }()
	<-under
	select {
	case log := <-done:
		t.Errorf("it is answered though a cancel request for it is still on its way: %q", log)
	case <-time.After(3 * time.Second):
		if n := s.flown(func() { ours.run(flyQuery) }); n != 1 {
			t.Errorf("the loop carries out %d statements of another client", n)
		}
		leased := func() (n int) {
			for _, m := range s.gateway.engine.Stats() {
				n += m.ReadPool.InUse
			}
			return n
		}
		eventually(t, func() bool { return leased() <= 1 }) // the engine reads catalogs now and then
		if n := leased(); n != 1 {
			t.Errorf("%d connections are leased", n)
		}
	}
	close(arrives)
	<-cancelled
	if log := <-done; len(log) != 4 || log[3] != "ready I" {
		t.Errorf("%q", log)
	}
	u.cancel = request
}

// TestParkedClients: thousands that wait cost no goroutine, hear of what concerns them, and
// are served when they ask.
func TestParkedClients(t *testing.T) {
	s, _, _ := flights(t, nil)
	const many = 1500
	before := runtime.NumGoroutine()
	clients := make([]*talker, many)
	for i := range clients {
		clients[i] = talk(t, s.addr, nil)
		clients[i].run(flyQuery)
	}
	eventually(t, func() bool { return s.parked() >= many })
	if n := runtime.NumGoroutine() - before; n > many/10 {
		t.Errorf("%d goroutines for %d clients that wait", n, many)
	}
	ask := func() {
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				k := clients[i]
				k.log = nil
				if log := k.run(fmt.Sprintf("Q SELECT v FROM f WHERE id = %d\nZ 1", 1+i%1000)); len(log) != 4 || log[1] != fmt.Sprintf("data [%q]", fmt.Sprintf("v%d", 1+i%1000)) {
					t.Errorf("client %d: %q", i, log)
				}
			})
		}
		wg.Wait()
	}
	ask() // goroutines dial what connections there may be
	eventually(t, func() bool { return s.parked() >= many })
	n := uint64(0)
	for try := 0; try < 20 && n < many/2; try++ { // a machine that is busy has some dialled anew
		n = s.flown(ask)
		eventually(t, func() bool { return s.parked() >= many })
	}
	if n < many/2 {
		t.Errorf("loops carry out %d of %d statements", n, many)
	}
	t.Run("pause", func(t *testing.T) {
		eventually(t, func() bool { return s.parked() >= many })
		if err := s.gateway.pause(""); err != nil {
			t.Fatal(err)
		}
		if err := s.gateway.waitQuiet(context.Background(), ""); err != nil {
			t.Fatal(err)
		}
		done := make(chan []string, 1)
		go func() { clients[0].log = nil; done <- clients[0].run(flyQuery) }()
		select {
		case log := <-done:
			t.Errorf("it is answered during a pause: %q", log)
		case <-time.After(200 * time.Millisecond):
		}
		if err := s.gateway.resume(""); err != nil {
			t.Fatal(err)
		}
		if log := <-done; len(log) != 4 {
			t.Errorf("after a pause: %q", log)
		}
	})
	farewell := func(k *talker) string {
		_ = k.conn.SetReadDeadline(time.Now().Add(patience))
		m, err := k.front.Receive()
		e, ok := m.(*pgproto3.ErrorResponse)
		if !ok {
			return fmt.Sprintf("%T %v", m, err)
		}
		if _, err := k.front.Receive(); err == nil {
			return "more than a farewell"
		}
		return e.Severity + " " + e.Code
	}
	t.Run("kill", func(t *testing.T) {
		eventually(t, func() bool { return s.parked() >= many })
		s.gateway.each(func(c *client) {
			if c.conn.RemoteAddr().String() == clients[0].conn.LocalAddr().String() {
				s.gateway.kill(c)
			}
		})
		if got := farewell(clients[0]); got != "FATAL 57P01" {
			t.Errorf("who is killed hears %s", got)
		}
	})
	t.Run("leave", func(t *testing.T) {
		before := s.parked()
		_ = clients[1].conn.Close()
		eventually(t, func() bool { return s.parked() < before })
	})
	t.Run("shutdown", func(t *testing.T) {
		ctx, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		if err := s.gateway.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		for i, k := range clients[2:] {
			if got := farewell(k); got != "FATAL 57P01" {
				t.Fatalf("client %d hears %s", i, got)
			}
		}
	})
}

// TestFlightSlowReader: a client that does not read what it asks for holds nobody up, and
// gets all of it in the end.
func TestFlightSlowReader(t *testing.T) {
	s, _, ours := flights(t, nil)
	slow, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	front := pgproto3.NewFrontend(slow, slow)
	front.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "postgres", "database": "postgres"}})
	_ = front.Flush()
	ready := func() (rows int) {
		for {
			m, err := front.Receive()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *pgproto3.DataRow:
				if rows++; !bytes.Equal(m.Values[0], bytes.Repeat([]byte("x"), 12000)) {
					t.Fatal("a row is something else")
				}
			case *pgproto3.ReadyForQuery:
				return rows
			}
		}
	}
	ready()
	query := appendText(nil, msgQuery, "SELECT repeat('x', 12000) FROM f WHERE id = 1")
	warm(t, s, ours, flyQuery)
	const asked = 2000 // more than all buffers on the way hold
	wrote := make(chan error, 1)
	go func() {
		for range asked {
			// One at a time, as long as they are taken: each is a message of its own for the loop.
			if _, err := slow.Write(query); err != nil {
				wrote <- err
				return
			}
			time.Sleep(50 * time.Microsecond)
		}
		wrote <- nil
	}()
	began := time.Now()
	for range 300 {
		ours.log = nil
		if log := ours.run(flyQuery); len(log) != 4 {
			t.Fatalf("another client: %q", log)
		}
	}
	t.Logf("300 statements of another client took %v", time.Since(began))
	for i := range asked {
		if rows := ready(); rows != 1 {
			t.Fatalf("answer %d has %d rows", i, rows)
		}
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
}

// TestFlightsQueue: far more clients than connections are served by the loop; a wait ends
// when the client gives up, and with the time that pool_wait_timeout allows.
func TestFlightsQueue(t *testing.T) {
	s, _, _ := flights(t, func(c *Config) { c.DSN += "&pool_size=1&pool_wait_timeout=1s" })
	ctx := context.Background()
	conns := make([]*pgx.Conn, 60)
	for i := range conns {
		conns[i] = connect(t, s.url(""))
	}
	all := func(sql string, each int) (errs []error) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, conn := range conns {
			wg.Go(func() {
				for range each {
					if _, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
						mu.Lock()
						errs = append(errs, err)
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		return errs
	}
	all("SELECT pg_sleep(0.0001)", 1)
	n := uint64(0)
	for try := 0; try < 5 && n < 1500; try++ {
		n = s.flown(func() {
			if errs := all("SELECT pg_sleep(0.0001)", 50); len(errs) > 0 {
				t.Errorf("%d errors, the first is %v", len(errs), errs[0])
			}
		})
	}
	if n < 1500 {
		t.Errorf("loops carry out %d of 3000 statements", n)
	}
	eventually(t, func() bool { return s.parked() >= len(conns) })
	hold := make([]chan error, 3)
	for i := range hold { // one for each member's only connection
		time.Sleep(50 * time.Millisecond)
		hold[i] = make(chan error, 1)
		go func() {
			_, err := conns[i].Exec(ctx, "SELECT pg_sleep(6)", pgx.QueryExecModeSimpleProtocol)
			hold[i] <- err
		}()
	}
	s.awaitSleeping(t, "%pg_sleep(6)%", len(hold))
	limited, stop := context.WithTimeout(ctx, 200*time.Millisecond)
	defer stop()
	began := time.Now()
	cancelled := conns[10]
	go func() { <-limited.Done(); _ = cancelled.PgConn().CancelRequest(ctx) }()
	if _, err := cancelled.Exec(ctx, "SELECT pg_sleep(0.0001)", pgx.QueryExecModeSimpleProtocol); code(err) != "57014" {
		t.Errorf("who gives up after %v hears %v", time.Since(began), err)
	}
	if _, err := conns[11].Exec(ctx, "SELECT pg_sleep(0.0001)", pgx.QueryExecModeSimpleProtocol); code(err) != "53300" {
		t.Errorf("who waits for %v hears %v", time.Since(began), err)
	}
	for _, h := range hold {
		if err := <-h; err != nil {
			t.Error(err)
		}
	}
	if errs := all("SELECT pg_sleep(0.0001)", 3); len(errs) > 0 {
		t.Errorf("after that: %v", errs[0])
	}
}

// TestFlightsCount: statements of loops are counted as others are.
func TestFlightsCount(t *testing.T) {
	s, _, ours := flights(t, nil)
	warm(t, s, ours, flyQuery)
	eventually(t, func() bool { return s.parked() > 0 })
	before, members := s.gateway.totals(), reads(s.gateway.engine.Stats())
	latency := s.gateway.measures.latency[workRead].read().total
	const n = 50
	if flown := s.flown(func() {
		for range n {
			ours.run(flyQuery)
		}
	}); flown < n/2 { // goroutines dial what connections there may be
		t.Fatalf("%d of %d are carried out by loops", flown, n)
	}
	eventually(t, func() bool { return s.gateway.totals().Sent > before.Sent })
	now := s.gateway.totals().less(before)
	query := uint64(len(appendText(nil, msgQuery, "SELECT v FROM f WHERE id = 7")))
	if now.Statements != n || now.Transactions != n || now.Received != n*query || now.Sent < n*50 || now.Spent <= 0 || now.InTx <= 0 {
		t.Errorf("%+v", now)
	}
	if got := s.gateway.measures.latency[workRead].read().total - latency; got != n {
		t.Errorf("%d durations", got)
	}
	if got := reads(s.gateway.engine.Stats()) - members; got != n {
		t.Errorf("members have %d more reads", got)
	}
	eventually(t, func() bool { // a moment after its answer was sent
		return !slices.ContainsFunc(s.gateway.infos(), func(i clientInfo) bool { return i.state != stateIdle || i.link != nil || i.tx })
	})
}

func reads(list []engine.MemberStats) (n uint64) {
	for _, m := range list {
		n += m.Reads
	}
	return n
}
