package driver

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// TestSameScans sends values of Go's types and reads them into Go's types,
// from a write, from a read, and from within a transaction.
func TestSameScans(t *testing.T) {
	both(t, func(t *testing.T, db *sql.DB, note func(string, ...any)) {
		note("%s", do(db, `CREATE TABLE s (id int PRIMARY KEY, ints int[], texts text[], j jsonb, b bytea, n numeric, tz timestamptz, f float8, opt text, big int8)`))
		insert := "INSERT INTO s VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING *"
		at := time.Date(2024, 2, 29, 23, 59, 59, 123456000, time.FixedZone("x", 3*3600))
		for i, args := range [][]any{
			{[]int32{1, -2}, []string{"a", "", `"q" \ {}`}, json.RawMessage(`{"k": [1, null]}`), []byte{0, 1, 255}, "123456789012345678901234567890.5", at, math.Inf(-1), sql.NullString{}, int64(math.MaxInt64)},
			{[]int32{}, []*string{nil}, map[string]any{"a": nil}, []byte{}, "NaN", pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}, math.Copysign(0, -1), "ä", int64(math.MinInt64)},
			{nil, nil, nil, nil, nil, nil, nil, nil, nil},
			{[]int32{7}, []string{"x"}, []byte(`"s"`), bytes.Repeat([]byte{7}, 1<<16), "1.00", at.UTC(), math.MaxFloat64, new(string), 0},
		} {
			note("%d %s", i, scanned(db, insert, append([]any{i}, args...)...))
		}
		note("wrong %s", scanned(db, insert, 9, "no array", nil, nil, nil, nil, nil, nil, nil, nil))
		note("%s", scanned(db, "SELECT * FROM s ORDER BY id"))
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		note("%s", scanned(tx, "SELECT * FROM s ORDER BY id DESC"))
		note("%s", scanned(tx, "UPDATE s SET big = coalesce(big, 1), n = n * 2 WHERE id > $1 RETURNING *", 1))
		note("%s", told(tx.Commit()))
		note("%s", scanned(db, "SELECT * FROM s WHERE ints = ANY ($1) OR id = ANY ($2) ORDER BY id", "{}", []int32{2, 3}))
		var s string
		note("null into a string: %s", told(db.QueryRow("SELECT NULL::text").Scan(&s)))
		var i8 int8
		note("overflow: %s", told(db.QueryRow("SELECT 300").Scan(&i8)))
	})
}

// scanned reads all rows into typed variables and describes them.
func scanned(db queryer, query string, args ...any) string {
	rows, err := db.QueryContext(context.Background(), query, args...)
	if err != nil {
		return told(err)
	}
	defer rows.Close()
	m, out := pgtype.NewMap(), ""
	for rows.Next() {
		var (
			id    int
			ints  []int32
			texts []*string
			j     sql.NullString
			b     []byte
			n     sql.NullString
			tz    pgtype.Timestamptz
			f     sql.NullFloat64
			opt   *string
			big   sql.NullInt64
		)
		if err := rows.Scan(&id, m.SQLScanner(&ints), m.SQLScanner(&texts), &j, &b, &n, &tz, &f, &opt, &big); err != nil {
			return out + told(err)
		}
		out += fmt.Sprintf("%d %#v %d", id, ints, len(texts))
		for _, t := range texts {
			if t != nil {
				out += fmt.Sprintf(" %q", *t)
			}
		}
		out += fmt.Sprintf(" %v %x %v %v %v %v %v %v %v;", j, b, b == nil, n, tz.Time.UTC(), tz.InfinityModifier, f, opt != nil, big)
	}
	return out + told(rows.Err())
}

func TestSameListen(t *testing.T) {
	both(t, func(t *testing.T, db *sql.DB, note func(string, ...any)) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		conn, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		hear := func() {
			err := conn.Raw(func(dc any) error {
				n, err := dc.(interface{ Conn() *pgx.Conn }).Conn().WaitForNotification(ctx)
				if err == nil {
					note("heard %s %q", n.Channel, n.Payload)
				}
				return err
			})
			note("%s", told(err))
		}
		note("%s", do(conn, "LISTEN a; LISTEN b"))
		note("%s", do(db, "NOTIFY a, 'one'"))
		hear()
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		note("%s", do(tx, "SELECT pg_notify('b', $1)", "two"))
		note("%s", told(tx.Rollback()))
		note("%s", do(db, "SELECT pg_notify('b', $1)", "three"))
		hear()
		note("%s", do(conn, "UNLISTEN a"))
		note("%s", do(db, "NOTIFY a, 'lost'"))
		note("%s", do(conn, "NOTIFY b, 'own'"))
		hear()
		note("%s", do(conn, "UNLISTEN *"))
		note("%s", table(conn, "SELECT 1"))
	})
}

// TestSameUnderLoad: a thousand goroutines move money about.
func TestSameUnderLoad(t *testing.T) {
	both(t, func(t *testing.T, db *sql.DB, note func(string, ...any)) {
		db.SetMaxOpenConns(20)
		note("%s", do(db, "CREATE TABLE m (id int PRIMARY KEY, v int); CREATE TABLE l (id serial PRIMARY KEY, g int UNIQUE)"))
		note("%s", do(db, "INSERT INTO m SELECT i, 1000 FROM generate_series(0, 49) i"))
		var wg sync.WaitGroup
		for g := range 1000 {
			wg.Go(func() {
				if err := transfer(db, g); err != nil {
					t.Errorf("%d: %v", g, err)
				}
			})
		}
		wg.Wait()
		note("%s", table(db, "SELECT count(*), count(DISTINCT g) FROM l"))
		note("%s", table(db, "SELECT * FROM m ORDER BY id"))
	})
}

// transfer takes from the account with the lower number first: no deadlocks.
func transfer(db *sql.DB, g int) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // ErrTxDone once it is committed
	from, to := g%50, (g*7+1)%50
	if _, err := tx.Exec("SELECT FROM m WHERE id IN ($1, $2) ORDER BY id FOR UPDATE", from, to); err != nil {
		return err
	}
	for id, d := range map[int]int{from: -1, to: 1} {
		if _, err := tx.Exec("UPDATE m SET v = v + $2 WHERE id = $1", id, d); err != nil {
			return err
		}
	}
	var id int
	if err := tx.QueryRow("INSERT INTO l (g) VALUES ($1) RETURNING id", g).Scan(&id); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	var got int
	if err := db.QueryRow("SELECT g FROM l WHERE id = $1", id).Scan(&got); err != nil || got != g {
		return fmt.Errorf("read back %d: %w", got, err)
	}
	return nil
}
