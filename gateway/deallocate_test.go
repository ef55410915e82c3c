package gateway

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestDeallocateAllIsOnesOwn has clients deallocate all that they have prepared, in transactions, on
// connections to servers that others have prepared statements on, too.
func TestDeallocateAllIsOnesOwn(t *testing.T) {
	s := newSet(t, func(c *Config) { c.DSN += "&pool_size=1" })
	ctx := context.Background()
	const insert = "INSERT INTO owned VALUES ($1) ON CONFLICT DO NOTHING"
	other := connect(t, s.url(""))
	execute(t, other, "CREATE TABLE owned (id int PRIMARY KEY)")
	if _, err := other.Prepare(ctx, "kept", insert); err != nil {
		t.Fatal(err)
	}
	use := func(conn *pgx.Conn, name, when string) {
		t.Helper()
		if r := conn.PgConn().ExecPrepared(ctx, name, [][]byte{[]byte("1")}, nil, nil).Read(); r.Err != nil {
			t.Errorf("%s: %v", when, r.Err)
		}
	}
	extended := func(conn *pgx.Conn) error {
		return conn.PgConn().ExecParams(ctx, "DEALLOCATE ALL", nil, nil, nil, nil).Read().Err
	}
	simple := func(sql string) func(*pgx.Conn) error {
		return func(conn *pgx.Conn) error {
			_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
			return err
		}
	}
	for _, replay := range []string{"off", "on"} {
		for name, deallocate := range map[string]func(*pgx.Conn) error{
			"a Query":        simple("DEALLOCATE ALL"),
			"an Execute":     extended,
			"one of several": simple("SAVEPOINT a; ROLLBACK TO a; DEALLOCATE ALL; SELECT 1"),
			"one of several, as psycopg does after an error": func(conn *pgx.Conn) error {
				execute(t, conn, "SAVEPOINT b")
				if err := simple("SELECT 1/0")(conn); code(err) != "22012" {
					return err
				}
				return simple("ROLLBACK TO b; RELEASE b; DEALLOCATE ALL")(conn)
			},
		} {
			what := fmt.Sprintf("%s, replay %s", name, replay)
			conn := connect(t, s.url(""))
			execute(t, conn, "SET pgdist.replay = "+replay)
			execute(t, conn, "BEGIN; INSERT INTO owned VALUES (2) ON CONFLICT DO NOTHING")
			if _, err := conn.PgConn().Prepare(ctx, "own", insert, nil); err != nil {
				t.Fatal(what, err)
			}
			use(conn, "own", what)
			if err := deallocate(conn); err != nil {
				t.Fatal(what, err)
			}
			if _, err := conn.PgConn().Prepare(ctx, "own", insert, nil); err != nil {
				t.Fatalf("%s: the name is not free: %v", what, err)
			}
			use(conn, "own", what+", prepared anew")
			execute(t, conn, "COMMIT")
			use(other, "kept", what+", another client")
		}
	}
	conn := connect(t, s.url("")) // where it is refused all is as it was
	execute(t, conn, "BEGIN; INSERT INTO owned VALUES (3)")
	if err := simple("SELECT 1/0")(conn); code(err) != "22012" {
		t.Fatal(err)
	}
	for _, deallocate := range []func(*pgx.Conn) error{simple("DEALLOCATE ALL"), extended} {
		if err := deallocate(conn); code(err) != "25P02" {
			t.Fatal(err)
		}
	}
	execute(t, conn, "ROLLBACK")
	use(other, "kept", "after one that was refused")

	// What comes behind an error in a pipeline is skipped; what comes behind DEALLOCATE ALL is prepared again.
	for _, before := range []string{"SELECT 1", "SELECT 1/0"} {
		pipe := connect(t, s.url("&default_query_exec_mode=exec"))
		execute(t, pipe, "BEGIN; INSERT INTO owned VALUES (4) ON CONFLICT DO NOTHING")
		b := &pgx.Batch{}
		b.Queue(before)
		b.Queue("DEALLOCATE ALL")
		b.Queue("SELECT 2")
		if err := pipe.SendBatch(ctx, b).Close(); (err != nil) != (before == "SELECT 1/0") {
			t.Fatalf("%s: %v", before, err)
		}
		execute(t, pipe, "ROLLBACK")
		use(other, "kept", "after a pipeline with "+before)
	}
}
