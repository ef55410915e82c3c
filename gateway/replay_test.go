package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// replayScript is a transaction with about everything in it that can be run again, by both
// protocols. The connection to the leader may be lost before each part.
var replayScript = []string{
	"Q BEGIN\nZ 1",
	"Q SELECT id, n FROM acct WHERE id <= 3 ORDER BY id\nZ 1",
	"Q INSERT INTO log VALUES ('NAME', 1), ('NAME', 2)\nZ 1",
	"P ins|INSERT INTO log VALUES ($1, $2) RETURNING k|\nD S|ins\nB |ins|NAME|3\nD P|\nE |0\nS\nZ 1",
	"Q SAVEPOINT s\nZ 1",
	"B |ins|NAME|3\nE |0\nS\nZ 1", // 23505
	"Q SELECT 1\nZ 1",             // 25P02
	"Q ROLLBACK TO s\nZ 1",
	"P |SELECT $1::int + 1|\nB ||41\nD P|\nE |0\nS\nZ 1",
	"B ||42\nE |0\nS\nZ 1",
	"P q|SELECT g FROM generate_series(1, 9) g|\nB por|q\nE por|4\nS\nZ 1",
	"E por|4\nS\nZ 1",
	"P |INSERT INTO log VALUES ('NAME', 4)|\nB |\nE |0\nP |SELECT count(*) FROM log WHERE tx = 'NAME'|\nB |\nE |0\nE por|1\nS\nZ 1",
	"C P|por\nC S|q\nS\nZ 1",
	"Q COPY log FROM STDIN\nd NAME\t10\\nNAME\t11\\n\nd NAME\t12\\n\nc\nZ 1",
	"P c|COPY log FROM STDIN|\nB |c\nE |0\nH\nd NAME\t13\\n\nc\nS\nZ 1",
	"Q COPY (SELECT k FROM log WHERE tx = 'NAME' ORDER BY k) TO STDOUT\nZ 1",
	"Q SET LOCAL work_mem = '1234kB'; SHOW work_mem\nZ 1",
	"P |SET LOCAL my.own = 'x'|\nB |\nE |0\nP |SHOW my.own|\nB |\nE |0\nS\nZ 1",
	"C S|ins\nP ins|SELECT concat('other', $1::text)|\nB |ins|x\nE |0\nS\nZ 1",
	"Q DO $$ BEGIN RAISE NOTICE 'once'; INSERT INTO log VALUES ('NAME', 20); END $$\nZ 1",
	"Q CREATE TABLE NAME (id int); INSERT INTO NAME VALUES (1), (2); SELECT * FROM NAME\nZ 1",
	"Q PREPARE sq AS SELECT count(*) FROM NAME\nZ 1",
	"Q EXECUTE sq\nZ 1",
	"Q SELECT pg_sleep(0.05); SELECT set_config('my.other', 'y', false)\nZ 1",
	"P bad|nonsense|\nS\nZ 1",
	"Q ROLLBACK TO s\nZ 1",
	"Q SHOW work_mem\nZ 1",
	"B |ins|y\nE |0\nS\nZ 1",
	"Q LISTEN ch; NOTIFY ch, 'told once'\nZ 1",
	"Q SELECT tx, k FROM log WHERE tx = 'NAME' ORDER BY k\nZ 1",
	"Q COMMIT\nZ 1",
	"Q UNLISTEN *; DEALLOCATE ALL\nZ 1",
}

const replayTables = `CREATE TABLE acct (id int PRIMARY KEY, n int NOT NULL); CREATE TABLE log (tx text, k int, PRIMARY KEY (tx, k)); INSERT INTO acct SELECT g, 100 FROM generate_series(1, 20) g`

// endOpen ends what has a transaction open on the leader.
func (s *set) endOpen(tb testing.TB) {
	tb.Helper()
	s.servers[s.gateway.leader(tb, s)].Exec(tb, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'")
}

// TestReplay loses the connection to the leader before each part of a transaction: the
// client is told what it is told undisturbed, byte for byte, and what it wrote is there once.
func TestReplay(t *testing.T) {
	s := newSet(t, func(c *Config) { c.DSN += "&replay=on" })
	admin := connect(t, s.url(""))
	mustExec(t, admin, replayTables)
	name := func(i int) string { return fmt.Sprintf("tx_%d_", i) }
	var want []string
	lost := 0
	for i := -1; i < len(replayScript)-1; i++ {
		c := talk(t, s.addr, map[string]string{"client_min_messages": "notice"})
		var got []string
		for k, part := range replayScript {
			if k == i {
				s.endOpen(t)
				lost++
			}
			c.log = nil
			for _, line := range c.run(strings.ReplaceAll(part, "NAME", name(i+1))) {
				got = append(got, fmt.Sprintf("%d: %s", k, strings.ReplaceAll(line, name(i+1), "NAME")))
			}
		}
		if i < 0 {
			want = got
		}
		for k := range max(len(got), len(want)) {
			g, w := "nothing", "nothing"
			if k < len(got) {
				g = got[k]
			}
			if k < len(want) {
				w = want[k]
			}
			if g != w {
				t.Errorf("lost before part %d:\n got %.300s\nwant %.300s", i, g, w)
				break
			}
		}
		var n int
		if err := admin.QueryRow(context.Background(), "SELECT count(*) FROM log WHERE tx = $1", name(i+1)).Scan(&n); err != nil || n != 3 {
			t.Errorf("lost before part %d: %d rows are left (%v)", i, n, err)
		}
		_ = c.conn.Close()
	}
	if !slices.ContainsFunc(want, func(line string) bool { return strings.Contains(line, "once") && strings.Contains(line, "notice") }) || !slices.Contains(want, "31: notification ch told once") {
		t.Errorf("the script does not tell what it is to tell once:\n%s", strings.Join(want, "\n"))
	}
	// Nothing is lost before BEGIN, nor before the first statement; a read before the first write just moves.
	if got := s.gateway.engine.Replays(); got.Done != uint64(lost-3) || got.Done != got.Tried || got.Differed+got.Unfit != 0 {
		t.Errorf("%+v for %d losses", got, lost)
	}
}

func mustExec(tb testing.TB, conn *pgx.Conn, sql string) {
	tb.Helper()
	if _, err := conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

// TestReplaySettings: a session says for itself whether its transactions are run again; what
// cannot be, and what comes out otherwise, hears 40001.
func TestReplaySettings(t *testing.T) {
	s := newSet(t, nil)
	mustExec(t, connect(t, s.url("")), replayTables)
	for name, c := range map[string]struct {
		params, before, first, meanwhile string
		want                             string
	}{
		"off":                      {"", "", "SELECT 1", "", "40001"},
		"on by SET":                {"", "SET pgdist.replay = on", "SELECT n FROM acct WHERE id = 1", "", ""},
		"on at log-in":             {"&options=-c%20pgdist.replay%3Don", "", "SELECT n FROM acct WHERE id = 1", "", ""},
		"reset":                    {"", "SET pgdist.replay = on; RESET pgdist.replay", "SELECT 1", "", "40001"},
		"a row changed":            {"", "SET pgdist.replay = on", "SELECT n FROM acct WHERE id = 2", "UPDATE acct SET n = n + 1 WHERE id = 2", "40001 Statement 2"},
		"a temporary table":        {"", "SET pgdist.replay = on", "CREATE TEMP TABLE tt (i int)", "", "40001"},
		"a pinned session":         {"", "SET pgdist.replay = on; CREATE TEMP TABLE tt (i int)", "SELECT 1", "", "40001"},
		"BEGIN behind other texts": {"", "SET pgdist.replay = on", "", "", ""},
	} {
		conn := connect(t, s.url(c.params))
		if c.before != "" {
			for _, sql := range strings.Split(c.before, "; ") {
				mustExec(t, conn, sql)
			}
		}
		mustExec(t, conn, "BEGIN; INSERT INTO log VALUES ('"+name+"', 0)")
		if c.first != "" {
			mustExec(t, conn, c.first)
		}
		s.endOpen(t)
		if c.meanwhile != "" {
			mustExec(t, connect(t, s.url("")), c.meanwhile)
		}
		_, err := conn.PgConn().Exec(context.Background(), "INSERT INTO log VALUES ('"+name+"', 1)").ReadAll()
		got := ""
		if err != nil {
			got = code(err)
			if pe := (*pgconn.PgError)(nil); errors.As(err, &pe) && strings.HasPrefix(pe.Detail, "Statement ") {
				got += " " + pe.Detail[:len("Statement 2")]
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, not %q", name, got, c.want)
		}
		if _, err := conn.Exec(context.Background(), "COMMIT"); err != nil {
			t.Errorf("%s: COMMIT: %v", name, err)
		}
		var n int
		if err := conn.QueryRow(context.Background(), "SELECT count(*) FROM log WHERE tx = $1", name).Scan(&n); err != nil || n != 2*int(number(c.want == "")) {
			t.Errorf("%s: %d rows are left (%v)", name, n, err)
		}
		_ = conn.Close(context.Background())
	}
	conn := connect(t, s.url("")) // a cancel request ends the transaction that is being run again
	for _, sql := range []string{"SET pgdist.replay = on", "BEGIN", "INSERT INTO log VALUES ('cancelled', 0)", "SELECT pg_sleep(2)"} {
		mustExec(t, conn, sql)
	}
	s.endOpen(t)
	go func() {
		s.awaitSleeping(t, "%pg_sleep(2)%", 1)
		if err := conn.PgConn().CancelRequest(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if _, err := conn.PgConn().Exec(context.Background(), "SELECT 1").ReadAll(); code(err) != "57014" || conn.PgConn().TxStatus() != 'E' {
		t.Errorf("cancelled: %v, status %c", err, conn.PgConn().TxStatus())
	}
	mustExec(t, conn, "ROLLBACK")
	mustExec(t, conn, "SELECT 1")
	if _, err := connect(t, s.url("")).Exec(context.Background(), "SET pgdist.replay = sometimes"); code(err) != "0A000" {
		t.Error(err)
	}
}

// TestReplayWithinAResult loses the server while a long result is on its way: the client gets
// the rest of it, if it begins as it did.
func TestReplayWithinAResult(t *testing.T) {
	s := newSet(t, func(c *Config) { c.DSN += "&replay=on" })
	admin := connect(t, s.url(""))
	mustExec(t, admin, replayTables)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
		for _, meanwhile := range []string{"", "UPDATE acct SET n = n + 1 WHERE id = 1", "UPDATE acct SET n = 1 WHERE id = 1"} {
			conn := connect(t, s.url(""))
			ctx := context.Background()
			tx, err := conn.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(ctx, "UPDATE acct SET n = n + 1 WHERE id = 2"); err != nil {
				t.Fatal(err)
			}
			rows, err := tx.Query(ctx, "SELECT g, repeat(md5((g + n + $2::int)::text), 20) FROM acct, generate_series(1, n * 200) g WHERE id = $1 ORDER BY g", mode, 1, 0)
			if err != nil {
				t.Fatal(err)
			}
			n, wrong := 0, 0
			for rows.Next() {
				var g int
				var v string
				if err := rows.Scan(&g, &v); err != nil {
					t.Fatal(err)
				}
				if n++; g != n || len(v) != 640 {
					wrong++
				}
				if n == 1000 {
					if meanwhile != "" { // before it is run again, which begins at once
						mustExec(t, admin, meanwhile)
					}
					s.servers[s.gateway.leader(t, s)].Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%SELECT g, repeat%' AND pid <> pg_backend_pid()")
				}
			}
			err = rows.Err()
			if meanwhile == "" {
				if err != nil || n != 20000 || wrong > 0 {
					t.Errorf("%v: %d rows, %d wrong: %v", mode, n, wrong, err)
				}
				if err := tx.Commit(ctx); err != nil {
					t.Error(err)
				}
				continue
			}
			if code(err) != "40001" {
				t.Errorf("%v, %s: %d rows and %v", mode, meanwhile, n, err)
			}
			if err := tx.Rollback(ctx); err != nil {
				t.Error(err)
			}
			mustExec(t, admin, "UPDATE acct SET n = 100 WHERE id = 1")
		}
	}
	var n int
	if err := admin.QueryRow(context.Background(), "SELECT n FROM acct WHERE id = 2").Scan(&n); err != nil || n != 102 {
		t.Errorf("n is %d (%v)", n, err)
	}
	if got := s.gateway.engine.Replays(); got.Tried != 6 || got.Done != 6 || got.Differed != 4 { // the statement under way differs, after those before it
		t.Errorf("%+v", got)
	}
}

// TestReplayBank moves money over the gateway while leaders are killed: a client hears 40001
// only if somebody changed what it had read, and no transfer is lost or made twice.
func TestReplayBank(t *testing.T) {
	const seed = 23
	t.Log("seed ", seed)
	s := newSet(t, nil)
	ctx := context.Background()
	admin := connect(t, s.url(""))
	mustExec(t, admin, replayTables)
	var done, differed atomic.Int64
	var wg sync.WaitGroup
	work, end := context.WithCancel(ctx)
	for i := range 6 {
		conn := connect(t, s.url("&options=-c%20pgdist.replay%3Don"))
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		args := func(list ...any) []any {
			if i%2 == 0 {
				return append([]any{pgx.QueryExecModeSimpleProtocol}, list...)
			}
			return list
		}
		transfer := func(k int) error {
			return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
				from := 1 + rnd.IntN(20)
				to := 1 + (from+rnd.IntN(19))%20
				for _, id := range []int{min(from, to), max(from, to)} {
					var n int
					if err := tx.QueryRow(ctx, "SELECT n FROM acct WHERE id = $1 FOR UPDATE", args(id)...).Scan(&n); err != nil {
						return err
					}
					if _, err := tx.Exec(ctx, "UPDATE acct SET n = $2 WHERE id = $1", args(id, n+1-2*int(number(id == from)))...); err != nil {
						return err
					}
				}
				_, err := tx.Exec(ctx, "INSERT INTO log VALUES ($1, $2)", args(fmt.Sprint("c", i), k)...)
				return err
			})
		}
		wg.Go(func() {
			for k := 1; work.Err() == nil; {
				switch err := transfer(k); {
				case err == nil:
					done.Add(1)
					k++
				case code(err) == "40001" && strings.Contains(err.Error(), "another result"):
					differed.Add(1)
				default:
					t.Errorf("client %d: %v", i, err)
					return
				}
			}
		})
	}
	for range 3 {
		time.Sleep(500 * time.Millisecond)
		victim := s.servers[s.gateway.leader(t, s)]
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
	got := s.gateway.engine.Replays()
	t.Logf("%d transfers, %d heard 40001; %+v", done.Load(), differed.Load(), got)
	var sum, rows int64
	if err := admin.QueryRow(ctx, "SELECT (SELECT sum(n) FROM acct), (SELECT count(*) FROM log)").Scan(&sum, &rows); err != nil || sum != 2000 || rows != done.Load() {
		t.Errorf("the sum is %d; %d transfers are recorded, %d were acknowledged (%v)", sum, rows, done.Load(), err)
	}
	if got.Done == 0 {
		t.Error("no transaction was run again")
	}
	pgtest.SameBytes(t, s.servers...)
}
