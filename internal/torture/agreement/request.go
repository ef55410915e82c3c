//go:build unix

package agreement

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/driver"
	"github.com/pgdist/pgdist/internal/torture"
	"github.com/pgdist/pgdist/internal/torture/history"
)

// Request is one operation of a workload, as a client asks a program for it.
type Request struct {
	Workload, F string
	Value       json.RawMessage // as package history has it
	Round       int64           // of the run: each has rows of its own
	Strict      bool            // reads are to be linearizable
	Tx          bool            // within a transaction of the client's own, if there is a choice
	Timeout     time.Duration
}

// Answer is what came of it.
type Answer struct {
	Type  history.Type
	Value json.RawMessage // of OK
	Error string
}

// schema is what the workloads need.
var schema = []string{
	`CREATE TABLE registers (k bigint PRIMARY KEY, v bigint)`,
	`CREATE TABLE lists (k bigint PRIMARY KEY, v text NOT NULL)`,
	`CREATE TABLE elements (round bigint, n bigint, PRIMARY KEY (round, n))`,
	`CREATE TABLE accounts (round bigint, id bigint, balance bigint NOT NULL CHECK (balance >= 0), PRIMARY KEY (round, id))`,
	`CREATE TABLE fork (k bigint PRIMARY KEY)`,
	`CREATE TABLE counters (k bigint PRIMARY KEY, n bigint NOT NULL)`,
	`CREATE TABLE log (at timestamptz DEFAULT clock_timestamp(), what text, noise float8 DEFAULT random())`,
	`CREATE UNLOGGED TABLE sketches (id bigint PRIMARY KEY, what text)`, // a crash empties it
	`CREATE SEQUENCE drawn`,
}

const (
	accounts = 6
	perHead  = 100
)

// operation does one thing and returns what Answer.Value is to hold. Its error is
// judged by whether anything may have been committed.
type operation func(ctx context.Context, db *sql.DB, r Request) (any, error)

// operations are what the workloads consist of.
var operations = map[string]operation{
	"register/read": readRegister, "register/write": writeRegister, "register/cas": casRegister,
	"append/txn": appendTxn,
	"set/add":    addElement, "set/read": readSet,
	"bank/transfer": transfer, "bank/read": readBank,
	"fork/write": writeFork, "fork/read": readFork,
	"counter/write": writeCounter, "counter/read": readCounter,
	"draw/next":  draw,
	"mixed/step": runMixed, "mixed/read": runMixed, "mixed/settle": settleMixed,
	"any/sql": anySQL,
}

// errMismatch: a compare-and-set found another value.
var errMismatch = errors.New("another value")

// definite marks an error after which nothing can have been committed, whatever it is.
type definite struct{ error }

func (d definite) Unwrap() error { return d.error }

// do runs a request through a program's door.
func do(ctx context.Context, db *sql.DB, r Request) Answer {
	op, ok := operations[r.Workload+"/"+r.F]
	if !ok {
		return Answer{Type: history.Fail, Error: "no such operation: " + r.Workload + "/" + r.F}
	}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	if r.Strict {
		ctx = driver.WithRoute(ctx, driver.RouteStrict)
	}
	value, err := op(ctx, db, r)
	var certain definite
	var unconnected *pgconn.ConnectError
	switch {
	case err == nil:
		text, err := json.Marshal(value)
		if err != nil {
			panic(err) // numbers and lists of them
		}
		return Answer{Type: history.OK, Value: text}
	case errors.As(err, &certain), errors.Is(err, errMismatch), errors.As(err, &unconnected), strings.HasSuffix(r.F, "read"):
		return Answer{Type: history.Fail, Error: err.Error()}
	case torture.OutcomeOf(err) == torture.Failed:
		return Answer{Type: history.Fail, Error: err.Error()}
	}
	return Answer{Type: history.Info, Error: err.Error()}
}

// decode reads a request's value.
func (r Request) decode(into any) error {
	if err := json.Unmarshal(r.Value, into); err != nil {
		return definite{fmt.Errorf("%s/%s: value %s: %w", r.Workload, r.F, r.Value, err)}
	}
	return nil
}

// within runs f in a transaction, or, if it need be none, by itself.
func within(ctx context.Context, db *sql.DB, tx bool, level sql.IsolationLevel, f func(q querier) error) error {
	if !tx {
		return f(db)
	}
	t, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
	if err != nil {
		return definite{err}
	}
	if err := f(t); err != nil {
		_ = t.Rollback() // err tells what is wrong, and COMMIT was not sent
		return definite{err}
	}
	return t.Commit()
}

type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func readRegister(ctx context.Context, db *sql.DB, r Request) (any, error) {
	var key int64
	if err := r.decode(&[]any{&key}); err != nil {
		return nil, err
	}
	var v *int64
	err := db.QueryRowContext(ctx, "SELECT v FROM registers WHERE k = $1", key).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return []any{key, v}, err
}

func writeRegister(ctx context.Context, db *sql.DB, r Request) (any, error) {
	var v [2]int64
	if err := r.decode(&v); err != nil {
		return nil, err
	}
	return v, within(ctx, db, r.Tx, sql.LevelDefault, func(q querier) error {
		_, err := q.ExecContext(ctx, "INSERT INTO registers VALUES ($1, $2) ON CONFLICT (k) DO UPDATE SET v = excluded.v", v[0], v[1])
		return err
	})
}

func casRegister(ctx context.Context, db *sql.DB, r Request) (any, error) {
	var key int64
	var v [2]int64
	if err := r.decode(&[]any{&key, &v}); err != nil {
		return nil, err
	}
	return []any{key, v}, within(ctx, db, r.Tx, sql.LevelDefault, func(q querier) error {
		res, err := q.ExecContext(ctx, "UPDATE registers SET v = $3 WHERE k = $1 AND v = $2", key, v[0], v[1])
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return errMismatch
	})
}

// appendTxn is a SERIALIZABLE transaction. Its value is the list of steps, reads
// without an answer in what is asked.
func appendTxn(ctx context.Context, db *sql.DB, r Request) (any, error) {
	var steps [][3]any
	if err := r.decode(&steps); err != nil {
		return nil, err
	}
	return steps, within(ctx, db, true, sql.LevelSerializable, func(q querier) error {
		if _, err := q.ExecContext(ctx, "INSERT INTO log (what) VALUES ('lists')"); err != nil {
			return err
		}
		for i, s := range steps {
			key := int64(s[1].(float64))
			if s[0] == "append" {
				if _, err := q.ExecContext(ctx, "INSERT INTO lists AS l VALUES ($1, $2) ON CONFLICT (k) DO UPDATE SET v = l.v || ',' || excluded.v", key, strconv.FormatInt(int64(s[2].(float64)), 10)); err != nil {
					return err
				}
				continue
			}
			var text string
			err := q.QueryRowContext(ctx, "SELECT v FROM lists WHERE k = $1", key).Scan(&text)
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			if err != nil {
				return err
			}
			var list []int64
			for part := range strings.SplitSeq(text, ",") {
				n, err := strconv.ParseInt(part, 10, 64)
				if err != nil {
					return fmt.Errorf("list %d reads as %q: %w", key, text, err)
				}
				list = append(list, n)
			}
			steps[i][2] = list
		}
		return nil
	})
}

func addElement(ctx context.Context, db *sql.DB, r Request) (any, error) {
	var n int64
	if err := r.decode(&n); err != nil {
		return nil, err
	}
	return n, within(ctx, db, r.Tx, sql.LevelDefault, func(q querier) error {
		if r.Tx {
			if _, err := q.ExecContext(ctx, "INSERT INTO log (what) VALUES ('element')"); err != nil {
				return err
			}
		}
		_, err := q.ExecContext(ctx, "INSERT INTO elements VALUES ($1, $2)", r.Round, n)
		return err
	})
}

func readSet(ctx context.Context, db *sql.DB, r Request) (any, error) {
	return numbers(ctx, db, "SELECT n FROM elements WHERE round = $1", r.Round)
}

// numbers reads one column.
func numbers(ctx context.Context, q querier, query string, args ...any) ([]int64, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []int64{}
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, rows.Err()
}

func transfer(ctx context.Context, db *sql.DB, r Request) (any, error) {
	var v [3]int64
	if err := r.decode(&v); err != nil {
		return nil, err
	}
	level := sql.LevelDefault
	if v[2]%2 == 0 {
		level = sql.LevelRepeatableRead
	}
	return v, within(ctx, db, true, level, func(q querier) error {
		for _, step := range [][2]int64{{v[0], -v[2]}, {v[1], v[2]}} {
			if _, err := q.ExecContext(ctx, "UPDATE accounts SET balance = balance + $3 WHERE round = $1 AND id = $2", r.Round, step[0], step[1]); err != nil {
				return err
			}
		}
		if _, err := q.ExecContext(ctx, "INSERT INTO log (what) VALUES ('transfer')"); err != nil { // a table without a key
			return err
		}
		_, err := q.ExecContext(ctx, "INSERT INTO sketches VALUES ((random() * 1e15)::bigint, random()::text)")
		return err
	})
}

func readBank(ctx context.Context, db *sql.DB, r Request) (any, error) {
	rows, err := db.QueryContext(ctx, "SELECT id, balance FROM accounts WHERE round = $1", r.Round)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out [][2]int64
	for rows.Next() {
		var a [2]int64
		if err := rows.Scan(&a[0], &a[1]); err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, rows.Err()
}

// writeFork is a transaction of the client's own always: a single statement may be
// seen, undone with its leader, and run again by the program, which is no long fork.
func writeFork(ctx context.Context, db *sql.DB, r Request) (any, error) {
	var key int64
	if err := r.decode(&key); err != nil {
		return nil, err
	}
	return key, within(ctx, db, true, sql.LevelDefault, func(q querier) error {
		_, err := q.ExecContext(ctx, "INSERT INTO fork VALUES ($1)", key)
		return err
	})
}

func readFork(ctx context.Context, db *sql.DB, r Request) (any, error) {
	var keys [][2]int64
	if err := r.decode(&keys); err != nil {
		return nil, err
	}
	there, err := numbers(ctx, db, "SELECT k FROM fork WHERE k BETWEEN $1 AND $2", keys[0][0], keys[len(keys)-1][0])
	for i := range keys {
		for _, k := range there {
			if k == keys[i][0] {
				keys[i][1] = 1
			}
		}
	}
	return keys, err
}

func writeCounter(ctx context.Context, db *sql.DB, r Request) (any, error) {
	var v [2]int64
	if err := r.decode(&v); err != nil {
		return nil, err
	}
	return v, within(ctx, db, r.Tx, sql.LevelDefault, func(q querier) error {
		_, err := q.ExecContext(ctx, "INSERT INTO counters VALUES ($1, $2) ON CONFLICT (k) DO UPDATE SET n = excluded.n", v[0], v[1])
		return err
	})
}

func readCounter(ctx context.Context, db *sql.DB, r Request) (any, error) {
	var v [2]int64
	if err := r.decode(&v); err != nil {
		return nil, err
	}
	v[1] = 0
	err := db.QueryRowContext(ctx, "SELECT n FROM counters WHERE k = $1", v[0]).Scan(&v[1])
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return v, err
}

// draw takes a number from a sequence: no number is given out twice, whatever happens.
func draw(ctx context.Context, db *sql.DB, _ Request) (any, error) {
	var n int64
	err := db.QueryRowContext(ctx, "SELECT nextval('drawn')").Scan(&n)
	return n, err
}

// anySQL is a statement that belongs to no workload: DDL, large changes.
func anySQL(ctx context.Context, db *sql.DB, r Request) (any, error) {
	var text string
	if err := r.decode(&text); err != nil {
		return nil, err
	}
	_, err := db.ExecContext(ctx, text)
	return nil, err
}
