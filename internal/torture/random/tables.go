package random

import (
	"fmt"
	"slices"
	"strings"
)

// prelude are the objects that tables of many kinds are made of. Each is a step
// of its own, so that a shrunk script keeps only those it needs.
func prelude() Script {
	var s Script
	for _, q := range []string{
		`CREATE EXTENSION citext`, `CREATE EXTENSION hstore`, `CREATE EXTENSION btree_gist`,
		`CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s')`, `CREATE DOMAIN positive AS int CHECK (VALUE > -5)`,
		`CREATE DOMAIN word AS text CHECK (length(VALUE) < 60)`, `CREATE TYPE pair AS (a int, b text)`,
		`CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`,
		`CREATE TYPE floatrange AS RANGE (subtype = float8, subtype_diff = float8mi)`,
		`CREATE TYPE "Odd ""type" AS ENUM ('x y', '"q"')`,
		`CREATE SCHEMA "Odd ""schema"`, `CREATE SCHEMA other`,
		`CREATE SEQUENCE seq`, `CREATE SEQUENCE "Odd ""seq" INCREMENT -3 MINVALUE -1000 CACHE 3`, `CREATE SEQUENCE turning MAXVALUE 7 CYCLE`,
		`CREATE TABLE log (what text, v text)`, `CREATE TABLE counted (id serial PRIMARY KEY, what text)`,
	} {
		s = append(s, Step{SQL: q})
	}
	return s
}

// kindOf chooses a type.
func (g *Generator) kindOf(key bool) kind {
	for {
		k := one(g, kinds)
		if g.chance(3) {
			k = one(g, made)
		}
		if g.chance(8) && len(g.cat.Types) > 0 {
			k = kind{one(g, g.cat.Types).Name.String(), true}
		}
		if k.key || !key {
			return k
		}
	}
}

// draft is a table in the making.
type draft struct {
	g     *Generator
	lines []string
	used  []string // column names
	ints  []string // columns that arithmetic works on
	plain []string // columns of any type that can be compared
}

func (d *draft) column(key bool) string {
	name := one(d.g, columnNames)
	for slices.Contains(d.used, name) {
		name += "2"
	}
	d.used = append(d.used, name)
	k := d.g.kindOf(key)
	d.lines = append(d.lines, quote(name)+" "+k.ddl+d.g.defaultFor(k.ddl))
	switch k.ddl {
	case "int", "bigint", "smallint":
		d.ints = append(d.ints, name)
	}
	if k.key {
		d.plain = append(d.plain, name)
	}
	return name
}

// defaultFor is a DEFAULT clause that fits the type, often none.
func (g *Generator) defaultFor(typ string) string {
	if !g.chance(3) {
		return ""
	}
	switch typ {
	case "int", "bigint":
		return " DEFAULT " + one(g, []string{"7", "nextval('seq')", `nextval('"Odd ""seq"')`, "nextval('turning')"})
	case "text", "varchar(20)", "citext":
		if !g.settled {
			return " DEFAULT " + one(g, []string{"md5(random()::text)", "clock_timestamp()::text", "'d'"})
		}
		return " DEFAULT 'd'"
	case "uuid", "timestamptz", "float8":
		if !g.settled {
			return map[string]string{"uuid": " DEFAULT gen_random_uuid()", "timestamptz": " DEFAULT clock_timestamp()", "float8": " DEFAULT random()"}[typ]
		}
	}
	return ""
}

// createTable makes a table of any kind.
func (g *Generator) createTable() []Step {
	switch g.rng.IntN(10) {
	case 0, 1:
		return g.partitioned()
	case 2:
		return g.child()
	}
	d := &draft{g: g}
	g.keyFor(d)
	for range 1 + g.rng.IntN(4) {
		d.column(false)
	}
	g.moreFor(d)
	made := Name{g.schema(), g.name()}
	g.empty = append(g.empty, made)
	return do("CREATE %sTABLE %s (%s)", one(g, []string{"", "", "", "", "UNLOGGED "}), made, strings.Join(d.lines, ", "))
}

// keyFor gives the table a key, or what looks like one.
func (g *Generator) keyFor(d *draft) {
	late := one(g, []string{"", "", "", "", "", " DEFERRABLE", " DEFERRABLE INITIALLY DEFERRED"})
	switch g.rng.IntN(14) {
	case 0, 1, 2: // none
	case 3, 4, 5:
		k := d.column(true)
		d.lines = append(d.lines, fmt.Sprintf("PRIMARY KEY (%s)%s", quote(k), late))
	case 6, 7:
		a, b := d.column(true), d.column(true)
		d.lines = append(d.lines, fmt.Sprintf("PRIMARY KEY (%s, %s)%s", quote(b), quote(a), late))
	case 8:
		d.used = append(d.used, "id")
		d.lines = append(d.lines, one(g, []string{"id serial PRIMARY KEY", "id bigserial PRIMARY KEY", "id smallserial PRIMARY KEY", "id int PRIMARY KEY DEFAULT nextval('seq')"}))
	case 9, 10:
		d.used = append(d.used, "id")
		d.lines = append(d.lines, fmt.Sprintf("id %s GENERATED %s AS IDENTITY %s PRIMARY KEY", one(g, []string{"int", "bigint"}), one(g, []string{"ALWAYS", "BY DEFAULT"}),
			one(g, []string{"", "(START WITH 5 INCREMENT BY 2)", "(CACHE 4)"})))
	case 11:
		k := d.column(true)
		d.lines = append(d.lines, fmt.Sprintf("UNIQUE (%s)%s", quote(k), late))
		d.lines[len(d.lines)-2] += " NOT NULL"
	case 12:
		k := d.column(true) // may be NULL: no key
		d.lines = append(d.lines, fmt.Sprintf("UNIQUE (%s)%s", quote(k), late))
	case 13:
		d.used = append(d.used, "during")
		d.lines = append(d.lines, "during int4range", "EXCLUDE USING gist (during WITH &&)"+late)
	}
}

// moreFor adds generated columns, constraints and references.
func (g *Generator) moreFor(d *draft) {
	if len(d.ints) > 0 && g.chance(4) {
		d.lines = append(d.lines, fmt.Sprintf("gen bigint GENERATED ALWAYS AS (%s::bigint * 2) STORED", quote(one(g, d.ints))))
	}
	if len(d.ints) > 0 && g.chance(4) {
		d.lines = append(d.lines, fmt.Sprintf("CHECK (%s < 1500)", quote(one(g, d.ints))))
	}
	if len(d.plain) > 0 && g.chance(4) {
		d.lines = append(d.lines, fmt.Sprintf("UNIQUE (%s)%s", quote(one(g, d.plain)), one(g, []string{"", " DEFERRABLE INITIALLY DEFERRED"})))
	}
	if g.chance(3) {
		if line := g.reference(d); line != "" {
			d.lines = append(d.lines, line)
		}
	}
}

// reference is a column that refers to another table's key.
func (g *Generator) reference(d *draft) string {
	t := g.table("rp")
	if t == nil || len(t.key()) != 1 {
		return ""
	}
	c, _ := t.column(t.key()[0])
	if c.Base == "" || slices.Contains(d.used, "ref") {
		return ""
	}
	d.used = append(d.used, "ref")
	return fmt.Sprintf("ref %s REFERENCES %s%s%s%s", c.Type, t.Name,
		one(g, []string{"", " ON DELETE CASCADE", " ON DELETE CASCADE", " ON DELETE SET NULL", " ON DELETE SET DEFAULT", " ON DELETE RESTRICT"}),
		one(g, []string{"", " ON UPDATE CASCADE", " ON UPDATE CASCADE", " ON UPDATE SET NULL"}), one(g, []string{"", "", " DEFERRABLE INITIALLY DEFERRED", " DEFERRABLE"}))
}

// partitioned makes a tree: list, range or hash, often a second level, a leaf
// whose columns are in another order.
func (g *Generator) partitioned() []Step {
	root, schema := g.name(), g.schema()
	g.empty = append(g.empty, Name{schema, root})
	key := one(g, []string{", PRIMARY KEY (k)", ", PRIMARY KEY (k, v)", "", ", UNIQUE (k)", ", PRIMARY KEY (k) DEFERRABLE INITIALLY DEFERRED"})
	table := quote(schema, root)
	part := func(i int) string { return quote(schema, fmt.Sprintf("%s p%d", root, i)) }
	typ := one(g, []string{"int", "bigint", "numeric"})
	how := one(g, []string{"LIST", "RANGE", "RANGE", "HASH"})
	steps := do("CREATE TABLE %s (k %s%s, v text%s, n int DEFAULT 3%s) PARTITION BY %s (k)", table, typ, g.notNull(), g.defaultFor("text"), key, how)
	bounds := map[string][]string{
		"LIST":  {"FOR VALUES IN (0, 1, 2, 3, 4, 5)", "FOR VALUES IN (6, 7, 8, 9, 10, 11, 12)", "DEFAULT"},
		"RANGE": {"FOR VALUES FROM (MINVALUE) TO (5)", "FOR VALUES FROM (5) TO (12)", "DEFAULT"},
		"HASH":  {"FOR VALUES WITH (MODULUS 3, REMAINDER 0)", "FOR VALUES WITH (MODULUS 3, REMAINDER 1)", "FOR VALUES WITH (MODULUS 3, REMAINDER 2)"},
	}[how]
	for i, bound := range bounds {
		switch {
		case i == 0 && g.chance(2) && !strings.Contains(key, "DEFERRABLE"):
			steps = append(steps, do("CREATE TABLE %s (n int DEFAULT 4, gone text, v text, k %s NOT NULL)", part(0), typ)...)
			steps = append(steps, do("ALTER TABLE %s DROP COLUMN gone", part(0))...)
			if strings.Contains(key, "v)") {
				steps = append(steps, do("ALTER TABLE %s ALTER v SET NOT NULL", part(0))...)
			}
			steps = append(steps, do("ALTER TABLE %s ATTACH PARTITION %s %s", table, part(0), bound)...)
		case i == 1 && g.chance(2) && key != ", UNIQUE (k)":
			steps = append(steps, do("CREATE TABLE %s PARTITION OF %s %s PARTITION BY HASH (k)", part(1), table, bound)...)
			for r := range 2 {
				steps = append(steps, do("CREATE TABLE %s PARTITION OF %s FOR VALUES WITH (MODULUS 2, REMAINDER %d)", part(10+r), part(1), r)...)
			}
		default:
			steps = append(steps, do("CREATE TABLE %s PARTITION OF %s %s", part(i), table, bound)...)
		}
	}
	return steps
}

func (g *Generator) notNull() string { return one(g, []string{"", " NOT NULL"}) }

// child inherits the plain way.
func (g *Generator) child() []Step {
	t := g.table("r")
	if t == nil || t.Leaf || t.Name.Name == "log" || t.Name.Name == "counted" {
		return nil
	}
	more := one(g, []string{"extra text", "extra int DEFAULT 5", fmt.Sprintf("extra %s, mine int", g.kindOf(false).ddl)})
	if k := t.key(); len(k) > 0 && !g.chance(3) {
		more += ", PRIMARY KEY (" + quoteAll(k) + ")"
	}
	return do("CREATE TABLE %s (%s) INHERITS (%s)", quote(g.schema(), g.name()), more, t.Name)
}

// copyOf makes a table of another one.
func (g *Generator) copyOf() []Step {
	t := g.table("rpv")
	if t == nil {
		return nil
	}
	name := quote(g.schema(), g.name())
	switch g.rng.IntN(4) {
	case 0:
		return do("CREATE TABLE %s AS SELECT * FROM %s WITH %sDATA", name, t.Name, one(g, []string{"", "NO "}))
	case 1:
		return do("SELECT * INTO %s FROM %s", name, t.Name)
	}
	if t.Kind == "v" {
		return nil
	}
	return do("CREATE TABLE %s (LIKE %s INCLUDING %s)", name, t.Name, one(g, []string{"ALL", "ALL", "DEFAULTS", "IDENTITY INCLUDING INDEXES"}))
}
