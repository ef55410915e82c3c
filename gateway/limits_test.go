package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/engine"
)

// execute runs a text by the simple protocol.
func execute(tb testing.TB, conn *pgx.Conn, sql string) {
	tb.Helper()
	if _, err := conn.Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

// ask returns a query's only value as text.
func ask(tb testing.TB, conn *pgx.Conn, sql string) (value string) {
	tb.Helper()
	if err := conn.QueryRow(context.Background(), sql, pgx.QueryExecModeSimpleProtocol).Scan(&value); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	return value
}

// urlOf is how a user reaches the gateway under a database's name.
func (s *set) urlOf(user, database string) string {
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", user, s.addr, database)
}

// leased counts the connections in use.
func (s *set) leased() (n int) {
	s.gateway.eachMember(func(_ *source, m engine.MemberStats) { n += m.ReadPool.InUse + m.WritePool.InUse })
	return n
}

// TestSessionPooling: a client of that mode has one connection to the leader, with whatever lives
// there, and leaves nothing to the next.
func TestSessionPooling(t *testing.T) {
	s := newSet(t, func(c *Config) {
		c.Databases = []string{"whole"}
		c.DatabaseOptions = map[string]DatabaseOptions{"whole": {PoolMode: SessionPooling}}
		c.UserOptions = map[string]UserOptions{"tx": {PoolMode: TransactionPooling}}
	})
	ctx := context.Background()
	admin := connect(t, s.url(""))
	execute(t, admin, `CREATE TABLE t (id int PRIMARY KEY); CREATE USER tx; GRANT ALL ON t TO tx;
		CREATE FUNCTION hidden() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'CREATE TEMP TABLE secret AS SELECT 7 AS x'; EXECUTE 'SET application_name = ''left'''; PERFORM pg_advisory_lock(7); END $$`)
	a, b := connect(t, s.urlOf("postgres", "whole")), connect(t, s.urlOf("postgres", "whole"))
	pid := ask(t, a, "SELECT pg_backend_pid()::text")
	other := ask(t, b, "SELECT pg_backend_pid()::text")
	if pid == other {
		t.Error("two clients have one connection")
	}
	for _, sql := range []string{"SELECT pg_backend_pid()::text", "WITH w AS (INSERT INTO t VALUES (1) RETURNING 1) SELECT pg_backend_pid()::text FROM w", "SELECT pg_backend_pid()::text FROM t"} {
		if got := ask(t, a, sql); got != pid {
			t.Errorf("%s runs in process %s, and not %s", sql, got, pid)
		}
	}
	execute(t, a, "BEGIN; INSERT INTO t VALUES (2); COMMIT")
	if got := ask(t, b, "SELECT count(*)::text FROM t"); got != "2" {
		t.Errorf("another session sees %s rows", got)
	}
	// What the text does not tell stays with the connection.
	execute(t, a, "SELECT hidden()")
	if _, err := a.Prepare(ctx, "p", "SELECT x FROM secret"); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, a, "SELECT x::text FROM secret"); got != "7" {
		t.Error(got)
	}
	if got := pinsOf(s, a); !strings.Contains(got, "session") {
		t.Errorf("the client is pinned by %q", got)
	}
	execute(t, a, "DISCARD ALL")
	if got := ask(t, a, "SELECT pg_backend_pid()::text || coalesce(to_regclass('secret')::text, '')"); got != pid {
		t.Errorf("after DISCARD ALL it is %s, and was %s", got, pid)
	}
	execute(t, a, "SELECT hidden()")
	if _, err := a.Prepare(ctx, "q", "SELECT 1 FROM t"); err != nil {
		t.Fatal(err)
	}
	_ = a.Close(ctx)
	eventually(t, func() bool { return s.leased() == 1 })
	c := connect(t, s.urlOf("postgres", "whole"))
	if got := ask(t, c, "SELECT pg_backend_pid()::text || coalesce(to_regclass('secret')::text, '') || current_setting('application_name')"); got != pid {
		t.Errorf("the next session finds %s, want the same process %s and nothing of the one before", got, pid)
	}
	if got := ask(t, c, "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"); got != "0" {
		t.Errorf("%s advisory locks are left", got)
	}
	if _, err := c.Prepare(ctx, "p", "SELECT 1 FROM t"); err != nil { // the server has forgotten all
		t.Error(err)
	}
	if _, err := c.Exec(ctx, "p"); err != nil {
		t.Error(err)
	}
	u := connect(t, s.urlOf("tx", "whole"))
	if ask(t, u, "SELECT 1::text"); pinsOf(s, u) != "" {
		t.Error("the user's mode does not win over the database's")
	}
	// A leader that is lost ends what lived there, and is told once.
	leader := s.gateway.engine.View().Leader
	for _, m := range s.gateway.engine.Stats() {
		if m.ID == leader {
			for _, server := range s.servers {
				if server.Addr() == m.Host {
					if err := server.Kill(); err != nil {
						t.Fatal(err)
					}
					defer func() {
						if err := server.StartAgain(); err != nil {
							t.Error(err)
						}
						s.whole(t)
					}()
				}
			}
		}
	}
	var err error
	eventually(t, func() bool {
		var one string
		err = c.QueryRow(ctx, "SELECT 1::text", pgx.QueryExecModeSimpleProtocol).Scan(&one)
		return err != nil
	})
	if code(err) != "57P01" {
		t.Errorf("the client hears %v", err)
	}
	execute(t, c, "INSERT INTO t VALUES (3)")
	_ = c.Close(ctx)
}

// pinsOf tells why a client keeps a connection.
func pinsOf(s *set, conn *pgx.Conn) string {
	for _, i := range s.gateway.infos() {
		if i.c.id == conn.PgConn().PID() {
			return i.pins.String()
		}
	}
	return "no such client"
}

// TestLimits keeps the connections to a server within limits, and has users wait in turns.
func TestLimits(t *testing.T) {
	s := newSet(t, func(c *Config) {
		c.MaxDBConnections = 3
		c.UserOptions = map[string]UserOptions{"few": {MaxConnections: 1, MaxClients: 2}}
		c.QueryWaitTimeout = time.Minute
	})
	ctx := context.Background()
	admin := connect(t, s.url(""))
	execute(t, admin, "CREATE TABLE done (n serial PRIMARY KEY, who text); CREATE USER many; CREATE USER one; CREATE USER few; GRANT ALL ON done TO PUBLIC; GRANT ALL ON SEQUENCE done_n_seq TO PUBLIC")
	// connections of clients at any server, as the servers count them
	counts := make([]*pgx.Conn, len(s.servers))
	for i, server := range s.servers {
		counts[i] = connect(t, server.DSN())
	}
	most := func() (n int) {
		for _, conn := range counts {
			var k int
			if err := conn.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE usename IN ('many', 'one', 'few')").Scan(&k); err != nil {
				t.Fatal(err)
			}
			n = max(n, k)
		}
		return n
	}
	waiting := func() (n int) {
		for _, i := range s.gateway.infos() {
			if i.state == stateWaiting {
				n++
			}
		}
		return n
	}
	var conns []*pgx.Conn // a log-in needs a connection, too
	for range 23 {
		conns = append(conns, connect(t, s.urlOf("many", "postgres")))
	}
	one := connect(t, s.urlOf("one", "postgres"))
	// Three hold all there is; twenty of the same user, and then one of another, wait.
	holders, crowd := conns[:3], conns[3:]
	for _, conn := range holders {
		execute(t, conn, "BEGIN; SELECT txid_current()")
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var order []string
	begin := func(conn *pgx.Conn, user string) {
		before := waiting()
		wg.Go(func() {
			if _, err := conn.Exec(ctx, "BEGIN; SELECT txid_current()", pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Error(err)
			}
			mu.Lock()
			order = append(order, user)
			mu.Unlock()
			if _, err := conn.Exec(ctx, "COMMIT"); err != nil {
				t.Error(err)
			}
		})
		eventually(t, func() bool { return waiting() > before })
	}
	for _, conn := range crowd {
		begin(conn, "many")
	}
	begin(one, "one")
	execute(t, holders[0], "COMMIT") // from hand to hand
	wg.Wait()
	at := -1
	for i, user := range order {
		if user == "one" {
			at = i
		}
	}
	if at < 0 || at > 2 {
		t.Errorf("another user had its turn behind %d of those who came first: %v", at, order)
	}
	if n := most(); n > 3 {
		t.Errorf("a server has %d connections", n)
	}
	t.Run("one user", func(t *testing.T) {
		execute(t, holders[1], "COMMIT")
		execute(t, holders[2], "COMMIT")
		a, b := connect(t, s.urlOf("few", "postgres")), connect(t, s.urlOf("few", "postgres"))
		if _, err := pgx.Connect(ctx, s.urlOf("few", "postgres")); code(err) != "53300" || !strings.Contains(err.Error(), "max_user_client_connections") {
			t.Errorf("a third client of that user: %v", err)
		}
		execute(t, a, "BEGIN; SELECT txid_current()")
		limited, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		if _, err := b.Exec(limited, "INSERT INTO done (who) VALUES ('b')"); err == nil {
			t.Error("a second connection is had by a user who may have one")
		}
		execute(t, a, "INSERT INTO done (who) VALUES ('a'); COMMIT")
		if n := most(); n > 3 {
			t.Errorf("a server has %d connections", n)
		}
	})
	t.Run("a client that holds one does not wait for a second", func(t *testing.T) {
		conn := connect(t, s.urlOf("few", "postgres"))
		execute(t, conn, "SELECT pg_advisory_lock(4712)")
		execute(t, conn, "/* pgdist: leader */ SELECT count(*) FROM done")
		_ = conn.Close(ctx)
		eventually(t, func() bool { return s.leased() == 0 })
	})
	t.Run("reload", func(t *testing.T) {
		config := *s.gateway.conf()
		config.MaxDBConnections, config.QueryWaitTimeout = 1, time.Hour
		fixed, err := s.gateway.Reload(context.Background(), config)
		if err != nil || len(fixed) != 1 || fixed[0] != "query_wait_timeout" {
			t.Error(fixed, err)
		}
		execute(t, holders[0], "BEGIN; SELECT txid_current()")
		limited, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		if _, err := holders[1].Exec(limited, "INSERT INTO done (who) VALUES ('b')"); err == nil {
			t.Error("the new limit does not hold")
		}
		execute(t, holders[0], "COMMIT")
	})
}

// TestQueryWaitTimeout: who waits too long for a connection hears why, and stays.
func TestQueryWaitTimeout(t *testing.T) {
	s := newSet(t, func(c *Config) { c.MaxUserConnections, c.QueryWaitTimeout = 1, 2*time.Second })
	a, b := connect(t, s.url("")), connect(t, s.url(""))
	execute(t, a, "BEGIN; SELECT txid_current()")
	_, err := b.Exec(context.Background(), "SELECT txid_current()")
	if code(err) != "53300" || !strings.Contains(err.Error(), "2s") {
		t.Errorf("who waits hears %v", err)
	}
	execute(t, a, "COMMIT")
	execute(t, b, "SELECT txid_current()")
}

// TestSets has one gateway before two sets.
func TestSets(t *testing.T) {
	two, s := newSet(t, nil), newSet(t, nil)
	ctx := context.Background()
	for i, one := range []*set{s, two} {
		execute(t, connect(t, one.url("")), fmt.Sprintf("CREATE TABLE here (id int PRIMARY KEY); INSERT INTO here VALUES (%d); CREATE USER u%d PASSWORD 'pw'; GRANT SELECT ON here TO u%[2]d", i+1, i+1))
	}
	t.Run("new", func(t *testing.T) { newSets(t, s, two) })
	s.serve(t, func(c *Config) {
		c.Auth = SCRAM
		c.Users = map[string]string{"postgres": "pw"}
		c.Databases = []string{"alias"}
		c.DatabaseOptions = map[string]DatabaseOptions{"second": {DSN: two.dsn, MaxClients: 3}, "*": {DSN: two.dsn}, "other": {}}
	})
	url := func(user, db string) string {
		return fmt.Sprintf("postgres://%s:pw@%s/%s?sslmode=disable", user, s.addr, db)
	}
	for db, want := range map[string]string{"postgres": "1", "alias": "1", "other": "1", "second": "2", "any": "2"} {
		conn := connect(t, url("postgres", db))
		for range 5 {
			if got := ask(t, conn, "SELECT id::text FROM here"); got != want {
				t.Errorf("%s leads to set %s, want %s", db, got, want)
			}
		}
		if _, err := conn.Exec(ctx, "INSERT INTO here VALUES ($1)", 10); err != nil {
			t.Error(err)
		}
		execute(t, conn, "DELETE FROM here WHERE id = 10")
	}
	// users are those of the set that the name leads to
	for _, c := range []struct{ user, db, want string }{{"u1", "postgres", ""}, {"u2", "second", ""}, {"u1", "second", "28P01"}, {"u2", "postgres", "28P01"}, {"u2", "any", ""}} {
		conn, err := pgx.Connect(ctx, url(c.user, c.db))
		if err == nil {
			ask(t, conn, "SELECT id::text FROM here")
			_ = conn.Close(ctx)
		}
		if err == nil && c.want != "" || err != nil && code(err) != c.want {
			t.Errorf("%+v: %v", c, err)
		}
	}
	t.Run("limit", func(t *testing.T) {
		for range 2 { // beside the one above
			connect(t, url("postgres", "second"))
		}
		if _, err := pgx.Connect(ctx, url("postgres", "second")); code(err) != "53300" || !strings.Contains(err.Error(), "max_db_client_connections") {
			t.Errorf("a fourth client: %v", err)
		}
	})
	t.Run("shown", func(t *testing.T) {
		config := *s.gateway.conf()
		config.Admins = []string{"postgres"}
		config.DatabaseOptions = map[string]DatabaseOptions{"second": {DSN: s.dsn}, "third": {DSN: two.dsn}, "*": {DSN: two.dsn}}
		fixed, err := s.gateway.Reload(context.Background(), config)
		if err != nil || fmt.Sprint(fixed) != "[databases second]" {
			t.Error(fixed, err)
		}
		if got := ask(t, connect(t, url("postgres", "second")), "SELECT id::text FROM here"); got != "2" {
			t.Error("a name leads elsewhere before a restart")
		}
		console := connect(t, url("postgres", "pgdist")+"&default_query_exec_mode=simple_protocol")
		for show, want := range map[string]int{"MEMBERS": 6, "VIEW": 2} {
			rows, err := console.Query(ctx, "SHOW "+show)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for rows.Next() {
				n++
			}
			if n != want || rows.Err() != nil {
				t.Errorf("SHOW %s: %d rows, %v", show, n, rows.Err())
			}
		}
		_, metrics := fetch(t, s.gateway.AdminHandler(), "/metrics", nil)
		for _, want := range []string{`pgdist_view_epoch{database="second"}`, `pgdist_view_epoch{database="postgres"}`, `pgdist_member_leader{database="second",`} {
			if !strings.Contains(metrics, want) {
				t.Errorf("the metrics lack %s", want)
			}
		}
	})
}

// newSets has names lead to another set than the DSN's while the gateway runs.
func newSets(t *testing.T, s, two *set) {
	ctx := context.Background()
	reload := func(options map[string]DatabaseOptions) (string, error) {
		config := *s.gateway.conf()
		config.Databases, config.DatabaseOptions = []string{"alias"}, options
		fixed, err := s.gateway.Reload(ctx, config)
		return fmt.Sprint(fixed), err
	}
	leads := func(db, want string) {
		t.Helper()
		conn := connect(t, s.urlOf("postgres", db))
		if got := ask(t, conn, "SELECT id::text FROM here"); got != want {
			t.Errorf("%s leads to set %s, want %s", db, got, want)
		}
		_ = conn.Close(ctx)
	}
	if fixed, err := reload(nil); err != nil || fixed != "[]" {
		t.Error(fixed, err)
	}
	there := connect(t, s.urlOf("postgres", "alias"))
	nowhere := strings.Replace(two.dsn, "/postgres?", "/nowhere?", 1)
	if _, err := reload(map[string]DatabaseOptions{"first": {DSN: two.dsn}, "second": {DSN: nowhere}}); err == nil || !strings.Contains(err.Error(), "database second: ") {
		t.Errorf("a set that cannot be opened: %v", err)
	}
	if _, err := pgx.Connect(ctx, s.urlOf("postgres", "first")); code(err) != "3D000" {
		t.Errorf("a name of a configuration that is not in force: %v", err)
	}
	added := map[string]DatabaseOptions{"alias": {DSN: two.dsn}, "second": {DSN: two.dsn, MaxClients: 1}, "also": {DSN: two.dsn}}
	if fixed, err := reload(added); err != nil || fixed != "[databases alias]" {
		t.Error(fixed, err)
	}
	leads("alias", "1") // where its client is
	leads("second", "2")
	leads("also", "2")
	leads("postgres", "1")
	_ = there.Close(ctx)
	eventually(t, func() bool { return !s.gateway.used("alias") })
	if fixed, err := reload(added); err != nil || fixed != "[]" {
		t.Error(fixed, err)
	}
	leads("alias", "2")
	if fixed, err := reload(nil); err != nil || fixed != "[databases alias databases also databases second]" {
		t.Error(fixed, err)
	}
	leads("second", "2")
	if n := len(s.gateway.sources()); n != 2 {
		t.Errorf("%d sets are open", n)
	}
	events := s.gateway.history.latest()
	if !slices.ContainsFunc(events, func(e event) bool { return e.Set != "postgres" && strings.HasPrefix(e.Text, "gateway started") }) {
		t.Errorf("events: %v", events)
	}
}

// TestWaitersAreSpread: reads that find no connection free wait for all databases alike, and not for one while
// those of the others are soon without anything to do.
func TestWaitersAreSpread(t *testing.T) {
	s := newSet(t, func(c *Config) { c.DSN += "&pool_size=2" })
	waiting := func() (n []int, sum int) {
		s.gateway.eachMember(func(_ *source, m engine.MemberStats) {
			n, sum = append(n, m.ReadPool.Waiting), sum+m.ReadPool.Waiting
		})
		return n, sum
	}
	ctx, stop := context.WithCancel(context.Background())
	var under sync.WaitGroup
	defer under.Wait()
	defer stop()
	conns := make([]*pgx.Conn, 15)
	for i := range conns { // a log-in asks a server, too
		conns[i] = connect(t, s.url(""))
	}
	for i, conn := range conns {
		under.Go(func() { _, _ = conn.Exec(ctx, "SELECT pg_sleep(600)", pgx.QueryExecModeSimpleProtocol) })
		if i < 6 {
			s.awaitSleeping(t, "%pg_sleep(600)%", i+1)
			continue
		}
		eventually(t, func() bool { _, sum := waiting(); return sum == i-5 })
	}
	if n, _ := waiting(); slices.Max(n) != 3 {
		t.Errorf("%v wait", n)
	}
}
