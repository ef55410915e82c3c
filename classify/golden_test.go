package classify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// goldenCase is a string of statements and what is to be found out about it.
type goldenCase struct {
	SQL        string            `json:"sql"`
	Class      string            `json:"class"`
	Because    string            `json:"because"`
	Hint       string            `json:"hint,omitempty"`
	BadHint    string            `json:"bad_hint,omitempty"`
	Literal    bool              `json:"literal,omitempty"`
	Statements []goldenStatement `json:"statements,omitempty"`
}

// goldenStatement is a Statement in words. What is empty is left out.
type goldenStatement struct {
	Tag      string   `json:"tag,omitempty"`
	Class    string   `json:"class,omitempty"` // of several statements
	Because  string   `json:"because,omitempty"`
	Text     string   `json:"text,omitempty"`
	Resolved string   `json:"resolved,omitempty"` // if no function is volatile
	Pin      string   `json:"pin,omitempty"`
	Unpin    string   `json:"unpin,omitempty"`
	Flags    string   `json:"flags,omitempty"`
	Tx       string   `json:"tx,omitempty"`
	Sets     []string `json:"sets,omitempty"`
	Prepared string   `json:"prepared,omitempty"`
	Cursor   string   `json:"cursor,omitempty"`
	Copy     string   `json:"copy,omitempty"`
	Explain  string   `json:"explain,omitempty"`
	Refused  string   `json:"refused,omitempty"`
	Functs   []string `json:"functions,omitempty"`
	Targets  []string `json:"relations,omitempty"`
	Shut     []string `json:"shut,omitempty"`
	Reads    []string `json:"reads,omitempty"`
}

const goldenFile = "testdata/golden.json"

func readGolden(t testing.TB) []goldenCase {
	t.Helper()
	data, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	var cases []goldenCase
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatalf("%s: %v", goldenFile, err)
	}
	return cases
}

func TestGolden(t *testing.T) {
	cases := readGolden(t)
	if len(cases) < 300 {
		t.Fatalf("%s has %d cases, fewer than 300", goldenFile, len(cases))
	}
	got := make([]goldenCase, len(cases))
	seen := make(map[string]bool, len(cases))
	for i, want := range cases {
		if seen[want.SQL] {
			t.Errorf("twice: %q", want.SQL)
		}
		seen[want.SQL] = true
		got[i] = inWords(want.SQL, Parse(want.SQL))
		if diff := cmp.Diff(want, got[i]); diff != "" {
			t.Errorf("%s\n(-want +got):\n%s", want.SQL, diff)
		}
	}
	if t.Failed() {
		beside := filepath.Join(t.ArtifactDir(), "golden.json")
		writeGolden(t, beside, got)
		t.Logf("what was found is in %s", beside)
	}
}

// TestGoldenCached checks that the cache gives the same answers, the second time
// as well as the first.
func TestGoldenCached(t *testing.T) {
	c := NewCache(0)
	for range 2 {
		for _, want := range readGolden(t) {
			if diff := cmp.Diff(want, inWords(want.SQL, c.Classify(want.SQL))); diff != "" {
				t.Errorf("%s\n(-want +got):\n%s", want.SQL, diff)
			}
		}
	}
}

func writeGolden(t *testing.T, file string, cases []goldenCase) {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("[")
	for i, c := range cases {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString("\n")
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(c); err != nil {
			t.Fatal(err)
		}
		b.Truncate(b.Len() - 1)
	}
	b.WriteString("\n]\n")
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func inWords(sql string, v *Verdict) goldenCase {
	c := goldenCase{SQL: sql, Class: v.Class.String(), Because: v.Because, Hint: v.Hint.String(), BadHint: v.BadHint, Literal: v.literal}
	for i := range v.Statements {
		s := &v.Statements[i]
		g := statementInWords(s)
		if len(v.Statements) > 1 {
			g.Class, g.Because, g.Text = s.Class.String(), s.Because, s.Text(sql)
		}
		c.Statements = append(c.Statements, g)
	}
	return c
}

func statementInWords(s *Statement) goldenStatement {
	g := goldenStatement{
		Tag: s.Tag, Pin: s.Pin.String(), Unpin: s.Unpin.String(), Tx: txInWords(s.Tx),
		Flags: words("notx", s.NoTx, "sequences", s.Sequences, "catalog", s.Catalog, "temp", s.Temp, "newer", s.Newer),
	}
	if c, because := s.Resolve(harmlessFunctions{}); c != s.Class {
		g.Resolved = c.String() + ": " + because
	}
	for _, set := range s.Sets {
		g.Sets = append(g.Sets, setInWords(set))
	}
	if p := s.Prepared; p != nil {
		g.Prepared = words("prepare", p.Kind == Prepare, "execute", p.Kind == Execute, "deallocate", p.Kind == Deallocate, p.Name, p.Name != "")
		if p.Inner != nil {
			inner, because := p.Inner.Resolve(nil)
			g.Prepared += fmt.Sprintf(" (%s %s: %s)", inner, p.Inner.Tag, because)
		}
	}
	if c := s.Cursor; c != nil {
		g.Cursor = words("declare", c.Kind == CursorDeclare, "fetch", c.Kind == CursorFetch, "move", c.Kind == CursorMove,
			"close", c.Kind == CursorClose, c.Name, c.Name != "", "hold", c.Hold)
	}
	if c := s.Copy; c != nil {
		g.Copy = words("from", c.From, "to", !c.From, "server", c.Server, "query", c.Query)
	}
	if e := s.Explain; e != nil {
		g.Explain = words("plan", !e.Analyze, "analyze", e.Analyze)
	}
	if s.Refusal != nil {
		g.Refused = s.Refusal.Feature
	}
	for _, f := range s.Functions {
		g.Functs = append(g.Functs, qualified(f.Schema, f.Name))
	}
	for _, r := range s.Relations {
		g.Targets = append(g.Targets, qualified(r.Schema, r.Name))
	}
	for _, r := range s.Shut {
		g.Shut = append(g.Shut, qualified(r.Schema, r.Name))
	}
	for _, r := range s.Reads {
		g.Reads = append(g.Reads, qualified(r.Schema, r.Name))
	}
	return g
}

func txInWords(tx *TxStmt) string {
	if tx == nil {
		return ""
	}
	kinds := [...]string{"", "begin", "commit", "rollback", "savepoint", "rollback to", "release", "set transaction",
		"set characteristics", "prepare", "commit prepared", "rollback prepared"}
	s := words(kinds[tx.Kind], true, tx.Savepoint, tx.Savepoint != "", "chain", tx.Chain, tx.Isolation, tx.Isolation != "",
		"snapshot "+tx.Snapshot, tx.Snapshot != "")
	if tx.ReadOnly != nil {
		s += fmt.Sprintf(" read_only=%v", *tx.ReadOnly)
	}
	if tx.Deferrable != nil {
		s += fmt.Sprintf(" deferrable=%v", *tx.Deferrable)
	}
	return s
}

func setInWords(s SetStmt) string {
	kinds := [...]string{"", "set", "set local", "reset", "reset all", "discard all", "discard", "set_config", "show"}
	out := words(kinds[s.Kind], true, s.Name, s.Name != "", "= "+s.Value, s.Value != "", "default", s.Default, "opaque", s.Opaque, "(local)", s.Local)
	if s.NameParam+s.ValueParam+s.LocalParam > 0 {
		out += fmt.Sprintf(" name $%d value $%d local $%d", s.NameParam, s.ValueParam, s.LocalParam)
	}
	return out
}

// words joins each word that is followed by true.
func words(pairs ...any) string {
	var out []string
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1].(bool) {
			out = append(out, pairs[i].(string))
		}
	}
	return strings.Join(out, " ")
}

// harmlessFunctions is a catalog in which no function is volatile.
type harmlessFunctions struct{}

func (harmlessFunctions) Volatile(string, string) (volatile, known bool) { return false, true }
