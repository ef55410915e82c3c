//go:build unix

package random

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Steps that fail only together are found among many others.
func TestReduce(t *testing.T) {
	var all Script
	for i := range 97 {
		all = append(all, Step{SQL: fmt.Sprint("step ", i)})
	}
	needed := []Step{all[3], all[48], all[90]}
	tries := 0
	short, err := reduce(context.Background(), &Failure{Script: all, Kind: "x"}, func(s Script) (*Failure, error) {
		tries++
		for _, n := range needed {
			if !slices.ContainsFunc(s, func(o Step) bool { return o.SQL == n.SQL }) {
				return nil, nil
			}
		}
		return &Failure{Script: s, Kind: "x"}, nil
	})
	if err != nil || len(short.Script) != 3 || tries > 120 {
		t.Errorf("%d steps after %d tries, %v", len(short.Script), tries, err)
	}
}

// A seed makes the same statements again, and all kinds of them.
func TestSameSeedSameStatements(t *testing.T) {
	cat := &Catalog{Schemas: []string{"public"}, Roles: []string{"rnd_a"}, Sequences: []Name{{"public", "seq"}}}
	for i := range 5 {
		cat.Tables = append(cat.Tables, Table{Name: Name{"public", fmt.Sprint("t", i)}, Kind: []string{"r", "p", "v"}[i%3],
			Columns: []Column{{Name: "k", Type: "integer", Base: "int4", NotNull: true}, {Name: "v", Type: "text", Base: "text"}, {Name: "i", Type: "integer", Base: "int4", Identity: "a"}},
			Uniques: []Unique{{Columns: []string{"k"}, Primary: true}}})
	}
	var texts [2]string
	for i := range texts {
		g := newGenerator(7, 1, true)
		g.alone = true
		var all Script
		for range 3000 {
			all = append(all, g.Next(cat, txState(g.rng.IntN(2)))...)
		}
		texts[i] = all.String()
	}
	if texts[0] != texts[1] {
		t.Error("the same seed made other statements")
	}
	for _, want := range []string{"MERGE INTO", "ON CONFLICT (k) DO UPDATE", "COPY ", "TRUNCATE ", "WITH x AS", "CREATE RULE", "INSTEAD OF", "ATTACH PARTITION", "PARTITION BY HASH", "INHERITS",
		"EXCLUDE USING gist", "CONSTRAINT TRIGGER", "SECURITY DEFINER", "PREPARE p", "CURRENT OF", "SAVEPOINT", "SERIALIZABLE", "CONCURRENTLY", "GENERATED ALWAYS AS IDENTITY", "SET SCHEMA",
		"RENAME COLUMN", "CREATE PROCEDURE", "SELECT * INTO", "setval", "USING '<'", "OVERRIDING", "RESTART IDENTITY", "DROP TABLE", "GRANT ", "DO $do$", `""`} {
		if !strings.Contains(texts[0], want) {
			t.Errorf("no statement has %s", want)
		}
	}
	if strings.Contains(texts[0], "random()") || strings.Contains(texts[0], "clock_timestamp()") {
		t.Error("a settled generator made something that differs between servers")
	}
}
