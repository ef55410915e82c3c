package random

import (
	"fmt"
	"strings"
)

// kind is a type for columns.
type kind struct {
	ddl string
	key bool // it has a btree order, so it can be part of a key
}

// kinds are the types that need nothing of the prelude.
var kinds = []kind{
	{"int", true}, {"int", true}, {"bigint", true}, {"smallint", true}, {"uuid", true}, {"text", true}, {"text", true}, {"varchar(20)", true},
	{"char(8)", true}, {"numeric", true}, {"numeric(12,3)", true}, {"date", true}, {"timestamptz", true}, {"timestamp", true}, {"bytea", true},
	{"bool", true}, {"jsonb", true}, {"interval", true}, {"float8", true}, {"float4", true}, {"int[]", true}, {"text[]", true}, {"numeric[]", true},
	{"int4range", true}, {"inet", true}, {"bit(4)", true}, {"timetz", true}, {"name", true}, {`"char"`, true}, {"money", true}, {"macaddr", true}, {"varbit", true}, {"tsvector", true},
	{"json", false}, {"point", false}, {"xml", false}, {"int4multirange", true}, {"numrange", true}, {"oid", true}, {"bpchar", true},
}

// made are types that the prelude creates.
var made = []kind{
	{"mood", true}, {"positive", true}, {"word", true}, {"pair", true}, {"citext", true}, {`text COLLATE ci`, true}, {`text COLLATE "C"`, true},
	{"mood[]", true}, {"floatrange", true}, {"hstore", true}, {`citext[]`, true}, {`"Odd ""type"`, true}, {`varchar(9) COLLATE ci`, true},
}

// samples are values in text form by the name of a type. There are few, and
// some are equal without being the same: keys shall meet.
var samples = map[string][]string{
	"uuid":           {"00000000-0000-0000-0000-000000000001", "6BA7B810-9dad-11d1-80b4-00c04fd430c8", "{a0eebc999c0b4ef8bb6d6bb9bd380a11}"},
	"text":           {"a", "A", "ä", "a ", "", "it's", "x\ny", `\`, `"q"`, "{a}", "(1,2)", "NULL", "null", `\N`, "b", "B", "[1,2)", "日本", "long " + strings.Repeat("ab", 50)},
	"varchar":        {"a", "A", "b", "B", "", "ä", "c "},
	"bpchar":         {"a", "a   ", "b", "", "B "},
	"numeric":        {"1", "1.0", "1.00", "2", "2.50", "-0", "0.0", "NaN", "Infinity", "1e10", "0.001"},
	"date":           {"2020-02-29", "2021-01-01", "infinity", "0044-03-15 BC", "epoch"},
	"timestamptz":    {"2020-01-01 00:00+00", "2020-01-01 01:00+01", "infinity", "0001-01-01 00:00+00 BC", "2021-06-01 12:34:56.789012+00"},
	"timestamp":      {"2020-01-01", "2020-01-01 00:00:00.000001", "-infinity", "1999-12-31 23:59:60"},
	"bytea":          {`\x`, `\x00`, `\x00ff5c27`, `\xdeadbeef`},
	"bool":           {"t", "f"},
	"jsonb":          {`{"a": 1}`, `{"a": 1.0}`, `[1, "x", null]`, `"s"`, "1.00", `{"b": {"c": []}}`},
	"json":           {`{"a": 1,  "a":2}`, `[ ]`, "null"},
	"interval":       {"1 mon", "30 days", "720:00:00", "-1 day +24:00", "1 year 2 mons", "0"},
	"float8":         {"0", "-0", "NaN", "1.5", "-Infinity", "0.1", "1e-300", "4.9e-324"},
	"float4":         {"0", "-0", "1.1", "NaN", "3.4e38"},
	"_int4":          {"{}", "{1,2}", "{NULL}", "[2:3]={1,2}", "{{1},{2}}"},
	"_text":          {"{}", `{a,"b c",NULL}`, `{"\"q\""}`, `{""}`},
	"_numeric":       {"{1.0}", "{1}", "{1.00,2}"},
	"int4range":      {"empty", "[1,5)", "[3,9)", "(,3)", "[10,)", "[1,4]", "[20,30)"},
	"int4multirange": {"{}", "{[1,3),[5,6)}", "{[1,9)}"},
	"numrange":       {"[1,2)", "[1.0,2.00)", "empty", "(0,1]"},
	"floatrange":     {"[1,2)", "[0,5]", "[-0,1)", "empty"},
	"inet":           {"10.0.0.1", "10.0.0.1/32", "10.0.0.0/8", "::1"},
	"bit":            {"0000", "0101", "1111"},
	"varbit":         {"", "0", "101"},
	"timetz":         {"12:00+00", "13:00+01", "24:00+00"},
	"name":           {"a", "Odd Name", ""},
	"char":           {"a", "", `\377`, "ä"},
	"money":          {"1", "-2.5", "0"},
	"macaddr":        {"08:00:2b:01:02:03", "0800.2b01.0203"},
	"tsvector":       {"'a':1 'b':2A", "", "'it''s'"},
	"point":          {"(1,2)", "(-0,0)"},
	"xml":            {"<a/>", `<?xml version="1.0"?><a>ä</a>`, "text", ""},
	"oid":            {"1", "2", "4000000000"},
	"mood":           {"sad", "ok", "it's"},
	"pair":           {"(1,a)", "(1,A)", "(,)", `(2,"x, y")`, `(2,"""")`},
	"citext":         {"a", "A", "b", "B", "ä", "Ä", ""},
	"_citext":        {"{a}", "{A}", "{b,C}"},
	"hstore":         {"a=>1", `"a"=>"1", "b"=>NULL`, ""},
	"_mood":          {"{}", "{sad,ok}", "{ok,NULL}"},
	`Odd "type`:      {"x y", `"q"`},
}

// value returns a value for the column in text form; often NULL where it may
// be, now and then one that the column refuses.
func (g *Generator) value(c Column) string {
	if !c.NotNull && g.chance(12) || g.chance(120) {
		return null
	}
	switch c.Base {
	case "int2", "int4", "int8":
		return fmt.Sprint(g.small())
	}
	for _, e := range g.cat.Enums {
		if e.Name == c.User && len(e.Labels) > 0 {
			return one(g, e.Labels)
		}
	}
	if of := samples[c.Base]; len(of) > 0 {
		return one(g, of)
	}
	return null
}

// small is a number that others are likely to be, too.
func (g *Generator) small() int {
	switch g.rng.IntN(12) {
	case 0:
		return -g.rng.IntN(20)
	case 1:
		return 100 + g.rng.IntN(2000)
	}
	return g.rng.IntN(24)
}

// expr is a value for the column as SQL; with volatile, one the server makes.
func (g *Generator) expr(c Column) string {
	if !g.settled && g.chance(5) {
		switch c.Base {
		case "uuid":
			return "gen_random_uuid()"
		case "timestamptz", "timestamp":
			return "clock_timestamp()"
		case "float8", "float4", "numeric":
			return "random()"
		case "text":
			return "md5(random()::text)"
		case "int4", "int8":
			return "(random() * 40)::int"
		}
	}
	if c.Default && g.chance(10) {
		return "DEFAULT"
	}
	return literal(g.value(c))
}

// typed is a value for the column as SQL that needs no context.
func (g *Generator) typed(c Column) string { return literal(g.value(c)) + "::" + c.Type }
