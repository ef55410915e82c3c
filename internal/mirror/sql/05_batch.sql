-- cap keeps a position from claiming transactions that left nothing in the
-- journal: after a crash their numbers are given out again. reach is above the
-- newest journaled transaction visible, and never below the position before.
-- plpgsql, as all that runs in every flush: its plans are kept.
CREATE FUNCTION pgdist.cap(s pg_snapshot, reach xid8) RETURNS pg_snapshot
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE low text; list text;
BEGIN
    IF reach >= pg_snapshot_xmax(s) THEN RETURN s; END IF;
    IF pg_snapshot_xmin(s) < reach THEN
        SELECT min(x::text::bigint)::text, string_agg(x::text, ',' ORDER BY x::text::bigint) INTO low, list FROM pg_snapshot_xip(s) x WHERE x < reach;
    END IF;
    RETURN (coalesce(low, reach::text) || ':' || reach::text || ':' || coalesce(list, ''))::pg_snapshot;
END $$;

-- batch reads, in one snapshot, what a follower at place (pterm, psnap) lacks:
--   h  the header, JSON in a
--   g  roles and other shared objects, in a; their marker in k
--   j  journal entries, as texts in v
--   d  a DDL, its description in a; e a table emptied, its name in a; in order
--   c  a table to copy whole (contents are read by the caller, from x_N)
--   r  rows of one table: keys to delete in k, rows to put in v, in a what columns they are for (layout)
--   i  the same of a table without a key: images in k
--   s  sequences: names in k, "last_value,is_called" in v
-- The caller runs it in a REPEATABLE READ, READ ONLY transaction. Above limit
-- keys it answers with the header alone, and the caller reads in pieces.
-- floor is the highest xmax of all positions that this flush starts from;
-- depth 1 asks for sequences that nobody has called, too, 2 for shared objects besides,
-- unless their marker is known, 3 for these in any case; 4 for shared objects as 2, and no
-- sequences.
CREATE FUNCTION pgdist.batch(pterm bigint, psnap pg_snapshot, floor xid8, lim int, depth int, known text)
RETURNS TABLE (op "char", tab int, a text, k text[], v text[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    snap pg_snapshot := pg_current_snapshot();
    fence bigint; cur bigint; booted bigint; n bigint; top xid8; big boolean := false; few boolean; ops text; tabs int[]; whole int[] := '{}'; moved int[];
    ents pgdist.journal[]; texts text[]; r record; files oid[] := '{}'; seen int[]; lv bigint;
BEGIN
    SELECT f.last_value, t.last_value, b.term INTO fence, cur, booted FROM pgdist.fence f CROSS JOIN pgdist.term t LEFT JOIN pgdist.boot b ON true;
    -- In a snapshot from before the place the follower's place would go back, and what is
    -- between the two be brought there twice.
    IF pterm = cur AND (pg_snapshot_xmax(snap) < pg_snapshot_xmax(psnap)
            OR pg_snapshot_xmin(snap) < pg_snapshot_xmax(psnap) AND EXISTS (SELECT 1 FROM pg_snapshot_xip(snap) x WHERE pg_visible_in_snapshot(x, psnap))) THEN
        RAISE EXCEPTION 'the snapshot % is older than the place %', snap, psnap USING ERRCODE = 'PD003';
    END IF;
    -- Everything newer than the place, once; above the limit only counted.
    IF lim >= 0 THEN
        IF psnap IS NULL THEN
            SELECT array_agg(j) INTO ents FROM (SELECT * FROM pgdist.journal x WHERE x.term > pterm LIMIT lim + 1) j;
        ELSIF pg_snapshot_xmin(psnap) = pg_snapshot_xmax(psnap) THEN
            SELECT array_agg(j) INTO ents FROM (SELECT * FROM pgdist.journal x WHERE (x.term, x.xid) >= (pterm, pg_snapshot_xmax(psnap)) LIMIT lim + 1) j;
        ELSE
            SELECT array_agg(j) INTO ents FROM (
                SELECT * FROM pgdist.journal x WHERE (x.term, x.xid) >= (pterm, pg_snapshot_xmax(psnap))
                -- (xid = ANY (…) may be planned as a filter on the whole term.)
                UNION ALL SELECT y.* FROM pg_snapshot_xip(psnap) s(xid), LATERAL (SELECT * FROM pgdist.journal x WHERE x.term = pterm AND x.xid = s.xid OFFSET 0) y
                LIMIT lim + 1) j;
        END IF;
        big := coalesce(cardinality(ents), 0) > lim;
    END IF;
    IF lim < 0 OR big THEN
        ents := NULL;
        SELECT count(*), coalesce(sum(cardinality(j.keys)), 0), array_agg(DISTINCT j.tab), string_agg(DISTINCT j.op::text, ''),
               (array_agg(j.xid ORDER BY j.xid DESC) FILTER (WHERE j.term = cur))[1]
          INTO lv, n, tabs, ops, top FROM pgdist.fresh(pterm, psnap) j;
        big := true;
    ELSIF ents IS NOT NULL THEN
        -- Of few entries the texts as well: every statement costs more than what it does.
        few := cardinality(ents) <= 50;
        SELECT count(*), coalesce(sum(cardinality(j.keys)), 0), array_agg(j.tab), string_agg(j.op::text, ''), (array_agg(j.xid ORDER BY j.xid DESC) FILTER (WHERE j.term = cur))[1],
               array_agg(textin(record_out(j)) ORDER BY j.term, j.id) FILTER (WHERE few)
          INTO lv, n, tabs, ops, top, texts FROM unnest(ents) j;
        big := n > lim;
    END IF;
    op := 'h';
    -- (json_build_object looks every argument's type up in the catalog.)
    a := format('{"epoch":%s,"leads":%s,"term":%s,"booted":%s,"snap":"%s","entries":%s,"keys":%s,"big":%s,"ddl":%s,"insert":"%s","flushed":"%s","own":%s}',
            fence >> 1, (fence & 1 = 1)::text, cur, coalesce(booted = cur, false)::text,
            pgdist.cap(snap, greatest(coalesce((top::text::bigint + 1)::text::xid8, floor), floor)),
            coalesce(lv, 0), coalesce(n, 0), big::text, coalesce(ops LIKE '%d%', false)::text,
            pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn(), coalesce('"' || pg_current_xact_id_if_assigned()::text || '"', 'null'));
    RETURN NEXT;
    IF depth > 1 OR ops ~ '[dm]' THEN
        a := pgdist.shared_marker();
        IF depth = 3 OR a IS DISTINCT FROM known THEN
            op := 'g'; k := ARRAY[a]; a := pgdist.shared_state()::text;
            RETURN NEXT;
            k := NULL;
        END IF;
    END IF;
    a := NULL;
    IF tabs IS NOT NULL THEN
        IF NOT big THEN
            op := 'j';
            v := texts;
            IF NOT few THEN SELECT array_agg(textin(record_out(j)) ORDER BY j.term, j.id) INTO v FROM unnest(ents) j; END IF;
            RETURN NEXT;
            v := NULL;
        END IF;
        IF ops ~ '[dt]' THEN
            FOR r IN SELECT j.op, j.tab, CASE j.op WHEN 'd' THEN (j.keys[1]::jsonb || jsonb_build_object('at', jsonb_build_array(j.term, j.id)))::text ELSE j.keys[1] END AS a
                       FROM pgdist.fresh(pterm, psnap) j WHERE j.op IN ('d', 't') AND pgdist.kept(j.term, j.xid) ORDER BY j.term, j.id LOOP
                op := CASE r.op WHEN 'd' THEN 'd' ELSE 'e' END; tab := r.tab; a := r.a;
                RETURN NEXT;
            END LOOP;
            a := NULL;
        END IF;
        -- Copied whole: said so, or journaled under a shape the table has no more.
        IF big THEN
            SELECT array_agg(DISTINCT j.tab) INTO whole FROM pgdist.fresh(pterm, psnap) j JOIN pgdist.tables t ON t.id = j.tab WHERE j.op <> 'd' AND (j.op = 'c' OR j.gen <> t.gen);
        END IF;
        IF ops LIKE '%d%' THEN
            moved := pgdist.moved(pterm, psnap, tabs);
            whole := whole || moved; tabs := tabs || moved;
        END IF;
        -- keys of a table with a key; puts are images of one without a key to which rows were
        -- only added, in the order in which they came.
        FOR r IN SELECT t.id, t.keyed, t.files, t.layout, u.keys, u.puts, u.mixed, t.id = ANY (whole) OR u.copied OR u.oldest <> t.gen OR u.newest <> t.gen AS copied
                   FROM pgdist.tables t LEFT JOIN (
                        SELECT j.tab, min(j.gen) AS oldest, max(j.gen) AS newest, bool_or(j.op = 'c') AS copied, bool_or(j.op IN ('-', 't') OR j.term <> cur) AS mixed,
                               array_agg(DISTINCT x.k) FILTER (WHERE j.op = 'k') AS keys, array_agg(x.k ORDER BY j.id, x.ord) FILTER (WHERE j.op = '+') AS puts
                          FROM unnest(ents) j LEFT JOIN LATERAL unnest(j.keys) WITH ORDINALITY x(k, ord) ON j.op IN ('k', '+') WHERE j.op <> 'd' GROUP BY j.tab) u ON u.tab = t.id
                  WHERE t.id = ANY (tabs) LOOP
            files := files || r.files;
            tab := r.id; a := r.layout; k := NULL; v := NULL;
            IF r.copied THEN
                op := 'c';
                RETURN NEXT;
            ELSIF NOT big THEN
                op := 'r';
                IF NOT r.keyed THEN
                    op := 'i';
                    IF r.mixed THEN
                        SELECT x.dels, x.rows INTO k, v FROM pgdist.net_of(ents, r.id, cur) x;
                    ELSE
                        v := r.puts;
                    END IF;
                ELSIF r.keys IS NOT NULL THEN
                    EXECUTE 'SELECT x.pgdist_dels, x.pgdist_rows FROM pgdist.r_' || r.id || '($1) x' INTO k, v USING r.keys;
                    seen := seen || r.id;
                END IF;
                IF k IS NOT NULL OR v IS NOT NULL THEN RETURN NEXT; END IF;
            END IF;
        END LOOP;
        tab := NULL; a := NULL; k := NULL; v := NULL;
        -- TRUNCATE and rewriting ALTERs are not MVCC-safe: under a snapshot older
        -- than they are, the table looks empty. Nor is any definition: of columns that were
        -- renamed, or a partition that was detached, those are read that are so called, or
        -- there, now. The locks taken above keep what is compared here. (Who reads in pieces asks unchanged().)
        IF NOT big AND (EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = ANY (files) AND c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid))
                OR seen IS NOT NULL AND pgdist.redefined(seen)) THEN
            RAISE EXCEPTION 'a table was rewritten after the batch''s snapshot' USING ERRCODE = 'PD003';
        END IF;
    END IF;
    SELECT x.names, x.vals INTO k, v FROM pgdist.read_sequences(depth BETWEEN 1 AND 3) x;
    op := 's';
    IF k IS NOT NULL THEN RETURN NEXT; END IF;
END $$;

-- read_sequences reads them all, in every batch: a trigger, a function or a
-- statement that failed may have drawn from any, and no value that a client has
-- seen may be given out again by another leader. A sequence that nobody has
-- called yet takes a statement of its own, so these come only if asked for.
-- One that an open transaction drops or restarts keeps nobody waiting: what
-- that does to it comes with its commit.
CREATE FUNCTION pgdist.read_sequences(uncalled boolean, OUT names text[], OUT vals text[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5ms' AS $$
DECLARE n text; lv bigint; called boolean;
BEGIN
    BEGIN
        SELECT array_agg(x.name), array_agg(x.v || ',true') INTO names, vals
          FROM (SELECT q.name, pg_sequence_last_value(q.oid) AS v FROM pgdist.seqs q OFFSET 0) x WHERE x.v IS NOT NULL;
        IF uncalled THEN
            FOR n IN SELECT q.name FROM pgdist.seqs q WHERE q.name <> ALL (coalesce(names, '{}')) LOOP
                EXECUTE 'SELECT last_value, is_called FROM ' || n INTO lv, called;
                names := names || n; vals := vals || (lv || ',' || called);
            END LOOP;
        END IF;
        RETURN;
    EXCEPTION WHEN lock_not_available OR undefined_table OR internal_error THEN -- the last: its number is gone
        names := NULL; vals := NULL;
    END;
    FOR n IN SELECT q.name FROM pgdist.seqs q
              WHERE NOT EXISTS (SELECT 1 FROM pg_locks l WHERE l.locktype = 'relation' AND l.relation = q.oid AND l.mode = 'AccessExclusiveLock'
                                  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())) LOOP
        BEGIN
            EXECUTE 'SELECT last_value, is_called FROM ' || n INTO lv, called;
            IF called OR uncalled THEN names := names || n; vals := vals || (lv || ',' || called); END IF;
        EXCEPTION WHEN lock_not_available OR undefined_table THEN NULL;
        END;
    END LOOP;
END $$;

-- fresh: the journal entries newer than a place.
CREATE FUNCTION pgdist.fresh(pterm bigint, psnap pg_snapshot) RETURNS SETOF pgdist.journal
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF psnap IS NOT NULL THEN
        RETURN QUERY SELECT * FROM pgdist.journal j WHERE j.term = pterm AND j.xid >= pg_snapshot_xmax(psnap);
        IF pg_snapshot_xmin(psnap) <> pg_snapshot_xmax(psnap) THEN
            RETURN QUERY SELECT y.* FROM pg_snapshot_xip(psnap) s(xid), LATERAL (SELECT * FROM pgdist.journal x WHERE x.term = pterm AND x.xid = s.xid OFFSET 0) y;
        END IF;
    END IF;
    RETURN QUERY SELECT * FROM pgdist.journal j WHERE j.term > pterm;
END $$;

-- moved lists the tables that rows journaled under the given numbers have gone to
-- since, when partitions were detached or attached: no entry of theirs tells.
CREATE FUNCTION pgdist.moved(pterm bigint, psnap pg_snapshot, touched int[]) RETURNS int[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r record; found int[];
BEGIN
    FOR r IN SELECT (m.x ->> 0)::int AS source, (m.x ->> 1)::int AS target FROM pgdist.fresh(pterm, psnap) j, jsonb_array_elements(nullif(j.keys[1]::jsonb -> 'moved', 'null')) m(x)
              WHERE j.op = 'd' ORDER BY j.term, j.id LOOP
        IF r.source = ANY (touched) THEN touched := touched || r.target; found := found || r.target; END IF;
    END LOOP;
    RETURN found;
END $$;

-- kept tells whether an entry is part of the set's history: its term must be in
-- the chain, and one of an earlier term counts only as far as the next term's
-- leader had it; the rest was undone. Keys need no such care (a row shipped
-- once more is harmless), images do.
CREATE FUNCTION pgdist.kept(t bigint, x xid8) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT 1 FROM pgdist.terms n WHERE n.term = t)
       AND NOT EXISTS (SELECT 1 FROM pgdist.terms n WHERE n.prev = t AND n.snap IS NOT NULL AND NOT pg_catalog.pg_visible_in_snapshot(x, n.snap));
END $$;

-- net: what is left of the journaled images of a table without a key; new ones in the
-- order in which they came.
CREATE FUNCTION pgdist.net_of(ents pgdist.journal[], id int, cur bigint, OUT dels text[], OUT rows text[])
LANGUAGE plpgsql STABLE AS $$
DECLARE eterm bigint; eid bigint;
BEGIN
    -- Numbers of entries begin anew with each leader.
    SELECT j.term, j.id INTO eterm, eid FROM unnest(ents) j WHERE j.tab = net_of.id AND j.op = 't' AND pgdist.kept(j.term, j.xid) ORDER BY j.term DESC, j.id DESC LIMIT 1;
    SELECT array_agg(d.k) FILTER (WHERE d.n < 0), array_agg(d.k ORDER BY d.at) FILTER (WHERE d.n > 0) INTO dels, rows
      FROM (SELECT u.k COLLATE "C" AS k, sum(CASE j.op WHEN '+' THEN 1 ELSE -1 END) AS n, min((j.id << 20) + u.ord) AS at
              FROM (SELECT * FROM unnest(ents) e WHERE e.tab = net_of.id AND e.op IN ('+', '-') AND (eid IS NULL OR (e.term, e.id) > (eterm, eid)) AND (e.term = cur OR pgdist.kept(e.term, e.xid))) j, unnest(j.keys) WITH ORDINALITY u(k, ord)
             GROUP BY 1) d, generate_series(1, abs(d.n)::bigint);
END $$;

CREATE FUNCTION pgdist.net(id int, pterm bigint, psnap pg_snapshot, OUT dels text[], OUT rows text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT (pgdist.net_of(array_agg(j), net.id, (SELECT t.last_value FROM pgdist.term t))).* FROM pgdist.fresh(pterm, psnap) j WHERE j.tab = net.id
$$;

-- known lists the mirrored tables for a reader in pieces.
CREATE FUNCTION pgdist.known() RETURNS TABLE (id int, keyed boolean, upsert boolean, gen int, layout text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.id, t.keyed, t.upsert, t.gen, t.layout FROM pgdist.tables t
$$;

-- redefined tells whether one of these tables has other functions than at this transaction's
-- snapshot, and so another definition: generate() makes them anew. (A function in SQL would be
-- planned anew by every batch, which cost a third of what a small one takes.)
CREATE FUNCTION pgdist.redefined(ids int[]) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE n int;
BEGIN
    FOREACH n IN ARRAY ids LOOP
        IF to_regprocedure('pgdist.x_' || n || '()')::oid
                IS DISTINCT FROM (SELECT p.oid FROM pg_proc p WHERE p.proname = ('x_' || n)::name AND p.pronamespace = 'pgdist'::regnamespace) THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END $$;

-- redefined_in tells it of the table that a relation is, or is a partition of.
CREATE FUNCTION pgdist.redefined_in(part oid) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN pgdist.redefined(ARRAY(SELECT t.id FROM pgdist.tables t WHERE part = ANY (t.files)));
END $$;

-- unchanged raises PD003 if one of the tables was rewritten, or has another definition, than at this
-- transaction's snapshot. The locks of having read the tables keep it so until the transaction's
-- end.
CREATE FUNCTION pgdist.unchanged(ids int[]) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pgdist.redefined(ids) OR EXISTS (SELECT 1 FROM pgdist.tables t, unnest(t.files) f JOIN pg_class c ON c.oid = f
                WHERE t.id = ANY (ids) AND c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid)) THEN
        RAISE EXCEPTION 'a table was rewritten after the batch''s snapshot' USING ERRCODE = 'PD003';
    END IF;
END $$;

-- reads names the tables that a batch from this place will read, for the caller
-- to lock before it takes its snapshot: then nothing rewrites them in between.
CREATE FUNCTION pgdist.reads(pterm bigint, psnap pg_snapshot, more int[]) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(format('%I.%I', t.nsp, t.rel), ', ' ORDER BY t.id) FROM pgdist.tables t
     WHERE t.id = ANY (more) OR t.id IN (SELECT j.tab FROM pgdist.fresh(pterm, psnap) j)
$$;

-- concerned lists the tables that a batch with DDL from this place is about:
-- those with rows on their way, and those the DDL names.
CREATE FUNCTION pgdist.concerned(pterm bigint, psnap pg_snapshot) RETURNS TABLE (id int)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT j.tab FROM pgdist.fresh(pterm, psnap) j WHERE j.op NOT IN ('d', 'm')
    UNION SELECT o.id::int FROM pgdist.fresh(pterm, psnap) j, jsonb_array_elements_text(j.keys[1]::jsonb -> 'objects') o(id) WHERE j.op = 'd'
$$;
