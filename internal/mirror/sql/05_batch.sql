-- cap keeps a position from claiming transactions that left nothing in the
-- journal: after a crash their numbers are given out again. reach is above the
-- newest journaled transaction visible, and never below the position before.
CREATE FUNCTION pgdist.cap(s pg_snapshot, reach xid8) RETURNS pg_snapshot
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN reach >= pg_snapshot_xmax(s) THEN s ELSE
        (coalesce((SELECT min(x::text::numeric) FROM pg_snapshot_xip(s) x WHERE x < reach)::text, reach::text) || ':' || reach::text || ':' ||
         coalesce((SELECT string_agg(x::text, ',' ORDER BY x::text::numeric) FROM pg_snapshot_xip(s) x WHERE x < reach), ''))::pg_snapshot END
$$;

-- batch reads, in one snapshot, what a follower at place (pterm, psnap) lacks:
--   h  the header, JSON in a
--   j  journal entries, as texts in v
--   d  a DDL, its description in a; e a table emptied, its name in a; in order
--   c  a table to copy whole (contents are read by the caller, from x_N)
--   r  rows of one table: keys to delete in k, rows to put in v
--   s  sequences: names in k, "last_value,is_called" in v
-- The caller runs it in a REPEATABLE READ, READ ONLY transaction. Above limit
-- keys it answers with the header alone, and the caller reads in pieces.
-- floor is the highest xmax of all positions that this flush starts from.
CREATE FUNCTION pgdist.batch(pterm bigint, psnap pg_snapshot, floor xid8, lim int, allseqs boolean, skip oid[] DEFAULT '{}')
RETURNS TABLE (op "char", tab int, a text, k text[], v text[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    snap pg_snapshot := pg_current_snapshot();
    low bigint := CASE WHEN psnap IS NULL THEN pterm + 1 ELSE pterm END;
    fence bigint; cur bigint; booted bigint; reach xid8; n bigint; entries bigint; tabs int[]; ops text; whole int[];
    r record; files oid[] := '{}'; want oid[] := '{}'; q oid; lv bigint; called boolean; snames text[]; svals text[];
BEGIN
    SELECT f.last_value INTO fence FROM pgdist.fence f;
    SELECT t.last_value INTO cur FROM pgdist.term t;
    SELECT b.term INTO booted FROM pgdist.boot b;
    SELECT count(*), coalesce(sum(cardinality(j.keys)), 0), array_agg(DISTINCT j.tab), string_agg(DISTINCT j.op::text, '')
      INTO entries, n, tabs, ops
      FROM pgdist.fresh(pterm, psnap) j;
    SELECT j.xid::text::bigint + 1 INTO lv FROM pgdist.journal j WHERE j.term = cur ORDER BY j.term DESC, j.xid DESC LIMIT 1;
    reach := greatest(coalesce(lv, 3)::text::xid8, floor);
    op := 'h';
    a := jsonb_build_object('epoch', fence >> 1, 'leads', fence & 1 = 1, 'term', cur, 'booted', coalesce(booted = cur, false),
            'snap', pgdist.cap(snap, reach), 'entries', entries, 'keys', n, 'big', n > lim, 'ddl', coalesce(ops LIKE '%d%', false),
            'insert', pg_current_wal_insert_lsn(), 'flushed', pg_current_wal_flush_lsn(), 'own', pg_current_xact_id_if_assigned())::text;
    RETURN NEXT;
    IF n <= lim AND entries > 0 THEN
        op := 'j'; a := NULL;
        SELECT array_agg(textin(record_out(j.*)) ORDER BY j.id) INTO v FROM pgdist.fresh(pterm, psnap) j;
        RETURN NEXT;
        v := NULL;
    END IF;
    IF entries > 0 THEN
        IF ops ~ '[dtc]' THEN
            FOR r IN SELECT j.op, j.tab, j.keys[1] AS a FROM pgdist.fresh(pterm, psnap) j WHERE j.op IN ('d', 't') AND pgdist.kept(j.term, j.xid) ORDER BY j.id LOOP
                op := CASE r.op WHEN 'd' THEN 'd' ELSE 'e' END; tab := r.tab; a := r.a;
                RETURN NEXT;
            END LOOP;
            a := NULL;
        END IF;
        -- Copied whole: said so, or journaled under a shape the table has no more.
        SELECT array_agg(DISTINCT j.tab) INTO whole FROM pgdist.fresh(pterm, psnap) j JOIN pgdist.tables t ON t.id = j.tab
         WHERE (j.op = 'c' OR j.gen <> t.gen) AND j.op <> 'd';
        FOR r IN SELECT t.* FROM pgdist.tables t WHERE t.id = ANY (tabs) ORDER BY t.id LOOP
            files := files || r.files;
            want := want || r.seqs;
            tab := r.id; k := NULL; v := NULL;
            IF r.id = ANY (whole) THEN
                op := 'c';
                RETURN NEXT;
            ELSIF n <= lim THEN
                op := 'r';
                IF r.keyed THEN
                    EXECUTE format('SELECT x.pgdist_dels, x.pgdist_rows FROM pgdist.r_%s($1) x', r.id) INTO k, v
                      USING (SELECT array_agg(DISTINCT u.k) FROM pgdist.fresh(pterm, psnap) j, unnest(j.keys) u(k) WHERE j.tab = r.id AND j.op = 'k');
                ELSE
                    SELECT x.dels, x.rows INTO k, v FROM pgdist.net(r.id, pterm, psnap) x;
                END IF;
                IF k IS NOT NULL OR v IS NOT NULL THEN RETURN NEXT; END IF;
            END IF;
        END LOOP;
        tab := NULL; k := NULL; v := NULL;
        -- TRUNCATE and rewriting ALTERs are not MVCC-safe: under a snapshot older
        -- than they are, the table looks empty. The locks taken above keep what
        -- is compared here.
        IF EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = ANY (files) AND c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid)) THEN
            RAISE EXCEPTION 'a table was rewritten after the batch''s snapshot' USING ERRCODE = 'PD003';
        END IF;
    END IF;
    IF allseqs THEN
        want := ARRAY(SELECT c.oid FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
                       WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND s.nspname <> 'pgdist');
    END IF;
    FOR r IN SELECT DISTINCT c.oid, format('%I.%I', s.nspname, c.relname) AS name
               FROM unnest(want) w JOIN pg_class c ON c.oid = w JOIN pg_namespace s ON s.oid = c.relnamespace WHERE w <> ALL (skip) LOOP
        lv := pg_sequence_last_value(r.oid); called := true;
        IF lv IS NULL THEN
            EXECUTE format('SELECT last_value, is_called FROM %s', r.name) INTO lv, called;
        END IF;
        snames := snames || r.name; svals := svals || (lv || ',' || called);
    END LOOP;
    IF snames IS NOT NULL THEN
        op := 's'; k := snames; v := svals;
        RETURN NEXT;
    END IF;
END $$;

-- fresh: the journal entries newer than a place.
CREATE FUNCTION pgdist.fresh(pterm bigint, psnap pg_snapshot) RETURNS SETOF pgdist.journal
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF psnap IS NOT NULL THEN
        RETURN QUERY SELECT * FROM pgdist.journal j WHERE j.term = pterm AND j.xid >= pg_snapshot_xmax(psnap);
        IF pg_snapshot_xmin(psnap) <> pg_snapshot_xmax(psnap) THEN
            RETURN QUERY SELECT * FROM pgdist.journal j WHERE j.term = pterm AND j.xid = ANY (ARRAY(SELECT pg_snapshot_xip(psnap)));
        END IF;
    END IF;
    RETURN QUERY SELECT * FROM pgdist.journal j WHERE j.term > pterm;
END $$;

-- kept tells whether an entry is part of the set's history: its term must be in
-- the chain, and one of an earlier term counts only as far as the next term's
-- leader had it; the rest was undone. Keys need no such care (a row shipped
-- once more is harmless), images do.
CREATE FUNCTION pgdist.kept(t bigint, x xid8) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT 1 FROM pgdist.terms n WHERE n.term = t)
       AND NOT EXISTS (SELECT 1 FROM pgdist.terms n WHERE n.prev = t AND n.snap IS NOT NULL AND NOT pg_visible_in_snapshot(x, n.snap))
$$;

-- net: what is left of the journaled images of a table without a key.
CREATE FUNCTION pgdist.net(id int, pterm bigint, psnap pg_snapshot, OUT dels text[], OUT rows text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH f AS (SELECT * FROM pgdist.fresh(pterm, psnap) j WHERE j.tab = net.id),
    d AS (SELECT u.k COLLATE "C" AS k, sum(CASE f.op WHEN '+' THEN 1 ELSE -1 END) AS n
            FROM f, unnest(f.keys) u(k)
           WHERE f.op IN ('+', '-') AND f.id > coalesce((SELECT max(e.id) FROM f e WHERE e.op = 't'), 0) AND pgdist.kept(f.term, f.xid)
           GROUP BY 1 HAVING sum(CASE f.op WHEN '+' THEN 1 ELSE -1 END) <> 0)
    SELECT array_agg(d.k) FILTER (WHERE n < 0), array_agg(d.k) FILTER (WHERE n > 0)
      FROM d, generate_series(1, abs(n)::bigint)
$$;

-- known lists the mirrored tables for a reader in pieces.
CREATE FUNCTION pgdist.known() RETURNS TABLE (id int, keyed boolean, upsert boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.id, t.keyed, t.upsert FROM pgdist.tables t
$$;

-- unchanged raises PD003 if a table was rewritten since this transaction's
-- snapshot; the transaction's locks keep it so until its end.
CREATE FUNCTION pgdist.unchanged() RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM pgdist.tables t, unnest(t.files) f JOIN pg_class c ON c.oid = f
                WHERE c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid)) THEN
        RAISE EXCEPTION 'a table was rewritten after the batch''s snapshot' USING ERRCODE = 'PD003';
    END IF;
END $$;
