package mirror

import (
	"context"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// pg_dump makes a table that inherits with its parents' columns first and its own behind
// them. Whoever gave the parent a column later, or the child its parent, has them in another
// order, and rows, which go to followers as text without names, would be read there column for
// column into others. In its mode for pg_upgrade pg_dump makes such a table by itself, with all
// columns as they are, and has it inherit afterwards. What that mode does besides is of use to
// pg_upgrade alone, and servers refuse it.

// disorderedSQL lists the tables that a script of pg_dump's would make with their columns in
// another order than they have.
const disorderedSQL = `SELECT '"' || replace(n.nspname, '"', '""') || '"."' || replace(c.relname, '"', '""') || '"'
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'f') AND NOT c.relispartition AND n.nspname <> 'pgdist' AND EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhrelid = c.oid)
   AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
   AND (SELECT array_agg(a.attname ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
       IS DISTINCT FROM (SELECT array_agg(x.attname ORDER BY x.at) FROM (
           SELECT y.attname, min(y.at) AS at FROM (
               SELECT p.attname, row_number() OVER (ORDER BY i.inhseqno, p.attnum) AS at
                 FROM pg_inherits i JOIN pg_attribute p ON p.attrelid = i.inhparent AND p.attnum > 0 AND NOT p.attisdropped WHERE i.inhrelid = c.oid
               UNION ALL
               SELECT a.attname, 1000000 + a.attnum FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attislocal) y
            GROUP BY y.attname) x)
 ORDER BY 1`

// disordered are these tables, as patterns for pg_dump.
func (f *frozen) disordered(ctx context.Context) ([]string, error) {
	rows, err := f.c.call(ctx, disorderedSQL)
	var out []string
	for _, r := range rows {
		out = append(out, string(r[0]))
	}
	return out, err
}

// inOrder replaces in a script the making of some tables.
func (t *tools) inOrder(ctx context.Context, cfg *pgconn.Config, snapshot, script string, tables []string) (string, error) {
	if len(tables) == 0 {
		return script, nil
	}
	args := []string{"--binary-upgrade", "--schema-only", "--section=pre-data", "--no-sync", "--lock-wait-timeout=" + dumpLockWait, "--snapshot=" + snapshot}
	for _, name := range tables {
		args = append(args, "--table="+name)
	}
	text, err := t.dumping(ctx, cfg, args...)
	if err != nil {
		return "", err
	}
	return remade(script, string(restricted.ReplaceAll(text, nil))), nil
}

var (
	// upgrading are statements that only pg_upgrade may run, or has use for. Names and values
	// in them are quoted.
	upgrading = regexp.MustCompile(`(?m)^(?:SELECT pg_catalog\.binary_upgrade_|UPDATE pg_catalog\.pg_class\nSET relfrozenxid )(?:[^';]|'(?:[^']|'')*')*;\n`)
	// inBetween are settings for what comes next.
	inBetween = regexp.MustCompile(`(?m)^SET default_(?:tablespace|table_access_method) = .*;\n`)
	// making is the head of what makes a table.
	making = regexp.MustCompile(`^-- Name: .*; Type: (?:FOREIGN )?TABLE; Schema: .*\n--\n`)
	// made is the table's name in that.
	made = regexp.MustCompile(`(?m)^CREATE (?:UNLOGGED |FOREIGN )?TABLE (.*) \($`)
)

// remade takes from another script what makes its tables.
func remade(script, other string) string {
	for _, e := range strings.Split(other, entryMark)[1:] {
		e = "-- Name: " + e
		head := making.FindString(e)
		at := strings.Index(script, "\n--\n"+head)
		if head == "" || at < 0 {
			continue
		}
		at += len("\n--\n" + head)
		end := len(script)
		if next := strings.Index(script[at:], entryMark); next >= 0 {
			end = at + next
		}
		body := withoutDefaults(inBetween.ReplaceAllString(upgrading.ReplaceAllString(e[len(head):], ""), ""), script)
		script = script[:at] + body + "\n" + strings.Join(inBetween.FindAllString(script[at:end], -1), "") + script[end:]
	}
	return script
}

// withoutDefaults takes from what makes a table the defaults that the script sets for themselves
// further on, as it does for inherited columns: it orders them, and not the table, behind the
// sequences and functions that they name.
func withoutDefaults(body, script string) string {
	name := made.FindStringSubmatch(body)
	if name == nil {
		return body
	}
	for _, kind := range []string{"TABLE", "FOREIGN TABLE"} {
		for _, e := range strings.Split(script, "\nALTER "+kind+" ONLY "+name[1]+" ALTER COLUMN ")[1:] {
			if next := strings.Index(e, "\n\n\n--\n"); next >= 0 {
				e = e[:next]
			}
			column, value, ok := strings.Cut(strings.TrimSuffix(strings.TrimRight(e, "\n"), ";"), " SET DEFAULT ")
			if !ok {
				continue
			}
			line := regexp.MustCompile(`(?m)^(    ` + regexp.QuoteMeta(column) + ` .*?) DEFAULT ` + regexp.QuoteMeta(value))
			if at := line.FindStringSubmatchIndex(body); at != nil {
				body = body[:at[3]] + body[at[1]:]
			}
		}
	}
	return body
}
