package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// replace has another gateway, in this process, take the place of the set's, with its clients and
// its socket, as a restart in place does. between is called while there is none.
func (s *set) replace(t *testing.T, drain time.Duration, change func(*Config), between func(*Handover)) {
	t.Helper()
	old := s.gateway
	var files []*os.File
	old.mu.Lock()
	for l := range old.listeners {
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	old.mu.Unlock()
	ctx, stop := context.WithTimeout(context.Background(), drain)
	defer stop()
	if err := old.Hold(ctx); err != nil {
		t.Fatal(err)
	}
	h, err := old.HandOver(ctx)
	if err != nil {
		t.Fatal(err)
	}
	f, err := h.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if between != nil {
		between(h)
	}
	read, err := ReadHandover(f)
	if err != nil {
		t.Fatal(err)
	}
	gc := Config{DSN: s.dsn, Auth: Trust, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&gc)
	}
	if s.gateway, err = Open(t.Context(), gc); err != nil {
		t.Fatal(err)
	}
	if n, err := s.gateway.TakeOver(read); err != nil || n != h.Len() {
		t.Errorf("%d of %d clients are taken over: %v", n, h.Len(), err)
	}
	l, err := net.FileListener(files[0])
	if err := errors.Join(err, files[0].Close()); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func(g *Server) { served <- g.Serve(l) }(s.gateway)
	t.Cleanup(func() {
		if err := s.gateway.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	if err := read.Close(); err != nil {
		t.Error(err)
	}
}

// TestHandover: clients go on with another gateway as if nothing had happened, those that cannot
// hear why, and who has a transaction open is waited for.
func TestHandover(t *testing.T) {
	rules := func(c *Config) {
		c.HBA = rulesOf(t, "host all joe all scram-sha-256\nhost all all all trust")
		c.Admins, c.UserOptions = []string{"postgres"}, map[string]UserOptions{"few": {MaxClients: 2}}
	}
	s := newSet(t, rules)
	ctx := context.Background()
	admin := connect(t, s.url(""))
	execute(t, admin, `CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 10) i; GRANT ALL ON t TO public;
		CREATE USER joe PASSWORD 'secret'; CREATE USER few; CREATE SCHEMA other; CREATE TABLE other.t AS SELECT 'elsewhere' AS v; CREATE TABLE other.changes (id int PRIMARY KEY, a int);`)
	for _, server := range s.servers {
		requireScram(t, server.DataDir(), "joe")
		reload(t, server.DSN())
	}

	prepared := connect(t, s.url("&application_name=it&options=-c%20statement_timeout%3D77s"))
	if _, err := prepared.Prepare(ctx, "named", "SELECT v FROM t WHERE id = $1"); err != nil {
		t.Fatal(err)
	}
	if _, err := prepared.Prepare(ctx, "changes", "SELECT * FROM other.changes"); err != nil {
		t.Fatal(err)
	}
	execute(t, prepared, "SET work_mem = '7MB'; SET TIME ZONE 'Asia/Tokyo'; SET statement_timeout = '5s'; SET application_name = 'renamed'")
	scoped := connect(t, s.url(""))
	execute(t, scoped, "SET search_path = other, public")
	if _, err := scoped.Prepare(ctx, "named", "SELECT v FROM t"); err != nil {
		t.Fatal(err)
	}
	plain, err := pgx.Connect(ctx, strings.Replace(s.url(""), "postgres@", "joe:secret@", 1))
	if err != nil {
		t.Fatal(err)
	}
	few := []*pgx.Conn{connect(t, s.urlOf("few", "postgres")), connect(t, s.urlOf("few", "postgres"))}
	raw := talk(t, s.addr, map[string]string{"user": "postgres", "database": "postgres"})
	raw.run("P |SELECT v FROM t WHERE id = $1|23\nS\nZ 1")
	inTx, lost, pinned, listening := connect(t, s.url("")), connect(t, s.url("")), connect(t, s.url("")), connect(t, s.url(""))
	execute(t, inTx, "SET work_mem = '9MB'; BEGIN; INSERT INTO t VALUES (100, 'in a transaction')")
	execute(t, lost, "BEGIN; INSERT INTO t VALUES (200, 'for too long')")
	execute(t, pinned, "CREATE TEMP TABLE mine AS SELECT 1 AS x")
	execute(t, listening, "LISTEN a")
	numbers := func() (list []uint32) {
		for _, i := range s.gateway.infos() {
			list = append(list, i.c.id)
		}
		return list
	}
	gone := map[uint32]bool{lost.PgConn().PID(): true, pinned.PgConn().PID(): true, listening.PgConn().PID(): true}
	var want []uint32
	for _, n := range numbers() {
		if !gone[n] {
			want = append(want, n)
		}
	}

	ends := make(chan error, 1)
	go func() {
		time.Sleep(500 * time.Millisecond) // while it is waited for
		_, err := inTx.Exec(ctx, "COMMIT")
		ends <- err
	}()
	s.replace(t, 3*time.Second, rules, func(*Handover) {
		_, _ = raw.conn.Write(appendMessage(nil, msgQuery, []byte("SELECT 'sent meanwhile'\x00"))) // what is wrong is seen below
	})
	if err := <-ends; err != nil {
		t.Errorf("a transaction that was open: %v", err)
	}
	if diff := cmp.Diff(want, numbers()); diff != "" {
		t.Errorf("the clients (-before +after):\n%s", diff)
	}
	for what, conn := range map[string]*pgx.Conn{"with a temporary table": pinned, "that listens": listening} {
		if _, err := conn.Exec(ctx, "SELECT 1"); code(err) != "57P01" && !closedBefore(conn, err) {
			t.Errorf("a client %s hears %v", what, err)
		}
	}
	if _, err := lost.Exec(ctx, "COMMIT"); err == nil {
		t.Error("a transaction that took too long is committed")
	}

	var v string
	if err := prepared.QueryRow(ctx, "named", 3).Scan(&v); err != nil || v != "v3" {
		t.Errorf("a prepared statement: %q %v", v, err)
	}
	settings := "SELECT current_setting('work_mem') || ' ' || current_setting('TimeZone') || ' ' || current_setting('statement_timeout') || ' ' || current_setting('application_name')"
	if got := ask(t, prepared, settings); got != "7MB Asia/Tokyo 5s renamed" {
		t.Errorf("settings: %s", got)
	}
	if got := prepared.PgConn().ParameterStatus("application_name"); got != "renamed" {
		t.Errorf("application_name is told to be %q", got)
	}
	if k := connect(t, s.console("postgres")); !strings.Contains(fmt.Sprint(table(t, k, "SHOW CLIENTS")), "renamed") {
		t.Error("the console does not know the client's application_name")
	}
	execute(t, prepared, "RESET ALL")
	if got := ask(t, prepared, settings); got != "4MB "+ask(t, admin, "SHOW TimeZone")+" 77s it" {
		t.Errorf("after RESET ALL: %s", got)
	}
	if err := scoped.QueryRow(ctx, "named").Scan(&v); err != nil || v != "elsewhere" {
		t.Errorf("a statement prepared with another search_path: %q %v", v, err)
	}
	execute(t, admin, "ALTER TABLE other.changes ADD COLUMN b text")
	if _, err := prepared.Exec(ctx, "changes"); code(err) != "0A000" {
		t.Errorf("a statement whose result is another than the client was told: %v", err)
	}
	if got := ask(t, plain, "SELECT current_user::text"); got != "joe" {
		t.Errorf("who logged in by SCRAM is %s", got)
	}
	if got := ask(t, inTx, "SELECT v || current_setting('work_mem') FROM t WHERE id = 100"); got != "in a transaction9MB" {
		t.Error(got)
	}
	raw.log = nil
	if got := strings.Join(raw.run("Z 1"), "\n"); !strings.Contains(got, "sent meanwhile") {
		t.Errorf("what was sent while there was no gateway: %s", got)
	}
	raw.log = nil
	if got := strings.Join(raw.run("P |SELECT v FROM t WHERE id = $1|23\nS\nZ 1\nB ||5\nE\nS\nZ 1"), "\n"); !strings.Contains(got, "v5") {
		t.Errorf("the unnamed statement: %s", got)
	}
	// They count, are known by their keys and numbers, and can be handed over again.
	if _, err := pgx.Connect(ctx, s.urlOf("few", "postgres")); code(err) != "53300" {
		t.Errorf("one more than the user may have: %v", err)
	}
	cancelled(t, few[0])
	execute(t, connect(t, s.url("")), "SELECT pg_terminate_backend("+itoa(int(few[1].PgConn().PID()))+")")
	if _, err := few[1].Exec(ctx, "SELECT 1"); err == nil {
		t.Error("a client lives on that was ended by its number")
	}
	raw.log = nil
	raw.run("P |SELECT v FROM t WHERE id = $1|23\nS\nZ 1")
	s.replace(t, 3*time.Second, rules, nil)
	cancelled(t, few[0])
	raw.log = nil
	if got := strings.Join(raw.run("B ||6\nE\nS\nZ 1"), "\n"); !strings.Contains(got, "v6") {
		t.Errorf("the unnamed statement, from before: %s", got)
	}
	if err := prepared.QueryRow(ctx, "named", 4).Scan(&v); err != nil || v != "v4" {
		t.Errorf("a prepared statement: %q %v", v, err)
	}
	if n := ask(t, admin, "SELECT count(*)::text FROM t WHERE id > 10"); n != "1" {
		t.Errorf("%s rows", n)
	}
}

// closedBefore tells that the client had heard of its end before it asked.
func closedBefore(conn *pgx.Conn, err error) bool { return err != nil && conn.IsClosed() }

// cancelled checks that a client's request to cancel arrives.
func cancelled(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	over, done := make(chan struct{}), make(chan error, 1)
	go func() {
		var err error
		for err == nil { // one that comes before the statement is lost
			select {
			case <-over:
				done <- nil
				return
			case <-time.After(300 * time.Millisecond):
				err = conn.PgConn().CancelRequest(context.Background())
			}
		}
		done <- err
	}()
	_, err := conn.Exec(context.Background(), "SELECT pg_sleep(60)")
	close(over)
	if e := <-done; e != nil || code(err) != "57014" {
		t.Errorf("a request to cancel (%v) leads to %v", e, err)
	}
}

// TestHandoverPaused: PAUSE goes on, and so does who waits for RESUME.
func TestHandoverPaused(t *testing.T) {
	admins := func(c *Config) { c.Admins = []string{"postgres"} }
	s := newSet(t, admins)
	ctx := context.Background()
	waits, other := connect(t, s.url("")), connect(t, s.url(""))
	execute(t, connect(t, s.console("postgres")), "PAUSE")
	answered := make(chan error, 2)
	ask := func(conn *pgx.Conn) {
		var n int
		err := conn.QueryRow(ctx, "SELECT 41 + $1::int", 1).Scan(&n)
		if err == nil && n != 42 {
			err = errors.New(itoa(n))
		}
		answered <- err
	}
	go ask(waits)
	eventually(t, func() bool {
		for _, i := range s.gateway.infos() {
			if i.state == stateWaiting {
				return true
			}
		}
		return false
	})
	s.replace(t, 10*time.Second, admins, nil)
	go ask(other)
	select {
	case err := <-answered:
		t.Errorf("in spite of PAUSE, %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	execute(t, connect(t, s.console("postgres")), "RESUME")
	for range 2 {
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
}

// TestHandoverRefused: clients that a program cannot take hear that they end.
func TestHandoverRefused(t *testing.T) {
	hears := func(t *testing.T, conn *pgx.Conn) {
		t.Helper()
		limited, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		_, err := conn.WaitForNotification(limited)
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "57P01" || pe.Severity != "FATAL" {
			t.Errorf("the client hears %v", err)
		}
	}
	s := newSet(t, nil)
	written := func(t *testing.T) (*pgx.Conn, []byte) {
		t.Helper()
		s.serve(t, nil)
		conn := connect(t, s.url(""))
		ctx, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		h, err := s.gateway.HandOver(ctx)
		if err != nil || h.Len() != 1 {
			t.Fatalf("%d clients, %v", h.Len(), err)
		}
		f, err := h.File()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		return conn, text
	}
	t.Run("format", func(t *testing.T) {
		conn, text := written(t)
		binary.BigEndian.PutUint32(text[len(handoverMagic):], HandoverFormat+1)
		h, err := ReadHandover(bytes.NewReader(text))
		if !errors.Is(err, ErrHandoverFormat) {
			t.Errorf("another format: %v", err)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		hears(t, conn)
	})
	t.Run("cut off", func(t *testing.T) {
		conn, text := written(t)
		h, err := ReadHandover(bytes.NewReader(text[:len(text)-100]))
		if err == nil {
			t.Error("half of the sessions are taken for all")
		}
		if n, err := (&Server{}).TakeOver(h); n != 0 || err == nil {
			t.Errorf("%d clients are taken: %v", n, err)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		hears(t, conn)
	})
	t.Run("database", func(t *testing.T) {
		s.serve(t, func(c *Config) { c.Databases = []string{"alias"} })
		conn := connect(t, s.urlOf("postgres", "alias"))
		ctx, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		h, err := s.gateway.HandOver(ctx)
		if err != nil {
			t.Fatal(err)
		}
		s.serve(t, nil)
		if n, err := s.gateway.TakeOver(h); n != 0 || err == nil || !strings.Contains(err.Error(), `"alias" is not served`) {
			t.Errorf("%d clients are taken: %v", n, err)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		hears(t, conn)
	})
	for _, text := range []string{"", "pgdist", strings.Repeat("x", 100), handoverMagic + "\x00\x00\x00\x01\xff\xff\xff\xff"} {
		if h, err := ReadHandover(strings.NewReader(text)); h != nil || err == nil {
			t.Errorf("%q is taken: %v", text, err)
		}
	}
}
