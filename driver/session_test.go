package driver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/engine"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// tables makes what the tests below use: t, whose only row says which server it
// is, and the empty w.
func tables(t *testing.T, dsns []string) {
	t.Helper()
	for i, dsn := range dsns {
		onServer(t, dsn, fmt.Sprintf("CREATE TABLE t (id int); INSERT INTO t VALUES (%d); CREATE TABLE w (id int PRIMARY KEY)", i+1))
	}
}

// three returns a database over three plain servers.
func three(t *testing.T, change func(*Config)) (*sql.DB, *fakeMirror, []string) {
	t.Helper()
	dsns := databases(t, 3)
	tables(t, dsns)
	db, fake := openFake(t, change, dsns...)
	return db, fake, dsns
}

// mortal is three for tests that harm their servers.
func mortal(t *testing.T, change func(*Config)) (*sql.DB, *fakeMirror, []*pgtest.Server) {
	t.Helper()
	servers := pgtest.Set(t, 3, pgtest.Options{FsyncOff: true})
	tables(t, dsnsOf(servers))
	db, fake := openFake(t, change, dsnsOf(servers)...)
	return db, fake, servers
}

func ask[T any](t *testing.T, db queryer, query string, args ...any) T {
	t.Helper()
	return askCtx[T](t, context.Background(), db, query, args...)
}

func askCtx[T any](t *testing.T, ctx context.Context, db queryer, query string, args ...any) (v T) {
	t.Helper()
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&v); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func run(t *testing.T, db interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
}, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(context.Background(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// seen counts which servers answer n reads.
func seen(t *testing.T, db queryer, ctx context.Context, n int, query string) map[int]int {
	t.Helper()
	counts := map[int]int{}
	for range n {
		counts[askCtx[int](t, ctx, db, query)]++
	}
	return counts
}

func sqlState(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

func TestReadsAreSpread(t *testing.T) {
	db, _, _ := three(t, func(c *Config) { c.Balance = RoundRobin })
	ctx := context.Background()
	if got := seen(t, db, ctx, 30, "SELECT id FROM t"); len(got) != 3 || got[1] != 10 {
		t.Errorf("round robin: %v", got)
	}
	if got := seen(t, db, WithRoute(ctx, RouteLeader), 6, "SELECT id FROM t"); got[1] != 6 {
		t.Errorf("WithRoute leader: %v", got)
	}
	if got := seen(t, db, ctx, 6, "/* pgdist: leader */ SELECT id FROM t"); got[1] != 6 {
		t.Errorf("hint: %v", got)
	}
	if got := seen(t, db, ctx, 6, "SELECT id FROM t FOR UPDATE"); got[1] != 6 {
		t.Errorf("FOR UPDATE: %v", got)
	}
	if got := seen(t, db, ctx, 6, "SELECT id FROM t, (SELECT count(*) FROM pg_class) c"); got[1] != 6 {
		t.Errorf("catalog: %v", got)
	}
}

func TestLeastOutstandingReachesAll(t *testing.T) {
	db, _, _ := three(t, nil)
	got, deadline := map[int]int{}, time.Now().Add(ages)
	for len(got) < 3 {
		got[ask[int](t, db, "SELECT id FROM t")]++
		if time.Now().After(deadline) {
			t.Fatalf("one client's reads: %v", got)
		}
	}
}

func TestConsistencyLeader(t *testing.T) {
	db, _, _ := three(t, func(c *Config) { c.Consistency, c.Balance = Leader, RoundRobin })
	if got := seen(t, db, context.Background(), 9, "SELECT id FROM t"); got[1] != 9 {
		t.Errorf("leader: %v", got)
	}
	if got := seen(t, db, WithRoute(context.Background(), RouteAny), 9, "SELECT id FROM t"); len(got) != 3 {
		t.Errorf("WithRoute any: %v", got)
	}
}

func TestStrictReadsFlushFirst(t *testing.T) {
	db, fake, _ := three(t, func(c *Config) { c.Consistency = Strict })
	ask[int](t, db, "SELECT id FROM t")
	run(t, db, "SELECT id FROM t")
	if n := fake.acks.Load(); n != 2 {
		t.Errorf("%d flushes for two strict reads", n)
	}
}

// What a strict read has read while another leader took over may be lost with the old
// one: it reads again.
func TestStrictReadOvertaken(t *testing.T) {
	for name, query := range map[string]struct {
		text string
		args []any
	}{
		"query":     {"SELECT id FROM t", nil},
		"long":      {"SELECT max(id) FROM (SELECT id, g, repeat('x', 1000) AS x FROM t, generate_series(1, 10000) g) AS many GROUP BY g, x", nil},
		"statement": {"SELECT id FROM t WHERE id > $1", []any{0}},
	} {
		t.Run(name, func(t *testing.T) {
			db, fake, _ := three(t, func(c *Config) { c.Consistency = Strict })
			fake.onAck = sync.OnceFunc(func() {
				fake.publish(func(v *health.View) { v.Term, v.Leader, v.InSync = 2, 2, []health.MemberID{2} })
			})
			var id int
			if err := db.QueryRow(query.text, query.args...).Scan(&id); id != 2 || err != nil {
				t.Errorf("%d, %v: of the leader that was lost", id, err)
			}
			if n := fake.acks.Load(); n != 2 {
				t.Errorf("%d flushes", n)
			}
		})
	}
	t.Run("transaction", func(t *testing.T) {
		db, fake, _ := three(t, func(c *Config) { c.Consistency = Strict })
		tx, err := db.BeginTx(context.Background(), &sql.TxOptions{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback() //nolint:errcheck // its end is not what this is about
		fake.onAck = sync.OnceFunc(func() {
			fake.publish(func(v *health.View) { v.Term, v.Leader, v.InSync = 2, 2, []health.MemberID{2} })
		})
		var id int
		var pe *pgconn.PgError
		if err := tx.QueryRow("SELECT id FROM t").Scan(&id); !errors.As(err, &pe) || pe.Code != "40001" {
			t.Errorf("%d, %v", id, err)
		}
	})
}

func TestWriteBehindAReadIsRunOnTheLeader(t *testing.T) {
	db, fake, dsns := three(t, nil)
	for _, dsn := range dsns {
		onServer(t, dsn, `CREATE FUNCTION liar() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN sneaky(); END';
			CREATE FUNCTION sneaky() RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN INSERT INTO w VALUES (1); RETURN 1; END'`)
	}
	// Until the functions are known liar() counts as a write; then as a read.
	deadline := time.Now().Add(ages)
	for id := 0; ; id++ {
		run(t, db, "DELETE FROM w")
		before := fake.acks.Load()
		if ask[int](t, db, "SELECT liar()") != 1 {
			t.Fatal("wrong result")
		}
		if got := ask[int](t, db, "/* pgdist: leader */ SELECT count(*) FROM w"); got != 1 {
			t.Fatalf("%d rows on the leader", got)
		}
		if fake.acks.Load() != before+1 {
			t.Fatal("the write was not acknowledged")
		}
		refused := strings.Contains(common.servers[0].LogTail(1<<16)+common.servers[1].LogTail(1<<16)+common.servers[2].LogTail(1<<16), "PL/pgSQL function liar() line 1 at RETURN")
		if refused {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("liar() was never tried as a read")
		}
	}
	for _, dsn := range dsns[1:] {
		c := pgtest.Connect(t, dsn)
		var n int
		if err := c.QueryRow(context.Background(), "SELECT count(*) FROM w").Scan(&n); err != nil || n != 0 {
			t.Errorf("%d rows on a follower, %v", n, err)
		}
	}
}

func TestTransactionMovesToTheLeader(t *testing.T) {
	db, fake, _ := three(t, func(c *Config) { c.Members[0].LastResort = true })
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	first := ask[int](t, tx, "SELECT id FROM t")
	if first == 1 {
		t.Error("the first read did not run on a follower")
	}
	if again := ask[int](t, tx, "SELECT id FROM t"); again != first {
		t.Error("reads of one transaction on several members")
	}
	run(t, tx, "INSERT INTO w VALUES (1)")
	if ask[int](t, tx, "SELECT id FROM t") != 1 {
		t.Error("a read after the first write is not on the leader")
	}
	if fake.acks.Load() != 0 {
		t.Error("acknowledged before COMMIT")
	}
	if err := tx.Commit(); err != nil || fake.acks.Load() != 1 {
		t.Error(err, fake.acks.Load())
	}
	for _, opts := range []sql.TxOptions{{Isolation: sql.LevelRepeatableRead}, {Isolation: sql.LevelSerializable}, {Isolation: sql.LevelSerializable, ReadOnly: true}} {
		tx, _ := db.BeginTx(context.Background(), &opts)
		if ask[int](t, tx, "SELECT id FROM t") != 1 {
			t.Errorf("%+v is not on the leader", opts)
		}
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	}
	tx, _ = db.Begin()
	ask[time.Time](t, tx, "SELECT now()")
	if ask[int](t, tx, "SELECT id FROM t") != 1 {
		t.Error("now() was told by a follower, of whose transaction nothing will be left")
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
}

func TestFollowerTransactionsStayReadOnly(t *testing.T) {
	db, _, _ := three(t, func(c *Config) { c.Members[0].LastResort = true })
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	run(t, conn, "BEGIN READ ONLY")
	if ask[int](t, conn, "SELECT id FROM t") == 1 {
		t.Fatal("not on a follower")
	}
	if _, err := conn.ExecContext(context.Background(), "SET TRANSACTION READ WRITE"); sqlState(err) != "25001" {
		t.Errorf("SET TRANSACTION READ WRITE: %v", err)
	}
	run(t, conn, "ROLLBACK")
	run(t, conn, "SET default_transaction_read_only = off")
	ask[int](t, conn, "SELECT id FROM t")
	run(t, conn, "INSERT INTO w VALUES (5)")
	if got := askCtx[int](t, WithRoute(context.Background(), RouteLeader), conn, "SELECT count(*) FROM w"); got != 1 {
		t.Errorf("%d rows on the leader", got)
	}
}

func TestListen(t *testing.T) {
	db, _, dsns := three(t, nil)
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	run(t, conn, "LISTEN news")
	run(t, db, "NOTIFY news, 'hello'")
	err = conn.Raw(func(dc any) error {
		ctx, cancel := context.WithTimeout(context.Background(), ages)
		defer cancel()
		n, err := dc.(*Conn).Conn().WaitForNotification(ctx)
		if err == nil && n.Payload != "hello" {
			t.Errorf("%+v", n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	onServer(t, dsns[0], terminateAll)
	if _, err := conn.ExecContext(context.Background(), "NOTIFY news, 'x'"); sqlState(err) != "57P01" {
		t.Errorf("a lost LISTEN is told: %v", err)
	}
	run(t, conn, "LISTEN news")
}

// TestPinLostInAStatement: a statement whose connection is lost is not run again without what it
// refers to, which went with the connection: it could find something else of that name.
func TestPinLostInAStatement(t *testing.T) {
	db, _, _ := three(t, nil)
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	run(t, conn, "CREATE TEMP TABLE w (id int)") // there is a table w besides
	_, err = conn.ExecContext(context.Background(), "INSERT INTO w SELECT 77 FROM (SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)) x")
	if sqlState(err) != "57P01" {
		t.Errorf("a temporary table that is lost is told so: %v", err)
	}
	if n := ask[int](t, conn, "SELECT count(*) FROM w WHERE id = 77"); n != 0 {
		t.Errorf("%d rows went to the other table", n)
	}
}

// TestPinLostAtOnce: what a session has made on a connection that is lost before its success is told
// is not forgotten in silence: the next statement hears of it, and finds nothing else of that name.
func TestPinLostAtOnce(t *testing.T) {
	db, fake, _ := three(t, nil)
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var once sync.Once
	fake.onAck = func() {
		once.Do(func() {
			fake.publish(func(v *health.View) { v.Leader, v.InSync = 2, []health.MemberID{2, 3} })
			time.Sleep(300 * time.Millisecond) // connections to who led are ended
		})
	}
	run(t, conn, "CREATE TEMP TABLE w (id int)") // there is a table w besides
	_, err = conn.ExecContext(context.Background(), "INSERT INTO w VALUES (77)")
	if sqlState(err) != "57P01" {
		t.Errorf("a temporary table that is lost is told so: %v", err)
	}
	run(t, conn, "INSERT INTO w VALUES (78)")
	if n := askCtx[int](t, WithRoute(context.Background(), RouteLeader), conn, "SELECT count(*) FROM w WHERE id > 70"); n != 1 {
		t.Errorf("%d rows", n)
	}
}

func TestCopyFromIsAcknowledged(t *testing.T) {
	db, fake, _ := three(t, nil)
	ctx := context.Background()
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	source := func(from int) pgx.CopyFromSource { return pgx.CopyFromRows([][]any{{from}, {from + 1}}) }
	if n, err := CopyFrom(ctx, conn, pgx.Identifier{"w"}, []string{"id"}, source(1)); n != 2 || err != nil || fake.acks.Load() == 0 {
		t.Fatal(n, err, fake.acks.Load())
	}
	for i := range 2 {
		err := conn.Raw(func(dc any) error {
			before := fake.acks.Load()
			_, err := dc.(*Conn).Conn().CopyFrom(ctx, pgx.Identifier{"w"}, []string{"id"}, source(10*(i+1)))
			if fake.acks.Load() == before {
				t.Error("COPY came back before it was acknowledged")
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := ask[int](t, conn, "SELECT 1"); got != 1 {
			t.Error("the session is of no use afterwards")
		}
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if got := askCtx[int](t, WithRoute(ctx, RouteLeader), db, "SELECT count(*) FROM w"); got != 6 {
		t.Errorf("%d rows", got)
	}
}

// killedAfter gives rows, and has the server's process ended after the first.
type killedAfter struct {
	pgx.CopyFromSource
	kill func()
}

func (s *killedAfter) Next() bool {
	if s.kill != nil {
		s.kill()
		s.kill = nil
	}
	return s.CopyFromSource.Next()
}

// TestCopyFromLost: a COPY whose connection is lost while the leader stays has a definite answer.
func TestCopyFromLost(t *testing.T) {
	db, fake, dsns := three(t, nil)
	ctx := context.Background()
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	load := func() (int64, error) {
		rows := pgx.CopyFromSlice(3, func(i int) ([]any, error) { return []any{i}, nil })
		return CopyFrom(ctx, conn, pgx.Identifier{"w"}, []string{"id"}, &killedAfter{rows, func() { onServer(t, dsns[0], terminateAll) }})
	}
	if n, err := load(); sqlState(err) != "40001" || n != 0 {
		t.Errorf("what was undone: %d, %v", n, err)
	}
	if got := ask[int](t, conn, "SELECT 1"); got != 1 {
		t.Error("the session is of no use afterwards")
	}
	fake.outcome = engine.Committed
	if n, err := load(); err != nil || n != 3 {
		t.Errorf("what was committed: %d, %v", n, err)
	}
	fake.outcome = engine.RolledBack
	rows := pgx.CopyFromSlice(3, func(i int) ([]any, error) { return nil, errors.New("no rows left") })
	if _, err := CopyFrom(ctx, conn, pgx.Identifier{"w"}, []string{"id"}, rows); err == nil || !strings.Contains(err.Error(), "no rows left") {
		t.Errorf("a source that fails: %v", err)
	}
}

func TestLargeReturningIsStreamed(t *testing.T) {
	db, fake, _ := three(t, func(c *Config) { c.ResultBuffer = 1 << 10 })
	rows, err := db.Query("INSERT INTO w SELECT * FROM generate_series(1, 10000) RETURNING id")
	if err != nil {
		t.Fatal(err)
	}
	n, early := 0, fake.acks.Load()
	for rows.Next() {
		n++
	}
	if rows.Err() != nil || n != 10000 || early != 0 || fake.acks.Load() != 1 {
		t.Error(rows.Err(), n, early, fake.acks.Load())
	}
	small, err := db.Query("INSERT INTO w VALUES (0) RETURNING id")
	if err != nil || fake.acks.Load() != 2 {
		t.Error("a small result came before it was acknowledged", err)
	}
	if err := small.Close(); err != nil {
		t.Error(err)
	}
}

func TestManyGoroutines(t *testing.T) {
	db, _, _ := three(t, func(c *Config) { c.Pool.Size = 8 })
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			if _, err := db.Exec("INSERT INTO w VALUES ($1)", i); err != nil {
				t.Error(err)
			}
			var n int
			if err := db.QueryRow("SELECT id FROM t").Scan(&n); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := askCtx[int](t, WithRoute(context.Background(), RouteLeader), db, "SELECT count(*) FROM w"); got != 1000 {
		t.Errorf("%d rows", got)
	}
}

func TestPoolWaitIsLimited(t *testing.T) {
	db, _, _ := three(t, func(c *Config) { c.Pool.Size, c.Pool.WaitTimeout = 1, 50*time.Millisecond })
	tx, err := db.BeginTx(context.Background(), &sql.TxOptions{Isolation: sql.LevelSerializable})
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec("INSERT INTO w VALUES (1)")
	if !errors.Is(err, engine.ErrPoolWait) || !strings.Contains(err.Error(), "pool_size") {
		t.Error(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	run(t, db, "INSERT INTO w VALUES (1)")
}

func TestNothingIsLeft(t *testing.T) {
	dsns := databases(t, 1)
	before := runtime.NumGoroutine()
	for range 3 {
		db, _ := openFake(t, nil, dsns...)
		run(t, db, "CREATE TABLE IF NOT EXISTS t (id int)")
		ask[int](t, db, "SELECT count(*) FROM t")
		conn, err := db.Conn(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		run(t, conn, "LISTEN x")
		if err := errors.Join(conn.Close(), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	c := pgtest.Connect(t, dsns[0])
	deadline := time.Now().Add(ages)
	for {
		var n int
		if err := c.QueryRow(context.Background(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()").Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n == 1 && runtime.NumGoroutine() <= before+1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections, %d goroutines, %d before", n, runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
}

// A write that capture refuses for as long as anybody tries was rolled back, because of who
// leads: the program is told to run it again, not that it wrote to a follower.
func TestWriteWithoutLeader(t *testing.T) {
	db, _, dsns := three(t, nil)
	onServer(t, dsns[0], `CREATE SCHEMA pgdist; CREATE FUNCTION pgdist.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		RAISE EXCEPTION 'this database is a follower' USING ERRCODE = '25006'; END $$; CREATE TRIGGER capture BEFORE INSERT ON w FOR EACH ROW EXECUTE FUNCTION pgdist.refuse()`)
	_, err := db.Exec("INSERT INTO w VALUES (1)")
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "40001" {
		t.Error(err)
	}
}
