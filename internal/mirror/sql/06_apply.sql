-- apply_session makes this session one that applies: users' triggers do not
-- fire in it, nor does capture. Once per connection, for changing it throws
-- away every cached plan.
CREATE FUNCTION pgdist.apply_session() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN PERFORM set_config('session_replication_role', 'replica', false); END $$;

-- mend announces, before enter, the apply that brings back what a crash has taken
-- (done), or one after which that is still missing.
CREATE FUNCTION pgdist.mend(done boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('pgdist.mending', 'on', true);
    IF done THEN INSERT INTO pgdist.boot (term) VALUES (-1) ON CONFLICT DO NOTHING; END IF;
END $$;

-- sound tells whether this member lacks nothing by a crash.
CREATE FUNCTION pgdist.sound() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (SELECT 1 FROM pgdist.boot) OR NOT pgdist.perishable();
END $$;

-- enter begins an apply: it takes the fence and checks that this member is what
-- the batch was made for, and has not crashed since it was. The tick tells that nobody
-- else has applied anything since the batch was read: positions alone do not, for what
-- they leave out (sequences, roles) would go back to what an older batch has read.
CREATE FUNCTION pgdist.enter(e bigint, pterm bigint, psnap pg_snapshot, ptick bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE fence bigint; booted bigint; found_term bigint; found_snap pg_snapshot; found_tick bigint;
BEGIN
    SELECT f.last_value, b.term INTO fence, booted FROM pgdist.fence f LEFT JOIN pgdist.boot b ON true;
    IF fence <> e * 2 THEN
        RAISE EXCEPTION 'epoch % was asked for, this member is at epoch % as %', e, fence >> 1, CASE fence & 1 WHEN 1 THEN 'leader' ELSE 'follower' END
            USING ERRCODE = 'PD001';
    END IF;
    SELECT p.term, p.snap, p.tick INTO found_term, found_snap, found_tick FROM pgdist.position p ORDER BY p.one DESC LIMIT 1 FOR UPDATE;
    IF found_term <> pterm OR found_snap::text IS DISTINCT FROM psnap::text OR found_tick <> ptick THEN
        RAISE EXCEPTION 'the batch starts at (%, %, %), this member is at (%, %, %)', pterm, psnap, ptick, found_term, found_snap, found_tick USING ERRCODE = 'PD002';
    END IF;
    IF booted IS NULL AND coalesce(current_setting('pgdist.mending', true), '') <> 'on' THEN
        IF pgdist.perishable() THEN
            RAISE EXCEPTION 'this member crashed, and its UNLOGGED tables are empty' USING ERRCODE = 'PD006';
        END IF;
        INSERT INTO pgdist.boot (term) VALUES (-1);
    END IF;
END $$;

-- enter is also for programs of the version before, while an upgrade goes on.
CREATE FUNCTION pgdist.enter(e bigint, pterm bigint, psnap pg_snapshot) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgdist.enter(e, pterm, psnap, (SELECT p.tick FROM pgdist.position p ORDER BY p.one DESC LIMIT 1));
END $$;

-- record takes over journal entries.
CREATE FUNCTION pgdist.record(entries text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO pgdist.journal (slot, id, term, xid, tab, gen, op, conn, keys)
    SELECT s.last_value, (x.j).id, (x.j).term, (x.j).xid, (x.j).tab, (x.j).gen, (x.j).op, (x.j).conn, (x.j).keys
      FROM pgdist.slot s, (SELECT e::pgdist.journal AS j FROM unnest(entries) e OFFSET 0) x;
END $$;

-- sequences sets what differs.
CREATE FUNCTION pgdist.sequences(names text[], vals text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE i int; q regclass; lv bigint; c boolean; have bigint; havec boolean;
BEGIN
    FOR i IN 1 .. cardinality(names) LOOP
        q := to_regclass(names[i]);
        IF q IS NULL THEN CONTINUE; END IF; -- dropped by a statement the next batch brings
        lv := split_part(vals[i], ',', 1)::bigint; c := split_part(vals[i], ',', 2)::boolean;
        have := pg_sequence_last_value(q); havec := true;
        IF have IS NULL THEN EXECUTE format('SELECT last_value, is_called FROM %s', names[i]) INTO have, havec; END IF;
        IF have <> lv OR havec <> c THEN PERFORM setval(q, lv, c); END IF;
    END LOOP;
END $$;

-- leave ends an apply: from here this member is the leader as snap saw it.
CREATE FUNCTION pgdist.leave(nterm bigint, nsnap pg_snapshot) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Users' functions (of an index, a CHECK) ran since the transaction began.
    IF current_setting('synchronous_commit') <> 'on' THEN PERFORM set_config('synchronous_commit', 'on', true); END IF;
    UPDATE pgdist.position p SET term = nterm, snap = nsnap, at = now(), tick = p.tick + 1
     WHERE p.ctid = (SELECT q.ctid FROM pgdist.position q ORDER BY q.one DESC LIMIT 1); -- locked by enter
END $$;

-- terms takes over the leader's chain of terms; terms of a leader that never
-- shipped anything are not in it.
CREATE FUNCTION pgdist.terms(rows jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM pgdist.terms t WHERE NOT EXISTS (SELECT 1 FROM jsonb_array_elements(rows) r WHERE (r->>'term')::bigint = t.term);
    INSERT INTO pgdist.terms (term, leader, prev, snap)
    SELECT (r->>'term')::bigint, (r->>'leader')::int, (r->>'prev')::bigint, (r->>'snap')::pg_snapshot FROM jsonb_array_elements(rows) r
    ON CONFLICT (term) DO NOTHING;
END $$;

-- empty does here what a TRUNCATE did at the leader: truly, if nobody is in the
-- way and no foreign key forbids it, else row by row.
CREATE FUNCTION pgdist.empty(id int, name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE rel regclass := to_regclass(name);
BEGIN
    IF rel IS NULL OR NOT EXISTS (SELECT 1 FROM pgdist.tables t WHERE t.id = empty.id) THEN RETURN; END IF;
    BEGIN
        EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE NOWAIT', rel);
        EXECUTE format('TRUNCATE ONLY %s', rel);
    EXCEPTION WHEN lock_not_available OR feature_not_supported OR wrong_object_type OR invalid_table_definition THEN
        EXECUTE format('DELETE FROM ONLY %s', rel);
    END;
END $$;

-- vacate empties a table if it is here already, before DDL that its rows as
-- they are here would not bear.
CREATE FUNCTION pgdist.vacate(id int) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('pgdist.vacated', 'on', true);
    IF to_regprocedure(format('pgdist.w_%s()', id)) IS NOT NULL THEN EXECUTE format('SELECT pgdist.w_%s()', id); END IF;
END $$;

-- registered lists the distributors.
CREATE FUNCTION pgdist.registered() RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT coalesce(jsonb_agg(jsonb_build_object('id', d.id, 'name', d.name, 'epoch', d.epoch, 'lease', extract(epoch FROM d.lease), 'since', d.since) ORDER BY d.since, d.id), '[]') FROM pgdist.distributors d);
END $$;

-- spot is what a distributor has to know of a follower that others flush to, too.
CREATE FUNCTION pgdist.spot() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE out text;
BEGIN
    SELECT p.term || ' ' || p.tick || ' ' || coalesce(p.snap::text, '') INTO out FROM pgdist.position p ORDER BY p.one DESC LIMIT 1;
    RETURN out;
END $$;

-- here tells where this member is, for whoever is about to bring it up to date.
CREATE FUNCTION pgdist.here() RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT jsonb_build_object('version', m.version, 'set', m.set_id, 'member', m.member, 'system', m.system,
        'cluster', (SELECT system_identifier::text FROM pg_control_system()),
        'epoch', f.last_value >> 1, 'leads', f.last_value & 1 = 1, 'office', t.last_value,
        'booted', coalesce((SELECT b.term = t.last_value FROM pgdist.boot b), false),
        'promised', r.promised, 'accepted', r.accepted, 'view', r.view,
        'term', p.term, 'snap', p.snap, 'tick', p.tick, 'distributors', pgdist.registered(), 'at', extract(epoch FROM now() - p.at), 'floor_term', l.term, 'floor_snap', l.snap,
        'terms', (SELECT coalesce(jsonb_agg(jsonb_build_object('term', x.term, 'leader', x.leader, 'prev', x.prev, 'snap', x.snap) ORDER BY x.term), '[]') FROM pgdist.terms x),
        'recovery', pg_is_in_recovery(), 'amiss', (SELECT string_agg(DISTINCT a.what, '; ') FROM pgdist.amiss a), 'crashed', NOT EXISTS (SELECT 1 FROM pgdist.boot) AND pgdist.perishable(),
        'unfilled', CASE WHEN f.last_value & 1 = 1 THEN (SELECT string_agg(u.name || ': ' || u.error, '; ') FROM pgdist.unfilled() u WHERE u.error IS NOT NULL) END)
      FROM pgdist.meta m, pgdist.fence f, pgdist.term t, pgdist.register r, (SELECT * FROM pgdist.position q ORDER BY q.one DESC LIMIT 1) p, pgdist.floor l);
END $$;

-- tail lists what this member wrote beyond (q, n), the place from which the
-- set went on without it: op d means that only a full copy can undo it.
CREATE FUNCTION pgdist.tail(q bigint, n pg_snapshot) RETURNS TABLE (op "char", tab int, gen int, keys text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT j.op, j.tab, j.gen, array_agg(DISTINCT u.k) FROM pgdist.fresh(q, n) j, unnest(j.keys) u(k) WHERE j.op = 'k' GROUP BY 1, 2, 3
    UNION ALL
    -- What came and went again, as the row between two updates does, is neither there to be
    -- taken away nor missing.
    SELECT CASE WHEN d.n > 0 THEN '+' ELSE '-' END::"char", d.tab, d.gen, array_agg(d.k)
      FROM (SELECT j.tab, j.gen, u.k COLLATE "C" AS k, sum(CASE j.op WHEN '+' THEN 1 ELSE -1 END) AS n
              FROM pgdist.fresh(q, n) j, unnest(j.keys) u(k) WHERE j.op IN ('+', '-') AND pgdist.kept(j.term, j.xid) GROUP BY 1, 2, 3) d, generate_series(1, abs(d.n)::bigint)
     GROUP BY 1, 2, 3
    UNION ALL
    SELECT DISTINCT j.op, j.tab, j.gen, NULL::text[] FROM pgdist.fresh(q, n) j WHERE j.op IN ('t', 'c', 'd')
$$;

-- gate returns once everything up to lsn is on disk, whatever the clients asked
-- of synchronous_commit.
CREATE FUNCTION pgdist.gate(lsn pg_lsn) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET synchronous_commit = on AS $$
BEGIN
    IF pg_current_wal_flush_lsn() >= lsn THEN RETURN false; END IF;
    PERFORM pg_logical_emit_message(true, 'pgdist', '');
    RETURN true;
END $$;

-- left tells what a lost connection's last statement left: since is a place behind all
-- it wrote before, last the number of the last transaction that it journaled in; a
-- procedure may commit several. all, part (or, without last, perhaps all), or nothing.
CREATE FUNCTION pgdist.left(token text, sterm bigint, ssnap pg_snapshot, last xid8) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN bool_or(j.xid = last) THEN 'all' WHEN count(*) > 0 THEN 'part' ELSE 'nothing' END
      FROM pgdist.fresh(sterm, ssnap) j WHERE j.conn = token AND pgdist.kept(j.term, j.xid)
$$;

-- wrote is for programs of the version before, while an upgrade goes on.
CREATE FUNCTION pgdist.wrote(token text, sterm bigint, ssnap pg_snapshot) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT 1 FROM pgdist.fresh(sterm, ssnap) j WHERE j.conn = token AND pgdist.kept(j.term, j.xid))
$$;

-- stop ends a backend, if it is still the one meant, and tells whether it is gone.
CREATE FUNCTION pgdist.stop(backend int, started text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_terminate_backend(a.pid) FROM pg_stat_activity a
      WHERE a.pid = backend AND to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') = started;
    RETURN NOT FOUND;
END $$;

-- mate tells whether a backend is of a distributor that is alive: it does here what
-- this one does, and nothing is gained by ending it.
CREATE FUNCTION pgdist.mate(backend int) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (SELECT 1 FROM pg_stat_activity a, pgdist.alive() v(id) WHERE a.pid = backend AND a.application_name = 'pgdist ' || v.id);
END $$;

-- behind_mate tells whether a backend waits for that of another distributor.
CREATE FUNCTION pgdist.behind_mate(backend int) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE p int;
BEGIN
    FOREACH p IN ARRAY pg_blocking_pids(backend) LOOP
        IF pgdist.mate(p) THEN RETURN true; END IF;
    END LOOP;
    RETURN false;
END $$;

-- blockers names what keeps the given backend waiting; a prepared transaction,
-- which has no backend, by its gid. (Step by step: in one query the planner may
-- look at everybody first.)
CREATE FUNCTION pgdist.blockers(backend int) RETURNS TABLE (pid int, usename name, query text, gid text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE pids int[] := pg_blocking_pids(backend);
BEGIN
    RETURN QUERY SELECT a.pid, a.usename, a.query, NULL::text FROM pg_stat_activity a WHERE a.pid = ANY (pids) AND NOT pgdist.mate(a.pid);
    IF 0 = ANY (pids) THEN
        -- Its locks bear the name that it had while it had a backend; which number
        -- that is, its lock on the number tells.
        RETURN QUERY SELECT DISTINCT 0, x.owner, NULL::text, x.gid FROM pg_locks w
            JOIN pg_locks h ON h.pid IS NULL AND h.granted AND h.locktype = w.locktype AND h.database IS NOT DISTINCT FROM w.database
             AND h.relation IS NOT DISTINCT FROM w.relation AND h.transactionid IS NOT DISTINCT FROM w.transactionid
            JOIN pg_locks n ON n.pid IS NULL AND n.granted AND n.locktype = 'transactionid' AND n.virtualtransaction = h.virtualtransaction
            JOIN pg_prepared_xacts x ON x.transaction = n.transactionid
           WHERE w.pid = backend AND NOT w.granted;
        IF NOT FOUND THEN RETURN QUERY SELECT 0, NULL::name, NULL::text, ''; END IF;
    END IF;
END $$;

-- evict ends those of pids that still keep the given backend waiting: a statement
-- that runs is cancelled; a transaction that is idle, or whose client does not
-- take its rows, and with force all, cannot be helped but by ending its session.
CREATE FUNCTION pgdist.evict(backend int, pids int[], force boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE p int; gently boolean;
BEGIN
    FOREACH p IN ARRAY pg_blocking_pids(backend) LOOP
        CONTINUE WHEN p <> ALL (pids) OR pgdist.mate(p);
        SELECT a.state = 'active' AND a.wait_event_type IS DISTINCT FROM 'Client' INTO gently FROM pg_stat_activity a WHERE a.pid = p;
        IF FOUND THEN
            IF gently AND NOT force THEN PERFORM pg_cancel_backend(p); ELSE PERFORM pg_terminate_backend(p); END IF;
        END IF;
    END LOOP;
END $$;

-- unblock is for programs of the version before, while an upgrade goes on.
CREATE FUNCTION pgdist.unblock(backend int) RETURNS TABLE (pid int, usename name, query text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT b.pid, b.usename, b.query FROM pgdist.blockers(backend) b WHERE b.pid <> 0;
    PERFORM pgdist.evict(backend, pg_blocking_pids(backend), true);
END $$;

-- stow keeps a list to the end of the transaction in a setting. Users' code may run in
-- between, and set it; stowed refuses that, for statements of a superuser's are made of the list.
-- (Where a member is being copied there is no secret yet, nor anybody else.)
CREATE FUNCTION pgdist.stow(name text, list text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN PERFORM set_config(name, pgdist.seal(name, list) || list, true); END $$;

CREATE FUNCTION pgdist.stowed(name text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE v text := current_setting(name);
BEGIN
    IF left(v, 64) <> pgdist.seal(name, substr(v, 65)) THEN
        RAISE EXCEPTION 'setting % was changed while a batch was applied', name USING ERRCODE = '42501', HINT = 'A function of the users'' did that: of a CHECK, a domain, an index or a generated column.';
    END IF;
    RETURN substr(v, 65)::jsonb;
END $$;

CREATE FUNCTION pgdist.seal(name text, list text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE s text := coalesce((SELECT m.secret FROM pgdist.meta m), '');
BEGIN RETURN encode(sha256(convert_to(s || name || list || s, 'UTF8')), 'hex'); END $$;

-- relax takes away the constraints that rows the leader has may violate: those that
-- are NOT VALID, and those whose outcome depends on more than the row, such as
-- CHECK (expires > now()). tighten puts them back at the end of the apply, as
-- valid as they were.
CREATE FUNCTION pgdist.relax() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r record; list jsonb := '[]';
BEGIN
    FOR r IN SELECT format('%I.%I', n.nspname, c.relname) AS tab, k.conrelid AS rel, k.conname, pg_get_constraintdef(k.oid) AS def, obj_description(k.oid, 'pg_constraint') AS note, k.convalidated AS valid
               FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE k.contype IN ('c', 'n') AND k.coninhcount = 0 AND (NOT k.convalidated OR k.conbin::text ~ '[{]SQLVALUEFUNCTION '
                     OR EXISTS (SELECT 1 FROM regexp_matches(k.conbin::text, ':(?:op)?funcid (\d+)', 'g') f(id) JOIN pg_proc p ON p.oid = f.id[1]::oid WHERE p.provolatile <> 'i')) LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', r.tab, r.conname);
        list := list || jsonb_build_array(jsonb_build_array(r.rel::bigint, r.conname, r.def, r.note, r.valid));
    END LOOP;
    PERFORM pgdist.stow('pgdist.relaxed', list::text);
END $$;

CREATE FUNCTION pgdist.tighten() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r jsonb; tab text;
BEGIN
    FOR r IN SELECT x FROM jsonb_array_elements(pgdist.stowed('pgdist.relaxed')) x LOOP
        SELECT format('%I.%I', n.nspname, c.relname) INTO tab FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = (r ->> 0)::oid;
        CONTINUE WHEN tab IS NULL; -- the batch dropped it
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I %s', tab, r ->> 1, r ->> 2) || CASE WHEN (r ->> 4)::boolean THEN ' NOT VALID' ELSE '' END;
        IF (r ->> 4)::boolean THEN -- it was checked at the leader, at its time
            WITH RECURSIVE tree(rel) AS (SELECT (r ->> 0)::oid UNION SELECT h.inhrelid FROM tree JOIN pg_inherits h ON h.inhparent = tree.rel)
            UPDATE pg_constraint k SET convalidated = true FROM tree WHERE k.conrelid = tree.rel AND k.conname = r ->> 1;
        END IF;
        IF r ->> 3 IS NOT NULL THEN EXECUTE format('COMMENT ON CONSTRAINT %I ON %s IS %L', r ->> 1, tab, r ->> 3); END IF;
    END LOOP;
END $$;

-- withhold has users' publications publish no updates and deletes until publish_again
-- puts them back, before the apply ends. Where they do, PostgreSQL refuses these on tables
-- whose rows it could not name to a subscriber (no replica identity, or one that a column
-- list or a filter does not cover), and an upsert whether or not a row is there. The leader
-- has updated and deleted no such rows since; an apply must where it only inserted.
CREATE FUNCTION pgdist.withhold() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r record; list jsonb := '[]';
BEGIN
    FOR r IN SELECT p.oid, p.pubname, concat_ws(', ', CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubtruncate THEN 'truncate' END) AS rest,
                    concat_ws(', ', CASE WHEN p.pubupdate THEN 'update' END, CASE WHEN p.pubdelete THEN 'delete' END) AS held
               FROM pg_publication p WHERE p.pubupdate OR p.pubdelete LOOP
        EXECUTE format('ALTER PUBLICATION %I SET (publish = %L)', r.pubname, r.rest);
        list := list || jsonb_build_array(jsonb_build_array(r.oid::bigint, concat_ws(', ', nullif(r.rest, ''), r.held)));
    END LOOP;
    PERFORM pgdist.stow('pgdist.withheld', list::text);
END $$;

CREATE FUNCTION pgdist.publish_again() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r record;
BEGIN
    FOR r IN SELECT p.pubname, x ->> 1 AS what FROM jsonb_array_elements(pgdist.stowed('pgdist.withheld')) x JOIN pg_publication p ON p.oid = (x ->> 0)::oid LOOP
        EXECUTE format('ALTER PUBLICATION %I SET (publish = %L)', r.pubname, r.what);
    END LOOP;
    PERFORM pgdist.stow('pgdist.withheld', '[]');
END $$;
