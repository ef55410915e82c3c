package engine

import (
	"context"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// leavers says what may leave something, by its name in lower case over all schemas; nil maps
// are none. calls are functions, and views that call them; writes are tables on which triggers do.
type leavers struct {
	calls, writes map[string]leaving
	// executes are functions that run texts which they put together, or are given.
	executes map[string]bool
	// code and uses are prints of the definitions that these were read from; uses is empty if no
	// function leaves anything.
	code, uses string
}

// leaverPattern finds, roughly, the functions that leave something.
const leaverPattern = `set_config|advisory_(xact_)?lock|notify|setseed|\mtemp|\mhold\M|\mopen\M|\mprepare\M|` +
	`(^|[;''"$>/]|\mbegin|\mthen|\melse|\mloop|--[^\n]*\n)\s*(re)?set\s`

// ownSQL are the users' functions, as part of a WITH. pgdist has several for each table, with
// long texts: left to itself, the planner looks for patterns in all of these first.
const ownSQL = `own AS MATERIALIZED (SELECT p.oid, p.proname, p.prosrc, p.prolang, p.prokind, p.prorettype
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
   WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgdist'))`

// leaverBodiesSQL gives the names and texts of such functions, and whether only triggers call them. Of what is kept in parsed form
// there is no text but the one that the server writes.
const leaverBodiesSQL = `WITH ` + ownSQL + `
  SELECT p.proname, b.src, (p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype)::text FROM own p JOIN pg_catalog.pg_language l ON l.oid = p.prolang,
    LATERAL (SELECT CASE WHEN p.prosrc = '' AND l.lanname = 'sql' THEN pg_catalog.pg_get_functiondef(p.oid) ELSE p.prosrc END AS src) b
  WHERE l.lanname NOT IN ('internal', 'c') AND p.prokind <> 'a' AND b.src ~* '` + leaverPattern + `'`

// leaverUsesSQL gives what uses any of the names in $1, which $2 has as a pattern: the name used, the
// user's, and whether that is a table. A table counts for its parents, whose rows it
// may hold, and for those whose deletes and updates reach it through a foreign key.
const leaverUsesSQL = `WITH ` + ownSQL + `, named AS (
    SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass::oid AS class, p.oid AS id, p.proname::text AS name
      FROM own p WHERE pg_catalog.lower(p.proname) = ANY($1::text[])
  UNION ALL
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, c.oid, c.relname::text
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE pg_catalog.lower(c.relname) = ANY($1::text[]) AND c.relkind IN ('r', 'p', 'v', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgdist'))
  SELECT DISTINCT m.found[1], p.proname::text, 'f' FROM own p JOIN pg_catalog.pg_language l ON l.oid = p.prolang,
      LATERAL pg_catalog.regexp_matches(p.prosrc, $2, 'gi') AS m(found)
    WHERE l.lanname NOT IN ('internal', 'c')
  UNION SELECT u.name, p.proname::text, 'f' FROM named u JOIN pg_catalog.pg_depend d ON d.refclassid = u.class AND d.refobjid = u.id
      JOIN pg_catalog.pg_proc p ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.objid
  UNION SELECT u.name, c.relname::text, (c.relkind <> 'v')::text FROM named u JOIN pg_catalog.pg_depend d ON d.refclassid = u.class AND d.refobjid = u.id
      JOIN pg_catalog.pg_rewrite w ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND w.oid = d.objid JOIN pg_catalog.pg_class c ON c.oid = w.ev_class
  UNION SELECT u.name, c.relname::text, 'true' FROM named u JOIN pg_catalog.pg_trigger t ON u.class = 'pg_catalog.pg_proc'::pg_catalog.regclass AND t.tgfoid = u.id
      JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
  UNION SELECT u.name, c.relname::text, 'true' FROM named u JOIN pg_catalog.pg_depend d ON d.refclassid = u.class AND d.refobjid = u.id
      JOIN pg_catalog.pg_attrdef a ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND a.oid = d.objid JOIN pg_catalog.pg_class c ON c.oid = a.adrelid
  UNION SELECT u.name, c.relname::text, 'true' FROM named u JOIN pg_catalog.pg_depend d ON d.refclassid = u.class AND d.refobjid = u.id
      JOIN pg_catalog.pg_constraint k ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid = d.objid AND k.contype = 'c' JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
  UNION SELECT u.name, c.relname::text, 'true' FROM named u JOIN pg_catalog.pg_inherits i ON i.inhrelid = u.id AND u.class = 'pg_catalog.pg_class'::pg_catalog.regclass
      JOIN pg_catalog.pg_class c ON c.oid = i.inhparent AND c.relkind IN ('r', 'p')
  UNION SELECT u.name, c.relname::text, 'true' FROM named u JOIN pg_catalog.pg_constraint k ON k.contype = 'f' AND k.conrelid = u.id AND u.class = 'pg_catalog.pg_class'::pg_catalog.regclass
        AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd')) JOIN pg_catalog.pg_class c ON c.oid = k.confrelid`

// codePrintSQL gives what is another text if any of the users' functions is another, usesPrintSQL
// if anything else is that leavers are read from. To read functions' texts takes much longer.
// (pgdist's own change with each table, and are none of them.)
const (
	codePrintSQL = `SELECT pg_catalog.count(*) || ' ' || pg_catalog.sum(pg_catalog.hashtextextended(p.oid || ' ' || p.xmin::text || ' ' || n.nspname, 0))
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname NOT IN ('pg_catalog', 'pgdist')`
	usesPrintSQL = `SELECT pg_catalog.count(*) || ' ' || pg_catalog.sum(pg_catalog.hashtextextended(d, 0)) FROM (
    SELECT 'r' || oid || ' ' || xmin::text FROM pg_catalog.pg_rewrite WHERE oid >= 16384
  UNION ALL SELECT 't' || oid || ' ' || xmin::text FROM pg_catalog.pg_trigger
  UNION ALL SELECT 'd' || oid || ' ' || xmin::text FROM pg_catalog.pg_attrdef
  UNION ALL SELECT 'k' || oid || ' ' || xmin::text FROM pg_catalog.pg_constraint WHERE oid >= 16384 AND contype IN ('c', 'f')
  UNION ALL SELECT 'i' || inhrelid || ' ' || inhparent FROM pg_catalog.pg_inherits
  UNION ALL SELECT 'c' || oid || ' ' || relname FROM pg_catalog.pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'v', 'f')) AS u(d)`
)

// print asks for one text.
func (c *conn) print(ctx context.Context, sql string) (string, error) {
	rows, err := c.Rows(ctx, sql)
	if err != nil || len(rows) != 1 || len(rows[0]) != 1 {
		return "", err
	}
	return string(rows[0][0]), nil
}

// leavers reads which of the users' functions, of which code is the print, leave something, and
// what uses them, unless that is as it was when before was read.
func (c *conn) leavers(ctx context.Context, before *leavers, code string, executes map[string]bool) (*leavers, error) {
	uses := ""
	if before != nil && len(before.calls) > 0 {
		var err error
		if uses, err = c.print(ctx, usesPrintSQL); err != nil {
			return nil, err
		}
	}
	if before != nil && before.code == code && before.uses == uses {
		return before, nil
	}
	rows, err := c.Rows(ctx, leaverBodiesSQL)
	if err != nil {
		return nil, err
	}
	known := &leavers{calls: map[string]leaving{}, writes: map[string]leaving{}, executes: executes, code: code}
	for _, row := range rows {
		l := leavesBehind(string(row[1]))
		if string(row[2]) == "true" && !l.lasts() {
			continue // what fires it is the leader's anyway
		}
		if !l.nothing() {
			name := strings.ToLower(string(row[0]))
			known.calls[name] = known.calls[name].with(l)
		}
	}
	if len(known.calls) == 0 {
		return known, nil
	}
	if known.uses, err = c.print(ctx, usesPrintSQL); err != nil {
		return nil, err
	}
	if _, err := c.exec(ctx, "BEGIN; SET LOCAL jit = off"); err != nil { // compiling would take longer than running
		return nil, err
	}
	for names := slices.Sorted(maps.Keys(known.calls)); len(names) > 0 && err == nil; {
		names, err = c.leaversOf(ctx, known, names)
	}
	return known, errors.Join(err, c.end(ctx))
}

// leaversOf adds to known what uses any of the names, and returns the names of what is news.
func (c *conn) leaversOf(ctx context.Context, known *leavers, names []string) ([]string, error) {
	fresh := map[string]bool{}
	for some := range slices.Chunk(names, leaversAtOnce) {
		rows, err := c.Rows(ctx, leaverUsesSQL, textArray(some), wordPattern(some))
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			used, user := strings.ToLower(string(row[0])), strings.ToLower(string(row[1]))
			of := known.calls
			if string(row[2]) == "true" {
				of = known.writes
			}
			was := of[user]
			now := was.with(known.calls[used]).with(known.writes[used])
			if now.pins != was.pins || len(now.settings) != len(was.settings) || now.roots != was.roots || now.acts != was.acts {
				of[user], fresh[user] = now, true
			}
		}
	}
	return slices.Sorted(maps.Keys(fresh)), nil
}

// leaversAtOnce bounds one pattern.
const leaversAtOnce = 200

// textArray writes an array of texts as the server reads it.
func textArray(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
	}
	return "{" + strings.Join(quoted, ",") + "}"
}

// wordPattern matches any of the words, as the server's regular expressions have it.
func wordPattern(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = regexp.QuoteMeta(w)
	}
	return `\y(` + strings.Join(quoted, "|") + `)\y`
}
