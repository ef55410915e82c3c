package classify

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func TestZeroValues(t *testing.T) {
	var c Class
	if c != Unknown || Write.Stronger(c) != Unknown {
		t.Errorf("the zero class is %v, as strong as %v", c, Write.Stronger(c))
	}
	if got := (&Verdict{}).Resolve(nil); got != Unknown {
		t.Errorf("the zero verdict resolves to %v", got)
	}
}

func TestStrengthIsAnOrder(t *testing.T) {
	order := []Class{Read, LeaderRead, Session, Transaction, Write, DDL, Utility, Unknown, Refused}
	for i, a := range order {
		for j, b := range order {
			if got := a.Stronger(b); got != order[max(i, j)] {
				t.Errorf("%v against %v gives %v", a, b, got)
			}
		}
	}
}

// TestEveryStatementIsKnown goes through all kinds of statements in the grammar,
// so that one that a newer grammar brings does not go unnoticed.
func TestEveryStatementIsKnown(t *testing.T) {
	parts := map[protoreflect.Name]bool{ // of statements, or of functions' bodies
		"RawStmt": true, "SetOperationStmt": true, "ReturnStmt": true, "PLAssignStmt": true, "ReplicaIdentityStmt": true,
	}
	kinds := map[protoreflect.Name]bool{}
	node := (&pg.Node{}).ProtoReflect()
	fields := node.Descriptor().Oneofs().Get(0).Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		name := fd.Message().Name()
		kinds[name] = true
		if !strings.HasSuffix(string(name), "Stmt") || parts[name] {
			continue
		}
		n := &pg.Node{}
		m := n.ProtoReflect()
		m.Set(fd, m.NewField(fd))
		var st Statement
		judgeStatement(n, &st)
		if st.Because == "is of a kind not known here" || st.Tag == "" {
			t.Errorf("%s: %v, tag %q, because it %s", name, st.Class, st.Tag, st.Because)
		}
	}
	for name := range fixedTags {
		if !kinds[name] {
			t.Errorf("fixedTags: the grammar has no %s", name)
		}
	}
}

// TestBuiltinTables checks the generated lists, and that what is judged by name
// exists.
func TestBuiltinTables(t *testing.T) {
	if n := len(builtins()); n < 2000 {
		t.Errorf("only %d built-in functions", n)
	}
	for name, want := range map[string]origin{
		"lower": originPlain, "now": originPlain, "max": originPlain, "to_regclass": originOIDs, "random": originVolatile,
		"nextval": originVolatile, "timezone": originVolatile, "uuidv7": originVolatile, "pg_terminate_backend": originVolatile,
	} {
		if got := builtins()[name]; got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	for name := range effects {
		if builtins()[name] == 0 {
			t.Errorf("effects: PostgreSQL has no function %s", name)
		}
	}
	for _, f := range families {
		found := false
		for name := range builtins() {
			found = found || strings.HasPrefix(name, f.prefix)
		}
		if !found {
			t.Errorf("families: PostgreSQL has no function %s…", f.prefix)
		}
	}
	if !systemRelations()["pg_class"] || systemRelations()["t"] {
		t.Error("the list of catalogs is wrong")
	}
}

// TestVolatileBuiltinsAreNoReads lists all volatile built-ins that count as
// reads: a new one has to be looked at by somebody.
func TestVolatileBuiltinsAreNoReads(t *testing.T) {
	harmless := map[string]bool{}
	for _, name := range strings.Fields(`random random_normal array_sample array_shuffle gen_random_uuid uuidv4 uuidv7
		clock_timestamp timeofday timezone pg_sleep pg_sleep_for pg_sleep_until current_query pg_is_in_recovery pg_jit_available`) {
		harmless[name] = true
	}
	for name, o := range builtins() {
		if o != originVolatile {
			continue
		}
		got := Parse("SELECT " + name + "()").Class
		if (got == Read) != harmless[name] {
			t.Errorf("%s() is a %v", name, got)
		}
	}
}

type catalogOf map[string]bool // volatile by "schema.name"

func (c catalogOf) Volatile(schema, name string) (volatile, known bool) {
	volatile, known = c[qualified(schema, name)]
	return volatile, known
}

func TestResolve(t *testing.T) {
	catalog := catalogOf{"app.pure": false, "pure2": false, "app.writes": true}
	tests := []struct {
		sql  string
		want Class
	}{
		{"SELECT app.pure(1)", Read},
		{"SELECT app.pure(1), pure2(2)", Read},
		{"SELECT app.pure(1), app.writes(2)", Write},
		{"SELECT app.unknown(1)", Write},
		{"SELECT pure(1)", Write},
		{"SELECT app.pure(1) FROM t FOR UPDATE", LeaderRead},
		{"SELECT app.pure(1), nextval('s')", Write},
		{"SELECT app.pure(1), set_config('a.b', 'c', true)", Session},
		{"SELECT app.pure(1); SELECT app.writes(1)", Write},
		{"SELECT app.pure(1); SELECT pure2(1)", Read},
		{"SELECT app.pure(1); CREATE TABLE x (a int)", DDL},
		{"SELECT app.pure(lo_create(0))", Refused},
		{"INSERT INTO t SELECT app.pure(1)", Write},
		{"CALL app.pure(1)", Write},
		{"SELECT", Read},
		{"", Read},
		{"SELEC", Unknown},
	}
	for _, tt := range tests {
		v := Parse(tt.sql)
		if got := v.Resolve(catalog); got != tt.want {
			t.Errorf("%s resolves to %v, want %v", tt.sql, got, tt.want)
		}
		if n := testing.AllocsPerRun(10, func() { v.Resolve(catalogOf(nil)) }); n != 0 {
			t.Errorf("%s: Resolve allocates %v times", tt.sql, n)
		}
	}
}

func TestRefusedSetting(t *testing.T) {
	tests := []struct {
		name, value string
		refused     bool
	}{
		{"work_mem", "1MB", false},
		{"pgdist.conn", "", true},
		{"pgdist.replay", "", false},
		{"pgdist.replay", "ON", false},
		{"pgdist.replay", "sometimes", true},
		{"PGDIST.Conn", "x", true},
		{"session_replication_role", "replica", true},
		{"session_replication_role", "Origin", false},
		{"session_replication_role", "", true},
		{"standard_conforming_strings", "off", true},
		{"standard_conforming_strings", "tru", false},
		{"standard_conforming_strings", "1", false},
		{"event_triggers", "no", true},
		{"event_triggers", "on", false},
	}
	for _, tt := range tests {
		r := RefusedSetting(tt.name, tt.value)
		if (r != nil) != tt.refused {
			t.Errorf("%s = %q: %v", tt.name, tt.value, r)
		}
		if r != nil && (r.SQLState() != "0A000" || r.Error() == "" || r.Hint == "" || r.Feature == "") {
			t.Errorf("%s = %q: incomplete: %+v", tt.name, tt.value, r)
		}
	}
}

// TestDeepTexts checks that no text ends the process: the parser's stack is C's.
func TestDeepTexts(t *testing.T) {
	const n = 200_000
	rep := strings.Repeat
	for name, sql := range map[string]string{
		"sums":                      "SELECT 1" + rep("+1", n),
		"tests":                     "SELECT a" + rep(" ISNULL", n),
		"casts":                     "SELECT 1" + rep("::int", n),
		"unions":                    "SELECT 1" + rep(" UNION SELECT 1", n),
		"wide unions":               "SELECT 1,2" + rep(" UNION SELECT 1,2", n),
		"joins":                     "SELECT 1 FROM a" + rep(" JOIN a ON f(1,2)", n),
		"parentheses":               "SELECT " + rep("(", n) + "1" + rep(")", n),
		"indirection":               "SELECT a" + rep("[1]", n),
		"function calls":            "SELECT " + rep("f(1,", n) + "1" + rep(")", n),
		"sub-selects":               "SELECT " + rep("(SELECT 1,", n) + "1" + rep(")", n),
		"hidden behind odd strings": "SELECT E'\\101', U&'\\0061', 0x1F" + rep("+1", n),
		"hidden behind E strings":   "SELECT E'\\1' '" + rep("+1", n),
		"continued E strings":       "SELECT E'a'\n'b\\'c'" + rep("+1", n) + " --'",
		"second statement":          "SELECT 1, 2; SELECT 1" + rep("+1", n),
		"brackets and parentheses":  "SELECT a" + rep("[(1)]", n),
		"case":                      "SELECT " + rep("CASE WHEN a THEN ", n) + "1" + rep(" END", n),
	} {
		if v := Parse(sql); v.Class != Unknown {
			t.Errorf("%s: %v", name, v.Class)
		}
	}
}

// TestLongTexts checks that texts which are long for good reasons are judged.
func TestLongTexts(t *testing.T) {
	const n = 20_000
	rep := strings.Repeat
	for name, tt := range map[string]struct {
		sql  string
		want Class
	}{
		"list":     {"SELECT * FROM t WHERE id IN (1" + rep(", 2", n) + ")", Read},
		"array":    {"SELECT ARRAY[1" + rep(", 2", n) + "]", Read},
		"rows":     {"INSERT INTO t VALUES (1, 'a')" + rep(", (2, 'b')", n), Write},
		"unions":   {"SELECT (SELECT 1 UNION SELECT 2)" + rep(", (SELECT 1 UNION SELECT 2)", 12_000), Read},
		"script":   {rep("INSERT INTO t VALUES (1 + 2);\n", 3000), Write},
		"choices":  {"SELECT 1 WHERE a = 1" + rep(" OR a = 2", 900), Read},
		"literal":  {"SELECT '" + rep("x", 1<<20) + "'", Read},
		"comment":  {"SELECT 1 /*" + rep("x ", 1<<20) + "*/", Read},
		"too long": {"SELECT '" + rep("x", maxText) + "'", Unknown},
		"NUL":      {"SELECT 1 /*\x00*/; DELETE FROM t", Unknown},
		"no UTF-8": {"SELECT '\xff'", Read},
	} {
		v := Parse(tt.sql)
		if v.Class != tt.want {
			t.Errorf("%s: %v because it %s, want %v", name, v.Class, v.Because, tt.want)
		}
		if len(v.Because) > maxBecause+10 {
			t.Errorf("%s: the reason takes %d bytes", name, len(v.Because))
		}
	}
}

// TestOtherEncodings: text that is no UTF-8 is judged as any, and what it names has the bytes
// that it has there.
func TestOtherEncodings(t *testing.T) {
	const sql = "BEGIN ; CREATE TABLE \"t\xe9\" (a text DEFAULT '\xff'); SELECT \"f\xe9\"('\xfc'), x\xe9.y FROM \"s\xe9\".u\xe9; SET my.\xe9 = '\xe9\xff'; PREPARE p\xe9 AS SELECT 1;\tSELECT 2"
	v := Parse(sql)
	var text []string
	for i := range v.Statements {
		text = append(text, v.Statements[i].Text(sql))
	}
	want := []string{"BEGIN", "CREATE TABLE \"t\xe9\" (a text DEFAULT '\xff')", "SELECT \"f\xe9\"('\xfc'), x\xe9.y FROM \"s\xe9\".u\xe9", "SET my.\xe9 = '\xe9\xff'", "PREPARE p\xe9 AS SELECT 1", "SELECT 2"}
	if diff := cmp.Diff(want, text); diff != "" {
		t.Fatalf("-want +got\n%s", diff)
	}
	st := v.Statements
	if v.Class != DDL || st[0].Tx == nil || st[1].Class != DDL || st[1].Tag != "CREATE TABLE" {
		t.Errorf("%v %v %v", v.Class, st[0].Class, st[1])
	}
	if len(st[2].Functions) != 1 || st[2].Functions[0].Name != "f\xe9" {
		t.Errorf("%+v", st[2].Functions)
	}
	if st[3].Set == nil || st[3].Set.Name != "my.\xe9" || st[4].Prepared == nil || st[4].Prepared.Name != "p\xe9" {
		t.Errorf("%+v %+v", st[3].Set, st[4].Prepared)
	}
	if st := Parse("ALTER TABLE \"s\xe9\".u\xe9 ADD a int").Statements[0]; len(st.Relations) != 1 || st.Relations[0].Schema != "s\xe9" || st.Relations[0].Name != "u\xe9" {
		t.Errorf("%+v", st.Relations)
	}
	if v := Parse("SELEC '\xff'"); v.Class != Unknown || !utf8.ValidString(v.Because) {
		t.Errorf("%v %q", v.Class, v.Because)
	}
}
