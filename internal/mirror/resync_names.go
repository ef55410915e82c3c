package mirror

import (
	"context"
	"strconv"
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

// spelled is a value as SQL has it.
func spelled(b []byte) string {
	if b == nil {
		return "NULL"
	}
	return quoteLiteral(string(b))
}
