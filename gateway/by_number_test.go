package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// byNumber is a FunctionCall with arguments in text.
func byNumber(oid int, args ...string) string {
	body := fmt.Sprintf(`\x%02x\x%02x\x%02x\x%02x\x00\x00\x00\x%02x`, oid>>24&255, oid>>16&255, oid>>8&255, oid&255, len(args))
	n := 4 + 4 + 2 + 2 + 2
	for _, a := range args {
		body += fmt.Sprintf(`\x00\x00\x00\x%02x%s`, len(a), a)
		n += 4 + len(a)
	}
	return fmt.Sprintf("= F\\x00\\x00\\x00\\x%02x%s\\x00\\x00\nZ 1", n, body)
}

// TestFunctionsByNumber: a function that is called by its number makes no large object, which one
// database alone would have, and what another leaves is its session's.
func TestFunctionsByNumber(t *testing.T) {
	s := newSet(t, func(c *Config) { c.DSN += "&pool_size=2" })
	k := talk(t, s.addr, nil)
	for _, oid := range largeObjects {
		k.log = nil
		args := []string{"0"}
		if log := k.run(byNumber(int(oid), args...)); !slices.ContainsFunc(log, func(l string) bool { return strings.Contains(l, "0A000") && strings.Contains(l, "large objects") }) {
			t.Errorf("%d: %q", oid, log)
		}
	}
	k.log = nil
	if log := k.run("Q SELECT count(*) FROM pg_largeobject_metadata\nZ 1\nQ BEGIN\nZ 1\n" + byNumber(715, "0") + "\nQ SELECT 1\nZ 1\nQ ROLLBACK\nZ 1"); !slices.Contains(log, `data ["0"]`) || !slices.ContainsFunc(log, func(l string) bool { return strings.Contains(l, "25P02") }) {
		t.Errorf("%q", log)
	}
	s.keeps(t, false)
	execute(t, connect(t, s.url("")), "CREATE TABLE seen (id serial PRIMARY KEY, v text)")
	k.log = nil
	if log := k.run(byNumber(2078, "app.tenant", "a", "f") + "\nQ SELECT " + seesTenant + "\nZ 1"); !slices.Contains(log, `data ["a"]`) {
		t.Errorf("%q", log)
	}
	s.keeps(t, true)
	for range 3 {
		s.sees(t, "another session", connect(t, s.url("")), seesTenant, "none")
	}
	k.log = nil
	if log := k.run("Q INSERT INTO seen (v) SELECT " + seesTenant + " RETURNING v\nZ 1"); !slices.Contains(log, `data ["a"]`) {
		t.Errorf("%q", log)
	}
}
