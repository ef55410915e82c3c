package mirror

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// Contents are digests of all that a database holds, as one snapshot sees it.
type Contents struct {
	// Tables maps "schema.table" to its digest.
	Tables map[string]TableSum
	// Sequences maps "schema.sequence" to "last_value,is_called".
	Sequences map[string]string
	// Schema maps the identity of an object to a digest of its definition.
	Schema map[string]string
}

// TableSum is a table's row count and a digest that does not depend on order.
type TableSum struct {
	Rows int64
	Sum  string
}

const tablesSQL = `SELECT format('%I.%I', n.nspname, c.relname), c.oid::text, pgdist_rowtext.t
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	CROSS JOIN LATERAL (SELECT 'pg_catalog.textin(pg_catalog.record_out(ROW(' || coalesce(string_agg('t.' || quote_ident(a.attname), ', ' ORDER BY a.attnum), '') || ')))' AS t
		FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) pgdist_rowtext
	WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgdist') AND n.nspname !~ '^pg_(toast|temp)'
	ORDER BY 1`

// schemaDigestSQL describes every kind of object by a text that is the same on
// all members: names, never object numbers.
const schemaDigestSQL = `
WITH ns AS (SELECT oid, nspname FROM pg_namespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pgdist') AND nspname !~ '^pg_(toast|temp)')
SELECT 'schema ' || nspname, md5(concat_ws('|', pg_get_userbyid(n.nspowner), n.nspacl::text)) FROM ns JOIN pg_namespace n USING (oid, nspname)
UNION ALL SELECT 'table ' || format('%I.%I', ns.nspname, c.relname), md5(concat_ws('|', c.relkind, c.relpersistence, pg_get_userbyid(c.relowner), c.relacl::text,
	c.relrowsecurity, c.relforcerowsecurity, c.reloptions::text, pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid),
	(SELECT string_agg(concat_ws(':', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, a.attcollation::regcollation, a.attacl::text,
		(SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum)), ',' ORDER BY a.attnum)
		FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
	(SELECT string_agg(h.inhparent::regclass::text, ',' ORDER BY h.inhseqno) FROM pg_inherits h WHERE h.inhrelid = c.oid)))
	FROM pg_class c JOIN ns ON ns.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f')
UNION ALL SELECT 'view ' || format('%I.%I', ns.nspname, c.relname), md5(concat_ws('|', pg_get_viewdef(c.oid), pg_get_userbyid(c.relowner), c.relacl::text))
	FROM pg_class c JOIN ns ON ns.oid = c.relnamespace WHERE c.relkind IN ('v', 'm')
UNION ALL SELECT 'sequence ' || format('%I.%I', ns.nspname, c.relname), md5(concat_ws('|', q.seqtypid::regtype, q.seqstart, q.seqincrement, q.seqmax, q.seqmin, q.seqcache, q.seqcycle, pg_get_userbyid(c.relowner), c.relacl::text))
	FROM pg_class c JOIN ns ON ns.oid = c.relnamespace JOIN pg_sequence q ON q.seqrelid = c.oid WHERE c.relkind = 'S'
UNION ALL SELECT 'index ' || format('%I.%I', ns.nspname, c.relname), md5(concat_ws('|', pg_get_indexdef(c.oid), i.indisvalid, i.indisunique, i.indimmediate))
	FROM pg_class c JOIN ns ON ns.oid = c.relnamespace JOIN pg_index i ON i.indexrelid = c.oid WHERE c.relkind IN ('i', 'I')
UNION ALL SELECT 'constraint ' || format('%I on %s', k.conname, coalesce(nullif(k.conrelid, 0)::regclass::text, k.contypid::regtype::text)), md5(concat_ws('|', pg_get_constraintdef(k.oid), k.convalidated))
	FROM pg_constraint k JOIN ns ON ns.oid = k.connamespace
UNION ALL SELECT 'trigger ' || format('%I on %s', t.tgname, t.tgrelid::regclass), md5(concat_ws('|', pg_get_triggerdef(t.oid), t.tgenabled))
	FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN ns ON ns.oid = c.relnamespace WHERE NOT t.tgisinternal AND t.tgname NOT LIKE 'pgdist\_%'
UNION ALL SELECT 'rule ' || format('%I on %s', r.rulename, r.ev_class::regclass), md5(concat_ws('|', pg_get_ruledef(r.oid), r.ev_enabled))
	FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN ns ON ns.oid = c.relnamespace WHERE r.rulename <> '_RETURN'
UNION ALL SELECT 'policy ' || format('%I on %s', p.polname, p.polrelid::regclass), md5(concat_ws('|', p.polcmd, p.polpermissive,
	(SELECT string_agg(pg_get_userbyid(x), ',' ORDER BY pg_get_userbyid(x)) FROM unnest(p.polroles) x), pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))) FROM pg_policy p
UNION ALL SELECT 'function ' || p.oid::regprocedure::text, md5(concat_ws('|', CASE WHEN p.prokind = 'a' THEN '' ELSE pg_get_functiondef(p.oid) END, pg_get_userbyid(p.proowner), p.proacl::text))
	FROM pg_proc p JOIN ns ON ns.oid = p.pronamespace WHERE p.prokind <> 'a'
UNION ALL SELECT 'type ' || format('%I.%I', ns.nspname, t.typname), md5(concat_ws('|', t.typtype, t.typnotnull, t.typdefault, pg_get_userbyid(t.typowner), t.typacl::text, nullif(t.typbasetype, 0)::regtype,
	(SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
	(SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ',' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)))
	FROM pg_type t JOIN ns ON ns.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
	WHERE t.typtype IN ('e', 'd', 'r') OR (t.typtype = 'c' AND c.relkind = 'c')
UNION ALL SELECT 'extension ' || extname, md5(extversion) FROM pg_extension`

// contents reads all digests in c's transaction. only limits tables by name; nil is all.
func contents(ctx context.Context, c *conn, progress func(table string, rows int64)) (*Contents, error) {
	out := &Contents{Tables: map[string]TableSum{}, Sequences: map[string]string{}, Schema: map[string]string{}}
	tables, err := c.call(ctx, tablesSQL)
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		name := string(t[0])
		sum, err := tableSum(ctx, c, name, string(t[2]))
		if err != nil {
			return nil, fmt.Errorf("read table %s: %w", name, err)
		}
		out.Tables[name] = sum
		if progress != nil {
			progress(name, sum.Rows)
		}
	}
	if out.Sequences, err = sequenceValues(ctx, c); err != nil {
		return nil, err
	}
	rows, err := c.call(ctx, schemaDigestSQL)
	if err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	for _, r := range rows {
		out.Schema[string(r[0])] = string(r[1])
	}
	return out, nil
}

func tableSum(ctx context.Context, c *conn, name, rowtext string) (TableSum, error) {
	var s TableSum
	res := c.ExecParams(ctx, `SELECT count(*)::text, coalesce(sum(hashtextextended(r COLLATE "C", 0)::numeric)::text || '/' || sum(hashtextextended(r COLLATE "C", 77)::numeric)::text, '')
		FROM (SELECT `+rowtext+` AS r FROM ONLY `+name+` t) x`, nil, nil, nil, nil).Read()
	if res.Err != nil {
		return s, res.Err
	}
	_, err := fmt.Sscan(string(res.Rows[0][0]), &s.Rows)
	s.Sum = string(res.Rows[0][1])
	return s, err
}

func sequenceValues(ctx context.Context, c *conn) (map[string]string, error) {
	names, err := c.call(ctx, `SELECT format('%I.%I', n.nspname, s.relname) FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace
		WHERE s.relkind = 'S' AND s.relpersistence <> 't' AND n.nspname <> 'pgdist'`)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, n := range names {
		res := c.ExecParams(ctx, "SELECT last_value::text || ',' || is_called FROM "+string(n[0]), nil, nil, nil, nil).Read()
		if res.Err != nil {
			return nil, fmt.Errorf("read sequence %s: %w", n[0], res.Err)
		}
		out[string(n[0])] = string(res.Rows[0][0])
	}
	return out, nil
}

// diff names what differs in other, schema first.
func (c *Contents) diff(other *Contents) []string {
	var out []string
	out = append(out, diffMaps("", c.Schema, other.Schema, func(string, string) string { return "is defined differently" })...)
	out = append(out, diffMaps("table ", c.Tables, other.Tables, func(a, b TableSum) string {
		if a.Rows != b.Rows {
			return fmt.Sprintf("has %d rows instead of %d", b.Rows, a.Rows)
		}
		return "has other contents"
	})...)
	return append(out, diffMaps("sequence ", c.Sequences, other.Sequences, func(a, b string) string { return "is at " + b + " instead of " + a })...)
}

func diffMaps[V comparable](prefix string, a, b map[string]V, how func(a, b V) string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if v, ok := b[k]; !ok {
			out = append(out, prefix+k+" is missing")
		} else if v != a[k] {
			out = append(out, prefix+k+" "+how(a[k], v))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[k]; !ok {
			out = append(out, prefix+k+" is not on the leader")
		}
	}
	return out
}
