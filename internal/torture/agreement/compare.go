//go:build unix

package agreement

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// compare demands that all members hold the same, by pgdist's own comparison and by one
// that knows nothing of pgdist.
func (c *cluster) compare(ctx context.Context) {
	c.t.Helper()
	cfg := c.config()
	cfg.Logger = slog.New(slog.DiscardHandler)
	s, err := mirror.Open(ctx, cfg)
	if err != nil {
		c.t.Error(err)
		return
	}
	defer s.Close()
	report, err := s.Verify(ctx, mirror.VerifyOptions{})
	if err != nil {
		c.t.Errorf("verify: %v", err)
	} else {
		for _, d := range report.Differences {
			c.t.Errorf("verify: member %d: %s", d.Member, d.What)
		}
		if in := c.members(); len(report.View.InSync) != len(in) {
			c.t.Errorf("verify compared %d of %d members", len(report.View.InSync), len(in))
		}
	}
	if err := s.Flush(ctx); err != nil {
		c.t.Error(err)
	}
	pgtest.SameBytes(c.t, c.members()...)
	if err := c.sameAsPlain(ctx); err != nil {
		c.t.Error(err)
	}
	if c.t.Failed() {
		if err := c.keepJournals(ctx); err != nil {
			c.t.Error(err)
		}
	}
}

// keepJournals writes what each member knows of how it came to where it is to files that
// outlive the test.
func (c *cluster) keepJournals(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "pgdist-journals-")
	if err != nil {
		return err
	}
	c.t.Logf("journals are in %s", dir)
	for _, i := range c.roll.members() {
		db, err := sql.Open("pgx", c.servers[i].DSN())
		if err != nil {
			return err
		}
		lines, err := texts(ctx, db, `SELECT 'position ' || p::text FROM pgdist.position p UNION ALL SELECT 'term ' || t::text FROM (SELECT * FROM pgdist.terms ORDER BY term) t
			UNION ALL SELECT 'table ' || id || ' ' || rel FROM pgdist.tables UNION ALL SELECT 'journal ' || j::text FROM (SELECT * FROM pgdist.journal ORDER BY term, xid, id) j`)
		err = errors.Join(err, db.Close(), os.WriteFile(filepath.Join(dir, fmt.Sprintf("server-%d", i)), []byte(strings.Join(lines, "\n")), 0o644))
		if err != nil {
			return err
		}
	}
	return nil
}

// sameAsPlain demands that each member holds of the workload what the plain server holds.
func (c *cluster) sameAsPlain(ctx context.Context) error {
	want, err := mixedContents(ctx, c.plainDB)
	if err != nil {
		return err
	}
	var errs []error
	for _, i := range c.roll.members() {
		db, err := sql.Open("pgx", c.servers[i].DSN())
		if err != nil {
			return err
		}
		got, err := mixedContents(ctx, db)
		if err := errors.Join(err, db.Close()); err != nil {
			return err
		}
		for name := range want {
			if _, ok := got[name]; !ok {
				errs = append(errs, fmt.Errorf("server %d has no table %s", i, name))
			}
		}
		for name, rows := range got {
			if at := firstDifference(rows, want[name]); at >= 0 {
				errs = append(errs, fmt.Errorf("server %d, %s: %d rows, on the plain server %d; first %q, there %q", i, name, len(rows), len(want[name]), rows[at:min(at+1, len(rows))], want[name][at:min(at+1, len(want[name]))]))
			}
		}
	}
	return errors.Join(errs...)
}

// firstDifference is the place of the first difference, or -1.
func firstDifference(a, b []string) int {
	for i := range a {
		if i == len(b) || a[i] != b[i] {
			return i
		}
	}
	if len(b) > len(a) {
		return len(a)
	}
	return -1
}

// mixedContents are the rows of the workload's tables, sorted.
func mixedContents(ctx context.Context, db *sql.DB) (map[string][]string, error) {
	names, err := texts(ctx, db, `SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'mixed\_%' AND relnamespace = 'public'::regnamespace`)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, name := range names {
		if out[name], err = texts(ctx, db, `SELECT whole::text COLLATE "C" FROM `+name+` AS whole ORDER BY 1`); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// texts reads one column.
func texts(ctx context.Context, db *sql.DB, query string) ([]string, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var t string
		if err := rows.Scan(&t); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, rows.Err()
}

// explain logs what everybody waits for: at each server, and in each program, which it ends.
func (c *cluster) explain(ctx context.Context) {
	c.t.Helper()
	ctx, over := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer over()
	for i, s := range c.servers {
		db, err := sql.Open("pgx", s.DSN())
		if err != nil {
			c.t.Error(err)
			continue
		}
		lines, err := texts(ctx, db, `SELECT concat_ws(' ', a.pid, a.application_name, a.state, a.wait_event_type, a.wait_event, 'blocked by', pg_blocking_pids(a.pid), 'since', a.query_start::time(0), 'open since', a.xact_start::time(0), left(a.query, 150))
			FROM pg_stat_activity a WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid() ORDER BY a.query_start`)
		for _, line := range lines {
			c.t.Logf("server %d: %s", i, line)
		}
		if err := errors.Join(err, db.Close()); err != nil {
			c.t.Logf("server %d: %v", i, err)
		}
	}
	for _, p := range c.programs {
		p.mu.Lock()
		proc := p.proc
		p.mu.Unlock()
		if err := proc.Dump(); err != nil {
			c.t.Log(err)
			continue
		}
		select {
		case <-proc.Done():
		case <-time.After(5 * time.Second):
		}
	}
}

// differences is how programs' logs tell that a member differed. They put that right
// themselves, mostly before the members are compared here.
var differences = []string{`msg="a member differs from the leader`, `msg="all followers agree with each other and differ`,
	`msg="putting right what differs`, `msg="a sequence differs from the leader`}

// lineWriter puts a program's log into the test's, line by line.
type lineWriter struct {
	t    *verdict
	name string
	rest []byte
}

func (w *lineWriter) Write(b []byte) (int, error) {
	w.rest = append(w.rest, b...)
	for {
		line, rest, ok := strings.Cut(string(w.rest), "\n")
		if !ok {
			return len(b), nil
		}
		say := w.t.Logf
		if slices.ContainsFunc(differences, func(s string) bool { return strings.Contains(line, s) }) {
			say = w.t.Errorf
		}
		say("%s: %s", w.name, line)
		w.rest = []byte(rest)
	}
}
