package random

import (
	"fmt"
	"slices"
	"strings"
)

func (g *Generator) merge() []Step {
	t := g.table("rp")
	if t == nil || t.Inherited || len(t.settable()) == 0 {
		return nil
	}
	c := one(g, t.settable())
	if slices.Contains([]string{"json", "point", "xml"}, c.Base) {
		return nil
	}
	set := g.assignments(t, "m.")
	if set == "" {
		return nil
	}
	insert := g.insertText(t, 1)
	_, insert, ok := strings.Cut(insert, t.Name.String())
	if !ok || strings.Contains(insert, "OVERRIDING USER") {
		return nil
	}
	matched := one(g, []string{"UPDATE SET " + set, "DELETE", "DO NOTHING"})
	return do("MERGE INTO %s m USING (VALUES (%s)) s(x) ON m.%s = s.x WHEN MATCHED AND %s THEN %s WHEN NOT MATCHED THEN INSERT %s",
		t.Name, g.typed(c), quote(c.Name), g.where(t, "m."), matched, insert)
}

// cte writes to two tables in one statement.
func (g *Generator) cte() []Step {
	a, b := g.table("rp"), g.table("rp")
	if a == nil || a.Inherited {
		return nil
	}
	set := g.assignments(b, "")
	if set == "" {
		return nil
	}
	first := one(g, []string{g.insertText(a, 2), fmt.Sprintf("DELETE FROM %s WHERE %s", a.Name, g.where(a, ""))})
	second := one(g, []string{fmt.Sprintf("UPDATE %s SET %s WHERE %s", b.Name, set, g.where(b, "")), fmt.Sprintf("DELETE FROM %s WHERE %s", b.Name, g.where(b, "")), g.insertText(b, 1)})
	if a.Name == b.Name && g.settled {
		second = fmt.Sprintf("INSERT INTO log SELECT 'cte', x::text FROM x") // one row twice in a statement: which wins is not said
	}
	if g.chance(2) {
		return ask("WITH x AS (%s RETURNING *), y AS (%s) SELECT count(*) FROM x", first, second)
	}
	return do("WITH x AS (%s RETURNING *) %s", first, second)
}

// copyable are types for which the client knows a binary form.
var copyable = []string{"int2", "int4", "int8", "text", "varchar", "bool", "numeric", "date", "bytea", "uuid"}

func (g *Generator) bulk() []Step {
	t := g.table("rrp")
	if t == nil {
		return nil
	}
	columns := slices.DeleteFunc(g.columns(t.settable()), func(c Column) bool { return !slices.Contains(copyable, c.Base) || c.User.Name != "" })
	if len(columns) == 0 {
		return nil
	}
	c := &Copy{Table: []string{t.Schema, t.Name.Name}, Columns: namesOf(columns)}
	n := 1 + g.rng.IntN(6)
	if g.chance(15) {
		n = 2100
	}
	for i := range n {
		row := make([]string, len(columns))
		for j, col := range columns {
			row[j] = g.value(col)
			if n > 100 && g.unique(t, col.Name) && strings.HasPrefix(col.Base, "int") {
				row[j] = fmt.Sprint(10000 + g.n*3000%20000 + i)
			}
		}
		c.Data = append(c.Data, row)
	}
	g.n++
	return []Step{{Copy: c}}
}

func (g *Generator) truncate() []Step {
	t, other := g.table("rp"), g.table("rp")
	if t == nil {
		return nil
	}
	list := t.Name.String()
	if g.chance(3) {
		list += ", " + other.Name.String()
	}
	return do("TRUNCATE %s%s%s", list, one(g, []string{"", "", " RESTART IDENTITY"}), one(g, []string{" CASCADE", ""}))
}

// prepared sends values as parameters.
func (g *Generator) prepared() []Step {
	t := g.table("rrp")
	if t == nil || len(t.settable()) == 0 {
		return nil
	}
	// What the client has a form of its own for is converted by it, not by the server.
	columns := slices.DeleteFunc(g.columns(t.settable()), func(c Column) bool { return !slices.Contains(copyable, c.Base) && c.User.Name == "" })
	if len(columns) == 0 {
		return nil
	}
	args, marks := []string{}, []string{}
	for i, c := range columns {
		args, marks = append(args, g.value(c)), append(marks, fmt.Sprintf("$%d", i+1))
	}
	if g.chance(2) {
		return []Step{{SQL: fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s) ON CONFLICT DO NOTHING", t.Name, quoteAll(namesOf(columns)), strings.Join(marks, ", ")), Args: args}}
	}
	c := columns[0]
	return []Step{{SQL: fmt.Sprintf("UPDATE %s SET %s = $1 WHERE %s", t.Name, quote(c.Name), g.where(t, "")), Args: args[:1]}}
}

// respell changes keys to values that are equal and not the same.
func (g *Generator) respell() []Step {
	t := g.table("rp")
	if t == nil || len(t.Uniques) == 0 {
		return nil
	}
	c, ok := t.column(one(g, one(g, t.Uniques).Columns))
	if !ok || c.Generated != "" || c.Identity == "a" {
		return nil
	}
	k := quote(c.Name)
	to := map[string]string{
		"numeric": k + " * 1.00", "citext": "upper(" + k + "::text)", "interval": k + " + '30 days' - '1 mon'::interval", "bpchar": k + " || ' '",
		"text": fmt.Sprintf("CASE WHEN %s COLLATE \"C\" = upper(%s) THEN lower(%s) ELSE upper(%s) END", k, k, k, k), "float8": "-" + k, "float4": "-" + k,
	}[c.Base]
	if to == "" {
		return nil
	}
	where := ""
	if strings.HasPrefix(to, "-") {
		where = " WHERE " + k + " = 0"
	}
	return do("UPDATE %s SET %s = %s%s", t.Name, k, to, where)
}

// exchange gives the rows with the least and the greatest value of a unique column
// each other's, by way of a third one.
func (g *Generator) exchange() []Step {
	t := g.table("rp")
	if t == nil || len(t.Uniques) == 0 {
		return nil
	}
	c, ok := t.column(one(g, one(g, t.Uniques).Columns))
	if !ok || c.Generated != "" || c.Identity == "a" {
		return nil
	}
	third := map[string]string{"int4": "-7777", "int8": "-7777", "int2": "-7777", "numeric": "-7777", "text": "between", "varchar": "between", "date": "1900-01-01", "uuid": "ffffffff-0000-0000-0000-000000000000", "oid": "7777"}[c.Base]
	if third == "" {
		return nil
	}
	k, min := quote(c.Name), `(SELECT %s FROM %s ORDER BY %s, %s::text COLLATE "C" %s LIMIT 1)`
	least, most := fmt.Sprintf(min, k, t.Name, k, k, ""), fmt.Sprintf(min, k, t.Name, k+" DESC", k, "DESC")
	return do("DO $do$ DECLARE a %s := %s; b %s := %s; BEGIN UPDATE %s SET %s = %s WHERE %s = a; UPDATE %s SET %s = a WHERE %s = b; UPDATE %s SET %s = b WHERE %s = %s; END $do$",
		c.Type, least, c.Type, most, t.Name, k, literal(third), k, t.Name, k, k, t.Name, k, k, literal(third))
}

// several are some statements in one string.
func (g *Generator) several() []Step {
	var parts []string
	for range 2 + g.rng.IntN(2) {
		if s := one(g, []func() []Step{g.insert, g.update, g.remove})(); len(s) == 1 && s[0].SQL != "" {
			parts = append(parts, s[0].SQL)
		}
	}
	if g.chance(4) {
		parts = append(parts, "SELECT 1 / 0")
	}
	if len(parts) == 0 {
		return nil
	}
	if g.tx == idle && g.chance(3) {
		return do("BEGIN; %s; %s", strings.Join(parts, "; "), one(g, []string{"COMMIT", "COMMIT", "ROLLBACK"}))
	}
	return do("%s", strings.Join(parts, "; "))
}
