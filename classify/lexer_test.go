package classify

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLexer(t *testing.T) {
	names := map[token]string{
		tokSpace: "space", tokLineComment: "line", tokBlockComment: "block", tokIdent: "ident", tokQuoted: "quoted",
		tokString: "string", tokEscape: "escape", tokBits: "bits", tokDollar: "dollar", tokInteger: "int",
		tokFloat: "float", tokParam: "param", tokPunct: "punct", tokOdd: "odd",
	}
	tests := []struct {
		sql  string
		want string // kind:text of each token, space left out, separated by |
	}{
		{`a b1_$ ÄÖ`, "ident:a|ident:b1_$|ident:ÄÖ"},
		{`'a' 'it''s' ''`, "string:'a'|string:'it''s'|string:''"},
		{`'back\' x`, `string:'back\'|ident:x`},
		{`E'it\'s' e'\\' E'a''b'`, `escape:E'it\'s'|escape:e'\\'|escape:E'a''b'`},
		{`E'\x41' a`, `odd:E'\x41'|ident:a`},
		{`E'\101'';' a`, `odd:E'\101'';'|ident:a`},
		{"E'a'\n'b\\'c' d", "odd:E'a'\n'b\\'c'|ident:d"},
		{"E'a' -- x\n  'b\\'c' d", "odd:E'a' -- x\n  'b\\'c'|ident:d"},
		{"E'a' 'b\\'c", "escape:E'a'|string:'b\\'|ident:c"},
		{"'a'\n'b'", "string:'a'|string:'b'"},
		{`B'01' x'1F' b'a''b'`, `bits:B'01'|bits:x'1F'|bits:b'a'|string:'b'`},
		{`N'x' n`, "ident:N|string:'x'|ident:n"},
		{`U&'d\0061' U&"a" u & 'x'`, `odd:U|punct:&|string:'d\0061'|odd:U|punct:&|quoted:"a"|ident:u|punct:&|string:'x'`},
		{`"a""b" ""`, `quoted:"a""b"|quoted:""`},
		{`$$a'b$$ $t$ $$ $t$ $1 $12`, `dollar:$$a'b$$|dollar:$t$ $$ $t$|param:$1|param:$12`},
		{`$a$ $A$ $a$`, `dollar:$a$ $A$ $a$`},
		{`a$b$c$b$`, `ident:a$b$c$b$`},
		{`$1a`, `odd:$1|ident:a`},
		{`$`, `odd:$`},
		{`$1$$a$$`, `odd:$1|dollar:$$a$$`},
		{`1 1.5 .5 1. 1e5 1.5E-3 2147483647 2147483648 99999999999`, "int:1|float:1.5|float:.5|float:1.|float:1e5|float:1.5E-3|int:2147483647|float:2147483648|float:99999999999"},
		{`00000000001`, "odd:00000000001"},
		{`1..2 ..5`, "odd:1|odd:..|int:2|odd:..|int:5"},
		{`0x1F 1_0 1a 1e`, "odd:0|ident:x1F|odd:1|ident:_0|odd:1|ident:a|odd:1|ident:e"},
		{`a.5 a.b`, "ident:a|float:.5|ident:a|punct:.|ident:b"},
		{"a -- x; '\nb", "ident:a|line:-- x; '|ident:b"},
		{"a -- x\rb", "ident:a|line:-- x|ident:b"},
		{"1--1", "int:1|line:--1"},
		{"1+--1", "int:1|punct:+|line:--1"},
		{"a /* /* ' */ ; */ b", "ident:a|block:/* /* ' */ ; */|ident:b"},
		{"a//* x */b", "ident:a|punct:/|block:/* x */|ident:b"},
		{"/* a", "odd:/* a"},
		{"'a", "odd:'a"},
		{`"a`, `odd:"a`},
		{"$$a", "odd:$$|ident:a"},
		{"/**/", "block:/**/"},
		{"a\x00b", "ident:a|odd:\x00|ident:b"},
	}
	for _, tt := range tests {
		var got []string
		l := lexer{src: tt.sql}
		for {
			k, start := l.next()
			if k == tokEnd {
				break
			}
			if l.pos <= start {
				t.Fatalf("%q: the lexer stands still at %d", tt.sql, start)
			}
			if k != tokSpace {
				got = append(got, names[k]+":"+tt.sql[start:l.pos])
			}
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, "|")); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.sql, diff)
		}
	}
}

func TestKey(t *testing.T) {
	tests := []struct{ sql, key string }{
		{"SELECT 1", "SELECT 1"},
		{"SELECT 42 , 'x'", "SELECT 1 , ''"},
		{"select * from t where a = 'it''s' and b = -1.5", "select * from t where a = '' and b = -1.0"},
		{"insert into t values (10, E'a\\nb', B'01', $$x$$, $1, NULL, true)", "insert into t values (1, E'', B'', $$$$, $1, NULL, true)"},
		{"/* a */ SELECT /* b */ 1 -- c", "/**/ SELECT /**/ 1 --"},
		{"/* pgdist: leader */ SELECT 5", "/* pgdist: leader */ SELECT 1"},
		{"SELECT 1 -- c\n+ 2", "SELECT 1 --\n+ 1"},
		{"((SELECT 7)) ; -- end", "((SELECT 1)) ; --"},
		{"SELECT .5, a.5", "SELECT .1, a.1"},
		{"SELECT 'a'\n'b'", "SELECT ''\n''"},
		{"VALUES (3000000000)", "VALUES (1.0)"},
		{`SELECT "a" FROM "t"`, `SELECT "a" FROM "t"`},
		// their own key
		{"SELECT 1; SELECT 2", ""},
		{"SET a = 1", ""},
		{"DO 'x'", ""},
		{"BEGIN", ""},
		{"EXPLAIN SELECT 1", ""},
		{"SELECT a::float(99)", ""},
		{"SELECT U&'x'", ""},
		{"SELECT U&\"x\" UESCAPE '!'", ""},
		{"SELECT 0x10", ""},
		{"SELECT E'\\x41'", ""},
		{"SELECT 'a", ""},
		{"SELECT '\xff'", ""},
		{"SELECT 1 /*\x00*/", ""},
		{"", ""},
		{"SELECTED 1", ""},
		{"'SELECT' 1", ""},
	}
	for _, tt := range tests {
		key, ok := appendKey(nil, tt.sql)
		if !ok {
			key = nil
		}
		if string(key) != tt.key {
			t.Errorf("key of %q is %q, want %q", tt.sql, key, tt.key)
		}
		if !ok {
			continue
		}
		again, ok := appendKey(nil, tt.key)
		if !ok || string(again) != tt.key {
			t.Errorf("the key of key %q is %q", tt.key, again)
		}
	}
}

func TestStatementText(t *testing.T) {
	tests := []struct {
		sql  string
		want []string
	}{
		{"SELECT 1", []string{"SELECT 1"}},
		{"  SELECT 1 ; -- x", []string{"SELECT 1"}},
		{"SELECT 1;; /* x */ ;", []string{"SELECT 1"}},
		{"; ;SELECT ';' ;", []string{"SELECT ';'"}},
		{" /* h */ SELECT 1", []string{"/* h */ SELECT 1"}},
		{"SELECT 1 /* end */", []string{"SELECT 1 /* end */"}},
		{"SELECT U&'d\\0061' ;", []string{"SELECT U&'d\\0061'"}},
		{"SELECT 0x1F;", []string{"SELECT 0x1F"}},
		{"SELECT 1;SELECT 'ü;';\n\tSELECT 3 ; ", []string{"SELECT 1", "SELECT 'ü;'", "SELECT 3"}},
		{"foo; bar", []string{"foo; bar"}},
		{"SELECT 'a", []string{"SELECT 'a"}},
		{"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END;",
			[]string{"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END"}},
		{"CREATE RULE r AS ON INSERT TO t DO (DELETE FROM u; DELETE FROM v);",
			[]string{"CREATE RULE r AS ON INSERT TO t DO (DELETE FROM u; DELETE FROM v)"}},
	}
	for _, tt := range tests {
		var got []string
		for _, s := range Parse(tt.sql).Statements {
			got = append(got, s.Text(tt.sql))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.sql, diff)
		}
	}
}
