//go:build unix

package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// result is what one command line brought.
type result struct {
	code      int
	out, errs string
}

// ages is how long a test waits for what is certain to happen, on however slow a machine.
const ages = 3 * time.Minute

// pgdist runs a command line as the program does.
func pgdist(t *testing.T, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), ages)
	defer cancel()
	return pgdistIn(ctx, "", args...)
}

func pgdistIn(ctx context.Context, in string, args ...string) result {
	var out, errs bytes.Buffer
	code := run(ctx, args, strings.NewReader(in), &out, &errs)
	return result{code, out.String(), errs.String()}
}

// want fails the test unless the command ended with the status and said all of
// the texts, wherever.
func (r result) want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit status %d, want %d", r.code, code)
	}
	for _, text := range texts {
		if !strings.Contains(r.out+r.errs, text) {
			t.Errorf("%q is not said", text)
		}
	}
	if t.Failed() {
		t.Fatalf("standard output:\n%s\nstandard error:\n%s", r.out, r.errs)
	}
}

// wantErrors fails the test unless the command failed with one line for each of
// so many causes, and all of the texts in them.
func (r result) wantErrors(t *testing.T, lines int, texts ...string) {
	t.Helper()
	var said []string
	for line := range strings.Lines(r.errs) {
		if strings.HasPrefix(line, "pgdist: ") {
			said = append(said, line)
		}
	}
	if len(said) != lines {
		t.Errorf("%d lines of errors, want %d", len(said), lines)
	}
	r.want(t, statusFailed, texts...)
}

// dsn names a database on all servers.
func dsn(database string, servers ...*pgtest.Server) string {
	return dsnAs("postgres", database, servers...)
}

func dsnAs(user, database string, servers ...*pgtest.Server) string {
	hosts := make([]string, len(servers))
	for i, s := range servers {
		hosts[i] = s.Addr()
	}
	return fmt.Sprintf("pgdist://%s@%s/%s?sslmode=disable", user, strings.Join(hosts, ","), database)
}

// everywhere runs SQL in a database of each server.
func everywhere(t *testing.T, database, sql string, servers ...*pgtest.Server) {
	t.Helper()
	for _, s := range servers {
		on(t, s, database, sql)
	}
}

// on runs SQL in one database.
func on(t *testing.T, s *pgtest.Server, database, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), ages)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN(database))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v\n%s", s.Addr(), err, sql)
	}
}

// ask returns the one value of a query.
func ask(t *testing.T, s *pgtest.Server, query string) (value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), ages)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, query).Scan(&value); err != nil {
		t.Fatalf("%s: %v\n%s", s.Addr(), err, query)
	}
	return value
}

// eventually waits for something that real servers take a moment for.
func eventually(t *testing.T, what string, true func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(ages); !true(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// schema is what most tests' databases hold.
const schema = `CREATE TABLE t (id int PRIMARY KEY, v text);
	INSERT INTO t SELECT g, 'row ' || g FROM generate_series(1, 100) g;
	CREATE TABLE s (id serial PRIMARY KEY, at timestamptz DEFAULT '2020-01-01');
	INSERT INTO s DEFAULT VALUES`
