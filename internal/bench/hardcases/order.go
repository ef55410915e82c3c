//go:build linux

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const counters = "A: CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT g, g FROM generate_series(1, 10) g; CREATE TABLE log (who text, v text)\n"

var order = []hardCase{
	{what: "two sessions overwrite the same rows without looking", open: true, script: counters,
		stress: crowd(4, 30, func(g, i int) []string {
			return []string{fmt.Sprintf("UPDATE t SET v = %d WHERE id = %d", g*1000+i, i%3+1)}
		})},
	{what: "`UPDATE v = v + 1` against `DELETE WHERE v = 1`", open: true, script: counters, stress: crowd(2, 40, func(g, i int) []string {
		if g == 0 {
			return []string{"UPDATE t SET v = v + 1"}
		}
		return []string{fmt.Sprintf("DELETE FROM t WHERE v = %d AND id %% 2 = 0", i), fmt.Sprintf("INSERT INTO t SELECT %d, 0 ON CONFLICT DO NOTHING", i%10+1)}
	})},
	{what: "`INSERT INTO log SELECT v FROM t` while `t` is updated", open: true, script: counters, stress: crowd(2, 40, func(g, i int) []string {
		if g == 0 {
			return []string{"UPDATE t SET v = v + 1"}
		}
		return []string{"INSERT INTO log SELECT 'r', string_agg(v::text, ',' ORDER BY id) FROM t"}
	})},
	{what: "`UPDATE … FROM` another table that is updated meanwhile", open: true, script: counters + "A: CREATE TABLE u (id int PRIMARY KEY, s int); INSERT INTO u SELECT g, 0 FROM generate_series(1, 10) g", stress: crowd(2, 40, func(g, i int) []string {
		if g == 0 {
			return []string{"UPDATE t SET v = v + 1"}
		}
		return []string{"UPDATE u SET s = (SELECT sum(v) FROM t)"}
	})},
	{what: "`ON CONFLICT DO UPDATE SET v = v || …` from several sessions", open: true, script: "A: CREATE TABLE c (id int PRIMARY KEY, v text)",
		stress: crowd(4, 20, func(g, i int) []string {
			return []string{fmt.Sprintf("INSERT INTO c VALUES (%d, '%c') ON CONFLICT (id) DO UPDATE SET v = c.v || '%c'", i%2, 'a'+g, 'a'+g)}
		})},
	{what: "a job queue with `FOR UPDATE SKIP LOCKED`", open: true, script: "A: CREATE TABLE q (id int PRIMARY KEY, done text); INSERT INTO q SELECT generate_series(1, 100)",
		stress: crowd(4, 25, func(g, i int) []string {
			return []string{fmt.Sprintf("UPDATE q SET done = '%d' WHERE id = (SELECT id FROM q WHERE done IS NULL ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1)", g)}
		})},
	{what: "serial keys of concurrent `INSERT`s", open: true, script: "A: CREATE TABLE s (id serial PRIMARY KEY, who text)",
		stress: crowd(4, 25, func(g, i int) []string { return []string{fmt.Sprintf("INSERT INTO s (who) VALUES ('%d.%d')", g, i)} })},
	{what: "identity keys of concurrent `INSERT`s", open: true, script: "A: CREATE TABLE s (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text)",
		stress: crowd(4, 25, func(g, i int) []string { return []string{fmt.Sprintf("INSERT INTO s (who) VALUES ('%d.%d')", g, i)} })},
	{what: "keys from a sequence by a trigger, concurrent `INSERT`s", open: true, script: "A: CREATE SEQUENCE q; CREATE TABLE s (id int PRIMARY KEY, who text)\nA: CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := nextval('q'); RETURN NEW; END $$\nA: CREATE TRIGGER f BEFORE INSERT ON s FOR EACH ROW EXECUTE FUNCTION f()",
		stress: crowd(4, 25, func(g, i int) []string { return []string{fmt.Sprintf("INSERT INTO s (who) VALUES ('%d.%d')", g, i)} })},
	{what: "keys of `max(id) + 1` under a table lock", script: counters, stress: crowd(3, 10, func(g, i int) []string {
		return []string{"BEGIN; LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE; INSERT INTO t SELECT max(id) + 1, 0 FROM t; COMMIT"}
	})},
	{what: "a unique key that two sessions insert at once", script: "A: CREATE TABLE u (k int PRIMARY KEY, who text)\nA: BEGIN\nA: INSERT INTO u VALUES (1, 'a')\nB& INSERT INTO u VALUES (1, 'b')\npause\nA: ROLLBACK\nB.\nC: SELECT * FROM u"},
	{what: "deadlock", open: true, script: counters + "A: BEGIN\nB: BEGIN\nA: UPDATE t SET v = 100 WHERE id = 1\nB: UPDATE t SET v = 200 WHERE id = 2\nA& UPDATE t SET v = 100 WHERE id = 2\npause\nB? UPDATE t SET v = 200 WHERE id = 1\nB? COMMIT\nA.\nA? COMMIT\nC: SELECT count(DISTINCT v) FROM t WHERE id < 3"},
	{what: "`SELECT … FOR UPDATE` keeps others out", script: table + "A: BEGIN\nA: SELECT v FROM t WHERE id = 1 FOR UPDATE\nB: SELECT v FROM t WHERE id = 1 FOR UPDATE NOWAIT\nC: SELECT id FROM t ORDER BY id FOR UPDATE SKIP LOCKED\nA: COMMIT\nB: SELECT v FROM t WHERE id = 1 FOR UPDATE NOWAIT"},
	{what: "`SELECT … FOR UPDATE`, then `UPDATE` with what was read", script: counters, stress: increments},
	{what: "write skew under `SERIALIZABLE`", script: counters + "A: BEGIN ISOLATION LEVEL SERIALIZABLE\nB: BEGIN ISOLATION LEVEL SERIALIZABLE\nA: SELECT sum(v) FROM t\nB: SELECT sum(v) FROM t\nA: UPDATE t SET v = 0 WHERE id = 1\nB: UPDATE t SET v = 0 WHERE id = 2\nA: COMMIT\nB: COMMIT\nC: SELECT sum(v) FROM t"},
	{what: "`SERIALIZABLE` read-only sees no half", script: counters + "A: BEGIN ISOLATION LEVEL REPEATABLE READ\nA: SELECT sum(v) FROM t\nB: UPDATE t SET v = v + 1\nA: SELECT sum(v) FROM t\nA: UPDATE t SET v = 0 WHERE id = 1\nA: ROLLBACK\nA: SELECT sum(v) FROM t"},
	{what: "a read right after a write, in another session", script: counters, stress: readAfterWrite},
	{what: "a `SELECT` within the session's own transaction", script: counters + "A: BEGIN\nA: INSERT INTO t VALUES (50, 50)\nA: SELECT v FROM t WHERE id = 50\nB: SELECT count(*) FROM t WHERE id = 50\nA: COMMIT\nB: SELECT count(*) FROM t WHERE id = 50"},
	{what: "a row inserted by one session, deleted at once by another", open: true, script: "A: CREATE TABLE t (id int PRIMARY KEY)", stress: chase},
	{what: "`statement_timeout` near a statement's duration", open: true, script: counters + "A: CREATE FUNCTION slow() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05 + random() * 0.1); RETURN 1; END $$\nA: SET statement_timeout = 100\nA? UPDATE t SET v = v + slow() WHERE id = 1\nA? UPDATE t SET v = v + slow() WHERE id = 2\nA? UPDATE t SET v = v + slow() WHERE id = 3\nA? UPDATE t SET v = v + slow() WHERE id = 4\nA? UPDATE t SET v = v + slow() WHERE id = 5"},
	{what: "the client cancels a slow write", script: counters + "A cancel: UPDATE t SET v = 99 WHERE id = 1 AND pg_sleep(2) IS NOT NULL\nB: SELECT v FROM t WHERE id = 1\nB: UPDATE t SET v = 5 WHERE id = 1"},
	{what: "`COMMIT` of a transaction that failed", script: counters + "A: BEGIN\nA: INSERT INTO t VALUES (60, 1)\nA: SELECT 1/0\nA: SELECT 1\nA? COMMIT\nB: SELECT count(*) FROM t"},
	{what: "a deferred constraint that fails at `COMMIT`", script: "A: CREATE TABLE d (k int UNIQUE DEFERRABLE INITIALLY DEFERRED)\nA: BEGIN\nA: INSERT INTO d VALUES (1), (1)\nA: COMMIT\nA: INSERT INTO d VALUES (2)\nB: SELECT count(*) FROM d"},
	{what: "a deferred trigger that fails by chance", open: true, script: "A: CREATE TABLE d (k int PRIMARY KEY)\nA: CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF random() < 0.5 THEN RAISE 'chance'; END IF; RETURN NULL; END $$\nA: CREATE CONSTRAINT TRIGGER f AFTER INSERT ON d DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f()\nA? INSERT INTO d VALUES (1)\nA? INSERT INTO d VALUES (2)\nA? INSERT INTO d VALUES (3)\nA? INSERT INTO d VALUES (4)"},
	{what: "savepoints, and errors within them", script: counters + "A: BEGIN\nA: INSERT INTO t VALUES (70, 1)\nA: SAVEPOINT a\nA: INSERT INTO t VALUES (70, 2)\nA: ROLLBACK TO a\nA: INSERT INTO t VALUES (71, 1)\nA: RELEASE a\nA: COMMIT\nB: SELECT id FROM t WHERE id > 10 ORDER BY 1"},
	{what: "a function that catches its own error", script: counters + "A: CREATE FUNCTION try() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (80, 1); INSERT INTO t VALUES (80, 2); RETURN 1; EXCEPTION WHEN unique_violation THEN INSERT INTO log VALUES ('caught', 'x'); RETURN 0; END $$\nA: SELECT try()\nB: SELECT count(*) FROM log"},
	{what: "cascades and triggers happen once", script: "A: CREATE TABLE p (k int PRIMARY KEY); CREATE TABLE c (k int REFERENCES p ON DELETE CASCADE); CREATE TABLE log (n serial, k int)\nA: CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log (k) VALUES (OLD.k); RETURN OLD; END $$\nA: CREATE TRIGGER f AFTER DELETE ON c FOR EACH ROW EXECUTE FUNCTION f()\nA: INSERT INTO p VALUES (1), (2)\nA: INSERT INTO c VALUES (1), (1), (2)\nA: DELETE FROM p WHERE k = 1\nB: SELECT count(*) FROM log"},
	{what: "a table without a key: one of several equal rows", script: "A: CREATE TABLE k (v int)\nA: INSERT INTO k VALUES (1), (1), (1), (2)\nA: DELETE FROM k WHERE ctid = (SELECT min(ctid) FROM k WHERE v = 1)\nA: UPDATE k SET v = 3 WHERE ctid = (SELECT max(ctid) FROM k WHERE v = 1)\nB: SELECT v FROM k ORDER BY v"},
	{what: "`TRUNCATE` while somebody reads the table on one server", script: table + "hold 1: SELECT * FROM t\nA: TRUNCATE t\nB: SELECT count(*) FROM t"},
	{what: "`ALTER TABLE` while somebody reads the table on one server", script: table + "hold 2: SELECT * FROM t\nA: ALTER TABLE t ADD x int DEFAULT 7\nB: SELECT x FROM t WHERE id = 1"},
	{what: "a write while somebody holds the row on one server", script: table + "hold 1: SELECT * FROM t FOR UPDATE\nA: UPDATE t SET v = 'x' WHERE id = 1\nB: SELECT v FROM t WHERE id = 1"},
}

// crowd runs n clients, each of which runs rounds of statements. A deadlock or a
// conflict is run again.
func crowd(n, rounds int, statements func(g, i int) []string) func(context.Context, *player) string {
	return func(ctx context.Context, p *player) string {
		ctx, cancel := context.WithTimeout(ctx, 6*stepLimit)
		defer cancel()
		var wg sync.WaitGroup
		var failed atomic.Pointer[string]
		for g := range n {
			wg.Go(func() {
				c, err := p.db.Conn(ctx)
				if err != nil {
					text := told(err)
					failed.CompareAndSwap(nil, &text)
					return
				}
				defer c.Close()
				for i := range rounds {
					for _, q := range statements(g, i) {
						if text := persist(ctx, c, q); text != "" {
							failed.CompareAndSwap(nil, &text)
							return
						}
					}
				}
			})
		}
		wg.Wait()
		if text := failed.Load(); text != nil {
			return *text
		}
		return "all done"
	}
}

func persist(ctx context.Context, c *sql.Conn, q string) string {
	for range 20 {
		_, err := c.ExecContext(ctx, q)
		var pe *pgconn.PgError
		switch {
		case err == nil:
			return ""
		case !errors.As(err, &pe) || pe.Code != "40P01" && pe.Code != "40001":
			return told(err)
		}
		_, _ = c.ExecContext(ctx, "ROLLBACK") // a deadlock within a BEGIN of the statement's own
	}
	return "error: 20 conflicts in a row"
}

// increments reads a value with FOR UPDATE and writes it back, one more.
func increments(ctx context.Context, p *player) string {
	ctx, cancel := context.WithTimeout(ctx, 3*stepLimit)
	defer cancel()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				tx, err := p.db.BeginTx(ctx, nil)
				if err != nil {
					return
				}
				var v int
				err = tx.QueryRowContext(ctx, "SELECT v FROM t WHERE id = 1 FOR UPDATE").Scan(&v)
				if err == nil {
					_, err = tx.ExecContext(ctx, "UPDATE t SET v = $1 WHERE id = 1", v+1)
				}
				if err == nil {
					err = tx.Commit()
				}
				if err != nil {
					_ = tx.Rollback()
				}
			}
		})
	}
	wg.Wait()
	return one(ctx, p.db, "SELECT v FROM t WHERE id = 1")
}

// readAfterWrite writes in one session and reads in another.
func readAfterWrite(ctx context.Context, p *player) string {
	ctx, cancel := context.WithTimeout(ctx, 3*stepLimit)
	defer cancel()
	stale := 0
	for i := range 100 {
		if _, err := p.db.ExecContext(ctx, "UPDATE t SET v = $1 WHERE id = 1", i); err != nil {
			return told(err)
		}
		if one(ctx, p.db, "SELECT v FROM t WHERE id = 1") != fmt.Sprint(i) {
			stale++
		}
	}
	return fmt.Sprint(stale, " stale reads of 100")
}

// chase has one session insert rows and another delete each as soon as it sees it.
func chase(ctx context.Context, p *player) string {
	ctx, cancel := context.WithTimeout(ctx, 3*stepLimit)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 60 {
			_, _ = p.db.ExecContext(ctx, "INSERT INTO t VALUES ($1)", i)
		}
	})
	deleted := int64(0)
	for deleted < 60 && ctx.Err() == nil {
		r, err := p.db.ExecContext(ctx, "DELETE FROM t")
		if err != nil {
			return told(err)
		}
		n, _ := r.RowsAffected()
		deleted += n
		time.Sleep(time.Millisecond)
	}
	wg.Wait()
	return fmt.Sprint(deleted, " deleted")
}

func one(ctx context.Context, db *sql.DB, q string) string {
	var v string
	if err := db.QueryRowContext(ctx, q).Scan(&v); err != nil {
		return told(err)
	}
	return v
}
