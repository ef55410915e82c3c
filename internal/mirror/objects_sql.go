package mirror

import (
	"cmp"
	"fmt"
	"strings"
)

// objectQuery lists objects of one kind: catalog (regclass), number, sub-number,
// the relation it belongs to (or NULL), and its definition as a JSON object whose
// keys are words for people. Definitions hold names, never object numbers, and
// nothing that depends on how a database came to be (order of grants, dropped
// columns). What only some versions have is read by to_jsonb(row) -> 'column'.
type objectQuery struct {
	since, until int // server_version_num / 10000; 0 is no limit
	sql          string
}

// acl lists grants in one order; NULL, the built-in default, is spelled out.
func acl(column, kind, owner string) string {
	return fmt.Sprintf(`(SELECT %s FROM unnest(coalesce(%s, acldefault('%s', %s))) acl)`, aclList, column, kind, owner)
}

// sorted makes a JSON array of a text array whose order means nothing.
func sorted(column string) string {
	return fmt.Sprintf(`(SELECT jsonb_agg(o ORDER BY o COLLATE "C") FROM unnest(%s) o)`, column)
}

// ownOptions is the options of a column that a user can set: those that begin with pg_ are the server's own, as pg_attver,
// the place in its log at which the column was last changed (PostgreSQL 15.20 and its siblings; docs 53.7, pg_attribute).
var ownOptions = sorted(`ARRAY(SELECT o FROM unnest(a.attoptions) o WHERE o !~ '^pg_')`)

// regranted tells whether an access control list is not initdb's any more.
func regranted(column, class, oid, sub string) string {
	return fmt.Sprintf(`%s IS DISTINCT FROM (SELECT i.initprivs FROM pg_init_privs i WHERE i.classoid = '%s'::regclass AND i.objoid = %s AND i.objsubid = %s)`, column, class, oid, sub)
}

const (
	aclList    = `coalesce(jsonb_agg(acl::text ORDER BY acl::text COLLATE "C"), '[]')`
	parents    = `(SELECT jsonb_agg(h.inhparent::regclass::text ORDER BY h.inhseqno) FROM pg_inherits h WHERE h.inhrelid = c.oid)`
	tablespace = `(SELECT s.spcname FROM pg_tablespace s WHERE s.oid = c.reltablespace)`
	// usersOwn are numbers above those of PostgreSQL's own objects (FirstNormalObjectId).
	usersOwn = `oid >= 16384`
)

var objectQueries = []objectQuery{
	{sql: `SELECT 'pg_namespace'::regclass, n.oid, 0, NULL::oid, jsonb_build_object('owner', pg_get_userbyid(n.nspowner), 'privileges', ` + acl("n.nspacl", "n", "n.nspowner") + `)
		FROM ns JOIN pg_namespace n USING (oid)`},
	{sql: `SELECT 'pg_class'::regclass, c.oid, 0, c.oid, jsonb_build_object('persistence', c.relpersistence, 'owner', pg_get_userbyid(c.relowner),
			'privileges', CASE c.relkind WHEN 'S' THEN ` + acl("c.relacl", "s", "c.relowner") + ` ELSE ` + acl("c.relacl", "r", "c.relowner") + ` END,
			'row security', c.relrowsecurity, 'forced row security', c.relforcerowsecurity, 'options', ` + sorted("c.reloptions") + `,
			'toast options', (SELECT ` + sorted("x.reloptions") + ` FROM pg_class x WHERE x.oid = c.reltoastrelid),
			'replica identity', c.relreplident, 'access method', (SELECT m.amname FROM pg_am m WHERE m.oid = c.relam), 'tablespace', ` + tablespace + `,
			'of type', nullif(c.reloftype, 0)::regtype::text, 'partition key', pg_get_partkeydef(c.oid), 'partition bound', pg_get_expr(c.relpartbound, c.oid),
			'parents', ` + parents + `, 'query', CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
			'server', (SELECT s.srvname FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid),
			'server options', (SELECT ` + sorted("f.ftoptions") + ` FROM pg_foreign_table f WHERE f.ftrelid = c.oid),
			'sequence', (SELECT concat_ws(' ', q.seqtypid::regtype, 'start', q.seqstart, 'increment', q.seqincrement, 'min', q.seqmin, 'max', q.seqmax, 'cache', q.seqcache, 'cycle', q.seqcycle)
				FROM pg_sequence q WHERE q.seqrelid = c.oid),
			'owned by', (SELECT format('%s.%I', d.refobjid::regclass, a.attname) FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
				WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0 AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')))
		FROM pg_class c JOIN ns ON ns.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S')`},
	{sql: `SELECT 'pg_class'::regclass, a.attrelid, a.attnum::int, a.attrelid, jsonb_build_object('place', row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum),
			'type', format_type(a.atttypid, a.atttypmod), 'not null', a.attnotnull, 'default', pg_get_expr(d.adbin, d.adrelid), 'identity', nullif(a.attidentity, ''),
			'generated', nullif(a.attgenerated, ''), 'collation', nullif(a.attcollation, 0)::regcollation::text, 'storage', a.attstorage,
			'compression', nullif(to_jsonb(a) ->> 'attcompression', ''), 'statistics target', nullif(a.attstattarget, -1), 'options', ` + ownOptions + `,
			'server options', ` + sorted("a.attfdwoptions") + `, 'privileges', ` + acl("a.attacl", "c", "c.relowner") + `, 'local', a.attislocal, 'inherited', a.attinhcount)
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN ns ON ns.oid = c.relnamespace LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
		WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'f', 'v', 'm', 'c')`},
	{sql: `SELECT 'pg_class'::regclass, c.oid, 0, i.indrelid, jsonb_build_object('index', pg_get_indexdef(c.oid), 'valid', i.indisvalid, 'ready', i.indisready, 'immediate', i.indimmediate,
			'primary', i.indisprimary, 'clustered', i.indisclustered, 'replica identity', i.indisreplident, 'tablespace', ` + tablespace + `, 'parents', ` + parents + `,
			'statistics targets', (SELECT jsonb_agg(jsonb_build_array(a.attnum, a.attstattarget) ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attstattarget >= 0))
		FROM pg_class c JOIN ns ON ns.oid = c.relnamespace JOIN pg_index i ON i.indexrelid = c.oid
		-- One that is being made in several transactions is at none of the others yet.
		WHERE i.indisvalid OR c.relkind <> 'i' OR NOT EXISTS (SELECT 1 FROM pg_locks l WHERE l.locktype = 'relation' AND l.relation = i.indrelid AND l.mode = 'ShareUpdateExclusiveLock'
			AND l.granted AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))`},
	// A disabled foreign key is seen by its internal triggers alone. What one to a partitioned table
	// has of each partition (acts) checks nothing; VALIDATE leaves it as it was, and a copy has it valid.
	{sql: `SELECT 'pg_constraint'::regclass, k.oid, 0, nullif(k.conrelid, 0), jsonb_build_object('constraint', CASE WHEN k.acts THEN regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', '') ELSE pg_get_constraintdef(k.oid) END, 'validated', k.acts OR k.convalidated,
			'local', k.conislocal, 'inherited', k.coninhcount, 'no inherit', k.contype IN ('c', 'n') AND k.connoinherit, 'attached', k.conparentid <> 0,
			'enforced by', (SELECT jsonb_agg(format('%s %s', t.tgfoid::regproc, t.tgenabled) ORDER BY t.tgfoid::regproc::text, t.tgenabled) FROM pg_trigger t WHERE t.tgconstraint = k.oid AND t.tgisinternal))
		FROM (SELECT c.*, c.contype = 'f' AND EXISTS (SELECT 1 FROM pg_constraint p WHERE p.oid = c.conparentid AND p.conrelid = c.conrelid) AS acts FROM pg_constraint c) k JOIN ns ON ns.oid = k.connamespace`},
	{sql: `SELECT 'pg_trigger'::regclass, t.oid, 0, t.tgrelid, jsonb_build_object('trigger', pg_get_triggerdef(t.oid), 'enabled', t.tgenabled, 'attached', t.tgparentid <> 0)
		FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN ns ON ns.oid = c.relnamespace WHERE NOT t.tgisinternal AND t.tgname NOT LIKE 'pgdist\_%'`},
	{sql: `SELECT 'pg_rewrite'::regclass, r.oid, 0, r.ev_class, jsonb_build_object('rule', pg_get_ruledef(r.oid), 'enabled', r.ev_enabled)
		FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN ns ON ns.oid = c.relnamespace WHERE r.rulename <> '_RETURN'`},
	{sql: `SELECT 'pg_policy'::regclass, p.oid, 0, p.polrelid, jsonb_build_object('command', p.polcmd, 'permissive', p.polpermissive, 'using', pg_get_expr(p.polqual, p.polrelid),
			'with check', pg_get_expr(p.polwithcheck, p.polrelid), 'to', (SELECT jsonb_agg(u ORDER BY u COLLATE "C")
				FROM (SELECT CASE x WHEN 0 THEN 'public' ELSE pg_get_userbyid(x)::text END AS u FROM unnest(p.polroles) x) y)) FROM pg_policy p`},
	{sql: `SELECT 'pg_statistic_ext'::regclass, s.oid, 0, s.stxrelid, jsonb_build_object('statistics', pg_get_statisticsobjdef(s.oid), 'owner', pg_get_userbyid(s.stxowner),
			'target', nullif(to_jsonb(s) ->> 'stxstattarget', '-1')) FROM pg_statistic_ext s JOIN ns ON ns.oid = s.stxnamespace`},
	// A body that is text is no version's to write in another way, so it is told apart from what a server
	// deparses; what an extension brings may be other text in another version.
	{sql: `SELECT 'pg_proc'::regclass, p.oid, 0, NULL::oid, jsonb_build_object('owner', pg_get_userbyid(p.proowner), 'privileges', ` + acl("p.proacl", "f", "p.proowner") + `,
			'definition', CASE WHEN b.plain THEN regexp_replace(pg_get_functiondef(p.oid), '\nAS .*', '') WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END,
			'body', CASE WHEN b.plain THEN concat_ws(' of ', p.prosrc, p.probin) END, 'parallel', p.proparallel, 'settings', p.proconfig::text,
			'aggregate', (SELECT jsonb_build_object('kind', g.aggkind, 'direct', g.aggnumdirectargs, 'functions', concat_ws(' ', g.aggtransfn::regproc, g.aggfinalfn::regproc, g.aggcombinefn::regproc,
					g.aggserialfn::regproc, g.aggdeserialfn::regproc, g.aggmtransfn::regproc, g.aggminvtransfn::regproc, g.aggmfinalfn::regproc), 'extra', g.aggfinalextra, 'moving extra', g.aggmfinalextra,
				'modify', g.aggfinalmodify, 'moving modify', g.aggmfinalmodify, 'sort', g.aggsortop::regoperator::text, 'state', g.aggtranstype::regtype::text, 'space', g.aggtransspace,
				'moving state', g.aggmtranstype::regtype::text, 'moving space', g.aggmtransspace, 'initial', g.agginitval, 'moving initial', g.aggminitval)
				FROM pg_aggregate g WHERE g.aggfnoid = p.oid)) FROM pg_proc p
			CROSS JOIN LATERAL (SELECT p.prokind <> 'a' AND p.prosrc <> '' AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e') AS plain) b JOIN ns ON ns.oid = p.pronamespace`},
	// Row types and arrays come with what they are of.
	{sql: `SELECT 'pg_type'::regclass, t.oid, 0, NULL::oid, jsonb_build_object('kind', t.typtype, 'owner', pg_get_userbyid(t.typowner), 'privileges', ` + acl("t.typacl", "T", "t.typowner") + `,
			'defined', t.typisdefined, 'base', CASE WHEN t.typbasetype <> 0 THEN format_type(t.typbasetype, t.typtypmod) END, 'not null', t.typnotnull, 'default', t.typdefault,
			'collation', nullif(t.typcollation, 0)::regcollation::text, 'labels', (SELECT jsonb_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
			'range', (SELECT concat_ws(' ', r.rngsubtype::regtype, r.rngcollation::regcollation, (SELECT o.opcnamespace::regnamespace || '.' || o.opcname FROM pg_opclass o WHERE o.oid = r.rngsubopc),
				r.rngcanonical, r.rngsubdiff, (to_jsonb(r) ->> 'rngmultitypid')::oid::regtype) FROM pg_range r WHERE r.rngtypid = t.oid),
			'storage', concat_ws(' ', t.typlen, t.typbyval, t.typalign, t.typstorage, t.typdelim, t.typcategory, t.typispreferred), 'element', nullif(t.typelem, 0)::regtype::text,
			'functions', concat_ws(' ', t.typinput, t.typoutput, t.typreceive, t.typsend, t.typmodin, t.typmodout, t.typanalyze, to_jsonb(t) ->> 'typsubscript'))
		FROM pg_type t JOIN ns ON ns.oid = t.typnamespace
		WHERE (t.typrelid = 0 OR (SELECT c.relkind = 'c' FROM pg_class c WHERE c.oid = t.typrelid)) AND NOT EXISTS (SELECT 1 FROM pg_type e WHERE e.typarray = t.oid)`},
	// One that was made FROM "C" is of every encoding, and a copy of it of the database's own.
	{sql: `SELECT 'pg_collation'::regclass, l.oid, 0, NULL::oid, jsonb_build_object('owner', pg_get_userbyid(l.collowner), 'provider', l.collprovider, 'deterministic', l.collisdeterministic,
			'encoding', nullif(nullif(l.collencoding, -1), (SELECT d.encoding FROM pg_database d WHERE d.datname = current_database())), 'collate', l.collcollate, 'ctype', l.collctype, 'locale', coalesce(to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale'),
			'rules', to_jsonb(l) ->> 'collicurules') FROM pg_collation l JOIN ns ON ns.oid = l.collnamespace`},
	{sql: `SELECT 'pg_conversion'::regclass, v.oid, 0, NULL::oid, jsonb_build_object('owner', pg_get_userbyid(v.conowner), 'from', pg_encoding_to_char(v.conforencoding), 'to', pg_encoding_to_char(v.contoencoding),
			'function', v.conproc::text, 'default', v.condefault) FROM pg_conversion v JOIN ns ON ns.oid = v.connamespace`},
	{sql: `SELECT 'pg_cast'::regclass, k.oid, 0, NULL::oid, jsonb_build_object('function', nullif(k.castfunc, 0)::regprocedure::text, 'context', k.castcontext, 'method', k.castmethod)
		FROM pg_cast k WHERE k.` + usersOwn},
	{sql: `SELECT 'pg_language'::regclass, l.oid, 0, NULL::oid, jsonb_build_object('owner', pg_get_userbyid(l.lanowner), 'privileges', ` + acl("l.lanacl", "l", "l.lanowner") + `,
			'procedural', l.lanispl, 'trusted', l.lanpltrusted, 'functions', concat_ws(' ', l.lanplcallfoid::regproc, l.laninline::regproc, l.lanvalidator::regproc)) FROM pg_language l`},
	{sql: `SELECT 'pg_transform'::regclass, x.oid, 0, NULL::oid, jsonb_build_object('from', x.trffromsql::regprocedure::text, 'to', x.trftosql::regprocedure::text) FROM pg_transform x`},
	{sql: `SELECT 'pg_am'::regclass, m.oid, 0, NULL::oid, jsonb_build_object('kind', m.amtype, 'handler', m.amhandler::text) FROM pg_am m WHERE m.` + usersOwn},
	{sql: `SELECT 'pg_operator'::regclass, o.oid, 0, NULL::oid, jsonb_build_object('owner', pg_get_userbyid(o.oprowner), 'function', o.oprcode::regprocedure::text, 'result', o.oprresult::regtype::text,
			'commutator', o.oprcom::regoperator::text, 'negator', o.oprnegate::regoperator::text, 'restrict', o.oprrest::text, 'join', o.oprjoin::text, 'merges', o.oprcanmerge, 'hashes', o.oprcanhash)
		FROM pg_operator o JOIN ns ON ns.oid = o.oprnamespace`},
	{sql: `SELECT 'pg_opfamily'::regclass, f.oid, 0, NULL::oid, jsonb_build_object('owner', pg_get_userbyid(f.opfowner)) FROM pg_opfamily f JOIN ns ON ns.oid = f.opfnamespace`},
	{sql: `SELECT 'pg_opclass'::regclass, o.oid, 0, NULL::oid, jsonb_build_object('owner', pg_get_userbyid(o.opcowner), 'family', (SELECT f.opfnamespace::regnamespace || '.' || f.opfname FROM pg_opfamily f WHERE f.oid = o.opcfamily),
			'type', o.opcintype::regtype::text, 'stored', nullif(o.opckeytype, 0)::regtype::text, 'default', o.opcdefault) FROM pg_opclass o JOIN ns ON ns.oid = o.opcnamespace`},
	{sql: `SELECT 'pg_amop'::regclass, o.oid, 0, NULL::oid, jsonb_build_object('operator', o.amopopr::regoperator::text, 'purpose', o.amoppurpose,
			'sorts by', (SELECT f.opfnamespace::regnamespace || '.' || f.opfname FROM pg_opfamily f WHERE f.oid = o.amopsortfamily)) FROM pg_amop o WHERE o.` + usersOwn},
	{sql: `SELECT 'pg_amproc'::regclass, o.oid, 0, NULL::oid, jsonb_build_object('function', o.amproc::regprocedure::text) FROM pg_amproc o WHERE o.` + usersOwn},
	{sql: `SELECT 'pg_ts_parser'::regclass, p.oid, 0, NULL::oid, jsonb_build_object('functions', concat_ws(' ', p.prsstart, p.prstoken, p.prsend, p.prsheadline, p.prslextype))
		FROM pg_ts_parser p JOIN ns ON ns.oid = p.prsnamespace`},
	{sql: `SELECT 'pg_ts_template'::regclass, p.oid, 0, NULL::oid, jsonb_build_object('functions', concat_ws(' ', p.tmplinit, p.tmpllexize)) FROM pg_ts_template p JOIN ns ON ns.oid = p.tmplnamespace`},
	{sql: `SELECT 'pg_ts_dict'::regclass, d.oid, 0, NULL::oid, jsonb_build_object('owner', pg_get_userbyid(d.dictowner), 'options', d.dictinitoption,
			'template', (SELECT p.tmplnamespace::regnamespace || '.' || p.tmplname FROM pg_ts_template p WHERE p.oid = d.dicttemplate)) FROM pg_ts_dict d JOIN ns ON ns.oid = d.dictnamespace`},
	{sql: `SELECT 'pg_ts_config'::regclass, g.oid, 0, NULL::oid, jsonb_build_object('owner', pg_get_userbyid(g.cfgowner),
			'parser', (SELECT p.prsnamespace::regnamespace || '.' || p.prsname FROM pg_ts_parser p WHERE p.oid = g.cfgparser),
			'dictionaries', (SELECT jsonb_agg(format('%s %s %s', x.maptokentype, x.mapseqno, x.mapdict::regdictionary) ORDER BY x.maptokentype, x.mapseqno) FROM pg_ts_config_map x WHERE x.mapcfg = g.oid))
		FROM pg_ts_config g JOIN ns ON ns.oid = g.cfgnamespace`},
	{sql: `SELECT 'pg_foreign_data_wrapper'::regclass, w.oid, 0, NULL::oid, jsonb_build_object('owner', pg_get_userbyid(w.fdwowner), 'privileges', ` + acl("w.fdwacl", "F", "w.fdwowner") + `,
			'handler', w.fdwhandler::regproc::text, 'validator', w.fdwvalidator::regproc::text, 'options', ` + sorted("w.fdwoptions") + `) FROM pg_foreign_data_wrapper w`},
	{sql: `SELECT 'pg_foreign_server'::regclass, s.oid, 0, NULL::oid, jsonb_build_object('owner', pg_get_userbyid(s.srvowner), 'privileges', ` + acl("s.srvacl", "S", "s.srvowner") + `,
			'wrapper', (SELECT w.fdwname FROM pg_foreign_data_wrapper w WHERE w.oid = s.srvfdw), 'type', s.srvtype, 'version', s.srvversion, 'options', ` + sorted("s.srvoptions") + `) FROM pg_foreign_server s`},
	// The options hold passwords. The view, not the table: it needs no superuser.
	{sql: `SELECT 'pg_user_mapping'::regclass, u.umid, 0, NULL::oid, jsonb_build_object('digest of its options', md5((` + sorted("u.umoptions") + `)::text)) FROM pg_user_mappings u`},
	{sql: `SELECT 'pg_publication'::regclass, p.oid, 0, NULL::oid, jsonb_build_object('owner', pg_get_userbyid(p.pubowner), 'all tables', p.puballtables, 'insert', p.pubinsert, 'update', p.pubupdate,
			'delete', p.pubdelete, 'truncate', p.pubtruncate, 'via root', p.pubviaroot, 'generated', nullif(to_jsonb(p) ->> 'pubgencols', 'n')) FROM pg_publication p`},
	{until: 14, sql: `SELECT 'pg_publication_rel'::regclass, r.oid, 0, NULL::oid, '{}'::jsonb FROM pg_publication_rel r`},
	{since: 15, sql: `SELECT 'pg_publication_rel'::regclass, r.oid, 0, NULL::oid, jsonb_build_object('where', pg_get_expr(r.prqual, r.prrelid),
			'columns', (SELECT jsonb_agg(a.attname ORDER BY a.attname) FROM pg_attribute a WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[]))) FROM pg_publication_rel r`},
	{since: 15, sql: `SELECT 'pg_publication_namespace'::regclass, r.oid, 0, NULL::oid, '{}'::jsonb FROM pg_publication_namespace r`},
	{sql: `SELECT 'pg_extension'::regclass, x.oid, 0, NULL::oid, jsonb_build_object('owner', pg_get_userbyid(x.extowner), 'version', x.extversion, 'schema', x.extnamespace::regnamespace::text,
			'dumped', (SELECT jsonb_agg(y::regclass::text ORDER BY y::regclass::text) FROM unnest(x.extconfig) y), 'dumped where', x.extcondition::text) FROM pg_extension x`},
	{sql: `SELECT 'pg_default_acl'::regclass, d.oid, 0, NULL::oid, jsonb_build_object('privileges', (SELECT ` + aclList + ` FROM unnest(d.defaclacl) acl)) FROM pg_default_acl d`},
	// Grants and revocations on PostgreSQL's own functions, tables and types: what
	// is not as initdb made it, for that may differ among minor versions.
	{sql: `SELECT 'pg_proc'::regclass, p.oid, 0, NULL::oid, jsonb_build_object('privileges', ` + acl("p.proacl", "f", "p.proowner") + `)
		FROM pg_proc p JOIN system n ON n.oid = p.pronamespace WHERE ` + regranted("p.proacl", "pg_proc", "p.oid", "0")},
	{sql: `SELECT 'pg_class'::regclass, c.oid, 0, NULL::oid, jsonb_build_object('privileges', ` + acl("c.relacl", "r", "c.relowner") + `)
		FROM pg_class c JOIN system n ON n.oid = c.relnamespace WHERE ` + regranted("c.relacl", "pg_class", "c.oid", "0")},
	{sql: `SELECT 'pg_class'::regclass, c.oid, a.attnum::int, NULL::oid, jsonb_build_object('privileges', ` + acl("a.attacl", "c", "c.relowner") + `)
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN system n ON n.oid = c.relnamespace WHERE ` + regranted("a.attacl", "pg_class", "c.oid", "a.attnum")},
	{sql: `SELECT 'pg_type'::regclass, t.oid, 0, NULL::oid, jsonb_build_object('privileges', ` + acl("t.typacl", "T", "t.typowner") + `)
		FROM pg_type t JOIN system n ON n.oid = t.typnamespace WHERE ` + regranted("t.typacl", "pg_type", "t.oid", "0")},
	{sql: `SELECT 'pg_namespace'::regclass, n.oid, 0, NULL::oid, jsonb_build_object('privileges', ` + acl("n.nspacl", "n", "n.nspowner") + `)
		FROM system JOIN pg_namespace n USING (oid) WHERE ` + regranted("n.nspacl", "pg_namespace", "n.oid", "0")},
}

// unlike are things that PostgreSQL has had since a version, or keeps in another place
// since then. Between members of versions before and after, what is left of a query
// with these replacements is compared.
var unlike = []struct {
	since    int
	old, new string
}{
	// MAINTAIN on tables.
	{17, aclList, `coalesce(jsonb_agg(` + noMaintain + ` ORDER BY ` + noMaintain + ` COLLATE "C") FILTER (WHERE ` + noMaintain + ` !~ '=/[^/]*$'), '[]')`},
	// NOT NULL has constraints; that it holds is with the columns.
	{18, `k JOIN ns ON ns.oid = k.connamespace`, `k JOIN ns ON ns.oid = k.connamespace WHERE k.contype <> 'n'
		AND NOT EXISTS (SELECT 1 FROM pg_constraint p WHERE p.oid = k.conparentid AND p.conrelid = k.conrelid)`}, // named otherwise: what a foreign key is to each partition that it refers to
	// What enforces a foreign key to a partitioned table.
	{15, `WHERE t.tgconstraint = k.oid AND t.tgisinternal)`, `WHERE t.tgconstraint = k.oid AND t.tgisinternal AND NOT EXISTS (SELECT 1 FROM pg_partitioned_table p WHERE p.partrelid = k.confrelid))`},
	// Ranges have multiranges, with constructors and casts; types have subscripting functions.
	{14, `, (to_jsonb(r) ->> 'rngmultitypid')::oid::regtype)`, `)`},
	{14, `, to_jsonb(t) ->> 'typsubscript')`, `)`},
	{14, `AND NOT EXISTS (SELECT 1 FROM pg_type e WHERE e.typarray = t.oid)`, `AND NOT EXISTS (SELECT 1 FROM pg_type e WHERE e.typarray = t.oid) AND t.typtype <> 'm'`},
	{14, `b JOIN ns ON ns.oid = p.pronamespace`, `b JOIN ns ON ns.oid = p.pronamespace WHERE NOT EXISTS (SELECT 1 FROM pg_depend d
		WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_type'::regclass AND d.deptype = 'i')`},
	{14, `FROM pg_cast k WHERE k.` + usersOwn, `FROM pg_cast k WHERE k.` + usersOwn + ` AND NOT EXISTS (SELECT 1 FROM pg_type y WHERE y.oid IN (k.castsource, k.casttarget) AND y.typtype = 'm')`},
	// The locale of a collation of ICU.
	{17, `'collate', l.collcollate, 'ctype', l.collctype, 'locale', coalesce(to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale')`,
		`'collate', CASE WHEN l.collprovider <> 'i' THEN l.collcollate END, 'ctype', CASE WHEN l.collprovider <> 'i' THEN l.collctype END,
			'locale', coalesce(to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale', CASE WHEN l.collprovider = 'i' THEN l.collcollate END)`},
}

const noMaintain = `regexp_replace(acl::text, '=([a-zA-Z*]*)m\*?([a-zA-Z*]*/[^/]*)$', '=\1\2')`

// objectsSQL yields name, relation it belongs to, and definition of every object, as
// far as servers down to major version floor have it (0: all there is). Comments and
// security labels, which any kind may have, are added here.
func objectsSQL(major, floor int) string {
	var parts []string
	version := cmp.Or(floor, major)
	for _, q := range objectQueries {
		if q.since <= version && (q.until == 0 || version <= q.until) {
			for _, u := range unlike {
				if floor != 0 && floor < u.since {
					q.sql = strings.ReplaceAll(q.sql, u.old, u.new)
				}
			}
			parts = append(parts, q.sql)
		}
	}
	identity := `i.identity`
	if floor != 0 { // json has a schema or it has not
		identity = `regexp_replace(i.identity, '([(, ])pg_catalog\.', '\1', 'g')`
	}
	return `WITH ns AS MATERIALIZED (SELECT oid FROM pg_namespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pgdist') AND nspname !~ '^pg_(toast|temp)'),
		system AS MATERIALIZED (SELECT oid FROM pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema')),
		x (class, id, sub, tab, def) AS MATERIALIZED (` + strings.Join(parts, "\nUNION ALL ") + `)
		SELECT i.type || ' ' || ` + identity + ` AS name, (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = x.tab) AS tab,
			jsonb_strip_nulls(x.def || jsonb_build_object('comment', (SELECT d.description FROM pg_description d WHERE d.classoid = x.class AND d.objoid = x.id AND d.objsubid = x.sub),
				'security labels', (SELECT jsonb_agg(l.provider || ': ' || l.label ORDER BY l.provider) FROM pg_seclabel l WHERE l.classoid = x.class AND l.objoid = x.id AND l.objsubid = x.sub))) AS def
		FROM x, pg_identify_object(x.class, x.id, x.sub) i`
}
