package random

import (
	"fmt"
	"strings"
)

// Step is one thing a client sends.
type Step struct {
	SQL  string
	Rows bool     // it is sent as a query, and its rows are part of the outcome
	Args []string // values of $1, $2, … in text form, NULL as null; sent as a prepared statement
	Copy *Copy    // COPY FROM STDIN instead of SQL
}

// Copy is a bulk load.
type Copy struct {
	Table   []string // schema and name
	Columns []string
	Data    [][]string // values in text form
}

// null marks a NULL among values in text form.
const null = "\x00null"

// String is the step as psql would take it.
func (s Step) String() string {
	switch {
	case s.Copy != nil:
		return s.Copy.String()
	case s.Args != nil:
		args := make([]string, len(s.Args))
		for i, a := range s.Args {
			args[i] = literal(a)
		}
		return fmt.Sprintf("PREPARE p AS %s; EXECUTE p(%s); DEALLOCATE p;", s.SQL, strings.Join(args, ", "))
	}
	return strings.TrimSuffix(s.SQL, ";") + ";"
}

func (c *Copy) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "COPY %s (%s) FROM stdin;\n", quote(c.Table...), quoteAll(c.Columns))
	escape := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\t", `\t`)
	for _, row := range c.Data {
		cells := make([]string, len(row))
		for i, v := range row {
			if cells[i] = escape.Replace(v); v == null {
				cells[i] = `\N`
			}
		}
		b.WriteString(strings.Join(cells, "\t") + "\n")
	}
	return b.String() + `\.`
}

// Script is a list of steps in the order one client sends them.
type Script []Step

// String is the script as psql would take it.
func (s Script) String() string {
	lines := make([]string, len(s))
	for i, step := range s {
		lines[i] = step.String()
	}
	return strings.Join(lines, "\n")
}

// literal writes a value in text form as SQL.
func literal(v string) string {
	if v == null {
		return "NULL"
	}
	if strings.ContainsAny(v, "\\\n\t") {
		return ` E'` + strings.NewReplacer(`\`, `\\`, "'", "''", "\n", `\n`, "\t", `\t`).Replace(v) + `'`
	}
	return "'" + strings.ReplaceAll(v, "'", "''") + "'"
}

// quote writes a name, qualified if there are several parts, and leaves plain
// ones as they are: scripts are to be read.
func quote(parts ...string) string {
	out := make([]string, len(parts))
	for i, p := range parts {
		if out[i] = p; !plain(p) {
			out[i] = `"` + strings.ReplaceAll(p, `"`, `""`) + `"`
		}
	}
	return strings.Join(out, ".")
}

func quoteAll(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = quote(n)
	}
	return strings.Join(out, ", ")
}

// reserved are the keywords among the names that this package gives.
var reserved = map[string]bool{"user": true, "select": true, "order": true, "end": true, "table": true, "new": true, "old": true}

func plain(name string) bool {
	for i, r := range name {
		if !(r >= 'a' && r <= 'z' || r == '_' || i > 0 && r >= '0' && r <= '9') {
			return false
		}
	}
	return name != "" && !reserved[name]
}
