//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// column returns the cells below a heading of a table, which begins where the
// heading does.
func column(table, heading string) []string {
	var cells []string
	at := -1
	for line := range strings.Lines(table) {
		if i := strings.Index(line, heading); at < 0 && strings.HasPrefix(line, "MEMBER") {
			at = i
			continue
		}
		if at >= 0 && at < len(line) && line[0] >= '0' && line[0] <= '9' {
			cell, _, _ := strings.Cut(strings.TrimRight(line[at:], "\n"), "  ")
			cells = append(cells, cell)
		}
	}
	return cells
}

func TestStatus(t *testing.T) {
	three := pgtest.Set(t, 3, pgtest.Options{})
	everywhere(t, "postgres", schema, three...)
	set := dsn("postgres", three...)
	pgdist(t, "status", set).wantErrors(t, 3, "not part of a pgdist set", "run: pgdist init")
	pgdist(t, "init", set).want(t, statusOK)

	t.Run("all is well", func(t *testing.T) {
		r := pgdist(t, "status", set)
		r.want(t, statusOK, "epoch 1  term 1", "\njournal: ", " of 8192.0 MB, held back for 0s of 72h0m0s\n")
		for heading, want := range map[string][]string{
			"HOST": {three[0].Addr(), three[1].Addr(), three[2].Addr()}, "ROLE": {"leader", "follower", "follower"}, "IN SYNC": {"yes", "yes", "yes"}, "LAG": {"0", "0", "0"},
		} {
			if diff := cmp.Diff(want, column(r.out, heading)); diff != "" {
				t.Errorf("%s (-want +got):\n%s\n%s", heading, diff, r.out)
			}
		}
		for _, p := range column(r.out, "PROBE") {
			if !strings.HasPrefix(p, "ok ") {
				t.Errorf("probe %q of a server that runs", p)
			}
		}
	})
	t.Run("a journal that fills", func(t *testing.T) {
		// The bound is the one that the DSN says, as the programs' does.
		pgdist(t, "status", set+"&journal_max_size=256MB").want(t, statusOK, " of 256.0 MB")
		line := journalLine(&mirror.JournalStatus{Bytes: 5 << 20, MaxBytes: 8 << 20, HeldSeconds: 90, MaxHeldSeconds: 3600, Percent: 62, HeldBy: []string{"db3:5432 (excluded)"}})
		if want := "ALARM: journal: 5.0 of 8.0 MB, held back for 1m30s of 1h0m0s (62 %), by db3:5432 (excluded): at 100 % who is away loses its place"; line != want {
			t.Errorf("got %q", line)
		}
	})
	t.Run("transactions that nobody has mirrored yet", func(t *testing.T) {
		for range 3 {
			on(t, three[0], "postgres", "UPDATE t SET v = v || '+' WHERE id < 50")
		}
		r := pgdist(t, "status", "--json", set)
		r.want(t, statusOK)
		var got report
		decode(t, r.out, &got)
		var lacks []int64
		for _, m := range got.Members {
			lacks = append(lacks, m.LagTransactions)
		}
		if diff := cmp.Diff([]int64{0, 3, 3}, lacks); diff != "" {
			t.Errorf("lag in transactions (-want +got):\n%s", diff)
		}
		if s := got.Members[1].LagSeconds; s <= 0 || s > 600 {
			t.Errorf("lag is %v s", s)
		}
		pgdist(t, "status", set).want(t, statusOK, "3 tx, ")
	})
	t.Run("a member down", func(t *testing.T) {
		if err := three[2].Kill(); err != nil {
			t.Fatal(err)
		}
		r := pgdist(t, "status", set)
		r.want(t, statusNotAsItIs, three[2].Addr()+": connection refused", "pgdist: not all members answer and are in sync")
		if diff := cmp.Diff([]string{"failed"}, column(r.out, "PROBE")[2:]); diff != "" {
			t.Errorf("probe (-want +got):\n%s\n%s", diff, r.out)
		}
		r = pgdist(t, "status", "--json", set)
		r.want(t, statusNotAsItIs)
		var got report
		decode(t, r.out, &got)
		if got.Members[2].Probe.OK || !got.Members[1].Probe.OK || got.Members[2].LagTransactions != -1 {
			t.Errorf("got %s", r.out)
		}
	})
	t.Run("all down", func(t *testing.T) {
		for _, s := range three[:2] {
			if err := s.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		pgdist(t, "status", set).wantErrors(t, 3, "connection refused", "is the server running")
	})
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if strings.Count(text, "\n") != 1 {
		t.Errorf("%d lines instead of one", strings.Count(text, "\n"))
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// It looks again and again, shows what goes wrong too, and ends without an
// error when interrupted.
func TestStatusWatch(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	pgdist(t, "init", dsn("postgres", s)).want(t, statusOK)
	ctx, interrupt := context.WithTimeout(t.Context(), ages)
	defer interrupt()
	out, errs := &after{text: "epoch", n: 2}, &after{text: "connection refused", n: 2}
	out.do = func() {
		if err := s.Kill(); err != nil {
			t.Error(err)
		}
	}
	errs.do = interrupt
	code := run(ctx, []string{"status", "--watch=20ms", dsn("postgres", s)}, strings.NewReader(""), out, errs)
	if code != statusOK || ctx.Err() != context.Canceled {
		t.Errorf("exit status %d, %v\n%s\n%s", code, ctx.Err(), out, errs)
	}
	if strings.Contains(out.String(), clearScreen) {
		t.Error("the screen is cleared though it is none")
	}
	pgdist(t, "status", "--watch=0s", dsn("postgres", s)).wantErrors(t, 1, "the interval must be above 0")
}

// after is a writer that does something once a text was written n times.
type after struct {
	bytes.Buffer
	text string
	n    int
	do   func()
}

func (a *after) Write(p []byte) (int, error) {
	n, err := a.Buffer.Write(p)
	if a.do != nil && strings.Count(a.String(), a.text) >= a.n {
		a.do()
		a.do = nil
	}
	return n, err
}

var _ io.Writer = (*after)(nil)
