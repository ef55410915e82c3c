//go:build linux

package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

func TestScriptsParse(t *testing.T) {
	n, seen := 0, map[string]bool{}
	for _, g := range groups {
		for _, c := range g.cases {
			parse(c.script) // panics
			if seen[g.name+c.what+c.script] {
				t.Errorf("twice: %s", c.what)
			}
			seen[g.name+c.what+c.script] = true
			n++
		}
	}
	if n < 100 {
		t.Errorf("only %d cases", n)
	}
}

// TestSomeCases runs every tenth case against pgdist and plain PostgreSQL.
func TestSomeCases(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	servers := pgtest.Set(t, 4, pgtest.Options{})
	plain := plainPostgres(servers[:1])
	ours, err := behindPgdist(ctx, servers[1:])
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for _, g := range groups {
		for _, c := range g.cases {
			if i++; i%10 != 0 || c.fault {
				continue
			}
			want, err := try(ctx, plain, c)
			if err != nil {
				t.Fatal(err)
			}
			got, err := try(ctx, ours, c)
			if err != nil {
				t.Fatal(err)
			}
			if text := judge(c, want, got); text != same && !strings.Contains(text, ": error 0A000 ") { // refused by name
				t.Errorf("%s: %s", c.what, text)
			}
		}
	}
}
