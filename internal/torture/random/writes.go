package random

import (
	"fmt"
	"strings"
)

// write changes rows.
func (g *Generator) write() []Step {
	return g.pick([]choice{
		{24, g.insert}, {5, g.insertMany}, {4, g.insertSelect}, {7, g.upsert}, {20, g.update}, {5, g.updateKey}, {3, g.updateFrom}, {3, g.updateSome},
		{9, g.remove}, {3, g.removeSome}, {2, g.removeUsing}, {3, g.merge}, {4, g.cte}, {4, g.bulk}, {2, g.truncate}, {5, g.prepared}, {2, g.several}, {5, g.respell}, {4, g.exchange},
	})
}

// returning is a RETURNING clause, or none; with one, the step is a query.
func (g *Generator) returning(t *Table, text string) []Step {
	if t.Inherited || !g.chance(3) { // a child's columns may be others
		return do("%s", text)
	}
	return ask("%s RETURNING *", text)
}

func (g *Generator) insert() []Step {
	t := g.table("rrrpv")
	if t == nil {
		return nil
	}
	if g.chance(25) {
		return g.returning(t, fmt.Sprintf("INSERT INTO %s DEFAULT VALUES", t.Name))
	}
	return g.returning(t, g.insertText(t, 1+g.rng.IntN(3)))
}

// insertText inserts n rows of some columns.
func (g *Generator) insertText(t *Table, n int) string {
	over := ""
	columns := t.settable()
	if len(columns) < len(t.Columns) && g.chance(6) {
		columns, over = g.insertable(t), one(g, []string{" OVERRIDING SYSTEM VALUE", " OVERRIDING USER VALUE"})
	}
	if columns = g.columns(columns); len(columns) == 0 {
		return fmt.Sprintf("INSERT INTO %s DEFAULT VALUES", t.Name)
	}
	rows := make([]string, n)
	for i := range rows {
		cells := make([]string, len(columns))
		for j, c := range columns {
			cells[j] = g.expr(c)
		}
		rows[i] = "(" + strings.Join(cells, ", ") + ")"
	}
	return fmt.Sprintf("INSERT INTO %s (%s)%s VALUES %s", t.Name, quoteAll(namesOf(columns)), over, strings.Join(rows, ", "))
}

func (g *Generator) insertable(t *Table) []Column {
	var out []Column
	for _, c := range t.Columns {
		if c.Generated == "" {
			out = append(out, c)
		}
	}
	return out
}

// insertMany inserts enough rows for the mirror's larger batches.
func (g *Generator) insertMany() []Step {
	t := g.table("rp")
	if t == nil {
		return nil
	}
	columns := g.columns(t.settable())
	if len(columns) == 0 {
		return nil
	}
	cells := make([]string, len(columns))
	for i, c := range columns {
		switch c.Base {
		case "int2", "int4", "int8", "numeric", "float8":
			cells[i] = fmt.Sprintf("(g * %d + %d)::%s", 1+g.rng.IntN(3), g.rng.IntN(30), c.Type)
		case "text":
			cells[i] = fmt.Sprintf("('m' || g %% %d)::%s", 1+g.rng.IntN(60), c.Type)
		default:
			cells[i] = g.typed(c)
		}
	}
	n := 5 + g.rng.IntN(30)
	if g.chance(10) {
		n = 2500
	}
	return do("INSERT INTO %s (%s) SELECT %s FROM generate_series(1, %d) g ON CONFLICT DO NOTHING", t.Name, quoteAll(namesOf(columns)), strings.Join(cells, ", "), n)
}

// insertSelect copies a table's rows into itself or one with a column of the
// same type. The order is fixed: serial numbers depend on it.
func (g *Generator) insertSelect() []Step {
	t, from := g.table("rp"), g.table("rp")
	if t == nil {
		return nil
	}
	if g.chance(2) {
		from = t
	}
	var into, of []string
	for _, c := range t.settable() {
		for _, f := range from.Columns {
			if f.Type == c.Type && (from != t || f.Name == c.Name) {
				into, of = append(into, quote(c.Name)), append(of, "s."+quote(f.Name))
				break
			}
		}
	}
	if len(into) == 0 {
		return nil
	}
	conflict := one(g, []string{"", " ON CONFLICT DO NOTHING"})
	return do(`INSERT INTO %s (%s) SELECT %s FROM %s s ORDER BY s::text COLLATE "C" LIMIT %d%s`, t.Name, strings.Join(into, ", "), strings.Join(of, ", "), from.Name, 1+g.rng.IntN(8), conflict)
}

// upsert meets a row that may be there.
func (g *Generator) upsert() []Step {
	t := g.table("rrp")
	if t == nil || len(t.Uniques) == 0 {
		return nil
	}
	u := one(g, t.Uniques)
	text := g.insertText(t, 1+g.rng.IntN(2))
	if g.chance(4) || u.Deferrable || u.Partial {
		return g.returning(t, text+" ON CONFLICT DO NOTHING")
	}
	set := g.assignments(t, quote(t.Name.Name)+".")
	if set == "" || g.chance(4) {
		return g.returning(t, fmt.Sprintf("%s ON CONFLICT (%s) DO NOTHING", text, quoteAll(u.Columns)))
	}
	if c := one(g, t.settable()); g.chance(3) { // not empty: it was assigned to
		set = fmt.Sprintf("%s = EXCLUDED.%s", quote(c.Name), quote(c.Name))
	}
	return g.returning(t, fmt.Sprintf("%s ON CONFLICT (%s) DO UPDATE SET %s", text, quoteAll(u.Columns), set))
}

// assignments sets some columns, keys among them rarely.
func (g *Generator) assignments(t *Table, alias string) string {
	var out []string
	for _, c := range g.columns(t.settable()) {
		if g.unique(t, c.Name) && !g.chance(6) {
			continue
		}
		v := g.expr(c)
		switch c.Base {
		case "int4", "int8", "numeric":
			if !g.unique(t, c.Name) && g.chance(2) {
				v = alias + quote(c.Name) + " + 1"
			}
		case "text":
			if !g.unique(t, c.Name) && g.chance(3) {
				v = "left(" + alias + quote(c.Name) + " || 'x', 40)"
			}
		}
		out = append(out, quote(c.Name)+" = "+v)
	}
	return strings.Join(out, ", ")
}

func (g *Generator) unique(t *Table, column string) bool {
	for _, u := range t.Uniques {
		for _, c := range u.Columns {
			if c == column {
				return true
			}
		}
	}
	return false
}

// where is a condition on the table's columns.
func (g *Generator) where(t *Table, alias string) string {
	from := t.Columns
	if k := t.key(); len(k) > 0 && !g.chance(3) {
		if c, ok := t.column(one(g, k)); ok {
			from = []Column{c}
		}
	}
	c := one(g, from)
	name := alias + quote(c.Name)
	switch c.Base {
	case "json", "point", "xml":
		return name + "::text = " + literal(g.value(c))
	}
	v := g.value(c)
	switch {
	case v == null:
		return name + " IS NULL"
	case g.chance(8):
		return name + " IS NOT NULL"
	case c.Base == "int4" && g.chance(3):
		return fmt.Sprintf("%s BETWEEN %d AND %d", name, g.small(), g.small())
	case g.chance(5):
		return name + " > " + literal(v) + "::" + c.Type
	}
	return name + " = " + literal(v) + "::" + c.Type
}

func (g *Generator) update() []Step {
	t := g.table("rrrpv")
	if t == nil {
		return nil
	}
	set := g.assignments(t, "")
	if set == "" {
		return nil
	}
	only := ""
	if t.Inherited && g.chance(2) {
		only = "ONLY "
	}
	text := fmt.Sprintf("UPDATE %s%s SET %s", only, t.Name, set)
	if !g.chance(8) {
		text += " WHERE " + g.where(t, "")
	}
	return g.returning(t, text)
}

// updateKey changes keys: all of them at once in a way that no order of rows
// can make fail, or two of them swapped.
func (g *Generator) updateKey() []Step {
	t := g.table("rp")
	if t == nil || len(t.Uniques) == 0 {
		return nil
	}
	u := one(g, t.Uniques)
	c, ok := t.column(one(g, u.Columns))
	if !ok || c.Generated != "" || c.Identity == "a" {
		return nil
	}
	name := quote(c.Name)
	switch c.Base {
	case "int2", "int4", "int8", "numeric":
		a, b := g.small(), g.small()
		switch {
		case u.Deferrable && g.chance(2):
			return do("UPDATE %s SET %s = %s + 1", t.Name, name, name)
		case g.chance(2):
			return do("UPDATE %s SET %s = CASE %s WHEN %d THEN %d ELSE %d END WHERE %s IN (%d, %d)", t.Name, name, name, a, b, a, name, a, b)
		}
		return do("UPDATE %s SET %s = %s + 5000 WHERE %s < 100", t.Name, name, name, name)
	}
	return do("UPDATE %s SET %s = %s WHERE %s", t.Name, name, g.expr(c), g.where(t, ""))
}

func (g *Generator) updateFrom() []Step {
	t, from := g.table("rp"), g.table("rp")
	if t == nil {
		return nil
	}
	set := g.assignments(t, "u.")
	if set == "" {
		return nil
	}
	return do(`UPDATE %s u SET %s FROM (SELECT count(*) AS n FROM %s) x WHERE %s AND x.n >= %d`, t.Name, set, from.Name, g.where(t, "u."), g.rng.IntN(4))
}

// some chooses one row of possibly several equal ones.
func (g *Generator) some(t *Table) string {
	return fmt.Sprintf(`(tableoid, ctid) = (SELECT s.tableoid, s.ctid FROM %s s WHERE %s ORDER BY s::text COLLATE "C" LIMIT 1)`, t.Name, g.where(t, "s."))
}

func (g *Generator) updateSome() []Step {
	t := g.table("r")
	if t == nil {
		return nil
	}
	if set := g.assignments(t, ""); set != "" {
		return do("UPDATE %s SET %s WHERE %s", t.Name, set, g.some(t))
	}
	return nil
}

func (g *Generator) remove() []Step {
	t := g.table("rrrpv")
	if t == nil {
		return nil
	}
	text := fmt.Sprintf("DELETE FROM %s WHERE %s", t.Name, g.where(t, ""))
	if g.chance(40) {
		text = fmt.Sprintf("DELETE FROM %s", t.Name)
	}
	return g.returning(t, text)
}

func (g *Generator) removeSome() []Step {
	t := g.table("r")
	if t == nil {
		return nil
	}
	return do("DELETE FROM %s WHERE %s", t.Name, g.some(t))
}

func (g *Generator) removeUsing() []Step {
	t, other := g.table("rp"), g.table("rp")
	if t == nil {
		return nil
	}
	return do("DELETE FROM %s d USING %s o WHERE %s AND %s", t.Name, other.Name, g.where(t, "d."), g.where(other, "o."))
}
