-- The comparison that goes on in the background: any program that uses the set may do it,
-- one at a time, and where it was stands at the leader.

-- claim_of tells whether this session is the one that does a work of that name for this set,
-- until it ends.
CREATE FUNCTION pgdist.claim_of(work text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE lock bigint := pgdist.secret_lock(work);
BEGIN
    IF pg_try_advisory_lock(lock) THEN RETURN true; END IF;
    PERFORM pgdist.oust(lock);
    RETURN false;
END $$;

-- checked tells how far the comparison has come: quiet is how many seconds ago it was last
-- through, NULL if never.
CREATE FUNCTION pgdist.checked() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('began', c.began, 'ended', c.ended, 'quiet', extract(epoch FROM now() - c.ended), 'tab', c.tab, 'after', c.after, 'rows', c.rows, 'differences', c.differences,
        'table', (SELECT format('%I.%I', t.nsp, t.rel) FROM pgdist.tables t WHERE t.id = c.tab)) FROM pgdist.checks c
$$;

-- check_at notes where it is: in table tab (0: before the first) behind the row of that key,
-- with so many rows and differences more than before.
CREATE FUNCTION pgdist.check_at(tab int, after text, rows bigint, differences bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET synchronous_commit = off AS $$
BEGIN
    UPDATE pgdist.checks c SET began = CASE WHEN check_at.tab = 0 THEN now() ELSE coalesce(c.began, now()) END, tab = check_at.tab, after = check_at.after,
        rows = CASE WHEN check_at.tab = 0 THEN 0 ELSE c.rows END + check_at.rows, differences = c.differences + check_at.differences;
END $$;

-- check_through notes that it is through.
CREATE FUNCTION pgdist.check_through() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET synchronous_commit = off AS $$
BEGIN UPDATE pgdist.checks c SET ended = now(), tab = NULL, after = NULL; END $$;

-- office is the term in which this member leads; NULL: it does not, or crashed.
CREATE FUNCTION pgdist.office() RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT t.last_value FROM pgdist.fence f, pgdist.term t, pgdist.boot b WHERE f.last_value & 1 = 1 AND b.term = t.last_value);
END $$;

-- key_row and key_row_of are the two sides of a comparison in the order of a key: of row t,
-- and of the row whose key's text is val.
CREATE FUNCTION pgdist.key_row(idx oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'ROW(' || string_agg(pgdist.key_column(idx, 't', k.col, k.typ), ', ' ORDER BY k.ord) || ')' FROM pgdist.key_columns(idx) k
$$;
CREATE FUNCTION pgdist.key_row_of(idx oid, val text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH c AS (SELECT *, count(*) OVER () AS n FROM pgdist.key_columns(idx))
    SELECT 'ROW(' || string_agg(CASE WHEN n = 1 THEN '(' || val || ')' ELSE '(' || val || '::pg_catalog.jsonb ->> ' || (ord - 1) || ')' END || '::' || pgdist.type_name(typ), ', ' ORDER BY ord) || ')' FROM c
$$;

-- by_code tells whether a column's default, or what generates it, calls functions of users'.
-- (PostgreSQL's own are pinned, and nothing depends on them: docs, "pg_depend".)
CREATE FUNCTION pgdist.by_code(rel oid, col int) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT 1 FROM pg_attrdef f JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
                    WHERE f.adrelid = rel AND f.adnum = col AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass))
        -- Before PostgreSQL 15 it is the column itself that depends (StoreAttrDefault).
        OR EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = rel AND d.objsubid = col AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass))
$$;

-- checkable lists the mirrored tables as the comparison reads them. source is the table
-- as a FROM clause has it, image the text of row t without virtual columns (which are
-- users' expressions) and stored ones that call users' functions (which may be others by
-- now than those which the leader's rows were made with: a copy makes them anew, too, and no
-- repair would help), columns those it is made of, exact whether that is the text which
-- capture journals of rows without a key. seek, from, upto, sorted are NULL if the key's index does not put
-- rows in the order of built-in operators: such a table can only be read whole.
CREATE FUNCTION pgdist.checkable() RETURNS TABLE (id int, gen int, name text, source text, keyed boolean, rows float8, image text, columns json, exact boolean, key text, seek text, "from" text, upto text, sorted text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE r record; idx oid; plain boolean;
BEGIN
    FOR r IN SELECT t.*, c.relkind, (SELECT sum(greatest(p.reltuples, CASE WHEN pg_relation_size(p.oid) > 0 THEN 1 ELSE 0 END)) FROM pg_class p WHERE p.oid = ANY (t.files)) AS tuples
               FROM pgdist.tables t JOIN pg_class c ON c.oid = t.oid ORDER BY t.id LOOP
        idx := pgdist.key_index(r.oid);
        id := r.id; gen := r.gen; name := format('%I.%I', r.nsp, r.rel); keyed := r.keyed; rows := coalesce(r.tuples, 0);
        source := CASE WHEN r.relkind = 'p' THEN '' ELSE 'ONLY ' END || name || ' t';
        SELECT 'pg_catalog.textin(pg_catalog.record_out(ROW(' || coalesce(string_agg('t.' || quote_ident(a.attname), ', ' ORDER BY a.attnum) FILTER (WHERE a.told), '') || ')))',
               coalesce(json_agg(a.attname ORDER BY a.attnum) FILTER (WHERE a.told), '[]'),
               coalesce(bool_and(a.told AND pgdist.base_type(a.atttypid) <> 'xml'::regtype), true)
          INTO image, columns, exact FROM (SELECT c.*, c.attgenerated <> 'v' AND NOT (c.attgenerated = 's' AND pgdist.by_code(c.attrelid, c.attnum)) AS told FROM pg_attribute c) a WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped;
        key := CASE WHEN r.keyed THEN pgdist.key_text(idx, 't') END;
        SELECT m.amname = 'btree' AND NOT EXISTS (
                   SELECT 1 FROM generate_series(0, i.indnkeyatts - 1) n
                     JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = i.indkey[n] JOIN pg_opclass o ON o.oid = i.indclass[n]
                    WHERE i.indoption[n] <> 0 OR NOT o.opcdefault OR o.opcnamespace <> 'pg_catalog'::regnamespace OR i.indcollation[n] <> a.attcollation)
          INTO plain FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam WHERE i.indexrelid = idx;
        IF r.keyed AND plain THEN
            seek := pgdist.key_row(idx); "from" := pgdist.key_row_of(idx, '$1'); upto := pgdist.key_row_of(idx, '$2');
            SELECT string_agg(pgdist.key_column(idx, 't', k.col, k.typ), ', ' ORDER BY k.ord) INTO sorted FROM pgdist.key_columns(idx) k;
        ELSE
            seek := NULL; "from" := NULL; upto := NULL; sorted := NULL;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- is_called tells whether the table of that number and generation has that name: one may get
-- another's while a round of the comparison goes on.
CREATE FUNCTION pgdist.is_called(id int, gen int, name text) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (SELECT 1 FROM pgdist.tables t WHERE t.id = is_called.id AND t.gen = is_called.gen AND format('%I.%I', t.nsp, t.rel) = name);
END $$;

-- touched tells which of a table's keys were journaled since a place, or '{}'; NULL if more
-- happened to it than rows: TRUNCATE, DDL.
CREATE FUNCTION pgdist.touched(id int, g int, pterm bigint, psnap pg_snapshot, keys text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE out text[];
BEGIN
    IF EXISTS (SELECT 1 FROM pgdist.fresh(pterm, psnap) j WHERE j.op = 'd' OR (j.tab = touched.id AND (j.op <> 'k' OR j.gen <> g))) THEN RETURN NULL; END IF;
    SELECT array_agg(DISTINCT u.k) INTO out FROM pgdist.fresh(pterm, psnap) j, unnest(j.keys) u(k) WHERE j.tab = touched.id AND u.k = ANY (touched.keys);
    RETURN coalesce(out, '{}');
END $$;

-- moved_by is what the images journaled for a table since a place add to its count of rows
-- and to their digests; NULL if more happened to it than rows.
CREATE FUNCTION pgdist.moved_by(id int, g int, pterm bigint, psnap pg_snapshot) RETURNS numeric[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE out numeric[];
BEGIN
    IF EXISTS (SELECT 1 FROM pgdist.fresh(pterm, psnap) j WHERE j.op = 'd' OR (j.tab = moved_by.id AND (j.op NOT IN ('+', '-') OR j.gen <> g))) THEN RETURN NULL; END IF;
    SELECT ARRAY[coalesce(sum(x.s), 0), coalesce(sum(x.s * hashtextextended(x.k COLLATE "C", 0)), 0), coalesce(sum(x.s * hashtextextended(x.k COLLATE "C", 77)), 0)] INTO out
      FROM (SELECT CASE j.op WHEN '+' THEN 1 ELSE -1 END::numeric AS s, u.k FROM pgdist.fresh(pterm, psnap) j, unnest(j.keys) u(k) WHERE j.tab = moved_by.id) x;
    RETURN out;
END $$;

-- covers tells whether the journal still has all that came after a place. Asked once it has
-- been read, and in another snapshot: what was emptied before shows by the floor.
CREATE FUNCTION pgdist.covers(pterm bigint, psnap pg_snapshot) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT f.term < pterm OR (f.term = pterm AND (psnap IS NULL OR (f.snap IS NOT NULL AND pg_snapshot_xmax(f.snap) <= pg_snapshot_xmax(psnap)
        AND NOT EXISTS (SELECT 1 FROM pg_snapshot_xip(psnap) x WHERE pg_visible_in_snapshot(x, f.snap))))) FROM pgdist.floor f
$$;
