package driver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
)

// both runs the same code through pgx's driver and through pgdist, each on a
// server of its own, and compares what it notes.
func both(t *testing.T, body func(t *testing.T, db *sql.DB, note func(string, ...any))) {
	t.Helper()
	dsns := databases(t, 2)
	plain, err := sql.Open("pgx", dsns[0])
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	ours, _ := openFake(t, nil, dsns[1])
	var notes [2][]string
	for i, db := range []*sql.DB{plain, ours} {
		body(t, db, func(format string, args ...any) {
			notes[i] = append(notes[i], fmt.Sprintf(format, args...))
		})
	}
	if diff := cmp.Diff(notes[0], notes[1]); diff != "" {
		t.Errorf("pgx (-) and pgdist (+) differ:\n%s", diff)
	}
	if len(notes[0]) == 0 {
		t.Error("nothing was compared")
	}
}

// told describes an error as a client can see it, but for what names processes
// or files of the server.
func told(err error) string {
	var pe *pgconn.PgError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &pe):
		c := *pe
		c.File, c.Line, c.Routine = "", 0, "" // whether pgx had it prepared already shows here
		return fmt.Sprintf("%+v", c)
	}
	return fmt.Sprintf("%T %v", err, err)
}

// do runs a statement and describes its outcome.
func do(db interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
}, query string, args ...any) string {
	r, err := db.ExecContext(context.Background(), query, args...)
	if err != nil {
		return told(err)
	}
	n, err := r.RowsAffected()
	return fmt.Sprint(n, " rows ", told(err))
}

type queryer interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}

// table runs a query and describes all of its result.
func table(db queryer, query string, args ...any) string {
	rows, err := db.QueryContext(context.Background(), query, args...)
	if err != nil {
		return told(err)
	}
	defer rows.Close()
	var b strings.Builder
	types, err := rows.ColumnTypes()
	if err != nil {
		return told(err)
	}
	for _, c := range types {
		n, hasLength := c.Length()
		p, s, hasPrecision := c.DecimalSize()
		fmt.Fprintf(&b, "[%s %s %v %d %v %d %d %v]", c.Name(), c.DatabaseTypeName(), c.ScanType(), n, hasLength, p, s, hasPrecision)
	}
	for rows.Next() {
		values, dest := make([]any, len(types)), make([]any, len(types))
		for i := range dest {
			dest[i] = &values[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return b.String() + told(err)
		}
		for _, v := range values {
			fmt.Fprintf(&b, " %T(%v)", v, v)
		}
		b.WriteString(";")
	}
	return b.String() + " " + told(errors.Join(rows.Err(), rows.Close()))
}

func TestSameValues(t *testing.T) {
	both(t, func(t *testing.T, db *sql.DB, note func(string, ...any)) {
		note("%s", do(db, `CREATE TYPE mood AS ENUM ('sad', 'glad')`))
		note("%s", do(db, `CREATE TABLE v (id int PRIMARY KEY, b bool, i2 int2, i8 int8, f4 float4, f8 float8, n numeric(10,3), t text, vc varchar(7),
			by bytea, d date, ts timestamp, tz timestamptz, iv interval, j json, jb jsonb, u uuid, a int[], m mood, r int4range, x xml, o oid, bt bit(3))`))
		insert := `INSERT INTO v VALUES ($1, true, 2, 8, 1.5, 2.25, 12.345, 'text', 'vc', '\x00ff', '2020-02-29', '2020-01-01 12:00', '2020-01-01 12:00+02', '1 day 2 hours',
			'{"a": 1}', '{"b": [1, 2]}', '6ba7b810-9dad-11d1-80b4-00c04fd430c8', '{1,NULL,3}', 'glad', '[1,5)', '<a/>', 42, B'101') RETURNING *`
		note("%s", table(db, insert, 1))
		note("%s", do(db, "INSERT INTO v (id) VALUES (2)"))
		note("%s", table(db, "SELECT * FROM v ORDER BY id"))
		note("%s", table(db, "SELECT $1::text, $2::int[], $3::bytea, $4::timestamptz, $5::jsonb", "ä", []int32{1, 2}, []byte{0, 1}, time.Unix(1e9, 0).UTC(), map[string]int{"k": 1}))
		note("%s", table(db, "SELECT 'NaN'::float8, 'infinity'::timestamptz, NULL::int, ''::text, 'NaN'::numeric"))
		note("%s", table(db, "UPDATE v SET t = t || 'x' WHERE id = $1 RETURNING t, n, a", 1))
		note("%s", table(db, "SELECT 1 WHERE false"))
		note("%s", table(db, ""))
		note("%s", table(db, "SHOW transaction_isolation"))
		note("%s", table(db, "SHOW default_transaction_read_only"))
		note("%s", table(db, "EXPLAIN (COSTS off) SELECT * FROM v WHERE id = 1"))
	})
}

func TestSameErrors(t *testing.T) {
	both(t, func(t *testing.T, db *sql.DB, note func(string, ...any)) {
		note("%s", do(db, "CREATE TABLE e (id int PRIMARY KEY, n int NOT NULL CHECK (n > 0), d int REFERENCES e DEFERRABLE INITIALLY DEFERRED)"))
		for _, query := range []string{
			"SELEC 1", "SELECT * FROM missing", "SELECT 1/0", "INSERT INTO e VALUES (1, 1)", "INSERT INTO e VALUES (1, 1)",
			"INSERT INTO e VALUES (2, 0)", "INSERT INTO e VALUES (3, NULL)", "INSERT INTO e VALUES (4, 1, 99)",
			"SELECT 1; SELECT 1/0", "CREATE TABLE e (id int)", "DROP TABLE nothing", "SET nonsense = 1", "SET work_mem = 'x'",
			"CREATE TABLE z (id int); INSERT INTO z VALUES (1); SELECT * FROM e WHERE nope", "SELECT * FROM z",
			"SAVEPOINT a", "ROLLBACK TO a", "RELEASE a", "COMMIT", "ROLLBACK", "VACUUM nothing", "LOCK TABLE e", "LOCK TABLE e; SELECT 1",
			"SELECT currval('e_seq')", "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '25006'; END $$",
		} {
			note("exec %s: %s", query, do(db, query))
			note("query %s: %s", query, table(db, query))
		}
		note("%s", do(db, "SELECT $1::int", "x"))
		note("%s", do(db, "SELECT $1::int"))
		note("%s", table(db, "SELECT $1::int", 1, 2))
		_, err := db.Prepare("SELECT nope")
		note("%s", told(err))
		_, err = db.BeginTx(context.Background(), &sql.TxOptions{Isolation: sql.LevelLinearizable})
		note("%s", told(err))
		note("%s", table(db, "SELECT * FROM e"))
	})
}

func TestSameScripts(t *testing.T) {
	both(t, func(t *testing.T, db *sql.DB, note func(string, ...any)) {
		for i, query := range []string{
			"CREATE TABLE s (id int PRIMARY KEY); INSERT INTO s VALUES (1), (2); UPDATE s SET id = id + 10",
			"BEGIN; INSERT INTO s VALUES (1); COMMIT",
			"INSERT INTO s VALUES (2); BEGIN; INSERT INTO s VALUES (3); ROLLBACK; INSERT INTO s VALUES (4)",
			"CREATE TABLE s2 (id int); SELECT 1/0; CREATE TABLE s3 (id int)",
			"BEGIN; CREATE TABLE s2 (id int); SAVEPOINT a; INSERT INTO s2 VALUES (1); ROLLBACK TO a; COMMIT; DROP TABLE s2",
			"-- only a comment", ";;", "TRUNCATE s; INSERT INTO s VALUES (7)",
			"CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO s VALUES (8); RETURN 1; END $$; SELECT f()",
			"SELECT f()", "ALTER TABLE s ADD c text DEFAULT 'c'; CREATE INDEX ON s (c)",
		} {
			note("%s: %s", query, do(db, query))
			note("%s", table(db, fmt.Sprintf("SELECT * FROM s /* %d */ ORDER BY id", i)))
		}
	})
}

func TestSameTransactions(t *testing.T) {
	both(t, func(t *testing.T, db *sql.DB, note func(string, ...any)) {
		ctx := context.Background()
		note("%s", do(db, "CREATE TABLE x (id int PRIMARY KEY, v int)"))
		note("%s", do(db, "INSERT INTO x SELECT i, 0 FROM generate_series(1, 5) i"))
		for _, level := range []sql.IsolationLevel{sql.LevelDefault, sql.LevelReadUncommitted, sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSnapshot, sql.LevelSerializable} {
			for _, readOnly := range []bool{false, true} {
				tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: level, ReadOnly: readOnly})
				if err != nil {
					t.Fatal(err)
				}
				note("%v %v", level, readOnly)
				note("%s", table(tx, "SELECT * FROM x ORDER BY id"))
				note("%s", table(tx, "SHOW transaction_isolation"))
				note("%s", table(tx, "SHOW transaction_read_only"))
				note("%s", do(tx, "UPDATE x SET v = v + 1 WHERE id = 1"))
				note("%s", table(tx, "SELECT sum(v) FROM x"))
				note("%s", told(tx.Commit()))
			}
		}
		tx, _ := db.Begin()
		note("%s", do(tx, "SAVEPOINT a"))
		note("%s", do(tx, "UPDATE x SET v = 100"))
		note("%s", table(tx, "SELECT 1/0"))
		note("%s", table(tx, "SELECT 1"))
		note("%s", do(tx, "ROLLBACK TO a"))
		note("%s", table(tx, "SELECT * FROM x ORDER BY id"))
		note("%s", do(tx, "RELEASE a"))
		note("%s", do(tx, "SET LOCAL work_mem = '1MB'"))
		note("%s", table(tx, "SHOW work_mem"))
		note("%s", told(tx.Commit()))
		note("%s", told(tx.Commit()))
		note("%s", table(db, "SHOW work_mem"))
		tx, _ = db.Begin()
		note("%s", table(tx, "SELECT 1/0"))
		note("%s", do(tx, "INSERT INTO x VALUES (9, 9)"))
		note("%s", told(tx.Commit()))
		tx, _ = db.Begin()
		note("%s", table(tx, "SELECT count(*) FROM x"))
		note("%s", do(tx, "INSERT INTO x VALUES (1, 9)"))
		note("%s", told(tx.Rollback()))
		note("%s", told(tx.Rollback()))
		tx, _ = db.Begin()
		note("%s", table(tx, "SELECT now() = now(), now() = transaction_timestamp()"))
		note("%s", table(tx, "SELECT set_config('work_mem', '2MB', true), current_setting('work_mem')"))
		note("%s", do(tx, "COMMIT"))
		note("%s", told(tx.Commit()))
		stmt, err := db.Prepare("UPDATE x SET v = $1 WHERE id = $2")
		note("%s", told(err))
		tx, _ = db.Begin()
		r, err := tx.Stmt(stmt).Exec(7, 2)
		n, _ := r.RowsAffected()
		note("%d %s %s", n, told(err), told(tx.Commit()))
		note("%s", told(stmt.Close()))
		note("%s", table(db, "SELECT * FROM x ORDER BY id"))
	})
}

func TestSameSession(t *testing.T) {
	both(t, func(t *testing.T, db *sql.DB, note func(string, ...any)) {
		ctx := context.Background()
		note("%s", do(db, "CREATE SCHEMA other; CREATE TABLE other.w (id int); INSERT INTO other.w VALUES (5); CREATE ROLE lesser; CREATE SEQUENCE q"))
		conn, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		note("%s", do(conn, "SET search_path = other, public"))
		note("%s", table(conn, "SELECT * FROM w"))
		note("%s", do(conn, "BEGIN"))
		note("%s", do(conn, "SET search_path = public"))
		note("%s", table(conn, "SHOW search_path"))
		note("%s", do(conn, "ROLLBACK"))
		note("%s", table(conn, "SHOW search_path"))
		note("%s", do(conn, "SET ROLE lesser"))
		note("%s", table(conn, "SELECT current_user"))
		note("%s", do(conn, "CREATE TABLE other.denied (id int)"))
		note("%s", do(conn, "RESET ALL"))
		note("%s", table(conn, "SELECT current_user"))
		note("%s", do(conn, "RESET ROLE"))
		note("%s", table(conn, "SHOW search_path"))
		note("%s", table(conn, "SELECT set_config('search_path', 'other', false)"))
		note("%s", table(conn, "SELECT * FROM w"))
		note("%s", table(conn, "SELECT set_config('search_path', $1, false)", "public"))
		note("%s", table(conn, "SHOW search_path"))
		note("%s", do(conn, "SET TIME ZONE 'Asia/Tokyo'"))
		note("%s", table(conn, "SELECT '2020-01-01 00:00+00'::timestamptz::text"))
		note("%s", do(conn, "SET default_transaction_read_only = on"))
		note("%s", do(conn, "INSERT INTO other.w VALUES (6)"))
		note("%s", do(conn, "SET default_transaction_read_only = off"))
		note("%s", do(conn, "INSERT INTO other.w VALUES (6)"))
		note("%s", do(conn, "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
		note("%s", do(conn, "BEGIN"))
		note("%s", table(conn, "SHOW transaction_isolation"))
		note("%s", do(conn, "COMMIT"))
		note("%s", do(conn, "BEGIN"))
		note("%s", do(conn, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
		note("%s", table(conn, "SHOW transaction_isolation"))
		note("%s", do(conn, "COMMIT AND CHAIN"))
		note("%s", table(conn, "SHOW transaction_isolation"))
		note("%s", do(conn, "ROLLBACK"))
		note("%s", do(conn, "CREATE TEMP TABLE tt (id int)"))
		note("%s", do(conn, "INSERT INTO tt VALUES (1)"))
		note("%s", table(conn, "SELECT * FROM tt"))
		note("%s", table(conn, "SELECT nextval('q')"))
		note("%s", table(conn, "SELECT currval('q'), lastval()"))
		note("%s", do(conn, "PREPARE p AS SELECT 1"))
		note("%s", do(conn, "EXECUTE p"))
		note("%s", do(conn, "DEALLOCATE p"))
		note("%s", do(conn, "DISCARD ALL")) // pgx's driver does not notice that its prepared statements are gone
		note("%s", do(conn, "SELECT * FROM tt"))
		if conn, err = db.Conn(ctx); err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		note("%s", do(conn, "BEGIN"))
		note("%s", do(conn, "DECLARE c CURSOR FOR SELECT generate_series(1, 3)"))
		note("%s", table(conn, "FETCH 2 FROM c"))
		note("%s", do(conn, "COMMIT"))
		note("%s", table(conn, "SELECT pg_try_advisory_lock(1)"))
		note("%s", table(conn, "SELECT pg_advisory_unlock(1)"))
	})
}

func TestSameAfterCancel(t *testing.T) {
	both(t, func(t *testing.T, db *sql.DB, note func(string, ...any)) {
		note("%s", do(db, "CREATE TABLE c (id int PRIMARY KEY)"))
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := db.ExecContext(ctx, "INSERT INTO c VALUES (1)")
		note("before: %v", errors.Is(err, context.Canceled))
		ctx, cancel = context.WithTimeout(context.Background(), 50*time.Millisecond)
		_, err = db.ExecContext(ctx, "INSERT INTO c SELECT 2 FROM pg_sleep(5)")
		cancel()
		note("during: %v", errors.Is(err, context.DeadlineExceeded))
		ctx, cancel = context.WithCancel(context.Background())
		tx, err := db.BeginTx(ctx, nil)
		note("%s %s", told(err), do(tx, "INSERT INTO c VALUES (3)"))
		cancel()
		err = tx.Commit()
		note("commit: %v", errors.Is(err, context.Canceled) || errors.Is(err, sql.ErrTxDone))
		ctx, cancel = context.WithCancel(context.Background())
		rows, err := db.QueryContext(ctx, "SELECT repeat('x', 1000) FROM generate_series(1, 100000)")
		note("%s %v", told(err), rows.Next())
		cancel()
		for rows.Next() {
		}
		note("rows: %v %v", errors.Is(rows.Err(), context.Canceled), rows.Close() == nil || true)
		note("%s", table(db, "SELECT * FROM c"))
		note("%s", do(db, "INSERT INTO c VALUES (4)"))
		note("%s", table(db, "SELECT * FROM c"))
	})
}
