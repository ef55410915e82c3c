-- user_roots lists the relations whose rows are mirrored, one for a partition tree. With
-- no setting of its own it becomes part of the query that asks, which may want but a few.
CREATE FUNCTION pgdist.user_roots() RETURNS TABLE (oid oid)
LANGUAGE sql STABLE AS $$
    SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
       AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgdist') AND n.nspname !~ '^pg_(toast|temp)'
$$;

-- user_tables lists these, or all, with everything their generated functions
-- depend on.
CREATE FUNCTION pgdist.user_tables(these oid[])
RETURNS TABLE (oid oid, nsp name, rel name, files oid[], rels oid[], keyed boolean, byrow boolean, upsert boolean,
               shape text, form text, missing text, layout text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE asked oid[] := coalesce(user_tables.these, ARRAY(SELECT u.oid FROM pgdist.user_roots() u));
BEGIN
    -- A plan for a few, which is kept, is none for thousands.
    IF cardinality(asked) > 50 THEN PERFORM set_config('plan_cache_mode', 'force_custom_plan', true); END IF;
    RETURN QUERY WITH root AS (
        SELECT c.oid, n.nspname, c.relname, c.relkind, c.relowner, pgdist.key_index(c.oid) AS idx,
               -- The trigger of a plain inheritance parent sees only the parent's columns.
               (c.relkind = 'r' AND EXISTS (SELECT 1 FROM pg_inherits h WHERE h.inhparent = c.oid OR h.inhrelid = c.oid)) AS byrow
          FROM pgdist.user_roots() u JOIN pg_class c ON c.oid = u.oid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE u.oid = ANY (asked)),
    tree AS (
        SELECT r.oid AS root, p.relid::oid AS rel, p.isleaf FROM root r, pg_partition_tree(r.oid) p WHERE r.relkind = 'p'
        UNION ALL SELECT r.oid, r.oid, true FROM root r WHERE r.relkind <> 'p'),
    att AS (
        -- Types by name, as type_name() has them: called for each column it takes longer than all else.
        SELECT a.attrelid, string_agg(concat_ws(':', a.attname, y.name, a.attnotnull, a.attgenerated, a.attidentity, a.attcollation),
                                      ',' ORDER BY a.attnum) AS cols,
               string_agg(concat_ws(':', a.attname, y.name), ',' ORDER BY a.attnum) AS plain,
               -- Types only as far as nobody can rename them: these have the same number everywhere (src/include/access/transam.h).
               string_agg(concat_ws(':', a.attname, CASE WHEN a.atttypid < 10000 THEN a.atttypid ELSE 0 END, a.attgenerated), ',' ORDER BY a.attnum) AS layout,
               md5(coalesce(string_agg(a.attname || '=' || a.attmissingval::text, ',' ORDER BY a.attnum), '')) AS missing
          FROM pg_attribute a JOIN root r ON r.oid = a.attrelid
          JOIN (SELECT t.oid, quote_ident(n.nspname) || '.' || quote_ident(t.typname) AS name FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace) y ON y.oid = a.atttypid
         WHERE a.attnum > 0 AND NOT a.attisdropped GROUP BY 1),
    key AS (
        SELECT r.oid, string_agg(concat_ws(':', k.col, pgdist.type_name(k.typ), k.eq), ',' ORDER BY k.ord) AS cols,
               bool_and(pgdist.exact_type(k.typ, k.coll)) AS exact, array_agg(k.col ORDER BY k.ord) AS names
          FROM root r, pgdist.key_columns(r.idx) k WHERE r.idx IS NOT NULL GROUP BY 1),
    lone AS (
        -- The key is the only thing that can be violated, and row by row.
        SELECT r.oid, bool_and(i.indexrelid = r.idx OR EXISTS (
                   WITH RECURSIVE up(oid) AS (SELECT i.indexrelid UNION ALL SELECT h.inhparent FROM up JOIN pg_inherits h ON h.inhrelid = up.oid)
                   SELECT 1 FROM up WHERE up.oid = r.idx)) AS yes,
               bool_and(i.indimmediate) AS immediate
          FROM root r JOIN tree t ON t.root = r.oid JOIN pg_index i ON i.indrelid = t.rel
         WHERE i.indisunique OR i.indisexclusion GROUP BY 1),
    made AS (
        SELECT r.*, att.cols, att.plain, concat_ws('|', att.layout, key.names) AS layout, coalesce(att.missing, '') AS missing, key.cols AS kcols, r.idx IS NOT NULL AS keyed,
               (coalesce(key.exact AND lone.yes AND lone.immediate, false)
                AND NOT EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = r.oid AND a.attidentity = 'a' AND a.attname <> ALL (key.names))
                -- ON CONFLICT is refused for a table with such rules, though they do not fire.
                AND NOT EXISTS (SELECT 1 FROM pg_rewrite w WHERE w.ev_class = r.oid AND w.ev_type IN ('2', '3'))) AS upsert,
               (SELECT array_agg(t.rel ORDER BY t.rel) FROM tree t WHERE t.root = r.oid AND t.isleaf) AS files,
               (SELECT array_agg(t.rel ORDER BY t.rel) FROM tree t WHERE t.root = r.oid) AS rels,
               (SELECT string_agg(t.rel::regclass::text, ',' ORDER BY t.rel::regclass::text) FROM tree t WHERE t.root = r.oid AND t.rel <> r.oid) AS parts
          FROM root r LEFT JOIN att ON att.attrelid = r.oid LEFT JOIN key ON key.oid = r.oid LEFT JOIN lone ON lone.oid = r.oid)
    SELECT m.oid, m.nspname, m.relname, coalesce(m.files, '{}'), m.rels, m.keyed, m.byrow, m.upsert,
           md5(concat_ws('|', m.keyed, m.byrow, coalesce(m.kcols, m.plain), m.parts)),
           md5(concat_ws('|', m.nspname, m.relname, m.relowner, m.relkind, m.keyed, m.byrow, m.upsert, m.kcols, m.cols, m.parts)),
           m.missing, md5(m.layout)
      FROM made m;
END $$;

-- user_sequences lists the sequences whose values are shipped; as user_roots does, within the
-- query that asks.
CREATE FUNCTION pgdist.user_sequences() RETURNS TABLE (oid oid, name text)
LANGUAGE sql STABLE AS $$
    SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgdist')
$$;

-- lost lists the tables that a crash empties here: UNLOGGED ones, or with a
-- partition that is. Where DDL was run ahead of its rows it may have made one
-- LOGGED since, so then all.
CREATE FUNCTION pgdist.lost() RETURNS SETOF int
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.id FROM pgdist.tables t
     WHERE EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = ANY (t.files) AND c.relpersistence = 'u')
        OR EXISTS (SELECT 1 FROM pgdist.replayed r JOIN pgdist.position p ON p.term = r.pos_term AND p.snap::text IS NOT DISTINCT FROM r.pos_snap)
$$;

-- perishable tells whether a crash loses anything here: rows, or where an UNLOGGED
-- sequence was.
CREATE FUNCTION pgdist.perishable() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT EXISTS (SELECT 1 FROM pgdist.lost()) OR EXISTS (SELECT 1 FROM pgdist.seqs q JOIN pg_class c ON c.oid = q.oid WHERE c.relpersistence = 'u'));
END $$;

-- ingredients lists types and all that they are made of.
CREATE FUNCTION pgdist.ingredients(types oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN (WITH RECURSIVE made(t) AS (
        SELECT t FROM unnest(types) t WHERE t <> 0
        UNION SELECT x.t FROM made m JOIN pg_type y ON y.oid = m.t, LATERAL (
            SELECT y.typbasetype AS t WHERE y.typtype = 'd' UNION ALL SELECT y.typelem WHERE y.typelem <> 0
            UNION ALL SELECT a.atttypid FROM pg_attribute a WHERE y.typtype = 'c' AND a.attrelid = y.typrelid AND a.attnum > 0 AND NOT a.attisdropped
            UNION ALL SELECT g.rngsubtype FROM pg_range g WHERE g.rngtypid = y.oid OR to_jsonb(g) ->> 'rngmultitypid' = y.oid::text) x)
    SELECT coalesce(array_agg(m.t), '{}') FROM made m);
END $$;

-- forbidden names a function that the owner of a relation's tree may not execute, though putting
-- a row in place calls it: for what is generated, CHECKs (of domains, too), indexes, where
-- partitions lie; or finding it, by the key. PostgreSQL asks whoever writes for that right, and
-- nobody who defines these. What functions call within themselves cannot be told. Expressions are
-- looked at as the catalog has them, for it notes no dependency on built-in functions.
CREATE FUNCTION pgdist.forbidden(rel oid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE root oid := coalesce(pg_partition_root(rel), rel); who oid; own text[]; code text[]; types oid[]; n int;
BEGIN
    SELECT c.relowner INTO who FROM pg_class c WHERE c.oid = root;
    IF (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = who) THEN RETURN NULL; END IF;
    own := ARRAY(SELECT d.adbin::text FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE d.adrelid = rel AND a.attgenerated <> ''
        UNION ALL SELECT k.conbin::text FROM pg_constraint k WHERE k.conrelid = rel AND k.contype = 'c'
        UNION ALL SELECT x FROM pg_index i, unnest(ARRAY[i.indexprs::text, i.indpred::text]) x WHERE i.indrelid = rel AND x IS NOT NULL
        UNION ALL SELECT p.partexprs::text FROM pg_partitioned_table p WHERE p.partrelid = rel AND p.partexprs IS NOT NULL);
    code := own;
    types := ARRAY(SELECT DISTINCT a.atttypid FROM pg_attribute a WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped);
    LOOP -- expressions make values of domains, whose CHECKs are further ones
        n := cardinality(types) + cardinality(code);
        types := pgdist.ingredients(types || ARRAY(SELECT m[1]::oid FROM unnest(code) x, regexp_matches(x, ' :resulttype (\d+)', 'g') m));
        code := own || ARRAY(SELECT k.conbin::text FROM pg_constraint k WHERE k.contypid = ANY (types) AND k.contype = 'c');
        EXIT WHEN cardinality(types) + cardinality(code) = n;
    END LOOP;
    RETURN (SELECT min(f.oid::regprocedure::text) FROM (
        SELECT m[1]::oid AS oid FROM unnest(code) x, regexp_matches(x, ' :(?:op)?funcid (\d+)', 'g') m
        UNION SELECT o.oprcode::oid FROM pg_index i CROSS JOIN LATERAL unnest((i.indclass::oid[])[0:i.indnkeyatts - 1]) k(class) JOIN pg_opclass c ON c.oid = k.class
          JOIN pg_amop m ON m.amopfamily = c.opcfamily AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype AND m.amopstrategy = 3 JOIN pg_operator o ON o.oid = m.amopopr
         WHERE i.indexrelid = pgdist.key_index(root)) f
     WHERE NOT has_function_privilege(who, f.oid, 'EXECUTE'));
END $$;

-- unfit says why a table's rows cannot be mirrored and, after "; ", what to do
-- about it; or NULL.
CREATE FUNCTION pgdist.unfit(rel oid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE c record; types oid[]; what text;
BEGIN
    SELECT r.* INTO c FROM pg_class r WHERE r.oid = rel;
    IF c.relkind = 'f' THEN RETURN 'is a foreign table within a partition tree; detach it'; END IF;
    IF c.relforcerowsecurity THEN RETURN 'has FORCE ROW LEVEL SECURITY, which hides rows from its owner; ALTER TABLE … NO FORCE ROW LEVEL SECURITY'; END IF;
    IF c.relkind IN ('r', 'p') AND NOT (has_table_privilege(c.relowner, rel, 'SELECT') AND has_table_privilege(c.relowner, rel, 'INSERT') AND has_table_privilege(c.relowner, rel, 'UPDATE')
            AND has_table_privilege(c.relowner, rel, 'DELETE') AND has_schema_privilege(c.relowner, c.relnamespace, 'USAGE')) THEN
        RETURN 'belongs to a role that lacks rights on it or its schema, and rows are applied as the owner; GRANT ALL ON TABLE … TO its owner';
    END IF;
    what := pgdist.forbidden(rel);
    IF what IS NOT NULL THEN
        RETURN format('calls %s for each row, which its owner may not execute, and rows are applied as the owner; GRANT EXECUTE ON FUNCTION … TO the table''s owner', replace(what, '; ', ';'));
    END IF;
    SELECT CASE WHEN t.own AND t.tgenabled = 'D' THEN 'has pgdist''s own triggers disabled, so that writes would stay local; ALTER TABLE … ENABLE TRIGGER ALL'
                WHEN t.own THEN 'has one of pgdist''s triggers changed or under another name; let it be as it was'
                ELSE 'has a trigger that is ENABLE ALWAYS or REPLICA and would fire a second time on the followers; ALTER TABLE … ENABLE TRIGGER' END INTO what
      FROM (SELECT g.tgname, g.tgenabled, f.pronamespace = 'pgdist'::regnamespace AS own FROM pg_trigger g JOIN pg_proc f ON f.oid = g.tgfoid WHERE g.tgrelid = rel AND NOT g.tgisinternal) t
     WHERE t.tgenabled IN ('A', 'R') OR (t.own AND t.tgenabled = 'D')
        OR (t.own AND t.tgname <> ALL (pgdist.trigger_names())) LIMIT 1;
    IF what IS NOT NULL THEN RETURN what; END IF;
    IF EXISTS (SELECT 1 FROM pg_rewrite w WHERE w.ev_class = rel AND w.ev_enabled IN ('A', 'R')) THEN
        RETURN 'has a rule that is ENABLE ALWAYS or REPLICA and would fire a second time on the followers; ALTER TABLE … ENABLE RULE';
    END IF;
    -- Its row type, its columns' types, what these are made of.
    SELECT array_agg(v.x) || c.reltype INTO types
      FROM (SELECT DISTINCT a.atttypid AS typ FROM pg_attribute a WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped) a,
           LATERAL (VALUES (a.typ), (pgdist.base_type(a.typ)), ((SELECT y.typelem FROM pg_type y WHERE y.oid = a.typ))) v(x);
    IF EXISTS (SELECT 1 FROM pg_cast k WHERE k.castmethod = 'f' AND k.oid >= 16384
                 AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_cast'::regclass AND d.objid = k.oid AND d.deptype = 'e')
                 AND ((k.castsource IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype) AND k.casttarget = ANY (types))
                   OR (k.castsource = ANY (types) AND k.castsource <> c.reltype AND k.castcontext = 'i'))) THEN
        RETURN 'has a user-defined cast from text, or an implicit one, for its row type or a column''s type, which would run in place of the type''s own functions; DROP CAST';
    END IF;
    -- A partition's columns have the types that its tree's have.
    types := CASE WHEN NOT c.relispartition THEN pgdist.ingredients(array_remove(types, c.reltype)) END;
    IF EXISTS (SELECT 1 FROM unnest(types) t WHERE t = ANY ('{regclass,regproc,regprocedure,regoper,regoperator,regconfig,regdictionary,regcollation}'::regtype[]::oid[])) THEN
        RETURN 'has a column that holds object numbers (regclass and the like), which differ between databases; store the name as text';
    END IF;
    IF 'xml[]'::regtype = ANY (types) THEN
        RETURN 'has a column of xml[], whose text form loses the XML declarations; store text[]';
    END IF;
    -- Those of system catalogs and of indexes, whose input functions refuse everything.
    SELECT y.typname INTO what FROM pg_type y WHERE y.oid = ANY (types) AND y.typnamespace = 'pg_catalog'::regnamespace AND y.typname IN (
        'pg_node_tree', 'pg_ndistinct', 'pg_dependencies', 'pg_mcv_list', 'pg_brin_bloom_summary', 'pg_brin_minmax_multi_summary', 'gtsvector');
    IF what IS NOT NULL THEN RETURN format('has a column of type %s, of which PostgreSQL reads no text; store it as text', what); END IF;
    -- Enums are hashed by their labels' numbers, tables have their own.
    IF EXISTS (SELECT 1 FROM pg_partitioned_table p JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs::int2[])
                JOIN pg_type y ON y.oid = pgdist.base_type(a.atttypid) LEFT JOIN pg_type e ON e.oid = y.typelem
               WHERE p.partrelid = rel AND p.partstrat = 'h' AND (y.typtype = 'e' OR e.typtype = 'e')) THEN
        RETURN 'is partitioned by the hash of an enum, which differs between databases, so that rows would lie in other partitions; use PARTITION BY LIST, or a column of type text';
    END IF;
    IF EXISTS (SELECT 1 FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum WHERE a.attrelid = rel AND a.attgenerated <> '' AND d.adbin::text ~ ':varattno -6 ') THEN
        RETURN 'has a column that is generated from tableoid, which differs between databases; leave it out';
    END IF;
    RETURN NULL;
END $$;

-- hush keeps what follows from users' event triggers, where there are any: by a setting that has
-- all plans of the session made anew, when it is set and again when it is set back. (pgdist's own
-- event triggers leave alone whatever is done while it is busy.)
CREATE FUNCTION pgdist.hush() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_event_trigger e WHERE e.evtname NOT LIKE '!pgdist\_%' AND e.evtenabled = 'O') AND current_setting('session_replication_role') <> 'replica' THEN
        PERFORM set_config('session_replication_role', 'replica', true);
    END IF;
END $$;

-- sync_of brings pgdist.tables, the generated functions and the triggers up to the
-- catalog. On the leader new tables get new ids; on a follower ids holds the
-- leader's ({"id","nsp","rel","gen"} each). Of tables that stay it looks at
-- these, or at all; made: a relation was made, and partitions that were there are as fit as they were. It
-- returns the tables whose contents only a copy can be sure of.
-- Its own DDL is nothing that users' event triggers should hear of (hush).
CREATE FUNCTION pgdist.sync_of(ids jsonb, these oid[], made boolean DEFAULT false) RETURNS SETOF int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $sync$
DECLARE
    r record; why text; fn regprocedure; gone int[]; num int; g int; mirror name; dirty oid[]; def text; raised int[] := '{}'; role_before text := current_setting('session_replication_role');
BEGIN
    SELECT m.mirror, set_config('pgdist.busy', m.secret, true) INTO mirror, why FROM pgdist.meta m;
    SELECT array_agg(t.id) INTO gone FROM pgdist.tables t WHERE NOT EXISTS (SELECT 1 FROM pgdist.user_roots() u WHERE u.oid = t.oid);
    FOR r IN SELECT t.id, t.oid FROM pgdist.tables t WHERE t.id = ANY (gone) LOOP
        -- Attached to another tree after being written to in this transaction:
        -- the keys journaled under the old id cannot be found there.
        IF EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = r.oid) AND EXISTS (
              SELECT 1 FROM pgdist.journal j WHERE j.tab = r.id AND j.xid = pg_current_xact_id() AND j.term = (SELECT t.last_value FROM pgdist.term t)) THEN
            RETURN QUERY SELECT t.id FROM pgdist.tables t WHERE t.oid = pg_partition_root(r.oid);
        END IF;
    END LOOP;
    -- What this transaction wrote to: its keys lie under the ids of before.
    IF ids IS NULL AND pg_current_xact_id_if_assigned() IS NOT NULL THEN
        SELECT array_agg(f) INTO dirty FROM pgdist.tables t, unnest(t.files) f
         WHERE EXISTS (SELECT 1 FROM pgdist.journal j WHERE j.tab = t.id AND j.xid = pg_current_xact_id() AND j.term = (SELECT q.last_value FROM pgdist.term q));
    END IF;
    DELETE FROM pgdist.tables t WHERE t.id = ANY (gone);
    IF ids IS NOT NULL THEN
        SELECT coalesce(array_agg(t.id), '{}') INTO raised FROM jsonb_array_elements(ids) i JOIN pgdist.tables t ON t.id = (i->>'id')::int WHERE t.gen <> (i->>'gen')::int;
    END IF;

    FOR r IN SELECT u.*, t.id, t.gen, t.shape AS old_shape, t.form AS old_form, t.missing AS old_missing, t.files AS old_files,
                    pgdist.triggers_of(u.rels, t.id) = pgdist.trigger_count(u.rels, u.byrow) AS triggered
               FROM pgdist.user_tables(these) u LEFT JOIN pgdist.tables t ON t.oid = u.oid ORDER BY u.oid LOOP
        -- Dropped meanwhile: this transaction's snapshot, or this query's, is older. What
        -- tells of rights goes by the catalog as it is.
        CONTINUE WHEN ids IS NULL AND has_table_privilege(r.oid, 'SELECT') IS NULL;
        SELECT w.why INTO why
          FROM unnest(r.rels) x, LATERAL (SELECT pgdist.unfit(x) AS why OFFSET 0) w
         WHERE NOT (made AND x = ANY (coalesce(r.old_files, '{}')) AND (SELECT c.relispartition FROM pg_class c WHERE c.oid = x)) AND w.why IS NOT NULL LIMIT 1;
        IF why IS NOT NULL THEN
            RAISE EXCEPTION 'table % cannot be mirrored', format('%I.%I', r.nsp, r.rel) USING ERRCODE = '0A000', DETAIL = 'It ' || split_part(why, '; ', 1) || '.',
                HINT = upper(substr(split_part(why, '; ', 2), 1, 1)) || substr(split_part(why, '; ', 2), 2) || ', or keep the table in a database that pgdist does not mirror.';
        END IF;
        IF r.id IS NOT NULL AND r.form = r.old_form AND r.missing = r.old_missing
           AND r.triggered AND r.id <> ALL (raised) THEN
            CONTINUE;
        END IF;
        num := r.id; g := coalesce(r.gen, 1);
        IF ids IS NOT NULL THEN
            SELECT (i->>'id')::int, (i->>'gen')::int INTO num, g FROM jsonb_array_elements(ids) i WHERE i->>'nsp' = r.nsp AND i->>'rel' = r.rel;
            IF num IS NULL THEN CONTINUE; END IF; -- dropped again by a later statement of the same batch
            DELETE FROM pgdist.tables t WHERE t.id = num AND t.oid <> r.oid;
        ELSIF num IS NULL THEN
            num := nextval('pgdist.table_id');
            IF r.files && dirty THEN RETURN NEXT num; END IF; -- it left a tree with rows on their way
        ELSIF r.shape <> r.old_shape THEN
            g := g + 1;
        END IF;
        IF r.id IS NOT NULL AND r.missing <> r.old_missing AND EXISTS (
              SELECT 1 FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
               WHERE a.attrelid = ANY (r.rels) AND a.atthasmissing
                 AND pg_get_expr(d.adbin, d.adrelid) !~ $re$^(\(?-?[0-9.]+\)?|true|false|'([^']|'')*')(::[][a-z0-9_ ."(),]+)?$$re$) THEN
            RETURN NEXT num;
        END IF;
        INSERT INTO pgdist.tables AS t (id, oid, nsp, rel, gen, shape, form, keyed, upsert, root, files, missing, layout)
        VALUES (num, r.oid, r.nsp, r.rel, g, r.shape, r.form, r.keyed, r.upsert, r.oid, r.files, r.missing, r.layout)
        ON CONFLICT (oid) DO UPDATE SET id = EXCLUDED.id, nsp = EXCLUDED.nsp, rel = EXCLUDED.rel, gen = EXCLUDED.gen, shape = EXCLUDED.shape,
            form = EXCLUDED.form, keyed = EXCLUDED.keyed, upsert = EXCLUDED.upsert, files = EXCLUDED.files, missing = EXCLUDED.missing, layout = EXCLUDED.layout;
        IF r.id <> num THEN gone := gone || r.id; END IF;
        IF r.id IS DISTINCT FROM num OR r.form <> r.old_form OR r.gen <> g OR NOT r.triggered THEN
            PERFORM pgdist.hush();
            PERFORM pgdist.generate(r.oid, num, g, r.byrow, r.upsert, r.layout);
            -- Those that are right stay: to make them anew would lock out readers, too, of all
            -- partitions where one is added.
            IF r.id IS DISTINCT FROM num OR NOT r.triggered THEN
                PERFORM pgdist.triggers(x, num, r.byrow) FROM unnest(r.rels) x
                  WHERE NOT (made AND r.id = num AND x = ANY (coalesce(r.old_files, '{}')) AND (SELECT c.relispartition FROM pg_class c WHERE c.oid = x))
                    AND pgdist.triggers_of(ARRAY[x], num) <> pgdist.trigger_count(ARRAY[x], r.byrow);
            END IF;
            SELECT string_agg(format('pgdist.%I(%s)', p.proname, pg_get_function_identity_arguments(p.oid)), ', ') INTO def FROM pg_proc p
             WHERE p.pronamespace = 'pgdist'::regnamespace AND p.proname = ANY (ARRAY(SELECT k || num FROM unnest('{a_,w_,x_,r_,y_}'::text[]) k));
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', def, mirror);
        END IF;
    END LOOP;
    num := (SELECT count(*) FROM pgdist.seqs);
    PERFORM pgdist.sync_others();
    IF ids IS NULL AND (SELECT count(*) FROM pgdist.seqs) > greatest(num, pgdist.most_sequences()) THEN
        RAISE EXCEPTION 'more sequences than this server has locks for: at most % can be mirrored', pgdist.most_sequences() USING ERRCODE = '53400',
            DETAIL = 'Each write is followed by a look at all sequences, which locks each for a moment.', HINT = 'Increase max_locks_per_transaction on each server.';
    END IF;
    -- Functions of tables that are gone.
    FOR fn IN SELECT p.oid::regprocedure FROM pg_proc p
               WHERE p.pronamespace = 'pgdist'::regnamespace AND p.proname = ANY (ARRAY(SELECT k || x FROM unnest('{c_,a_,w_,x_,r_,y_}'::text[]) k, unnest(gone) x))
                 AND NOT EXISTS (SELECT 1 FROM pgdist.tables t WHERE t.id = substr(p.proname, 3)::int) LOOP
        PERFORM pgdist.hush();
        EXECUTE format('DROP FUNCTION %s CASCADE', fn);
    END LOOP;
    IF current_setting('session_replication_role') <> role_before THEN PERFORM set_config('session_replication_role', role_before, true); END IF;
    -- Numbers that another leader gave are not given again.
    PERFORM setval('pgdist.table_id', greatest(q.last_value, (SELECT coalesce(max(t.id), 1) FROM pgdist.tables t))) FROM pgdist.table_id q;
    PERFORM set_config('pgdist.busy', '', true);
END $sync$;

-- sync_others brings the lists of sequences and materialized views up to the catalog.
CREATE FUNCTION pgdist.sync_others() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM pgdist.seqs q WHERE NOT EXISTS (SELECT 1 FROM pgdist.user_sequences() u WHERE u.oid = q.oid AND u.name = q.name);
    INSERT INTO pgdist.seqs SELECT u.oid, u.name FROM pgdist.user_sequences() u WHERE NOT EXISTS (SELECT 1 FROM pgdist.seqs q WHERE q.oid = u.oid) ON CONFLICT DO NOTHING;
    DELETE FROM pgdist.views v WHERE NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = v.oid AND c.relkind = 'm');
    INSERT INTO pgdist.views SELECT c.oid FROM pg_class c WHERE c.relkind = 'm' AND NOT EXISTS (SELECT 1 FROM pgdist.views v WHERE v.oid = c.oid) ON CONFLICT DO NOTHING;
END $$;

-- most_sequences is how many a flush can read: four of five locks that there is room for
-- (PostgreSQL docs, "Lock Management"; NLOCKENTS of the server's lock.c).
CREATE FUNCTION pgdist.most_sequences() RETURNS int
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT (0.8 * current_setting('max_locks_per_transaction')::int
            * (SELECT sum(current_setting(s)::int) FROM unnest('{max_connections,max_prepared_transactions,max_wal_senders,max_worker_processes,autovacuum_max_workers}'::text[]) s))::int);
END $$;

-- sync looks at all tables, and all owners.
CREATE FUNCTION pgdist.sync(ids jsonb DEFAULT NULL) RETURNS SETOF int
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pgdist.list();
    SELECT pgdist.sync_of(ids, NULL)
$$;
