package gateway

import (
	"context"
	"slices"
	"strings"
	"testing"
)

// described are the ways in which drivers ask what a prepared statement returns.
var described = map[string]string{
	"statement": "P s|SELECT * FROM told WHERE id = 1|\nD S|s\nB |s\nE |0\nS\nZ 1",
	"portal":    "P s|SELECT * FROM told WHERE id = 1|\nB |s\nD P|\nE |0\nS\nZ 1", // pgJDBC, when it has chosen to prepare
}

// TestChangedResult: what a client was told of a statement's result holds on servers, too, that prepare the statement
// after DDL, as one does after it has said so once.
func TestChangedResult(t *testing.T) {
	t.Run("on any connection", func(t *testing.T) { changedResult(t, "") })
	t.Run("on the one that it was prepared on", func(t *testing.T) { changedResult(t, "&pool_size=1&consistency=leader") })
}

func changedResult(t *testing.T, params string) {
	s := newSet(t, func(c *Config) { c.DSN += params })
	ddl := connect(t, s.url(""))
	execute(t, ddl, "CREATE TYPE mood AS ENUM ('sad'); CREATE TYPE feeling AS ENUM ('sad')")
	for way, first := range described {
		for _, change := range []string{
			"ALTER TABLE told ALTER a TYPE bigint", "ALTER TABLE told DROP a, ADD c int", "ALTER TABLE told RENAME a TO c", "ALTER TABLE told ALTER m TYPE feeling USING 'sad'", "ALTER TABLE told ADD c int",
		} {
			execute(t, ddl, "DROP TABLE IF EXISTS told; CREATE TABLE told (id int PRIMARY KEY, a int, m mood); INSERT INTO told VALUES (1, 2, 'sad')")
			k := talk(t, s.addr, nil)
			k.run(first)
			execute(t, ddl, change)
			k.log = nil
			log := k.run(strings.Repeat("B |s\nE |0\nS\nZ 1\n", 10))
			if n := strings.Count(strings.Join(log, "\n"), "error ERROR 0A000"); n != 10 {
				t.Errorf("%s, told of a %s: %q", change, way, log)
			}
		}
	}
}

// loseServers ends the servers' processes that ran such a statement last: others have prepared nothing yet.
func (s *set) loseServers(tb testing.TB, like string) {
	tb.Helper()
	n := 0
	for _, server := range s.servers {
		conn := connect(tb, server.DSN())
		var here int
		if err := conn.QueryRow(context.Background(), "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE $1 AND pid <> pg_backend_pid()", like).Scan(&here); err != nil {
			tb.Fatal(err)
		}
		_ = conn.Close(context.Background())
		n += here
	}
	if n == 0 {
		tb.Errorf("no process ran %s", like)
	}
}

// TestModifiersOfPortals: a portal's plan may know more of what it returns than the statement does, by its parameters.
func TestModifiersOfPortals(t *testing.T) {
	s := newSet(t, nil)
	execute(t, connect(t, s.url("")), "CREATE TABLE told (id int PRIMARY KEY, a numeric(4, 2)); INSERT INTO told VALUES (1, 2)")
	const sql = "P s|SELECT CASE WHEN $1 THEN a ELSE 1.5 END FROM told|16\n"
	for _, first := range []string{"B |s|true\nD P|\nE |0\nS\nZ 1\n", "D S|s\nS\nZ 1\n"} {
		k := talk(t, s.addr, nil)
		k.run(sql + first)
		for _, again := range []string{"B |s|true\nE |0\nS\nZ 1\n", "B |s|false\nD P|\nE |0\nS\nZ 1\n"} {
			s.loseServers(t, "%FROM told%")
			k.log = nil
			if log := k.run(again); !slices.ContainsFunc(log, func(l string) bool { return strings.HasPrefix(l, "complete SELECT") }) {
				t.Errorf("%q after %q: %q", again, first, log)
			}
		}
	}
}

// TestDescribedUnderAnotherLeader: a switchover is no change of what statements return, though numbers of types are
// others on the new leader.
func TestDescribedUnderAnotherLeader(t *testing.T) {
	s := newSet(t, nil)
	for i, server := range s.servers { // which goes on counting in every database
		elsewhere := connect(t, server.DSN("template1"))
		for range 5 * i {
			execute(t, elsewhere, "CREATE TYPE passing AS ENUM (); DROP TYPE passing")
		}
		_ = elsewhere.Close(context.Background())
	}
	ddl := connect(t, s.url(""))
	execute(t, ddl, "CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE told (id int PRIMARY KEY, m mood); INSERT INTO told VALUES (1, 'sad')")
	numbers := map[string]bool{}
	for _, server := range s.servers {
		numbers[ask(t, connect(t, server.DSN()), "SELECT 'mood'::regtype::oid::text")] = true
	}
	if len(numbers) != 3 {
		t.Fatalf("the type has the numbers %v", numbers)
	}
	clients := map[string]*talker{}
	for way, first := range described {
		clients[way] = talk(t, s.addr, nil)
		clients[way].run(first)
	}
	m := s.mirror(t)
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	for range 3 {
		if _, err := m.Switchover(ctx, s.servers[(s.gateway.leader(t, s)+1)%3].Addr(), ages); err != nil {
			t.Fatal(err)
		}
		execute(t, ddl, "UPDATE told SET m = m") // by which the gateway has heard of it
		s.whole(t)
		for way, k := range clients {
			k.log = nil
			log := k.run(strings.Repeat("B |s\nE |0\nS\nZ 1\n", 10) + "Q BEGIN; LOCK TABLE told\nB |s\nE |0\nS\nQ ROLLBACK\nZ 3")
			if n := strings.Count(strings.Join(log, "\n"), `data ["1" "sad"]`); n != 11 {
				t.Errorf("told of a %s: %q", way, log)
			}
		}
	}
}

// A cancel request reaches a statement, too, before which its connection had to prepare it and
// compare what it returns.
func TestCancelAfterComparison(t *testing.T) {
	s := newSet(t, nil)
	ctx := context.Background()
	conn := connect(t, s.url(""))
	const sql = "SELECT 'compared', pg_sleep($1::int)"
	if _, err := conn.Prepare(ctx, "slow", sql); err != nil {
		t.Fatal(err)
	}
	run := func(seconds int) error {
		_, err := conn.Exec(ctx, "slow", seconds)
		return err
	}
	if err := run(0); err != nil {
		t.Fatal(err)
	}
	s.loseServers(t, "SELECT 'compared'%")
	failed := make(chan error, 1)
	go func() { failed <- run(20) }()
	s.awaitSleeping(t, "SELECT 'compared'%", 1)
	if err := conn.PgConn().CancelRequest(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; code(err) != "57014" {
		t.Errorf("who cancels hears %v", err)
	}
	if err := run(0); err != nil {
		t.Error(err)
	}
}
