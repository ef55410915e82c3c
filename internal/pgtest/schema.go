package pgtest

// ours excludes what belongs to PostgreSQL, to pgdist, or to one session, for a
// query with pg_namespace as n.
const ours = `n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgdist')`

const tablesSQL = `
SELECT format('%I.%I', n.nspname, c.relname) COLLATE "C"
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND ` + ours + ` ORDER BY 1`

const sequencesSQL = `
SELECT format('%I.%I', n.nspname, c.relname) COLLATE "C"
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND ` + ours + ` ORDER BY 1`

// acl renders a grant list in one order; NULL, the built-in default, stays NULL.
func acl(column string) string {
	return `(SELECT string_agg(a::text, ' ' ORDER BY a::text COLLATE "C") FROM unnest(` + column + `) AS a)`
}

func owner(column string) string { return `(SELECT rolname FROM pg_roles WHERE oid = ` + column + `)` }

// schemaSQL lists queries of one text column each, which together define a
// database's schema. No line contains an OID: these differ between databases.
var schemaSQL = []struct{ what, sql string }{
	{"schema", `
SELECT concat_ws(' ', format('%I', n.nspname), 'owner', ` + owner("n.nspowner") + `, 'acl', ` + acl("n.nspacl") + `) COLLATE "C"
FROM pg_namespace n WHERE ` + ours + ` ORDER BY 1`},
	{"relation", `
SELECT concat_ws(' ', format('%I.%I', n.nspname, c.relname), c.relkind, c.relpersistence, 'owner', ` + owner("c.relowner") + `,
  'acl', ` + acl("c.relacl") + `, 'options', c.reloptions::text, 'rls', c.relrowsecurity, c.relforcerowsecurity, 'identity', c.relreplident,
  'partition', pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid),
  'inherits', (SELECT string_agg(inhparent::regclass::text, ',' ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = c.oid),
  'view', CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END, 'comment', obj_description(c.oid, 'pg_class')) COLLATE "C"
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND c.relpersistence <> 't' AND ` + ours + ` ORDER BY 1`},
	{"column", `
SELECT concat_ws(' ', format('%I.%I.%I', n.nspname, c.relname, a.attname),
  'place', row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum), format_type(a.atttypid, a.atttypmod), 'notnull', a.attnotnull,
  'default', pg_get_expr(d.adbin, d.adrelid), 'identity', a.attidentity, 'generated', a.attgenerated, 'storage', a.attstorage,
  'collation', CASE WHEN a.attcollation <> 0 THEN a.attcollation::regcollation::text END, 'acl', ` + acl("a.attacl") + `) COLLATE "C"
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND c.relpersistence <> 't' AND ` + ours + ` ORDER BY 1`},
	{"constraint", `
SELECT concat_ws(' ', format('%I', n.nspname), nullif(k.conrelid, 0)::regclass, nullif(k.contypid, 0)::regtype, format('%I', k.conname),
  pg_get_constraintdef(k.oid), 'validated', k.convalidated) COLLATE "C"
FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
WHERE k.contype <> 't' AND ` + ours + ` ORDER BY 1`},
	{"index", `
SELECT concat_ws(' ', pg_get_indexdef(i.indexrelid), 'valid', i.indisvalid, 'primary', i.indisprimary, 'identity', i.indisreplident) COLLATE "C"
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't' AND ` + ours + ` ORDER BY 1`},
	{"trigger", `
SELECT concat_ws(' ', pg_get_triggerdef(t.oid), 'enabled', t.tgenabled) COLLATE "C"
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND t.tgname !~ '^pgdist' AND c.relpersistence <> 't' AND ` + ours + ` ORDER BY 1`},
	{"event trigger", `
SELECT concat_ws(' ', format('%I', evtname), evtevent, evtenabled, evtfoid::regprocedure, evttags::text, 'owner', ` + owner("evtowner") + `) COLLATE "C"
FROM pg_event_trigger WHERE evtname !~ '^!?pgdist' ORDER BY 1`},
	{"rule", `
SELECT concat_ws(' ', pg_get_ruledef(r.oid), 'enabled', r.ev_enabled) COLLATE "C"
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE r.rulename <> '_RETURN' AND c.relpersistence <> 't' AND ` + ours + ` ORDER BY 1`},
	{"policy", `
SELECT concat_ws(' ', format('%I', p.polname), p.polrelid::regclass, p.polcmd, p.polpermissive, pg_get_expr(p.polqual, p.polrelid),
  'check', pg_get_expr(p.polwithcheck, p.polrelid),
  'to', (SELECT string_agg(rolname, ',' ORDER BY rolname) FROM pg_roles WHERE oid = ANY (p.polroles))) COLLATE "C"
FROM pg_policy p ORDER BY 1`},
	{"function", `
SELECT concat_ws(' ', format('%I', n.nspname), p.oid::regprocedure, 'owner', ` + owner("p.proowner") + `, 'acl', ` + acl("p.proacl") + `,
  CASE WHEN p.prokind = 'a' THEN (SELECT concat_ws(' ', aggtransfn, aggfinalfn, aggtranstype::regtype, agginitval) FROM pg_aggregate WHERE aggfnoid = p.oid)
       ELSE pg_get_functiondef(p.oid) END) COLLATE "C"
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE ` + ours + ` ORDER BY 1`},
	{"type", `
SELECT concat_ws(' ', format('%I.%I', n.nspname, t.typname), t.typtype, 'owner', ` + owner("t.typowner") + `, 'acl', ` + acl("t.typacl") + `,
  'base', CASE WHEN t.typbasetype <> 0 THEN format_type(t.typbasetype, t.typtypmod) END, 'notnull', t.typnotnull, 'default', t.typdefault,
  'labels', (SELECT string_agg(quote_literal(enumlabel), ',' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid),
  'range', (SELECT concat_ws(' ', rngsubtype::regtype, nullif(rngcollation, 0)::regcollation, rngcanonical, rngsubdiff) FROM pg_range WHERE rngtypid = t.oid)) COLLATE "C"
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype IN ('d', 'e', 'r', 'm', 'b', 'c') AND (t.typrelid = 0 OR (SELECT relkind = 'c' FROM pg_class WHERE oid = t.typrelid))
  AND ` + ours + ` ORDER BY 1`},
	{"sequence", `
SELECT concat_ws(' ', s.seqrelid::regclass, s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle) COLLATE "C"
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't' AND ` + ours + ` ORDER BY 1`},
	{"statistics", `
SELECT pg_get_statisticsobjdef(s.oid) COLLATE "C"
FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE ` + ours + ` ORDER BY 1`},
	{"cast", `
SELECT concat_ws(' ', castsource::regtype, casttarget::regtype, nullif(castfunc, 0)::regprocedure, castcontext, castmethod) COLLATE "C"
FROM pg_cast WHERE oid >= 16384 ORDER BY 1`},
	{"operator", `
SELECT concat_ws(' ', o.oid::regoperator, oprcode) COLLATE "C"
FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE ` + ours + ` ORDER BY 1`},
	{"collation", `
SELECT concat_ws(' ', format('%I.%I', n.nspname, l.collname), collprovider, collisdeterministic, collcollate, collctype) COLLATE "C"
FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace WHERE ` + ours + ` ORDER BY 1`},
	{"extension", `SELECT concat_ws(' ', format('%I', extname), extversion) COLLATE "C" FROM pg_extension ORDER BY 1`},
	{"default grants", `
SELECT concat_ws(' ', ` + owner("defaclrole") + `, nullif(defaclnamespace, 0)::regnamespace, defaclobjtype, ` + acl("defaclacl") + `) COLLATE "C"
FROM pg_default_acl ORDER BY 1`},
	{"role", `
SELECT concat_ws(' ', format('%I', rolname), rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit,
  rolvaliduntil, rolpassword IS NOT NULL,
  'in', (SELECT string_agg(m.roleid::regrole::text, ',' ORDER BY m.roleid::regrole::text COLLATE "C") FROM pg_auth_members m WHERE m.member = r.oid)) COLLATE "C"
FROM pg_authid r WHERE rolname !~ '^pg' ORDER BY 1`},
	{"setting", `
SELECT concat_ws(' ', nullif(setrole, 0)::regrole, setconfig::text) COLLATE "C" FROM pg_db_role_setting
WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) ORDER BY 1`},
}
