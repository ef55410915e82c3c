package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// pg_dump tells nothing of a partition's foreign key that its parent has, too: it comes with
// the parent's, under a name that PostgreSQL makes. A partition that was attached has brought its own
// name, and any can be renamed and commented on. DDL names it when the partition is detached.

// clonedSQL lists these keys, parents' before their children's: the parent and its key's name,
// the partition and what it is called there, the comment.
const clonedSQL = `WITH RECURSIVE cloned AS (
	SELECT c.oid, c.conrelid, 0 AS depth, NULL::oid AS parent FROM pg_constraint c WHERE c.contype = 'f' AND c.conparentid = 0
	UNION ALL SELECT k.oid, k.conrelid, c.depth + 1, c.oid FROM cloned c JOIN pg_constraint k ON k.conparentid = c.oid AND k.contype = 'f' AND k.conrelid <> c.conrelid)
SELECT format('%I.%I', pn.nspname, pc.relname), p.conname, format('%I.%I', n.nspname, c.relname), k.conname, obj_description(k.oid, 'pg_constraint')
  FROM cloned x JOIN pg_constraint k ON k.oid = x.oid JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_constraint p ON p.oid = x.parent JOIN pg_class pc ON pc.oid = p.conrelid JOIN pg_namespace pn ON pn.oid = pc.relnamespace
 WHERE x.depth = $1::text::int ORDER BY 3, 4`

// cloned is one of them, told by its parent's.
type cloned struct{ parent, key, table string }

// rename gives the target's keys the names, and comments, that they have at the source.
func (r *resync) rename(ctx context.Context) error {
	for depth := 1; ; depth++ {
		level := strconv.AppendInt(nil, int64(depth), 10)
		want, err := r.snap.c.call(ctx, clonedSQL, level)
		if err != nil {
			return r.source.fail("ask what partitions' foreign keys are called", err)
		}
		if len(want) == 0 {
			return nil
		}
		have, err := r.setup.call(ctx, clonedSQL, level)
		if err != nil {
			return r.target.fail("ask what partitions' foreign keys are called", err)
		}
		names := map[cloned]string{}
		for _, k := range have {
			names[cloned{string(k[0]), string(k[1]), string(k[2])}] = string(k[3])
		}
		var first, then string // by way of names that nobody has, for two may have changed places
		for i, k := range want {
			name, ok := names[cloned{string(k[0]), string(k[1]), string(k[2])}]
			if !ok {
				continue
			}
			table, to := string(k[2]), quoteIdent(string(k[3]))
			if name != string(k[3]) {
				between := quoteIdent("pgdist " + strconv.Itoa(i))
				first += "ALTER TABLE " + table + " RENAME CONSTRAINT " + quoteIdent(name) + " TO " + between + ";\n"
				then += "ALTER TABLE " + table + " RENAME CONSTRAINT " + between + " TO " + to + ";\n"
			}
			if k[4] != nil {
				then += "COMMENT ON CONSTRAINT " + to + " ON " + table + " IS " + quoteLiteral(string(k[4])) + ";\n"
			}
		}
		if first+then == "" {
			continue
		}
		if err := r.setup.exec(ctx, "BEGIN;\n"+first+then+"COMMIT"); err != nil {
			return r.target.fail("rename partitions' foreign keys", err)
		}
	}
}

// What extensions make belongs to who creates them, and pg_dump has everything created by who
// restores. Of what every database has, plpgsql, it tells no comments either.

// belongSQL tells whom extensions, and what is part of them, belong to, for pgdist.give().
const belongSQL = `SELECT coalesce(jsonb_agg(jsonb_build_array(a.type, CASE WHEN x.classid = 'pg_operator'::regclass THEN to_jsonb(ARRAY[i.identity]) ELSE to_jsonb(a.object_names) END,
		to_jsonb(a.object_args), r.rolname) ORDER BY x.classid, x.objid), '[]')
  FROM (SELECT classid, objid FROM pg_depend WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass AND objsubid = 0 UNION ALL SELECT 'pg_extension'::regclass, oid FROM pg_extension) x
  JOIN pg_roles r ON r.oid = pgdist.owner_of(x.classid, x.objid), pg_identify_object_as_address(x.classid, x.objid, 0) a, pg_identify_object(x.classid, x.objid, 0) i`

// commentsSQL tells what is said of extensions and languages.
const commentsSQL = `SELECT 'EXTENSION', extname, obj_description(oid, 'pg_extension') FROM pg_extension UNION ALL SELECT 'LANGUAGE', lanname, obj_description(oid, 'pg_language') FROM pg_language ORDER BY 1, 2`

// remark gives extensions, and what is part of them, the owners and comments that they have at
// the source.
func (r *resync) remark(ctx context.Context) error {
	owners, err := r.snap.c.one(ctx, belongSQL)
	if err != nil {
		return r.source.fail("ask whom extensions belong to", err)
	}
	if _, err := r.setup.call(ctx, `SELECT pgdist.give($1::jsonb)`, text(owners)); err != nil {
		return r.target.fail("give extensions to their owners", err)
	}
	want, err := r.snap.c.call(ctx, commentsSQL)
	if err != nil {
		return r.source.fail("ask what is said of extensions", err)
	}
	have, err := r.setup.call(ctx, commentsSQL)
	if err != nil {
		return r.target.fail("ask what is said of extensions", err)
	}
	is := map[string]string{}
	for _, h := range have {
		is[string(h[0])+" "+quoteIdent(string(h[1]))] = spelled(h[2])
	}
	for _, w := range want {
		what, said := string(w[0])+" "+quoteIdent(string(w[1])), spelled(w[2])
		if was, ok := is[what]; ok && was != said {
			if err := r.setup.exec(ctx, "COMMENT ON "+what+" IS "+said); err != nil {
				return r.target.fail("comment on extensions", err)
			}
		}
	}
	return nil
}

// Of what extensions make pg_dump tells the privileges only as far as they are not those that it
// had when it was made, which default privileges had a part in; of the functions that come with a
// range type, none.

// permitsSQL lists these: how GRANT names it, the owner, what is granted.
const permitsSQL = `WITH part AS (
	SELECT d.classid, d.objid FROM pg_depend d WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass AND d.objsubid = 0
	UNION SELECT d.classid, d.objid FROM pg_depend d WHERE d.deptype = 'i' AND d.classid IN ('pg_proc'::regclass, 'pg_type'::regclass) AND d.refclassid = 'pg_type'::regclass),
thing AS (
	SELECT 'ROUTINE ' || format('%I.%I(%s)', n.nspname, p.proname, (SELECT string_agg(CASE WHEN e.oid IS NULL THEN format('%I.%I', yn.nspname, y.typname) ELSE format('%I.%I[]', en.nspname, e.typname) END, ', ' ORDER BY a.at)
			FROM unnest(p.proargtypes) WITH ORDINALITY a(typ, at) JOIN pg_type y ON y.oid = a.typ JOIN pg_namespace yn ON yn.oid = y.typnamespace
			LEFT JOIN pg_type e ON e.oid = y.typelem AND y.typcategory = 'A' AND e.typarray = y.oid LEFT JOIN pg_namespace en ON en.oid = e.typnamespace)) AS name, p.proowner AS owner, coalesce(p.proacl, acldefault('f', p.proowner)) AS acl
	  FROM part x JOIN pg_proc p ON x.classid = 'pg_proc'::regclass AND p.oid = x.objid JOIN pg_namespace n ON n.oid = p.pronamespace
	UNION ALL SELECT CASE t.typtype WHEN 'm' THEN 'MULTIRANGE ' ELSE 'TYPE ' END || format('%I.%I', n.nspname, t.typname), t.typowner, coalesce(t.typacl, acldefault('T', t.typowner))
	  FROM part x JOIN pg_type t ON x.classid = 'pg_type'::regclass AND t.oid = x.objid AND (t.typelem = 0 OR t.typcategory <> 'A') JOIN pg_namespace n ON n.oid = t.typnamespace
	UNION ALL SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || format('%I.%I', n.nspname, c.relname), c.relowner, coalesce(c.relacl, CASE c.relkind WHEN 'S' THEN acldefault('s', c.relowner) ELSE acldefault('r', c.relowner) END)
	  FROM part x JOIN pg_class c ON x.classid = 'pg_class'::regclass AND c.oid = x.objid AND c.relkind IN ('r', 'v', 'm', 'S', 'f', 'p') JOIN pg_namespace n ON n.oid = c.relnamespace
	UNION ALL SELECT 'SCHEMA ' || quote_ident(n.nspname), n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner)) FROM part x JOIN pg_namespace n ON x.classid = 'pg_namespace'::regclass AND n.oid = x.objid)
SELECT name, quote_ident(pg_get_userbyid(owner)), coalesce((SELECT jsonb_agg(jsonb_build_array(quote_ident(pg_get_userbyid(a.grantor)), CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, a.privilege_type, a.is_grantable)
		ORDER BY a.grantor <> owner, i.at, a.privilege_type) FROM unnest(acl) WITH ORDINALITY i(item, at), aclexplode(ARRAY[i.item]) a), '[]')
  FROM thing ORDER BY 1`

// multirangeSQL grants what nobody can: GRANT takes no multiranges, default privileges do.
const multirangeSQL = `UPDATE pg_type t SET typacl = (SELECT coalesce(array_agg(makeaclitem(CASE g ->> 1 WHEN 'PUBLIC' THEN 0 ELSE (g ->> 1)::regrole::oid END, (g ->> 0)::regrole, g ->> 2, (g ->> 3)::boolean)), '{}')
	FROM jsonb_array_elements(%[2]s) g) WHERE t.oid = %[1]s::regtype;
INSERT INTO pg_shdepend (dbid, classid, objid, objsubid, refclassid, refobjid, deptype)
	SELECT DISTINCT d.oid, 'pg_type'::regclass, t.oid, 0, 'pg_authid'::regclass, r, 'a'::"char" FROM pg_type t, pg_database d, aclexplode(t.typacl) a, unnest(ARRAY[a.grantor, a.grantee]) r
	 WHERE t.oid = %[1]s::regtype AND d.datname = current_database() AND r <> t.typowner AND r >= 16384;
`

// permit gives what pg_dump is silent about the privileges that it has at the source.
func (r *resync) permit(ctx context.Context) error {
	want, err := r.snap.c.call(ctx, permitsSQL)
	if err != nil {
		return r.source.fail("ask for privileges", err)
	}
	have, err := r.setup.call(ctx, permitsSQL)
	if err != nil {
		return r.target.fail("ask for privileges", err)
	}
	type grant struct {
		grantor, grantee, what string
		option                 bool
	}
	read := func(b []byte) (out []grant, err error) {
		var list [][4]any
		err = json.Unmarshal(b, &list)
		for _, g := range list {
			out = append(out, grant{g[0].(string), g[1].(string), g[2].(string), g[3].(bool)})
		}
		return out, err
	}
	is := map[string][]grant{}
	for _, h := range have {
		if is[string(h[0])], err = read(h[2]); err != nil {
			return r.target.fail("ask for privileges", err)
		}
	}
	var script strings.Builder
	for _, w := range want {
		name, owner := string(w[0]), string(w[1])
		now, there := is[name]
		to, err := read(w[2])
		if err != nil {
			return r.source.fail("ask for privileges", err)
		}
		same := len(to) == len(now)
		for _, g := range to {
			same = same && slices.Contains(now, g)
		}
		if !there || same {
			continue
		}
		if multirange, ok := strings.CutPrefix(name, "MULTIRANGE "); ok {
			fmt.Fprintf(&script, multirangeSQL, quoteLiteral(multirange), quoteLiteral(string(w[2])))
			continue
		}
		for _, g := range now {
			if g.grantor == owner {
				fmt.Fprintf(&script, "REVOKE ALL ON %s FROM %s CASCADE;\n", name, g.grantee)
			}
		}
		for _, g := range to {
			option := ""
			if g.option && g.grantee != owner {
				option = " WITH GRANT OPTION"
			}
			fmt.Fprintf(&script, "SET LOCAL ROLE %s;\nGRANT %s ON %s TO %s%s;\nRESET ROLE;\n", g.grantor, g.what, name, g.grantee, option)
		}
	}
	if script.Len() == 0 {
		return nil
	}
	return r.target.fail("grant privileges", r.setup.exec(ctx, "BEGIN;\n"+script.String()+"COMMIT"))
}

// spelled is a value as SQL has it.
func spelled(b []byte) string {
	if b == nil {
		return "NULL"
	}
	return quoteLiteral(string(b))
}
