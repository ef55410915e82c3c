package gateway

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestReadOnlyBesideFailover: READ ONLY transactions on followers go on while the leader, whose
// numbers of tables their clients are told, is gone, and until there is another.
func TestReadOnlyBesideFailover(t *testing.T) {
	s := newSet(t, nil)
	ctx := context.Background()
	mustExec(t, connect(t, s.url("")), replayTables)
	read := func(conn *pgx.Conn, mode pgx.QueryExecMode, statements int) error {
		return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
			for range statements {
				var n int
				if err := tx.QueryRow(ctx, "SELECT n FROM acct WHERE id = $1", mode, 1).Scan(&n); err != nil {
					return err
				}
			}
			return nil
		})
	}
	modes := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement}
	var conns []*pgx.Conn
	for range modes {
		conns = append(conns, connect(t, s.url("")))
	}
	victim := s.gateway.leader(t, s)
	if err := s.servers[victim].Kill(); err != nil {
		t.Fatal(err)
	}
	led, n := false, 0
	for deadline := time.Now().Add(ages); !led; n++ {
		led = s.gateway.leader(t, s) != victim // once more afterwards
		for i, conn := range conns {
			// A transaction that began on the leader before it died hears that it is lost.
			if err := read(conn, modes[i], 2); err != nil && code(err) != "40001" {
				t.Errorf("transaction %d, %v: %v", n, modes[i], err)
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("no leader")
		}
	}
	for i, conn := range conns {
		if err := read(conn, modes[i], 2); err != nil {
			t.Errorf("%v: %v", modes[i], err)
		}
	}
	if err := s.servers[victim].StartAgain(); err != nil {
		t.Fatal(err)
	}
	s.whole(t)
}

// TestParseThatWasLost: a client that got an error in place of ParseComplete can use the name again.
func TestParseThatWasLost(t *testing.T) {
	s := newSet(t, nil)
	c := talk(t, s.addr, nil)
	c.run("Q CREATE TABLE p (i int)\nZ 1\nQ BEGIN\nZ 1\nQ INSERT INTO p VALUES (1)\nZ 1\nP s1|SELECT pg_sleep(20)|\nB |s1\nE |0\nS\nZ 0")
	leader := connect(t, s.servers[s.gateway.leader(t, s)].DSN())
	for deadline := time.Now().Add(ages); ; { // the server answers what it has done before it says farewell
		var n int
		if err := leader.QueryRow(context.Background(), "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the statement does not run")
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.run("Z 1")
	c.log = nil
	got := strings.Join(c.run("Q ROLLBACK\nZ 1\nP s1|SELECT 1|\nB |s1\nE |0\nS\nZ 1"), "\n")
	want := "complete ROLLBACK\nready I\nParseComplete &{}\nBindComplete &{}\ndata [\"1\"]\ncomplete SELECT 1\nready I"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestCloseInLostTransaction: what a driver closes of a transaction that was lost with its server, in front of its
// ROLLBACK, is no reason not to roll back.
func TestCloseInLostTransaction(t *testing.T) {
	s := newSet(t, nil)
	c := talk(t, s.addr, nil)
	c.run("Q CREATE TABLE p (i int)\nZ 1\nP s|SELECT 1|\nS\nZ 1")
	for _, begin := range []string{"BEGIN; INSERT INTO p VALUES (1)", "BEGIN READ ONLY"} {
		c.run("Q " + begin + "\nP |SELECT generate_series(1, 100) AS closed|\nB c|\nE c|5\nS\nZ 2")
		s.loseServers(t, "%AS closed%")
		c.log = nil
		log := strings.Join(c.run("E c|5\nS\nC P|c\nS\nC S|nosuch\nS\nC P|c\nC S|s\nP |ROLLBACK|\nB |\nE |0\nS\nP s|SELECT 1|\nC S|s\nS\nZ 5"), "\n")
		_, got, _ := strings.Cut(log, "\n")
		want := "ready E\nCloseComplete &{}\nready E\nCloseComplete &{}\nready E\nCloseComplete &{}\nCloseComplete &{}\nParseComplete &{}\nBindComplete &{}\ncomplete ROLLBACK\nready I\nParseComplete &{}\nCloseComplete &{}\nready I"
		if !strings.HasPrefix(log, "error ERROR 40001") || got != want {
			t.Errorf("%s: got\n%s\nwant, after the first line,\n%s", begin, log, want)
		}
		c.run("P s|SELECT 1|\nS\nZ 1")
	}
}
