//go:build unix

package classify_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// TestReadsAreReads runs every golden statement that is called a read in a
// read-only transaction on a real server. None may be refused as a write, and
// all of them have to work, or the test would prove nothing.
func TestReadsAreReads(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	server := pgtest.Start(t, pgtest.Options{FsyncOff: true})
	conn, err := pgx.Connect(ctx, server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	schema, err := os.ReadFile("testdata/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, string(schema)); err != nil {
		t.Fatal(err)
	}
	catalog := readCatalog(ctx, t, conn)
	newGrammar := conn.PgConn().ParameterStatus("server_version") >= "16"

	wall := runReadOnly(ctx, t, conn, "INSERT INTO t (id) VALUES (7)")
	if sqlState(wall) != "25006" {
		t.Fatalf("an INSERT in a read-only transaction gives %v, not 25006", wall)
	}
	reads := 0
	for _, sql := range goldenSQL(t) {
		if classify.Parse(sql).Resolve(catalog) != classify.Read {
			continue
		}
		reads++
		err := runReadOnly(ctx, t, conn, sql)
		switch state := sqlState(err); {
		case state == "25006":
			t.Errorf("called a read, but the server says: %v\n%s", err, sql)
		case state == "42601" && !newGrammar:
		case err != nil && !strings.Contains(sql, "no_such_function"):
			t.Errorf("%v\n%s", err, sql)
		}
	}
	if reads < 100 {
		t.Errorf("only %d golden statements are reads", reads)
	}
}

// runReadOnly runs a string of statements as an engine does on a follower, in a
// transaction that is rolled back.
func runReadOnly(ctx context.Context, t *testing.T, conn *pgx.Conn, sql string) error {
	t.Helper()
	c := conn.PgConn()
	for _, setup := range []string{"BEGIN READ ONLY", "SELECT 1", "DECLARE c SCROLL CURSOR FOR SELECT 1"} {
		if _, err := c.Exec(ctx, setup).ReadAll(); err != nil {
			t.Fatalf("%s: %v", setup, err)
		}
	}
	var err error
	if params := regexp.MustCompile(`\$\d`).FindAllString(sql, -1); len(params) > 0 && !strings.Contains(sql, "$$") {
		_, err = c.ExecParams(ctx, sql, make([][]byte, len(params)), nil, nil, nil).Close()
	} else {
		_, err = c.Exec(ctx, sql).ReadAll()
	}
	if _, end := c.Exec(ctx, "ROLLBACK").ReadAll(); end != nil {
		t.Fatalf("%s: ROLLBACK: %v", sql, end)
	}
	return err
}

func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// catalog is what pg_proc says: the worst overload of each name.
type catalog map[string]bool

func (c catalog) Volatile(schema, name string) (volatile, known bool) {
	if schema == "" {
		schema = "public"
	}
	volatile, known = c[schema+"."+name]
	return volatile, known
}

func readCatalog(ctx context.Context, t *testing.T, conn *pgx.Conn) catalog {
	t.Helper()
	rows, err := conn.Query(ctx, `select pronamespace::regnamespace || '.' || proname, bool_or(provolatile = 'v')
		from pg_proc where pronamespace <> 'pg_catalog'::regnamespace group by 1`)
	if err != nil {
		t.Fatal(err)
	}
	c := catalog{}
	var name string
	var volatile bool
	if _, err := pgx.ForEachRow(rows, []any{&name, &volatile}, func() error {
		c[name] = volatile
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !c["app.writes"] || c["app.pure"] {
		t.Fatalf("the catalog is not what schema.sql makes: %v", c)
	}
	return c
}

func goldenSQL(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct{ SQL string }
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	var sql []string
	for _, c := range cases {
		sql = append(sql, c.SQL)
	}
	return sql
}
