package driver

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/pgtest"
)

const (
	refusalsFile = "testdata/refusals.json"
	refusalsPage = "../internal/mirror/REFUSALS.md"
)

// refusal is what pgdist refuses, and how. All of its statements are answered alike.
type refusal struct {
	What   string   `json:"what"`
	SQL    []string `json:"sql"`
	Args   []any    `json:"args,omitempty"`   // bound to each statement
	Before string   `json:"before,omitempty"` // made beforehand
	After  string   `json:"after,omitempty"`  // undoes that
	Direct string   `json:"direct,omitempty"` // "leader" or "follower": over a connection of one's own to that server
	Fresh  bool     `json:"fresh,omitempty"`  // in a session that has done nothing else
	// Elsewhere is the test that runs it, if it is not this one.
	Elsewhere string `json:"elsewhere,omitempty"`
	State     string `json:"state"`
	Message   string `json:"message"`
	Detail    string `json:"detail,omitempty"`
	Hint      string `json:"hint"`
	Why       string `json:"why"`
}

// addresses are what two runs never have in common.
var addresses = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// answered fills in how a statement was answered.
func (r refusal) answered(err error) refusal {
	r.State, r.Message, r.Detail, r.Hint = "", fmt.Sprint(err), "", ""
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		clean := func(s string) string { return addresses.ReplaceAllString(s, "host:port") }
		r.State, r.Message, r.Detail, r.Hint = pe.Code, clean(pe.Message), clean(pe.Detail), clean(pe.Hint)
	}
	return r
}

// TestRefusals: what cannot be mirrored is refused by name, with a hint that says
// what to do, and leaves nothing anywhere; and the page about it lists just that.
func TestRefusals(t *testing.T) {
	data, err := os.ReadFile(refusalsFile)
	if err != nil {
		t.Fatal(err)
	}
	var cases []refusal
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatalf("%s: %v", refusalsFile, err)
	}
	x := refusing{T: t}
	x.db, x.servers = mirrored(t, "")
	run(t, x.db, `CREATE TABLE kept (k int PRIMARY KEY, v int); INSERT INTO kept VALUES (1, 1), (2, 2);
		CREATE TABLE tree (k int PRIMARY KEY) PARTITION BY RANGE (k); CREATE TABLE leaf PARTITION OF tree FOR VALUES FROM (0) TO (100);
		CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER mine BEFORE INSERT ON kept FOR EACH ROW EXECUTE FUNCTION nothing();
		CREATE RULE rule1 AS ON DELETE TO kept WHERE OLD.k < 0 DO INSTEAD NOTHING; CREATE SEQUENCE counted; SELECT nextval('counted')`)
	got := make([]refusal, len(cases))
	for i, want := range cases {
		if got[i] = want; want.Elsewhere == "" {
			got[i] = x.refused(want)
		}
		if diff := cmp.Diff(want, got[i]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.What, diff)
		}
		if want.Hint == "" || want.Why == "" {
			t.Errorf("%s: a refusal says what to do, and why", want.What)
		}
	}
	pgtest.SameBytes(t, x.servers...)
	page, err := os.ReadFile(refusalsPage)
	if err != nil {
		t.Error(err)
	}
	if want := withTable(string(page), refusalsTable(cases)); want != string(page) {
		t.Errorf("%s does not list just what %s does", refusalsPage, refusalsFile)
	}
	if t.Failed() {
		beside := t.ArtifactDir()
		writeRefusals(t, filepath.Join(beside, "refusals.json"), got)
		if err := os.WriteFile(filepath.Join(beside, "REFUSALS.md"), []byte(withTable(string(page), refusalsTable(got))), 0o644); err != nil {
			t.Error(err)
		}
		t.Logf("what was found is in %s", beside)
	}
}

type refusing struct {
	*testing.T
	db      *sql.DB
	servers []*pgtest.Server
}

// refused runs a case and tells how its statements were answered.
func (x refusing) refused(c refusal) refusal {
	x.Helper()
	ctx := context.Background()
	if c.Before != "" {
		run(x.T, x.db, c.Before)
	}
	before := x.contents()
	first := c
	for i, q := range c.SQL {
		var err error
		switch {
		case c.Direct != "":
			server := x.servers[0]
			if c.Direct == "follower" {
				server = x.servers[2]
			}
			_, err = pgtest.Connect(x, server.DSN()).Exec(ctx, q)
		case len(c.Args) > 0:
			_, err = x.db.Exec(q, c.Args...)
		case c.Fresh || strings.HasPrefix(q, "PREPARE TRANSACTION"):
			_, err = x.db.Exec(q)
		default:
			// What stands before it in the string is undone.
			_, err = x.db.Exec("INSERT INTO kept VALUES (77, 7); " + q)
			if _, alone := x.db.Exec(q); sqlState(alone) != sqlState(err) {
				x.Errorf("%s\nalone: %v, in a string: %v", q, alone, err)
			}
		}
		got := c.answered(err)
		if i == 0 {
			first = got
		} else if diff := cmp.Diff(first, got); diff != "" {
			x.Errorf("%s\nis not answered like the first statement of %q:\n%s", q, c.What, diff)
		}
		if c.Direct == "" && !c.Fresh {
			x.inTransaction(q, c.Args, first.State)
		}
	}
	if diff := cmp.Diff(before, x.contents()); diff != "" {
		x.Errorf("%s left something:\n%s", c.What, diff)
	}
	if c.After != "" {
		run(x.T, x.db, c.After)
	}
	return first
}

// inTransaction checks that a refusal ends its transaction like any error.
func (x refusing) inTransaction(q string, args []any, state string) {
	x.Helper()
	tx, err := x.db.Begin()
	if err != nil {
		x.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // ErrTxDone
	run(x.T, tx, "INSERT INTO kept VALUES (78, 7); SAVEPOINT a")
	for range 2 {
		if _, err = tx.Exec(q, args...); sqlState(err) != state {
			x.Errorf("%s\nin a transaction: %v, want %s", q, err, state)
		}
		if _, err := tx.Exec("SELECT 1"); sqlState(err) != "25P02" {
			x.Errorf("%s\nthe statement after it: %v, want 25P02", q, err)
			return
		}
		run(x.T, tx, "ROLLBACK TO a; INSERT INTO kept VALUES (79, 7); ROLLBACK TO a")
	}
	_, _ = tx.Exec(q, args...)
	if err := tx.Commit(); err == nil {
		x.Errorf("%s\nits transaction was committed", q)
	}
}

// contents are what the leader holds.
func (x refusing) contents() *pgtest.Contents {
	x.Helper()
	c, err := pgtest.ReadContents(context.Background(), x.servers[0].DSN())
	if err != nil {
		x.Fatal(err)
	}
	return c
}

func writeRefusals(t *testing.T, file string, cases []refusal) {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(cases); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// refusalsTable is the page's table.
func refusalsTable(cases []refusal) string {
	var b strings.Builder
	b.WriteString("| what | for example | SQLSTATE | message | hint | why |\n| --- | --- | --- | --- | --- | --- |\n")
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	for _, c := range cases {
		message := c.Message
		if c.Detail != "" {
			message += ". " + c.Detail
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s | %s | %s |\n", cell(c.What), cell(c.SQL[0]), c.State, cell(message), cell(c.Hint), cell(c.Why))
	}
	return b.String()
}

// withTable puts a table in place of the page's.
func withTable(page, table string) string {
	from := strings.Index(page, "| what | for example |")
	if from < 0 {
		return page + table
	}
	to := from
	for line := range strings.Lines(page[from:]) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		to += len(line)
	}
	return page[:from] + table + page[to:]
}
