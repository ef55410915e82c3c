package driver

import (
	"context"
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestSameArguments(t *testing.T) {
	both(t, func(t *testing.T, db *sql.DB, note func(string, ...any)) {
		note("%s", do(db, "CREATE TABLE g (id int PRIMARY KEY, v text)", pgx.QueryExecModeSimpleProtocol))
		note("%s", do(db, "INSERT INTO g VALUES ($1, $2)", pgx.QueryExecModeExec, 1, "one"))
		note("%s", do(db, "INSERT INTO g VALUES (@id, @v)", pgx.NamedArgs{"id": 2, "v": "two"}))
		note("%s", do(db, "ALTER TABLE g ADD COLUMN n int DEFAULT 5; INSERT INTO g VALUES (3, 'three')", pgx.QueryExecModeSimpleProtocol))
		note("%s", table(db, "SELECT * FROM g WHERE id = @id", pgx.NamedArgs{"id": 2}))
		note("%s", table(db, "SELECT * FROM g WHERE id >= $1 ORDER BY id", pgx.QueryExecModeSimpleProtocol, 1))
		note("%s", do(db, "SELECT @x::int", pgx.StrictNamedArgs{"y": 1}))
		note("%s", table(db, "SELECT set_config($1, $2, false)", "work_mem", "3MB"))
	})
}

func TestBoundSettingNames(t *testing.T) {
	db, fake, _ := three(t, nil)
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, c := range []struct {
		args  []any
		state string
	}{
		{[]any{"work_mem", "3MB", false}, ""},
		{[]any{"session_replication_role", "replica", false}, "0A000"},
		{[]any{"Session_Replication_Role", "replica", true}, "0A000"},
		{[]any{"session_replication_role", "origin", true}, ""},
		{[]any{"pgdist.conn", "x", false}, "0A000"},
		{[]any{"event_triggers", "off", false}, "0A000"},
		{[]any{[]byte("pgdist.ddl"), "x", true}, "0A000"},
		{[]any{sql.NullString{String: "pgdist.ddl", Valid: true}, "x", true}, "0A000"},
		{[]any{pgx.QueryExecModeSimpleProtocol, "pgdist.ddl", "x", true}, "0A000"},
	} {
		before := fake.acks.Load()
		var got sql.NullString
		err := conn.QueryRowContext(context.Background(), "SELECT set_config($1, $2, $3)", c.args...).Scan(&got)
		if sqlState(err) != c.state || c.state == "" && err != nil {
			t.Errorf("%v: %v", c.args, err)
		}
		if c.state != "" && fake.acks.Load() != before {
			t.Errorf("%v reached a server", c.args)
		}
		stmt, err := conn.PrepareContext(context.Background(), "SELECT set_config($1, $2, $3)")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stmt.Exec(c.args...); len(c.args) == 3 && sqlState(err) != c.state {
			t.Errorf("prepared, %v: %v", c.args, err)
		}
		if err := stmt.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := ask[string](t, conn, "SHOW work_mem"); got != "3MB" {
		t.Errorf("work_mem %s", got)
	}
	if _, err := conn.ExecContext(context.Background(), "SELECT set_config(@n, 'x', false)", pgx.NamedArgs{"n": "pgdist.conn"}); sqlState(err) != "0A000" {
		t.Errorf("named: %v", err)
	}
	if _, err := conn.ExecContext(context.Background(), "PREPARE p AS SELECT set_config($1, 'x', false)"); sqlState(err) != "0A000" {
		t.Errorf("PREPARE: %v", err)
	}
}
