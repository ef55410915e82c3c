package gateway

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// A statement's notices are told while it still runs, by either protocol, and once, though it is run again
// on another leader; those that are told with the rest are where they belong.
func TestNoticesOfAStatementThatRuns(t *testing.T) {
	s := newSet(t, nil)
	ctx := t.Context()
	admin := connect(t, s.url(""))
	if _, err := admin.Exec(ctx, `CREATE TABLE gate (id int PRIMARY KEY); INSERT INTO gate VALUES (1); CREATE TABLE steps (id serial PRIMARY KEY, what text);
		CREATE FUNCTION step(what text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
			RAISE NOTICE 'first %', what; RAISE NOTICE 'second %', what;
			INSERT INTO steps (what) VALUES (what);
			PERFORM 1 FROM gate FOR UPDATE;
			RAISE NOTICE 'last %', what;
			RETURN what;
		END $$`); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var heard []string
	told := make(chan string, 100)
	config, err := pgx.ParseConfig(s.url(""))
	if err != nil {
		t.Fatal(err)
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		mu.Lock()
		heard = append(heard, n.Message)
		mu.Unlock()
		told <- n.Message
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	for i, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
		what, dies := mode.String(), i > 2
		leader := s.servers[s.gateway.leader(t, s)]
		holder := pgtest.Connect(t, leader.DSN())
		if _, err := holder.Exec(ctx, "BEGIN; SELECT 1 FROM gate FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			var got string
			err := conn.QueryRow(ctx, "SELECT step($1)", mode, what).Scan(&got)
			if err == nil && got != what {
				t.Errorf("%s returns %q", what, got)
			}
			done <- err
		}()
		for _, want := range []string{"first " + what, "second " + what} {
			select {
			case got := <-told:
				if got != want {
					t.Fatalf("%s: heard %q instead of %q", what, got, want)
				}
			case err := <-done:
				t.Fatalf("%s did not wait: %v", what, err)
			case <-time.After(ages):
				t.Fatalf("%s: %q is not told while the statement runs", what, want)
			}
		}
		if dies {
			if err := leader.Kill(); err != nil {
				t.Fatal(err)
			}
		} else if _, err := holder.Exec(ctx, "COMMIT"); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if dies {
			if err := leader.StartAgain(); err != nil {
				t.Fatal(err)
			}
			s.whole(t)
		}
		mu.Lock()
		if want := []string{"first " + what, "second " + what, "last " + what}; !slices.Equal(heard, want) {
			t.Errorf("%s, with the leader lost: %v: heard %q", what, dies, heard)
		}
		heard = nil
		mu.Unlock()
		for len(told) > 0 {
			<-told
		}
	}
	var n int
	if err := admin.QueryRow(ctx, "SELECT count(*) FROM steps").Scan(&n); err != nil || n != 5 {
		t.Errorf("%d steps, %v", n, err)
	}
	got := talk(t, s.addr, nil).run(`
		Q DO $$ BEGIN RAISE NOTICE 'a'; END $$; SELECT 1; DO $$ BEGIN RAISE NOTICE 'b'; END $$
		Z 1`)
	if want := []string{`notice NOTICE 00000 "a"`, "complete DO", "row ?column?:23:false:0:0", `data ["1"]`, "complete SELECT 1", `notice NOTICE 00000 "b"`, "complete DO", "ready I"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
