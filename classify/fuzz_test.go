package classify

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	pg "github.com/pganalyze/pg_query_go/v5"
)

// FuzzClassify looks for texts that panic, for verdicts that contradict
// themselves, and above all for two texts with one key and different verdicts.
func FuzzClassify(f *testing.F) {
	for _, c := range readGolden(f) {
		f.Add(c.SQL)
	}
	for _, sql := range []string{"SELECT 'a'/**/'b'", "SELECT 1.a", "SELECT $1.5", "SELECT B'1''a'", "SELECT 'a'--\n'b'", "SELECT a.5.5"} {
		f.Add(sql)
	}
	cache := NewCache(1 << 20)
	f.Fuzz(func(t *testing.T, sql string) {
		v := Parse(sql)
		checkVerdict(t, sql, v)
		checkTokens(t, sql)
		for range 2 {
			if diff := cmp.Diff(inWords(sql, v), inWords(sql, cache.Classify(sql))); diff != "" {
				t.Errorf("the cache disagrees about %q (-parsed +cached):\n%s", sql, diff)
			}
		}
		key, ok := appendKey(nil, sql)
		if !ok {
			return
		}
		k := Parse(string(key))
		if v.Class != Unknown && v.literal {
			if !k.literal {
				t.Errorf("literals matter in %q, but not in its key %q", sql, key)
			}
			return
		}
		want, got := inWords("", v), inWords("", k)
		if v.Class == Unknown {
			want.Because, got.Because = "", "" // quotes the text
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the key %q of %q means something else (-text +key):\n%s", key, sql, diff)
		}
	})
}

// checkVerdict checks what holds for every verdict.
func checkVerdict(t *testing.T, sql string, v *Verdict) {
	t.Helper()
	strongest := Read
	for i := range v.Statements {
		s := &v.Statements[i]
		strongest = strongest.Stronger(s.Class)
		if (s.Refusal != nil) != (s.Class == Refused) {
			t.Errorf("%q: class %v with refusal %v", sql, s.Class, s.Refusal)
		}
		if s.Because == "" || s.baseBecause == "" || s.Class != Unknown && s.Tag == "" {
			t.Errorf("%q: no reason or no tag: %+v", sql, s)
		}
		if s.Class.Stronger(s.base) != s.Class {
			t.Errorf("%q: class %v is weaker than %v", sql, s.Class, s.base)
		}
		if s.Text(sql) == "" && v.Class != Unknown {
			t.Errorf("%q: statement %d has no text", sql, i)
		}
	}
	if v.Class != strongest {
		t.Errorf("%q: class %v, strongest statement %v", sql, v.Class, strongest)
	}
	if v.Resolve(nil) != v.Class {
		t.Errorf("%q: class %v becomes %v without a catalog", sql, v.Class, v.Resolve(nil))
	}
}

// checkTokens compares the lexer with PostgreSQL's own.
func checkTokens(t *testing.T, sql string) {
	t.Helper()
	if unjudged(sql) != "" {
		return
	}
	scan, err := pg.Scan(sql)
	if err != nil {
		return
	}
	type span = struct{ start, end int }
	ours := map[span]bool{}
	l := lexer{src: sql}
	for {
		k, start := l.next()
		if k == tokEnd {
			break
		}
		if k == tokOdd {
			return
		}
		ours[span{start, l.pos}] = true
	}
	for _, tok := range scan.Tokens {
		start, end := int(tok.Start), int(tok.End)
		switch tok.Token {
		case pg.Token_Op, pg.Token_TYPECAST, pg.Token_COLON_EQUALS, pg.Token_EQUALS_GREATER, pg.Token_LESS_EQUALS,
			pg.Token_GREATER_EQUALS, pg.Token_NOT_EQUALS, pg.Token_DOT_DOT:
			continue // several bytes of punctuation
		case pg.Token_SCONST:
			if !ours[span{start, end}] && ours[firstOf(sql, start)] {
				continue // goes on after a line break
			}
		}
		if !ours[span{start, end}] {
			t.Errorf("%q: the server sees token %v %q, this lexer does not", sql, tok.Token, sql[start:end])
		}
	}
}

// firstOf is the span of the first token from start.
func firstOf(sql string, start int) (s struct{ start, end int }) {
	l := lexer{src: sql, pos: start}
	_, s.start = l.next()
	s.end = l.pos
	return s
}
