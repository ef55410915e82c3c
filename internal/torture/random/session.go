package random

import (
	"fmt"
)

// read asks for what is there; followers may answer.
func (g *Generator) read() []Step {
	t := g.table("rrpvmm")
	if t == nil {
		return nil
	}
	switch g.rng.IntN(5) {
	case 0:
		return ask("SELECT count(*) FROM %s WHERE %s", t.Name, g.where(t, ""))
	case 1:
		return ask("SELECT * FROM %s WHERE %s FOR UPDATE", t.Name, g.where(t, ""))
	case 2:
		other := g.table("rp")
		return ask("SELECT count(*) FROM %s a, %s b WHERE %s", t.Name, other.Name, g.where(t, "a."))
	}
	return ask("SELECT * FROM %s", t.Name)
}

// session changes or uses what lives in the session.
func (g *Generator) session() []Step {
	t := g.table("r")
	if t == nil {
		return nil
	}
	switch g.rng.IntN(15) {
	case 0:
		return do("SET search_path = %s, public", quote(one(g, g.cat.Schemas)))
	case 1:
		return do("SET TIME ZONE %s", literal(one(g, []string{"Asia/Tokyo", "UTC", "-3:30"})))
	case 2:
		return do("SET DateStyle = %s", literal(one(g, []string{"German", "ISO, MDY", "SQL, DMY"})))
	case 3:
		if !g.alone {
			return do("RESET search_path") // the limits on waiting stay
		}
		return do("RESET ALL")
	case 4:
		if len(g.cat.Roles) > 0 {
			g.roled = true
			return do("SET ROLE %s", quote(one(g, g.cat.Roles)))
		}
	case 5:
		g.n++
		return append(do("CREATE TEMP TABLE IF NOT EXISTS tmp AS SELECT * FROM %s", t.Name), do("INSERT INTO log SELECT 'temp', count(*)::text FROM tmp")...)
	case 6:
		if g.chance(2) {
			return do("DROP TABLE IF EXISTS pg_temp.tmp")
		}
		return append(do("CREATE TEMP TABLE IF NOT EXISTS tmp AS SELECT 1 AS a"), do("%s", one(g, []string{
			"GRANT SELECT ON tmp TO PUBLIC", "REVOKE ALL ON tmp FROM PUBLIC", "COMMENT ON TABLE tmp IS 'passing'",
			"CREATE INDEX IF NOT EXISTS tmp_a ON tmp (a)", "ALTER TABLE tmp ADD IF NOT EXISTS b int DEFAULT 5", "GRANT SELECT ON ALL TABLES IN SCHEMA pg_temp TO PUBLIC"}))...)
	case 7:
		g.named++
		name := fmt.Sprintf("p%d", g.named)
		return append(do("PREPARE %s AS %s", name, g.insertText(t, 1)), append(do("EXECUTE %s", name), do("EXECUTE %s", name)...)...)
	case 8:
		return do("SET LOCAL lock_timeout = '5s'")
	case 9:
		return do("NOTIFY something, 'x'")
	case 10:
		if g.tx == open {
			g.named++
			name := fmt.Sprintf("cur%d", g.named)
			set := g.assignments(t, "")
			if set == "" {
				return nil
			}
			return append(do("DECLARE %s CURSOR FOR SELECT * FROM ONLY %s WHERE %s FOR UPDATE", name, t.Name, g.some(t)),
				append(do("MOVE NEXT FROM %s", name), do("UPDATE ONLY %s SET %s WHERE CURRENT OF %s", t.Name, set, name)...)...)
		}
	case 11:
		if g.tx == idle {
			return nil // one statement runs within a BEGIN of pgdist's, so that LOCK succeeds where PostgreSQL says 25P01
		}
		return do("LOCK TABLE %s IN %s MODE", t.Name, one(g, []string{"SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ROW SHARE"}))
	case 12:
		if g.tx == idle {
			return do("%s %s", one(g, []string{"VACUUM", "ANALYZE", "VACUUM FULL", "REINDEX TABLE"}), t.Name)
		}
	case 13:
		return do("SET CONSTRAINTS ALL %s", one(g, []string{"IMMEDIATE", "DEFERRED"}))
	}
	return do("DO $do$ DECLARE r record; BEGIN FOR r IN SELECT * FROM generate_series(1, 3) g LOOP %s; END LOOP; %s END $do$", g.insertText(t, 1),
		one(g, []string{"", "", "RAISE 'undone';", "EXCEPTION WHEN OTHERS THEN INSERT INTO log VALUES ('do', SQLSTATE);"}))
}
