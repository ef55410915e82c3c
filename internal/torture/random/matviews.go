package random

// matview makes a materialized view, or something of one.
func (g *Generator) matview() []Step {
	m := g.table("m")
	if m == nil || g.chance(3) {
		t := g.table("rrpvm")
		if t == nil {
			return nil
		}
		more := ""
		if !g.settled && g.chance(2) {
			more = ", random() AS rnd, clock_timestamp() AS at"
		}
		return do("CREATE MATERIALIZED VIEW %s AS SELECT *%s FROM %s%s", quote(g.schema(), g.name()), more, t.Name, one(g, []string{"", "", " WITH NO DATA"}))
	}
	switch g.rng.IntN(12) {
	case 0:
		return do("REFRESH MATERIALIZED VIEW %s WITH NO DATA", m.Name)
	case 1, 2:
		return do("REFRESH MATERIALIZED VIEW CONCURRENTLY %s", m.Name)
	case 3:
		return do("CREATE UNIQUE INDEX ON %s (%s)", m.Name, quote(one(g, m.Columns).Name))
	case 4:
		return do("CREATE INDEX ON %s (%s)", m.Name, quote(one(g, m.Columns).Name))
	case 5:
		return do("DROP MATERIALIZED VIEW %s CASCADE", m.Name)
	case 6:
		g.n++
		return do("ALTER MATERIALIZED VIEW %s RENAME TO %s", m.Name, quote(g.name()))
	case 7:
		return do("DO $do$ BEGIN REFRESH MATERIALIZED VIEW %s; RAISE 'undone'; EXCEPTION WHEN raise_exception THEN REFRESH MATERIALIZED VIEW %s; END $do$", m.Name, m.Name)
	case 8:
		return do("CREATE VIEW %s AS SELECT * FROM %s", quote(g.schema(), g.name()), m.Name)
	}
	return do("REFRESH MATERIALIZED VIEW %s", m.Name)
}

// persistence makes a table one that a crash empties, or one that it does not.
func (g *Generator) persistence() []Step {
	t := g.table("r")
	if t == nil {
		return nil
	}
	return do("ALTER TABLE %s SET %s", t.Name, one(g, []string{"LOGGED", "UNLOGGED", "UNLOGGED"}))
}
