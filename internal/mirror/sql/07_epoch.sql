-- A view is chosen in two steps (CASPaxos): a majority promises an epoch and
-- tells the view it accepted last; a majority accepts the new one.

-- seize takes the fence's lock to the end of the transaction: nobody writes here, or has
-- a transaction open that did, when it returns.
CREATE FUNCTION pgdist.seize(wait_ms int) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE until timestamptz := clock_timestamp() + make_interval(secs => wait_ms / 1000.0); p record;
BEGIN
    LOOP
        -- Whoever writes, or wrote in a transaction still open, holds the lock.
        PERFORM pg_terminate_backend(l.pid) FROM pg_locks l
          WHERE l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND l.relation = 'pgdist.boot'::regclass AND l.granted AND l.pid <> pg_backend_pid();
        -- A client's prepared transaction holds it without a backend.
        IF EXISTS (SELECT 1 FROM pg_locks l WHERE l.locktype = 'relation' AND l.relation = 'pgdist.boot'::regclass AND l.granted AND l.pid IS NULL
                      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) THEN
            SELECT string_agg(x.gid, ', ') AS gids INTO p FROM pg_prepared_xacts x WHERE x.database = current_database();
            RAISE EXCEPTION 'a prepared transaction holds the fence: one of %', p.gids USING ERRCODE = 'PD005', HINT = 'ROLLBACK PREPARED or COMMIT PREPARED it.';
        END IF;
        BEGIN
            PERFORM set_config('lock_timeout', '50ms', true);
            LOCK TABLE pgdist.boot IN ACCESS EXCLUSIVE MODE;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF clock_timestamp() > until THEN
                RAISE EXCEPTION 'open transactions on this member could not be ended' USING ERRCODE = 'PD005';
            END IF;
        END;
    END LOOP;
    PERFORM set_config('lock_timeout', '0', true);
END $$;

-- hold locks the fence, to the end of the transaction, if nobody has a transaction open that
-- has written, or soon has none: whoever wants to write waits behind the attempt.
CREATE FUNCTION pgdist.hold() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE who text;
BEGIN
    PERFORM set_config('lock_timeout', '300ms', true);
    LOCK TABLE pgdist.boot IN ACCESS EXCLUSIVE MODE;
    PERFORM set_config('lock_timeout', '0', true);
EXCEPTION WHEN lock_not_available THEN
    SELECT string_agg(DISTINCT coalesce('process ' || a.pid || ' of ' || a.usename || ', open since ' || a.xact_start::timestamptz(0), 'a prepared transaction'), '; ') INTO who
      FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
     WHERE l.granted AND l.locktype = 'relation' AND l.relation = 'pgdist.boot'::regclass AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database());
    RAISE EXCEPTION 'open: %', coalesce(who, 'others, one after the other') USING ERRCODE = 'PD005';
END $$;

-- promise raises this member's epoch. Soft: the role and the open transactions
-- stay. Hard: nobody writes here any more when it returns. Who does not lead promises hard
-- however it is asked: an apply under the epoch before would else be put in place after it.
CREATE FUNCTION pgdist.promise(e bigint, hard boolean, wait_ms int) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE have bigint; fence bigint;
BEGIN
    SELECT r.promised INTO have FROM pgdist.register r FOR UPDATE;
    SELECT f.last_value INTO fence FROM pgdist.fence f;
    IF e <= greatest(have, fence >> 1) THEN
        RETURN jsonb_build_object('given', false) || pgdist.here();
    END IF;
    hard := hard OR fence & 1 = 0;
    IF hard THEN
        PERFORM pgdist.seize(wait_ms);
        -- What this leader's roles were: one that the next leader lacks is undone here.
        IF fence & 1 = 1 THEN PERFORM pgdist.role_names(pgdist.shared_state() -> 'roles', 0); END IF;
    END IF;
    PERFORM setval('pgdist.fence', e * 2 + (CASE WHEN hard THEN 0 ELSE fence & 1 END));
    UPDATE pgdist.register SET promised = e;
    RETURN jsonb_build_object('given', true, 'fenced', hard) || pgdist.here();
END $$;

-- accept takes the view proposed for an epoch that this member promised.
CREATE FUNCTION pgdist.accept(e bigint, v jsonb) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE pgdist.register SET accepted = e, view = v WHERE promised = e AND accepted <= e;
    RETURN FOUND;
END $$;

-- adopt tells a member that took no part about a view chosen without it: a hard
-- promise and its acceptance at once. One that promised this very epoch softly, as the
-- leader it was, but was not kept, has its role still: it is taken away.
CREATE FUNCTION pgdist.adopt(e bigint, v jsonb, wait_ms int) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r jsonb := pgdist.promise(e, true, wait_ms);
BEGIN
    IF NOT (r->>'given')::boolean AND (r->>'epoch')::bigint = e AND (r->>'leads')::boolean AND v->>'leader' <> r->>'member' THEN
        PERFORM pgdist.seize(wait_ms);
        PERFORM pgdist.role_names(pgdist.shared_state() -> 'roles', 0);
        PERFORM setval('pgdist.fence', e * 2);
        r := r || '{"given": true}';
    END IF;
    IF (r->>'given')::boolean THEN PERFORM pgdist.accept(e, v); END IF;
    RETURN r || pgdist.here();
END $$;

-- activate gives this member the leader's role under a chosen view. It is the
-- first act of a term.
CREATE FUNCTION pgdist.activate(e bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r record; p record; me int; crashed boolean;
BEGIN
    SELECT x.promised, x.accepted, x.view INTO r FROM pgdist.register x FOR UPDATE;
    SELECT m.member INTO me FROM pgdist.meta m;
    IF r.promised <> e OR r.accepted <> e OR (r.view->>'leader')::int <> me OR (r.view->>'term')::bigint <> e THEN
        RAISE EXCEPTION 'this member is not the leader of a view of epoch %', e USING ERRCODE = 'PD001';
    END IF;
    LOCK TABLE pgdist.boot IN ACCESS EXCLUSIVE MODE;
    SELECT x.term, x.snap INTO p FROM pgdist.position x ORDER BY x.one DESC LIMIT 1 FOR UPDATE;
    -- Roles that the leader before did not tell of are not said to be made here: others may know them.
    IF (SELECT t.leader FROM pgdist.terms t WHERE t.term = p.term) <> me THEN
        INSERT INTO pgdist.roles (name, term, was) SELECT a.rolname, 0, a.oid FROM pg_authid a WHERE a.rolname !~ '^pg_' AND NOT EXISTS (SELECT 1 FROM pgdist.roles k WHERE k.oid = a.oid)
        ON CONFLICT (name) DO UPDATE SET term = 0, was = EXCLUDED.was, id = NULL, oid = NULL;
    END IF;
    INSERT INTO pgdist.terms (term, leader, prev, snap) VALUES (e, me, p.term, p.snap);
    UPDATE pgdist.position SET term = e, snap = NULL, at = now(), tick = tick + 1;
    crashed := NOT EXISTS (SELECT 1 FROM pgdist.boot);
    DELETE FROM pgdist.boot;
    INSERT INTO pgdist.boot (term) VALUES (e);
    PERFORM setval('pgdist.term', e);
    PERFORM setval('pgdist.fence', e * 2 + 1);
    -- What a crash has emptied here is emptied everywhere.
    IF crashed THEN PERFORM pgdist.note(l, 'c', NULL) FROM pgdist.lost() l; END IF;
END $$;

-- behind tells whether all that a slot of the journal holds lies behind place
-- (t, s). VOLATILE: what was committed just before the call counts.
CREATE FUNCTION pgdist.behind(slot int, t bigint, s pg_snapshot) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE clean boolean;
BEGIN
    EXECUTE format('SELECT NOT EXISTS (SELECT 1 FROM pgdist.journal_%s j WHERE j.term > $1)
        AND NOT EXISTS (SELECT 1 FROM pgdist.journal_%1$s j WHERE $2 IS NOT NULL AND j.term = $1 AND (j.xid >= pg_snapshot_xmax($2) OR j.xid = ANY (ARRAY(SELECT pg_snapshot_xip($2)))))', slot)
      INTO clean USING t, s;
    RETURN clean;
END $$;

-- prune empties the journal's slots of which all lies behind place (t, s), and
-- turns to an empty slot when the present one is full or old. A transaction that
-- wrote to a slot and is still open keeps that slot, and no other.
CREATE FUNCTION pgdist.prune(t bigint, s pg_snapshot, max_bytes bigint, max_age interval, keep interval) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE cur int; r record; did text := '';
BEGIN
    -- Every flush that comes meanwhile waits for this lock, too.
    PERFORM set_config('lock_timeout', '20ms', true);
    SELECT x.last_value INTO cur FROM pgdist.slot x;
    UPDATE pgdist.slots y SET till = now() WHERE y.slot <> cur AND y.till IS NULL AND pg_relation_size('pgdist.journal_' || y.slot) > 0;
    FOR r IN SELECT y.slot FROM pgdist.slots y WHERE y.slot <> cur AND y.till <= now() - keep AND pg_relation_size('pgdist.journal_' || y.slot) > 0 ORDER BY 1 LOOP
        CONTINUE WHEN NOT pgdist.behind(r.slot, t, s);
        BEGIN
            EXECUTE format('LOCK TABLE pgdist.journal_%s IN ACCESS EXCLUSIVE MODE', r.slot);
        EXCEPTION WHEN lock_not_available THEN
            did := did || 'in use ' || r.slot || ' ';
            CONTINUE;
        END;
        -- Whoever wrote to it and has committed since is seen only now.
        CONTINUE WHEN NOT pgdist.behind(r.slot, t, s);
        EXECUTE format('TRUNCATE pgdist.journal_%s', r.slot);
        UPDATE pgdist.floor f SET term = t, snap = s WHERE f.term < t OR (f.term = t AND (s IS NULL OR (f.snap IS NOT NULL AND pg_snapshot_xmax(f.snap) <= pg_snapshot_xmax(s))));
        did := did || 'emptied ' || r.slot || ' ';
    END LOOP;
    IF pg_relation_size('pgdist.journal_' || cur) > 0
       AND (pg_total_relation_size('pgdist.journal_' || cur) > max_bytes OR (SELECT y.since < now() - max_age FROM pgdist.slots y WHERE y.slot = cur)) THEN
        SELECT y.slot INTO r FROM pgdist.slots y WHERE y.slot <> cur AND pg_relation_size('pgdist.journal_' || y.slot) = 0 ORDER BY (y.slot - cur + 3) % 3 LIMIT 1;
        IF FOUND THEN
            UPDATE pgdist.slots y SET till = CASE y.slot WHEN cur THEN now() END, since = CASE y.slot WHEN cur THEN y.since ELSE now() END WHERE y.slot IN (cur, r.slot);
            PERFORM setval('pgdist.slot', r.slot);
            did := did || 'turned to ' || r.slot;
        END IF;
    END IF;
    RETURN did;
END $$;

-- journal_state tells how much the journal holds, for how long (in seconds) its
-- oldest slot has been waiting to be emptied, and which open transactions keep
-- one from being so.
CREATE FUNCTION pgdist.journal_state() RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE cur int; left_slots regclass[]; held float8; bytes bigint;
BEGIN
    SELECT x.last_value INTO cur FROM pgdist.slot x;
    SELECT sum(pg_total_relation_size('pgdist.journal_' || y.slot)), array_agg(('pgdist.journal_' || y.slot)::regclass) FILTER (WHERE y.slot <> cur),
           extract(epoch FROM now() - min(y.till) FILTER (WHERE y.slot <> cur AND pg_relation_size('pgdist.journal_' || y.slot) > 0))
      INTO bytes, left_slots, held FROM pgdist.slots y;
    RETURN jsonb_build_object('bytes', bytes, 'held', coalesce(held, 0), 'open', (
        SELECT coalesce(jsonb_agg(DISTINCT coalesce('process ' || a.pid || ' of ' || a.usename || ', in a transaction since ' || a.xact_start::timestamptz(0), 'a prepared transaction')), '[]')
          FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'RowExclusiveLock' AND l.relation = ANY (left_slots::oid[])
           AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())));
END $$;
