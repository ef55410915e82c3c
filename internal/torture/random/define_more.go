package random

import (
	"fmt"
	"strings"
)

// attach moves a table into a tree or out of it.
func (g *Generator) attach() []Step {
	t := g.table("r")
	if t == nil {
		return nil
	}
	root := g.table("p")
	if root == nil {
		return nil
	}
	for i := range g.cat.Tables {
		if leaf := &g.cat.Tables[i]; leaf.Leaf && g.chance(3) {
			for j := range g.cat.Tables {
				if p := &g.cat.Tables[j]; p.Kind == "p" && len(p.Name.Name) < len(leaf.Name.Name) && leaf.Name.Name[:len(p.Name.Name)] == p.Name.Name {
					detach := fmt.Sprintf("ALTER TABLE %s DETACH PARTITION %s", p.Name, leaf.Name)
					switch g.rng.IntN(3) {
					case 0:
						return do("%s; UPDATE %s SET v = 'detached'; ALTER TABLE %s ATTACH PARTITION %s DEFAULT", detach, leaf.Name, p.Name, leaf.Name)
					case 1:
						return do("UPDATE %s SET v = 'before'; %s", p.Name, detach)
					}
					return do("%s", detach)
				}
			}
		}
	}
	return do("ALTER TABLE %s ATTACH PARTITION %s %s", root.Name, t.Name, one(g, []string{"DEFAULT", "FOR VALUES IN (100, 101)", "FOR VALUES FROM (100) TO (200)"}))
}

func (g *Generator) enum() []Step {
	if len(g.cat.Enums) == 0 {
		return nil
	}
	e := one(g, g.cat.Enums)
	g.n++
	switch {
	case g.alone && g.chance(4) && len(e.Labels) > 0: // not where members come back: one that finds it and ADD VALUE in one delta adds the label twice
		return do("ALTER TYPE %s RENAME VALUE %s TO %s", e.Name, literal(one(g, e.Labels)), literal(fmt.Sprintf("label %d", g.n)))
	case g.chance(2) && len(e.Labels) > 0:
		return do("ALTER TYPE %s ADD VALUE %s BEFORE %s", e.Name, literal(fmt.Sprintf("l'%d", g.n)), literal(one(g, e.Labels)))
	}
	return do("ALTER TYPE %s ADD VALUE IF NOT EXISTS %s", e.Name, literal(fmt.Sprintf("l %d", g.n%7)))
}

func (g *Generator) sequence() []Step {
	if len(g.cat.Sequences) == 0 || g.chance(5) {
		return do("CREATE SEQUENCE %s%s", quote(g.schema(), g.name()), one(g, []string{"", " INCREMENT -2", " AS smallint MAXVALUE 9 CYCLE", " CACHE 5", " START 100", " MINVALUE -5 START -5"}))
	}
	s := one(g, g.cat.Sequences)
	switch g.rng.IntN(9) {
	case 0:
		return do("ALTER SEQUENCE %s %s", s, one(g, []string{"RESTART", "RESTART WITH 6", "INCREMENT BY 3", "CACHE 2", "CYCLE", "MAXVALUE 30000"}))
	case 1:
		return do("DROP SEQUENCE %s%s", s, one(g, []string{"", " CASCADE"}))
	case 2:
		return do("ALTER SEQUENCE %s RENAME TO %s", s, quote(g.name()))
	case 3:
		if t := g.table("r"); t != nil {
			return do("ALTER SEQUENCE %s OWNED BY %s.%s", s, t.Name, quote(one(g, t.Columns).Name))
		}
	case 4, 5:
		return ask("SELECT setval(%s, %d, %v)", literal(s.String()), 1+g.rng.IntN(40), g.chance(2))
	}
	return ask("SELECT nextval(%s)", literal(s.String()))
}

// changeType changes what columns are made of.
func (g *Generator) changeType() []Step {
	if len(g.cat.Types) == 0 {
		return nil
	}
	t := one(g, g.cat.Types)
	g.n++
	switch t.Kind {
	case "d":
		name := fmt.Sprintf("%s_%d", one(g, []string{"check", "Odd \"c"}), g.n)
		return do("ALTER DOMAIN %s %s", t.Name, one(g, []string{"ADD CONSTRAINT " + quote(name) + " CHECK (VALUE::text <> 'x y z')", "SET DEFAULT '7'", "DROP DEFAULT", "DROP NOT NULL"}))
	case "c":
		return do("ALTER TYPE %s %s", t.Name, one(g, []string{fmt.Sprintf("RENAME ATTRIBUTE b TO %s", quote(one(g, columnNames))), fmt.Sprintf("ADD ATTRIBUTE %s int", quote(fmt.Sprintf("more %d", g.n)))}))
	case "e":
		if g.chance(2) {
			return do("CREATE TYPE %s AS ENUM ('a', 'B', 'ä')", quote(g.schema(), g.name()))
		}
	}
	if g.chance(3) {
		return do("ALTER TYPE %s SET SCHEMA %s", t.Name, quote(one(g, g.cat.Schemas)))
	}
	return do("ALTER TYPE %s RENAME TO %s", t.Name, quote(g.name()))
}

// grant changes roles and rights. Roles belong to all databases of a server, so
// that there are few.
func (g *Generator) grant() []Step {
	role := quote(one(g, []string{"rnd_a", "rnd_b", `rnd_Odd "r`}))
	t := g.table("rp")
	if t == nil || len(g.cat.Roles) == 0 || g.chance(8) {
		return do("CREATE ROLE %s", role)
	}
	role = quote(one(g, g.cat.Roles))
	switch g.rng.IntN(9) {
	case 0:
		return do("GRANT ALL ON %s TO %s", t.Name, role)
	case 1:
		return do("REVOKE ALL ON %s FROM %s", t.Name, role)
	case 2:
		return do("GRANT %s TO %s", quote(one(g, g.cat.Roles)), role)
	case 3:
		return do("GRANT ALL ON SCHEMA public TO %s", role)
	case 4:
		return do("ALTER TABLE %s OWNER TO %s", t.Name, role)
	case 5:
		return do("ALTER ROLE %s SET work_mem = '%dMB'", role, 1+g.rng.IntN(9))
	case 6:
		return do("ALTER TABLE %s OWNER TO postgres", t.Name)
	case 7:
		return do("GRANT SELECT (%s), UPDATE ON %s TO PUBLIC", quote(one(g, t.Columns).Name), t.Name)
	}
	return do("DROP ROLE %s", role)
}

// within is DDL that a DO block runs.
func (g *Generator) within() []Step {
	name := quote("public", g.name())
	switch g.rng.IntN(6) {
	case 0:
		return do("DO $do$ BEGIN CREATE TABLE %s (id serial PRIMARY KEY, v text); INSERT INTO %s (v) VALUES ('in'); END $do$", name, name)
	case 1:
		if t := g.table("r"); t != nil {
			g.n++
			return do("DO $do$ BEGIN ALTER TABLE %s ADD COLUMN %s int DEFAULT 9; UPDATE %s SET %s = 10; EXCEPTION WHEN OTHERS THEN RAISE NOTICE 'no'; END $do$", t.Name, quote(fmt.Sprintf("d%d", g.n)), t.Name, quote(fmt.Sprintf("d%d", g.n)))
		}
	case 2:
		return do("DO $do$ BEGIN CREATE TABLE %s (k int); RAISE 'undone'; EXCEPTION WHEN OTHERS THEN INSERT INTO log VALUES ('caught', 'x'); END $do$", name)
	}
	if several := g.string(name); g.chance(2) {
		return do("DO $do$ BEGIN EXECUTE %s; %s END $do$", literal(several), one(g, []string{"", "", "RAISE 'undone'; EXCEPTION WHEN OTHERS THEN INSERT INTO log VALUES ('several', 'undone');"}))
	}
	return do("DO $do$ DECLARE t text; BEGIN FOR t IN SELECT 'gen ' || i FROM generate_series(1, 2) i LOOP EXECUTE format('CREATE TABLE IF NOT EXISTS %%I (k int PRIMARY KEY)', t || %s); END LOOP; END $do$", literal(name))
}

// string is one of several statements, such as EXECUTE takes.
func (g *Generator) string(name string) string {
	g.n++
	second := quote("public", fmt.Sprintf("sev%d", g.n))
	chance := "random()"
	if g.alone { // one server is the reference
		chance = "0.5"
	}
	all := []string{
		fmt.Sprintf("CREATE TABLE %s (k int PRIMARY KEY)", name),
		fmt.Sprintf("CREATE TABLE %s (k int, v text)", second),
		fmt.Sprintf("INSERT INTO %s SELECT i, md5(%s::text) FROM generate_series(1, 3) i", second, chance),
		"CREATE TEMP TABLE IF NOT EXISTS tmp (k int)", "GRANT SELECT ON tmp TO PUBLIC",
		fmt.Sprintf("CREATE INDEX ON %s (v)", second),
		fmt.Sprintf("CREATE INDEX ON %s (k DESC)", name),
		fmt.Sprintf("GRANT SELECT ON %s, tmp TO PUBLIC", second),
		fmt.Sprintf("COMMENT ON TABLE %s IS 'drop table; create table'", name),
		fmt.Sprintf("COMMENT ON /* ; */ TABLE %s IS 'on database'", second),
		fmt.Sprintf("ALTER TABLE %s ADD x int DEFAULT 3", name),
		fmt.Sprintf("ALTER TABLE %s ADD x text DEFAULT %s::text", second, chance),
		"DROP TABLE tmp", fmt.Sprintf("INSERT INTO %s VALUES (7)", name),
	}
	if g.chance(3) {
		all = append(all, fmt.Sprintf("DROP TABLE %s", one(g, []string{name, second})))
	}
	return strings.Join(all, "; ")
}

func (g *Generator) dropTrigger() []Step {
	if len(g.cat.Triggers) > 0 && g.chance(2) {
		o := one(g, g.cat.Triggers)
		if g.chance(2) {
			return do("ALTER TABLE %s %s TRIGGER %s", o.Table, one(g, []string{"DISABLE", "ENABLE"}), quote(o.Name.Name))
		}
		return do("DROP TRIGGER %s ON %s", quote(o.Name.Name), o.Table)
	}
	if len(g.cat.Rules) > 0 {
		o := one(g, g.cat.Rules)
		return do("DROP RULE %s ON %s", quote(o.Name.Name), o.Table)
	}
	return nil
}

func (g *Generator) comment() []Step {
	t := g.table("rp")
	if t == nil {
		return nil
	}
	switch g.rng.IntN(4) {
	case 0:
		return do("COMMENT ON TABLE %s IS 'note %d'", t.Name, g.n)
	case 1:
		return do("ALTER TABLE %s SET (fillfactor = %d)", t.Name, 50+g.rng.IntN(40))
	case 2:
		return do("ALTER TABLE %s %s ROW LEVEL SECURITY", t.Name, one(g, []string{"ENABLE", "DISABLE"}))
	}
	return do("ALTER TABLE %s REPLICA IDENTITY %s", t.Name, one(g, []string{"FULL", "DEFAULT", "NOTHING"}))
}

func (g *Generator) moveSchema() []Step {
	t := g.table("rp")
	if t == nil || t.Name.Name == "log" || t.Name.Name == "counted" || len(g.cat.Schemas) == 0 {
		return nil
	}
	return do("ALTER TABLE %s SET SCHEMA %s", t.Name, quote(one(g, g.cat.Schemas)))
}

func (g *Generator) newSchema() []Step {
	if s := one(g, append([]string{"public"}, g.cat.Schemas...)); s != "public" && len(g.cat.Schemas) > 4 {
		return do("DROP SCHEMA %s CASCADE", quote(s))
	}
	return do("CREATE SCHEMA %s", quote(g.name()))
}

func (g *Generator) identity() []Step {
	t := g.table("rp")
	if t == nil {
		return nil
	}
	for _, c := range t.Columns {
		switch {
		case c.Identity != "":
			return do("ALTER TABLE %s ALTER %s %s", t.Name, quote(c.Name), one(g, []string{"SET GENERATED ALWAYS", "SET GENERATED BY DEFAULT", "RESTART WITH 50", "DROP IDENTITY", "SET INCREMENT BY 3"}))
		case c.Base == "int4" && c.NotNull && !c.Default && c.Generated == "":
			return do("ALTER TABLE %s ALTER %s ADD GENERATED %s AS IDENTITY (START WITH 200)", t.Name, quote(c.Name), one(g, []string{"ALWAYS", "BY DEFAULT"}))
		}
	}
	return nil
}

func (g *Generator) inherit() []Step {
	a, b := g.table("r"), g.table("r")
	if a == nil || a.Name.Name == "log" || b.Name.Name == "log" {
		return nil
	}
	return do("ALTER TABLE %s %s %s", a.Name, one(g, []string{"INHERIT", "NO INHERIT"}), b.Name)
}
