package random

import (
	"fmt"
	"strings"
)

// trigger makes a trigger of any kind with its function.
func (g *Generator) trigger() []Step {
	t := g.table("rrp")
	if t == nil || t.Name.Name == "log" || t.Name.Name == "counted" {
		return nil
	}
	g.n++
	fn := quote("public", fmt.Sprintf("fn_%s%d", g.own, g.n))
	timing, body := g.triggerBody(t)
	steps := do("CREATE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN %s END $f$", fn, body)
	name := quote(g.name())
	kind := "TRIGGER"
	if strings.Contains(timing, "DEFERRED") {
		kind = "CONSTRAINT TRIGGER"
	}
	return append(steps, do("CREATE %s %s %s EXECUTE FUNCTION %s()", kind, name, fmt.Sprintf(timing, t.Name), fn)...)
}

// triggerBody chooses when a trigger fires and what it does. %s stands for the
// table. Rows that a trigger writes for each row go where their order is not
// seen, if outcomes must be settled.
func (g *Generator) triggerBody(t *Table) (timing, body string) {
	c := one(g, t.Columns)
	events := one(g, []string{"INSERT", "INSERT OR UPDATE", "UPDATE", "INSERT OR UPDATE OR DELETE", "DELETE"})
	written := one(g, []string{"INSERT", "INSERT OR UPDATE"})
	new, v := "NEW."+quote(c.Name), g.typed(c)
	into := "log"
	if !g.settled {
		into = one(g, []string{"log", "counted (what, id)"})
	}
	row := "log VALUES (TG_OP, coalesce(NEW, OLD)::text)"
	if into != "log" {
		row = "counted (what) VALUES (TG_OP || clock_timestamp()::text)"
	}
	switch g.rng.IntN(12) {
	case 0, 1: // changes what is stored, a key perhaps
		return "BEFORE " + written + " ON %s FOR EACH ROW", fmt.Sprintf("IF %s IS DISTINCT FROM %s THEN %s := %s; END IF; RETURN NEW;", new+"::text", v+"::text", new, v)
	case 2: // swallows some
		return "BEFORE " + written + " ON %s FOR EACH ROW", fmt.Sprintf("IF %s::text = %s THEN RETURN NULL; END IF; RETURN NEW;", new, literal(g.value(c)))
	case 3: // draws from a sequence, then swallows
		return "BEFORE INSERT ON %s FOR EACH ROW", fmt.Sprintf("PERFORM nextval('seq'); IF %s IS NULL THEN RETURN NULL; END IF; RETURN NEW;", new)
	case 4: // a key from a sequence
		if c.Base == "int4" || c.Base == "int8" {
			return "BEFORE INSERT ON %s FOR EACH ROW", fmt.Sprintf("IF %s < 10 THEN %s := nextval('seq'); END IF; RETURN NEW;", new, new)
		}
		fallthrough
	case 5, 6:
		return "AFTER " + events + " ON %s FOR EACH ROW", "INSERT INTO " + row + "; RETURN NULL;"
	case 7:
		return "AFTER INSERT ON %s REFERENCING NEW TABLE AS added", "INSERT INTO counted (what) SELECT count(*)::text FROM added; RETURN NULL;"
	case 8:
		return "AFTER " + events + " ON %s", "UPDATE counted SET what = left(what || 's', 20); DELETE FROM counted WHERE what LIKE '%%ssss'; RETURN NULL;"
	case 9: // writes to the same table
		if set := g.assignments(t, ""); set != "" {
			return "AFTER INSERT ON %s", fmt.Sprintf("IF pg_trigger_depth() < 2 THEN UPDATE %s SET %s WHERE %s; END IF; RETURN NULL;", t.Name, set, g.where(t, ""))
		}
		fallthrough
	case 10:
		return "AFTER " + events + " ON %s DEFERRABLE INITIALLY DEFERRED FOR EACH ROW", "INSERT INTO " + row + "; RETURN NULL;"
	}
	// refuses some, at the end
	return "AFTER " + written + " ON %s DEFERRABLE INITIALLY DEFERRED FOR EACH ROW", fmt.Sprintf("IF %s::text = %s THEN RAISE 'no' USING ERRCODE = '23514'; END IF; RETURN NULL;", new, literal(g.value(c)))
}

func (g *Generator) rule() []Step {
	t := g.table("rv")
	if t == nil || t.Name.Name == "log" || t.Name.Name == "counted" {
		return nil
	}
	name := quote(g.name())
	switch g.rng.IntN(4) {
	case 0:
		return do("CREATE RULE %s AS ON INSERT TO %s DO ALSO INSERT INTO log VALUES ('rule', NEW.%s::text)", name, t.Name, quote(one(g, t.Columns).Name))
	case 1:
		return do("CREATE RULE %s AS ON UPDATE TO %s DO ALSO INSERT INTO log VALUES ('rule u', 'x')", name, t.Name)
	case 2:
		return do("CREATE RULE %s AS ON DELETE TO %s WHERE %s DO INSTEAD NOTHING", name, t.Name, g.where(t, "OLD."))
	}
	return do("CREATE RULE %s AS ON DELETE TO %s DO ALSO INSERT INTO log VALUES ('rule d', OLD.%s::text)", name, t.Name, quote(one(g, t.Columns).Name))
}

func (g *Generator) view() []Step {
	t := g.table("rrpv")
	if t == nil {
		return nil
	}
	return do("CREATE OR REPLACE VIEW %s AS SELECT %s FROM %s WHERE %s%s", quote(g.schema(), g.name()), quoteAll(namesOf(g.columns(t.Columns))), t.Name, g.where(t, ""),
		one(g, []string{"", "", " WITH CHECK OPTION"}))
}

// insteadOf makes a view that a trigger writes through.
func (g *Generator) insteadOf() []Step {
	t := g.table("r")
	if t == nil || len(t.settable()) == 0 {
		return nil
	}
	c := one(g, t.settable())
	view, fn := quote("public", g.name()), quote("public", fmt.Sprintf("fn_i%s%d", g.own, g.n))
	steps := do("CREATE VIEW %s AS SELECT %s AS w, count(*) AS n FROM %s GROUP BY 1", view, quote(c.Name)+"::text", t.Name)
	steps = append(steps, do("CREATE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN IF TG_OP = 'DELETE' THEN DELETE FROM %s WHERE %s::text = OLD.w; RETURN OLD; END IF; INSERT INTO %s (%s) VALUES (NEW.w::%s); RETURN NEW; END $f$",
		fn, t.Name, quote(c.Name), t.Name, quote(c.Name), c.Type)...)
	return append(steps, do("CREATE TRIGGER i INSTEAD OF INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION %s()", view, fn)...)
}

// routine makes a function or procedure without arguments, or runs one.
func (g *Generator) routine() []Step {
	var from []Routine
	for _, r := range g.cat.Routines {
		if r.Type != "trigger" {
			from = append(from, r)
		}
	}
	if len(from) > 0 && (g.still || !g.chance(3)) {
		r := one(g, from)
		if r.Kind == "p" {
			return do("CALL %s()", r.Name)
		}
		return ask("SELECT %s()", r.Name)
	}
	if len(from) > 6 {
		r := one(g, from)
		return do("DROP ROUTINE %s()", r.Name)
	}
	if g.still {
		return nil
	}
	return g.newRoutine()
}

func (g *Generator) newRoutine() []Step {
	var body []string
	for _, make := range []func() []Step{g.insert, g.update, g.remove} {
		if s := make(); len(s) == 1 && s[0].SQL != "" {
			text, _, _ := strings.Cut(s[0].SQL, " RETURNING *")
			body = append(body, text)
		}
	}
	if len(body) < 2 {
		return nil
	}
	name := quote(g.schema(), g.name())
	switch g.rng.IntN(6) {
	case 0:
		return do("CREATE FUNCTION %s() RETURNS int LANGUAGE sql AS $f$ %s; SELECT 1 $f$", name, strings.Join(body, "; "))
	case 1:
		return do("CREATE FUNCTION %s() RETURNS int LANGUAGE sql STABLE AS $f$ %s; SELECT 1 $f$", name, body[0]) // it says what is not so
	case 2:
		return do("CREATE FUNCTION %s() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN %s; %s; RETURN 1; EXCEPTION WHEN OTHERS THEN INSERT INTO log VALUES ('caught', SQLSTATE); RETURN 0; END $f$", name, body[0], body[1])
	case 3:
		return do("CREATE FUNCTION %s() RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $f$ BEGIN FOR i IN 1..3 LOOP BEGIN %s; IF i = 2 THEN RAISE 'second'; END IF; EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; RETURN nextval('seq'); END $f$", name, body[0])
	}
	return do("CREATE PROCEDURE %s() LANGUAGE plpgsql AS $f$ BEGIN %s; COMMIT; %s; %s; %s; END $f$", name, body[0], body[1], one(g, []string{"COMMIT", "ROLLBACK"}), body[0])
}
