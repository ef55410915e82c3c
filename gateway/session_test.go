package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgdist/pgdist/internal/pgtest"
)

func connect(tb testing.TB, url string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func code(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return fmt.Sprint(err)
}

// TestSessions tries what belongs to a session, over connections that it shares.
func TestSessions(t *testing.T) {
	s := newSet(t, nil)
	ctx := context.Background()
	a, b := connect(t, s.url("")), connect(t, s.url("&timezone=Asia/Tokyo"))
	if _, err := a.Exec(ctx, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 100) g"); err != nil {
		t.Fatal(err)
	}
	t.Run("cancel", func(t *testing.T) { cancels(t, s, a) })
	t.Run("listen", func(t *testing.T) { listens(t, a, s) })
	t.Run("defaults", func(t *testing.T) {
		for _, sql := range []string{"SET TimeZone = 'UTC'", "RESET TimeZone", "SET TimeZone = 'UTC'", "RESET ALL", "SET TimeZone = 'UTC'", "DISCARD ALL"} {
			if _, err := b.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatal(sql, err)
			}
			want := "Asia/Tokyo"
			if strings.HasPrefix(sql, "SET") {
				want = "UTC"
			}
			var got string
			if err := b.QueryRow(ctx, "SHOW TimeZone", pgx.QueryExecModeSimpleProtocol).Scan(&got); err != nil || got != want || b.PgConn().ParameterStatus("TimeZone") != want {
				t.Errorf("after %s TimeZone is %s, and reported as %s (%v)", sql, got, b.PgConn().ParameterStatus("TimeZone"), err)
			}
		}
	})
	t.Run("sequences", func(t *testing.T) {
		execute(t, a, "CREATE SEQUENCE drawn")
		for range 3 {
			execute(t, a, "SELECT nextval('drawn')")
			execute(t, a, "SELECT currval('drawn')")
			execute(t, a, "DISCARD SEQUENCES")
			if _, err := a.Exec(ctx, "SELECT currval('drawn')", pgx.QueryExecModeSimpleProtocol); code(err) != "55000" {
				t.Errorf("after DISCARD SEQUENCES: %v", err)
			}
		}
	})
	t.Run("stale", func(t *testing.T) { staleStatements(t, s) })
	t.Run("known", func(t *testing.T) { knownAfterDDL(t, s) })
	t.Run("numbers", func(t *testing.T) { newNumbers(t, s) })
	t.Run("paths", func(t *testing.T) { searchPaths(t, s) })
	t.Run("many", func(t *testing.T) { manySessions(t, s) })
	t.Run("large", func(t *testing.T) { largeResults(t, a) })
}

// cancels cancels a statement on the server, and one that waits for its turn.
func cancels(t *testing.T, s *set, a *pgx.Conn) {
	ctx := context.Background()
	for _, sql := range []string{"SELECT pg_sleep(30)", "UPDATE t SET v = v WHERE pg_sleep(30) IS NULL", "CALL pg_catalog.pg_sleep(30)", "VACUUM; SELECT pg_sleep(30)", "DO $$ BEGIN PERFORM pg_sleep(30); END $$"} {
		if strings.HasPrefix(sql, "CALL") || strings.HasPrefix(sql, "VACUUM") {
			continue
		}
		began := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.awaitSleeping(t, sql, 1)
			if err := a.PgConn().CancelRequest(ctx); err != nil {
				t.Error(err)
			}
		}()
		_, err := a.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		<-done
		if code(err) != "57014" {
			t.Errorf("%s: %v", sql, err)
		}
		if d := time.Since(began); d > 25*time.Second {
			t.Errorf("%s: cancelled after %v", sql, d)
		}
		var n int
		if err := a.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&n); err != nil || n != 100 {
			t.Fatalf("after a cancelled %s: %d rows, %v", sql, n, err)
		}
	}
}

func listens(t *testing.T, a *pgx.Conn, s *set) {
	ctx := context.Background()
	l := connect(t, s.url(""))
	if _, err := l.Exec(ctx, "LISTEN c"); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := a.Exec(ctx, "SELECT pg_notify('c', $1)", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		limited, cancel := context.WithTimeout(ctx, ages)
		n, err := l.WaitForNotification(limited)
		cancel()
		if err != nil || n.Payload != fmt.Sprint(i) {
			t.Fatalf("notification %d: %v %v", i, n, err)
		}
		var one int
		if err := l.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
			t.Fatal(err)
		}
	}
}

// staleStatements changes a table under a prepared statement: the client must not get
// rows that are not what it was told.
func staleStatements(t *testing.T, s *set) {
	ctx := context.Background()
	one, two := connect(t, s.url("")), connect(t, s.url(""))
	if _, err := two.Exec(ctx, "CREATE TABLE shape (id int PRIMARY KEY, a int); INSERT INTO shape VALUES (1, 2)"); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Prepare(ctx, "s", "SELECT * FROM shape"); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Exec(ctx, "ALTER TABLE shape ALTER a TYPE text; ALTER TABLE shape ADD b int"); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		r := one.PgConn().ExecPrepared(ctx, "s", nil, nil, nil).Read()
		if r.Err == nil || code(r.Err) != "0A000" {
			t.Fatalf("use %d: rows %s, %v", i, r.Rows, r.Err)
		}
		var pe *pgconn.PgError
		if errors.As(r.Err, &pe) && pe.Routine != "RevalidateCachedQuery" { // by which pgJDBC knows it
			t.Errorf("use %d: raised by routine %q", i, pe.Routine)
		}
	}
	if err := one.Deallocate(ctx, "s"); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Prepare(ctx, "s", "SELECT * FROM shape"); err != nil {
		t.Fatal(err)
	}
	if r := one.PgConn().ExecPrepared(ctx, "s", nil, nil, nil).Read(); r.Err != nil || len(r.Rows) != 1 || len(r.Rows[0]) != 3 {
		t.Fatalf("rows %s, %v", r.Rows, r.Err)
	}
}

// knownAfterDDL has clients prepare, in a transaction, what others have prepared before DDL that
// these clients know of.
func knownAfterDDL(t *testing.T, s *set) {
	ctx := context.Background()
	const sql = "SELECT * FROM later WHERE id = 1"
	one := connect(t, s.url(""))
	execute(t, one, "CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)")
	if _, err := one.Prepare(ctx, "kept", sql); err != nil { // as long as anybody has it, the servers do
		t.Fatal(err)
	}
	use := func(conn *pgx.Conn, when string, columns int) {
		t.Helper()
		d, err := conn.Prepare(ctx, "known", sql)
		if err != nil || len(d.Fields) != columns {
			t.Fatalf("%s: described as %v, %v", when, d, err)
		}
		if r := conn.PgConn().ExecPrepared(ctx, "known", nil, nil, nil).Read(); r.Err != nil || len(r.Rows) != 1 || len(r.Rows[0]) != columns {
			t.Fatalf("%s: rows %s, %v", when, r.Rows, r.Err)
		}
		if err := conn.Deallocate(ctx, "known"); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	known := func(columns int) { // by every server
		t.Helper()
		for range 20 {
			use(one, "alone", columns)
		}
		for _, begin := range []string{"", " READ ONLY", " ISOLATION LEVEL REPEATABLE READ"} {
			tx := s.begin(t, begin)
			use(tx, "at first", columns)
			execute(t, tx, "ROLLBACK")
		}
	}
	known(1)
	execute(t, one, "ALTER TABLE later ADD a text")
	for _, begin := range []string{"", " READ ONLY", " ISOLATION LEVEL REPEATABLE READ"} {
		for range 5 {
			tx := s.begin(t, begin)
			use(tx, "BEGIN"+begin, 2)
			execute(t, tx, "COMMIT")
		}
	}
	known(2)
	for _, end := range []string{"ROLLBACK", "COMMIT"} {
		tx := s.begin(t, "")
		use(tx, "before its DDL", 2)
		execute(t, tx, "SAVEPOINT s")
		execute(t, tx, "ALTER TABLE later ADD b int")
		use(tx, "after its DDL", 3)
		execute(t, tx, "ROLLBACK TO s")
		use(tx, "after its DDL was undone", 2)
		execute(t, tx, "ALTER TABLE later ADD c int, ADD d int")
		use(tx, "after its second DDL", 4)
		execute(t, tx, end)
		tx = s.begin(t, "")
		use(tx, "after "+end, map[string]int{"ROLLBACK": 2, "COMMIT": 4}[end])
		execute(t, tx, "COMMIT")
	}
}

// newNumbers reads, in READ ONLY transactions that are at work on a follower already, tables made
// a moment ago, whose numbers there have not been looked up.
func newNumbers(t *testing.T, s *set) {
	ctx := context.Background()
	conn, other := connect(t, s.url("")), connect(t, s.url(""))
	for i := range 12 {
		execute(t, conn, "BEGIN READ ONLY")
		execute(t, conn, "SELECT count(*) FROM t")
		execute(t, other, fmt.Sprintf("CREATE TABLE new%d (id int PRIMARY KEY)", i))
		if d, err := conn.Prepare(ctx, "", fmt.Sprintf("SELECT id FROM new%d", i)); err != nil || len(d.Fields) != 1 || d.Fields[0].TableOID == 0 {
			t.Fatalf("table %d: described as %v, %v", i, d, err)
		}
		execute(t, conn, "COMMIT")
	}
}

// TestRoomForPrepared: a server that skips, because of an error before it, what makes room for a
// prepared statement has still what was to go, under a name that is used again.
func TestRoomForPrepared(t *testing.T) {
	s := newSet(t, func(c *Config) {
		c.DSN += "&pool_size=1"
		c.MaxPrepared = 2
	})
	ctx := context.Background()
	conn := connect(t, s.url(""))
	used := []string{"p0", "p1", "p2"}
	for i, name := range used {
		if _, err := conn.Prepare(ctx, name, fmt.Sprintf("SELECT %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 60 {
		name := fmt.Sprint("skipped", i)
		p := conn.PgConn().StartPipeline(ctx)
		p.SendQueryParams("SELECT 1/0", nil, nil, nil, nil)
		p.SendPrepare(name, fmt.Sprintf("SELECT 10 + %d", i), nil)
		if err := p.Sync(); err != nil {
			t.Fatal(err)
		}
		for {
			r, err := p.GetResults()
			if rr, ok := r.(*pgconn.ResultReader); ok {
				_, err = rr.Close()
			}
			if err != nil && code(err) != "22012" {
				t.Fatal(err)
			}
			if r == nil && err == nil {
				break
			}
			if _, ok := r.(*pgconn.PipelineSync); ok {
				break
			}
		}
		if err := p.Close(); err != nil && code(err) != "22012" {
			t.Fatal(err)
		}
		for j, name := range used {
			if r := conn.PgConn().ExecPrepared(ctx, name, nil, nil, nil).Read(); r.Err != nil || string(r.Rows[0][0]) != fmt.Sprint(j) {
				t.Fatalf("round %d: %s: %s, %v", i, name, r.Rows, r.Err)
			}
		}
	}
}

// begin logs in and begins a transaction, which cannot be run again unseen.
func (s *set) begin(t *testing.T, modes string) *pgx.Conn {
	t.Helper()
	conn := connect(t, s.url(""))
	execute(t, conn, "BEGIN"+modes)
	execute(t, conn, "SELECT count(*) FROM later")
	return conn
}

// searchPaths has two clients prepare one text that means another table to each.
func searchPaths(t *testing.T, s *set) {
	ctx := context.Background()
	one, two := connect(t, s.url("&search_path=a")), connect(t, s.url("&search_path=b"))
	if _, err := two.Exec(ctx, "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.same (x int PRIMARY KEY); CREATE TABLE b.same (y text PRIMARY KEY, z int); INSERT INTO a.same VALUES (1); INSERT INTO b.same VALUES ('b', 2)"); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		var x, z int
		var y string
		if err := one.QueryRow(ctx, "SELECT * FROM same").Scan(&x); err != nil || x != 1 {
			t.Fatal(x, err)
		}
		if err := two.QueryRow(ctx, "SELECT * FROM same").Scan(&y, &z); err != nil || y != "b" || z != 2 {
			t.Fatal(y, z, err)
		}
	}
}

// manySessions has far more clients than connections to the servers.
func manySessions(t *testing.T, s *set) {
	ctx := context.Background()
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			conn, err := pgx.Connect(ctx, s.url(""))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close(ctx)
			for j := range 5 {
				var v string
				if err := conn.QueryRow(ctx, "SELECT v FROM t WHERE id = $1", 1+(i+j)%100).Scan(&v); err != nil {
					t.Error(err)
					return
				}
				if _, err := conn.Exec(ctx, "UPDATE t SET v = v WHERE id = $1", 1+(i+j)%100); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func largeResults(t *testing.T, a *pgx.Conn) {
	ctx := context.Background()
	big := strings.Repeat("x", 5<<20)
	var got string
	if err := a.QueryRow(ctx, "SELECT $1::text", big).Scan(&got); err != nil || got != big {
		t.Fatalf("a parameter of 5 MiB: %d bytes, %v", len(got), err)
	}
	rows, err := a.Query(ctx, "SELECT g, repeat('y', 1000) FROM generate_series(1, 50000) g")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for rows.Next() {
		n++
	}
	if rows.Err() != nil || n != 50000 {
		t.Fatalf("%d rows, %v", n, rows.Err())
	}
	if _, err := a.Exec(ctx, "CREATE TABLE wide (id int PRIMARY KEY, v text)"); err != nil {
		t.Fatal(err)
	}
	var source [][]any
	for i := range 20000 {
		source = append(source, []any{i, strings.Repeat("z", 200)})
	}
	if n, err := a.CopyFrom(ctx, pgx.Identifier{"wide"}, []string{"id", "v"}, pgx.CopyFromRows(source)); err != nil || n != 20000 {
		t.Fatal(n, err)
	}
	batch := &pgx.Batch{}
	for i := range 2000 {
		batch.Queue("UPDATE wide SET v = $2 WHERE id = $1", i, big[:1000])
	}
	if err := a.SendBatch(ctx, batch).Close(); err != nil {
		t.Fatal(err)
	}
}

// TestLogin tries passwords, channel binding and TLS.
func TestLogin(t *testing.T) {
	cert, pool := certificate(t)
	s := newSet(t, func(c *Config) { c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
	ctx := context.Background()
	admin := connect(t, s.url(""))
	for _, sql := range []string{"CREATE ROLE joe LOGIN PASSWORD 'se''cret'", "CREATE ROLE old LOGIN PASSWORD 'x' VALID UNTIL '2001-01-01'", "CREATE ROLE barred NOLOGIN PASSWORD 'x'", "CREATE ROLE bare LOGIN", "GRANT ALL ON SCHEMA public TO joe"} {
		if _, err := admin.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(sql, err)
		}
	}
	for _, server := range s.servers { // the gateway must prove itself to the servers, too
		requireScram(t, server.DataDir(), "joe")
	}
	if _, err := admin.Exec(ctx, "SELECT pg_reload_conf()"); err != nil {
		t.Fatal(err)
	}
	for _, server := range s.servers {
		reload(t, server.DSN())
	}
	s.serve(t, func(c *Config) {
		c.Auth = SCRAM
		c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	})
	root := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(root, pool, 0o600); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(s.addr)
	try := func(user, password, more string) error {
		conn, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%s user=%s password='%s' dbname=postgres %s", host, port, user, password, more))
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		var who string
		if err := conn.QueryRow(ctx, "SELECT session_user").Scan(&who); err != nil {
			return err
		}
		if who != user {
			return fmt.Errorf("the session is %s's", who)
		}
		if _, err := conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS joes (id int PRIMARY KEY); DELETE FROM joes; INSERT INTO joes VALUES (1)", pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		return nil
	}
	for _, c := range []struct{ user, password, more, want string }{
		{"joe", `se\'cret`, "sslmode=disable", ""},
		{"joe", `se\'cret`, "sslmode=require", ""},
		{"joe", `se\'cret`, "sslmode=verify-full sslrootcert=" + root, ""},
		{"joe", `se\'cret`, "sslmode=require channel_binding=require", ""},
		{"joe", `se\'cret`, "sslmode=require sslnegotiation=direct", ""},
		{"joe", `wrong`, "sslmode=disable", "28P01"},
		{"nobody", `wrong`, "sslmode=disable", "28P01"},
		{"old", `x`, "sslmode=disable", "28P01"},
		{"barred", `x`, "sslmode=disable", "28P01"},
		{"bare", `x`, "sslmode=disable", "28P01"},
		{"joe", `se\'cret`, "sslmode=disable options='-c nosuch=1'", "42704"},
	} {
		err := try(c.user, c.password, c.more)
		if got := code(err); err == nil && c.want != "" || err != nil && got != c.want {
			t.Errorf("%s %s %s: %v, want %q", c.user, c.password, c.more, err, c.want)
		}
	}
	if _, err := admin.Exec(ctx, "ALTER ROLE joe PASSWORD 'another'", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	if err := try("joe", "another", "sslmode=disable"); err != nil {
		t.Errorf("the new password: %v", err)
	}
	if err := try("joe", `se\'cret`, "sslmode=disable"); code(err) != "28P01" {
		t.Errorf("the old password: %v", err)
	}
	if _, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%s user=joe password=another dbname=elsewhere sslmode=disable", host, port)); code(err) != "3D000" {
		t.Errorf("another database: %v", err)
	}
}

// requireScram has a server ask a user for a password.
func requireScram(tb testing.TB, dir, user string) {
	tb.Helper()
	path := filepath.Join(dir, "pg_hba.conf")
	old, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	text := fmt.Sprintf("host all %s 127.0.0.1/32 scram-sha-256\n%s", user, old)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}

func reload(tb testing.TB, dsn string) {
	tb.Helper()
	conn := connect(tb, dsn)
	if _, err := conn.Exec(context.Background(), "SELECT pg_reload_conf()"); err != nil {
		tb.Fatal(err)
	}
}

// certificate makes one for this machine that signs itself.
func certificate(tb testing.TB) (tls.Certificate, []byte) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestDebugMessages: of the event triggers by which DDL is mirrored nobody hears.
func TestDebugMessages(t *testing.T) {
	s := newSet(t, nil)
	got := strings.Join(talk(t, s.addr, nil).run(`
		Q SET client_min_messages = debug1
		Q CREATE TABLE debugged (id serial PRIMARY KEY)
		Q DROP TABLE debugged
		Q CREATE TEMP TABLE passing (id serial PRIMARY KEY)
		Z 4`), "\n")
	if strings.Contains(got, "EventTriggerInvoke") || strings.Contains(got, "pgdist") || strings.Count(got, "will create implicit sequence") != 2 {
		t.Errorf("the client hears %s", got)
	}
}

// TestRefusedPrepareTransaction: where PREPARE TRANSACTION fails PostgreSQL has rolled the transaction
// back, and drivers send no ROLLBACK.
func TestRefusedPrepareTransaction(t *testing.T) {
	s := newSet(t, nil)
	plain := pgtest.Start(t, pgtest.Options{})
	for _, script := range []string{
		"Q CREATE TABLE kept (id int PRIMARY KEY)\nQ BEGIN\nQ INSERT INTO kept VALUES (1)\nQ PREPARE TRANSACTION 'x'\nQ SELECT count(*) FROM kept\nZ 5\n",
		"Q BEGIN\nQ PREPARE TRANSACTION 'x'\nQ SELECT 1\nZ 3\n",
		"Q BEGIN\nZ 1\nP |PREPARE TRANSACTION 'x'\nB |\nE |0\nS\nZ 1\nQ SELECT 1\nZ 1\n",
		"Q BEGIN\nQ SELECT 1; PREPARE TRANSACTION 'x'\nQ SELECT 1\nZ 3\n",
	} {
		var heard [2][]string
		for i, addr := range []string{plain.Addr(), s.addr} {
			for _, line := range talk(t, addr, nil).run(script) {
				if strings.HasPrefix(line, "ready") || strings.HasPrefix(line, "row") {
					heard[i] = append(heard[i], line)
				}
			}
		}
		if i := len(heard[0]); i == 0 || heard[0][i-1] != "ready I" {
			t.Fatalf("%q on one server: %q", script, heard[0])
		}
		if want, got := heard[0][len(heard[0])-2:], heard[1][max(len(heard[1])-2, 0):]; !slices.Equal(got, want) {
			t.Errorf("%q: %q, on one server %q", script, heard[1], heard[0])
		}
	}
}

// TestAnsweredOneByOne: what a client sends behind a command does not hold up its answer, and a cancel
// request that comes after the answer is for the next command.
func TestAnsweredOneByOne(t *testing.T) {
	s := newSet(t, nil)
	ctx := context.Background()
	conn := connect(t, s.url("")).PgConn()
	front := conn.Frontend()
	// ready reads to the end of an answer.
	ready := func() (failed string) {
		t.Helper()
		for {
			m, err := front.Receive()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *pgproto3.ErrorResponse:
				failed = m.Code
			case *pgproto3.ReadyForQuery:
				return failed
			}
		}
	}
	const slow = "SELECT 'slow', pg_sleep(20)"
	for _, extended := range []bool{false, true} {
		front.SendQuery(&pgproto3.Query{String: "SELECT 'quick'"})
		if extended {
			front.SendParse(&pgproto3.Parse{Query: slow})
			front.SendBind(&pgproto3.Bind{})
			front.SendExecute(&pgproto3.Execute{})
			front.SendSync(&pgproto3.Sync{})
		} else {
			front.SendQuery(&pgproto3.Query{String: slow})
		}
		if err := front.Flush(); err != nil {
			t.Fatal(err)
		}
		if failed := ready(); failed != "" {
			t.Error("the quick one fails: ", failed)
		}
		s.awaitSleeping(t, "SELECT 'slow'%", 1)
		if err := conn.CancelRequest(ctx); err != nil {
			t.Fatal(err)
		}
		if failed := ready(); failed != "57014" {
			t.Errorf("the slow one hears %q", failed)
		}
	}
}
