-- Several distributors may use a set at once. Each is registered at a majority of
-- the members before it serves a read, and has the view by which it does so confirmed
-- again and again. Whoever leaves a member out waits until nobody can read there any more.

-- A distributor changes its name on the list now and then (lease.go): its id, and from the second
-- on ".2" and so on. Its connections bear the id alone.

-- alive lists the ids of the distributors that have asked for a confirmation here within their
-- lease, and the twentieth by which clocks may differ, and at least within the last second and a half.
CREATE FUNCTION pgdist.alive() RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT DISTINCT split_part(d.id, '.', 1) FROM pgdist.distributors d WHERE EXISTS (SELECT 1 FROM pg_stat_activity a
     WHERE a.application_name = 'pgdist ' || split_part(d.id, '.', 1) AND a.query LIKE '%pgdist.confirm(%'
       AND (a.state = 'active' OR a.state_change > clock_timestamp() - greatest(d.lease * 1.05, interval '1.5 s')))
$$;

-- leader_seen names a distributor other than me that goes by the view of epoch e, too, and has
-- said here a moment ago that it reaches that view's leader.
CREATE FUNCTION pgdist.leader_seen(me text, e bigint, lately interval) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT d.name FROM pgdist.distributors d JOIN pg_stat_activity a ON a.application_name = 'pgdist ' || split_part(d.id, '.', 1)
     WHERE split_part(d.id, '.', 1) <> me AND d.epoch = e AND a.query LIKE '%pgdist.confirm(%/* the leader answers */'
       AND (a.state = 'active' OR a.state_change > clock_timestamp() - lately) LIMIT 1
$$;

-- enrol registers a distributor.
CREATE FUNCTION pgdist.enrol(me text, called text, e bigint, term_of_lease interval) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO pgdist.distributors (id, name, epoch, lease) VALUES (me, called, e, term_of_lease)
      ON CONFLICT (id) DO UPDATE SET epoch = greatest(distributors.epoch, excluded.epoch), lease = excluded.lease;
END $$;

-- dismiss takes distributors off the list: those of ids that go by a view older than e.
CREATE FUNCTION pgdist.dismiss(ids text[], e bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM pgdist.distributors d WHERE d.id = ANY (ids) AND d.epoch < e;
END $$;

-- confirm tells what this member knows of views newer than that of epoch e, by which
-- the distributor serves its clients from now on, and who else is on the list; with look
-- also who of these is alive. In the steady state it writes nothing.
CREATE FUNCTION pgdist.confirm(me text, e bigint, look boolean, term_of_lease interval) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE mine record; others jsonb; living jsonb; r record;
BEGIN
    SELECT d.epoch, d.lease INTO mine FROM pgdist.distributors d WHERE d.id = me;
    IF mine.epoch < e OR mine.lease <> term_of_lease THEN
        UPDATE pgdist.distributors d SET epoch = greatest(d.epoch, e), lease = term_of_lease WHERE d.id = me;
    END IF;
    SELECT jsonb_agg(jsonb_build_object('id', d.id, 'name', d.name, 'epoch', d.epoch, 'lease', extract(epoch FROM d.lease))) INTO others FROM pgdist.distributors d WHERE d.id <> me;
    IF look AND others IS NOT NULL THEN SELECT jsonb_agg(a) INTO living FROM pgdist.alive() a; END IF;
    -- Last: what is promised while this runs must not be missed.
    SELECT greatest(x.promised, f.last_value >> 1) AS promised, x.accepted, x.view INTO r FROM pgdist.register x, pgdist.fence f;
    RETURN jsonb_build_object('promised', r.promised, 'accepted', r.accepted, 'known', mine.epoch IS NOT NULL, 'others', others, 'alive', living,
        'ddl', (SELECT p.ddl FROM pgdist.position p ORDER BY p.one DESC LIMIT 1));
END $$;

-- secret_lock is the number of an advisory lock that nobody else takes by chance.
CREATE FUNCTION pgdist.secret_lock(what text) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT hashtextextended(what || m.secret, 0) FROM pgdist.meta m
$$;

-- oust ends the session that holds such a lock for a distributor that is not alive.
CREATE FUNCTION pgdist.oust(lock bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
      WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND (l.classid::bigint << 32 | l.objid::bigint) = lock
        AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
        AND NOT EXISTS (SELECT 1 FROM pgdist.alive() v(id) WHERE a.application_name = 'pgdist ' || v.id);
END $$;

-- turn waits until nobody else flushes, and tells whether that is so. Two flushes at
-- once would be no mistake, only work done twice: the second finds the followers
-- elsewhere than its batch begins.
CREATE FUNCTION pgdist.turn(wait_ms int) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE lock bigint := pgdist.secret_lock('turn');
BEGIN
    PERFORM set_config('lock_timeout', wait_ms::text, true);
    PERFORM pg_advisory_lock(lock);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    -- The time may have been over just when the lock was had. It belongs to the session,
    -- which would keep it for good: the next attempt counts it twice, and lets go of it once.
    IF EXISTS (SELECT 1 FROM pg_locks l WHERE l.pid = pg_backend_pid() AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                  AND (l.classid::bigint << 32 | l.objid::bigint) = lock) THEN
        PERFORM pg_advisory_unlock(lock);
    END IF;
    PERFORM pgdist.oust(lock);
    RETURN false;
END $$;

CREATE FUNCTION pgdist.turn_over() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN PERFORM pg_advisory_unlock(pgdist.secret_lock('turn')); END $$;

-- claim tells whether this session is the one that brings this member up to date, until it ends.
CREATE FUNCTION pgdist.claim() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE lock bigint := pgdist.secret_lock('claim');
BEGIN
    IF lock IS NULL THEN RETURN NULL; END IF; -- a copy was broken off: this database is nobody yet
    IF pg_try_advisory_lock(lock) THEN RETURN true; END IF;
    PERFORM pgdist.oust(lock);
    RETURN false;
END $$;
