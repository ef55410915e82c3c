package mirror

import (
	"context"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// Contents are digests of all that a database holds, as one snapshot sees it.
type Contents struct {
	// Tables maps "schema.table" to its digest.
	Tables map[string]TableSum
	// Sequences maps "schema.sequence" to "last_value,is_called".
	Sequences map[string]string
	// Objects maps the names of all objects to digests of their definitions.
	Objects map[string]object
}

// TableSum is a table's row count and a digest that does not depend on order, so
// that parts of a table can be digested apart.
type TableSum struct {
	Rows int64
	Sum  string
}

// plus adds the digest of other rows.
func (s TableSum) plus(rows int64, sums ...[]byte) TableSum {
	old := strings.Split(s.Sum, "/")
	parts := make([]string, len(sums))
	for i, b := range sums {
		var x, y big.Int
		x.SetString(string(b), 10)
		if len(old) == len(sums) {
			y.SetString(old[i], 10)
		}
		parts[i] = x.Add(&x, &y).String()
	}
	return TableSum{s.Rows + rows, strings.Join(parts, "/")}
}

// relation is a table with rows of its own, as one member's snapshot sees it.
type relation struct {
	Name    string   `json:"name"`
	OID     string   `json:"oid"`
	Columns []string `json:"columns"`
	Key     []string `json:"key"`   // columns of the primary key, or another key without NULLs
	Rows    float64  `json:"rows"`  // as the statistics have it; below 0: unknown
	Pages   int64    `json:"pages"` // of its main fork, at present
	Heap    bool     `json:"heap"`  // rows have places that can be told by pages
}

// relationsSQL leaves out virtual columns: what they show follows from the others,
// by users' expressions.
const relationsSQL = `SELECT coalesce(json_agg(json_build_object('name', format('%I.%I', n.nspname, c.relname), 'oid', c.oid::text,
		'columns', (SELECT coalesce(json_agg(a.attname ORDER BY a.attnum), '[]') FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'),
		'key', (SELECT (SELECT json_agg(a.attname ORDER BY array_position(i.indkey::int2[], a.attnum)) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
			FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND 0 <> ALL (i.indkey::int2[])
				AND NOT EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) AND (NOT a.attnotnull
					OR EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND NOT k.convalidated AND k.conkey = ARRAY[a.attnum])))
			ORDER BY i.indisprimary DESC, i.indnkeyatts, (SELECT x.relname FROM pg_class x WHERE x.oid = i.indexrelid) LIMIT 1),
		'rows', c.reltuples, 'pages', coalesce(pg_relation_size(c.oid) / current_setting('block_size')::bigint, 0),
		'heap', (SELECT m.amname = 'heap' FROM pg_am m WHERE m.oid = c.relam))), '[]')::text
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgdist') AND n.nspname !~ '^pg_(toast|temp)'`

func readRelations(ctx context.Context, c *conn) (map[string]*relation, error) {
	raw, err := c.one(ctx, relationsSQL)
	if err != nil {
		return nil, err
	}
	var list []*relation
	if err := decode(text(raw), &list); err != nil {
		return nil, err
	}
	out := make(map[string]*relation, len(list))
	for _, r := range list {
		out[r.Name] = r
	}
	return out, nil
}

// rowText is the text of the columns by the types' own output functions, never
// by a cast, which users can define.
func rowText(columns []string) string {
	quoted := make([]string, len(columns))
	for i, c := range columns {
		quoted[i] = "t." + quoteIdent(c)
	}
	return "pg_catalog.textin(pg_catalog.record_out(ROW(" + strings.Join(quoted, ", ") + ")))"
}

func quoteIdent(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// sumSQL digests rows. OFFSET 0 keeps the planner from putting the row's text in
// twice, to be computed twice.
func sumSQL(r *relation, columns []string, where string) string {
	return `SELECT count(*)::text, coalesce(sum(hashtextextended(r COLLATE "C", 0)), 0)::text, coalesce(sum(hashtextextended(r COLLATE "C", 77)), 0)::text
		FROM (SELECT ` + rowText(columns) + ` AS r FROM ONLY ` + r.Name + ` t` + where + ` OFFSET 0) x`
}

// contents reads all digests in c's transaction.
func contents(ctx context.Context, c *conn, floor int) (*Contents, error) {
	out := &Contents{Tables: map[string]TableSum{}}
	tables, err := readRelations(ctx, c)
	if err != nil {
		return nil, err
	}
	for name, t := range tables {
		res := c.ExecParams(ctx, sumSQL(t, t.Columns, ""), nil, nil, nil, nil).Read()
		if res.Err != nil {
			return nil, fmt.Errorf("read table %s: %w", name, res.Err)
		}
		row := res.Rows[0]
		n, err := strconv.ParseInt(string(row[0]), 10, 64)
		if err != nil {
			return nil, err
		}
		out.Tables[name] = TableSum{}.plus(n, row[1:]...)
	}
	if out.Sequences, err = sequenceValues(ctx, c); err != nil {
		return nil, err
	}
	if out.Objects, err = readObjects(ctx, c, floor); err != nil {
		return nil, fmt.Errorf("read definitions: %w", err)
	}
	return out, nil
}

// sequencesAtOnce is how many sequences one statement reads.
const sequencesAtOnce = 200

func sequenceValues(ctx context.Context, c *conn) (map[string]string, error) {
	names, err := c.call(ctx, `SELECT format('%I.%I', n.nspname, s.relname) FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace
		WHERE s.relkind = 'S' AND s.relpersistence <> 't' AND n.nspname <> 'pgdist'`)
	if err != nil {
		return nil, err
	}
	out := make(map[string]string, len(names))
	for some := range slices.Chunk(names, sequencesAtOnce) {
		parts := make([]string, len(some))
		for i, n := range some {
			parts[i] = "SELECT " + quoteLiteral(string(n[0])) + ", last_value::text || ',' || is_called FROM " + string(n[0])
		}
		res := c.ExecParams(ctx, strings.Join(parts, " UNION ALL "), nil, nil, nil, nil).Read()
		if res.Err != nil {
			return nil, fmt.Errorf("read sequences: %w", res.Err)
		}
		for _, r := range res.Rows {
			out[string(r[0])] = string(r[1])
		}
	}
	return out, nil
}

// quoteLiteral quotes text under standard_conforming_strings, which is pinned.
func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// how says in what a table's digest differs from the leader's.
func (s TableSum) how(lead TableSum) string {
	if s.Rows != lead.Rows {
		return fmt.Sprintf("has %d rows instead of %d", s.Rows, lead.Rows)
	}
	return "has other contents"
}

// diff names what differs in other, definitions first. Tables and sequences that
// only one side has are named as definitions.
func (c *Contents) diff(other *Contents, objects []objectDiff) []string {
	var out []string
	for _, d := range objects {
		out = append(out, d.String())
	}
	for _, k := range slices.Sorted(maps.Keys(c.Tables)) {
		if b, ok := other.Tables[k]; ok && b != c.Tables[k] {
			out = append(out, "table "+k+" "+b.how(c.Tables[k]))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(c.Sequences)) {
		if b, ok := other.Sequences[k]; ok && b != c.Sequences[k] {
			out = append(out, sequenceDiff(k, c.Sequences[k], b))
		}
	}
	return out
}

func sequenceDiff(name, lead, other string) string {
	return "sequence " + name + " is at " + other + " instead of " + lead
}
