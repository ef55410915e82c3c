package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/mirror"
)

func TestVerifyState(t *testing.T) {
	name := filepath.Join(t.TempDir(), "state")
	open := func(set string, resume bool) (*verifyState, error) { return openVerifyState(name, set, resume) }
	run := func(resume bool, tables ...string) map[string]mirror.Proven {
		t.Helper()
		s, err := open("one", resume)
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range tables {
			s.add(mirror.Proven{Table: table, Definition: "d", Rows: 7, At: time.Unix(1, 0)})
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		return s.known
	}
	if known := run(true, "a", "b"); len(known) != 0 {
		t.Errorf("known without a file: %v", known)
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"table":"c","def`); err != nil { // cut off
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if known := run(true, "d"); len(known) != 2 || known["b"].Rows != 7 {
		t.Errorf("known after a line was cut off: %v", known)
	}
	if known := run(true); len(known) != 3 {
		t.Errorf("known in the end: %v", known)
	}
	if _, err := open("two", true); err == nil || !strings.Contains(err.Error(), "another set, one") {
		t.Errorf("another set's file: %v", err)
	}
	run(false)
	if known := run(true); len(known) != 0 {
		t.Errorf("known though begun anew: %v", known)
	}
	for _, text := range []string{"precious", "precious\n", "{}\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, resume := range []bool{true, false} {
			if _, err := open("one", resume); err == nil || !strings.Contains(err.Error(), "no state file") {
				t.Errorf("a file that is something else: %v", err)
			}
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != text {
			t.Errorf("it was changed: %q, %v", got, err)
		}
	}
}

func TestVerifyProgress(t *testing.T) {
	var b bytes.Buffer
	now := time.Unix(0, 0)
	p := newVerifyProgress(&b)
	p.now, p.began, p.shown = func() time.Time { return now }, now, now
	show := func(after time.Duration, g mirror.Progress) {
		now = now.Add(after)
		p.set(g)
	}
	show(time.Second, mirror.Progress{Tables: 3, Rows: 10})
	show(9*time.Second, mirror.Progress{Tables: 3, TablesDone: 1, Rows: 1000, Estimated: 4000})
	p.close()
	if want := "1 of 3 tables, 1000 rows of about 4000 (25%), 100 rows per second\n"; b.String() != want {
		t.Errorf("in a log: %q", b.String())
	}
	b.Reset()
	p.live, p.every = true, liveProgress
	show(10*time.Second, mirror.Progress{Tables: 3, TablesDone: 3, Rows: 2000, Estimated: 1990})
	line := "3 of 3 tables, 2000 rows, 100 rows per second"
	if want := "\r" + line; b.String() != want {
		t.Errorf("on a terminal: %q", b.String())
	}
	p.close()
	if want := "\r" + line + "\r" + strings.Repeat(" ", len(line)) + "\r"; b.String() != want {
		t.Errorf("wiped off: %q", b.String())
	}
}
