//go:build unix

package compat

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	_ "github.com/pgdist/pgdist/driver"
	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// common are the servers of all tests: the mirrored three, and one for pgx.
var common struct {
	once    sync.Once
	servers []*pgtest.Server
	err     error
}

const members = 3

func TestMain(m *testing.M) {
	code := m.Run()
	for _, s := range common.servers {
		if err := s.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// note keeps what a program saw.
type note func(format string, args ...any)

// both runs body over pgx and over pgdist, each in an empty database, compares
// what it notes and then the bytes of the mirrored servers.
func both(t *testing.T, body func(t *testing.T, db *sql.DB, note note)) {
	t.Helper()
	bothWith(t, false, body)
}

// bothWith is both, perhaps with one of the mirrored servers away meanwhile; it
// finds everything at once when it comes back.
func bothWith(t *testing.T, away bool, body func(t *testing.T, db *sql.DB, note note)) {
	t.Helper()
	common.once.Do(func() {
		common.servers, common.err = pgtest.LaunchSet(members+1, pgtest.Options{})
	})
	if common.err != nil {
		t.Fatal(common.err)
	}
	name := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "_"))
	for _, s := range common.servers {
		s.Exec(t, "CREATE DATABASE "+name)
	}
	set, alone := common.servers[:members], common.servers[members]
	var notes [2][]string
	for i, open := range []func() *sql.DB{
		func() *sql.DB { return openPlain(t, alone.DSN(name)) },
		func() *sql.DB { return openMirrored(t, set, name) },
	} {
		db := open()
		if err := db.Ping(); err != nil {
			t.Fatal(err)
		}
		if away && i == 1 {
			if err := set[2].Kill(); err != nil {
				t.Fatal(err)
			}
		}
		body(t, db, func(format string, args ...any) {
			notes[i] = append(notes[i], fmt.Sprintf(format, args...))
		})
		// A statement that failed may have moved a sequence; the next one that
		// moves any takes that along.
		if _, err := db.Exec("CREATE SEQUENCE settled; SELECT nextval('settled')"); err != nil {
			t.Error(err)
		}
		if away && i == 1 {
			if err := set[2].StartAgain(); err != nil {
				t.Fatal(err)
			}
			afterReturn(t, dsnsOf(set, name))
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(notes[0], notes[1]); diff != "" {
		t.Errorf("pgx (-) and pgdist (+) differ:\n%s", diff)
	}
	if len(notes[0]) == 0 {
		t.Error("nothing was compared")
	}
	pgtest.Digest(t, dsnsOf(set, name)...)
}

func dsnsOf(servers []*pgtest.Server, name string) (dsns []string) {
	for _, s := range servers {
		dsns = append(dsns, s.DSN(name))
	}
	return dsns
}

func openPlain(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func openMirrored(t *testing.T, servers []*pgtest.Server, name string) *sql.DB {
	t.Helper()
	var config mirror.Config
	var hosts []string
	for _, s := range servers {
		c, err := pgconn.ParseConfig(s.DSN(name))
		if err != nil {
			t.Fatal(err)
		}
		config.Members = append(config.Members, mirror.MemberConfig{Conn: c})
		hosts = append(hosts, s.Addr())
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := mirror.Init(ctx, config, mirror.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgdist", "pgdist://postgres@"+strings.Join(hosts, ",")+"/"+name+"?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// told describes an error as a program can see it.
func told(err error) string {
	var pe *pgconn.PgError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &pe):
		return fmt.Sprintf("%s %s (%s %s %s) detail %q hint %q", pe.Code, pe.Message, pe.SchemaName, pe.TableName, pe.ConstraintName, moments.ReplaceAllString(pe.Detail, "…"), pe.Hint)
	}
	var partial *goose.PartialError
	if errors.As(err, &partial) { // does not unwrap
		return "partial: " + told(partial.Err)
	}
	return err.Error()
}

// moments are what two runs never have in common.
var moments = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:[\d.]+`)

var texts atomic.Int64

// table describes the whole result of a query.
func table(t *testing.T, db *sql.DB, query string, args ...any) string {
	t.Helper()
	// Every text is new: pgx's own driver stumbles over a statement that it kept
	// prepared while the table changed.
	rows, err := db.Query(fmt.Sprintf("%s -- %d", query, texts.Add(1)), args...)
	if err != nil {
		return told(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return told(err)
	}
	var b strings.Builder
	fmt.Fprint(&b, columns)
	for rows.Next() {
		values, dest := make([]any, len(columns)), make([]any, len(columns))
		for i := range dest {
			dest[i] = &values[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return b.String() + told(err)
		}
		fmt.Fprintf(&b, " %v", values)
	}
	return b.String() + " " + told(rows.Err())
}

// schema describes what a migration left: columns, indexes, constraints,
// functions and sequences of the users' schemas.
func schema(t *testing.T, db *sql.DB) string {
	t.Helper()
	return strings.Join([]string{
		table(t, db, `SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
			WHERE table_schema NOT IN ('pg_catalog', 'information_schema', 'pgdist') ORDER BY 1, ordinal_position`),
		table(t, db, `SELECT indexdef FROM pg_indexes WHERE schemaname NOT IN ('pg_catalog', 'pgdist') ORDER BY indexname`),
		table(t, db, `SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
			WHERE connamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) AND connamespace::regnamespace::text <> 'pgdist' ORDER BY conrelid::regclass::text, conname`),
		table(t, db, `SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1`),
	}, "\n")
}
