-- Materialized views. What one holds was computed by a query that may give
-- something else the next time, and PostgreSQL lets nobody put rows into one. So
-- the leader alone holds data in them, followers hold none (reads there fail and
-- are run again at the leader), and whoever takes office fills those anew that
-- held data. Which these are is state, shipped with the roles (08_roles.sql).

-- filled lists the materialized views that hold data, or are to.
CREATE FUNCTION pgdist.filled() RETURNS TABLE (oid oid, name text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT c.oid, format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'm' AND (c.relispopulated OR EXISTS (SELECT 1 FROM pgdist.matviews m WHERE m.oid = c.oid));
END $$;

-- hollow empties a follower's materialized views and notes which of them are to
-- hold data, should it take office.
CREATE FUNCTION pgdist.hollow(names jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE name text;
BEGIN
    FOR name IN SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm' AND c.relispopulated LOOP
        EXECUTE format('REFRESH MATERIALIZED VIEW %s WITH NO DATA', name);
    END LOOP;
    DELETE FROM pgdist.matviews m WHERE NOT EXISTS (SELECT 1 FROM jsonb_array_elements_text(names) x WHERE to_regclass(x) = m.oid);
    INSERT INTO pgdist.matviews (oid) SELECT to_regclass(x) FROM jsonb_array_elements_text(names) x WHERE to_regclass(x) IS NOT NULL ON CONFLICT DO NOTHING;
END $$;

-- unfilled lists what a leader has yet to fill, older ones first: most depend
-- on none that is younger.
CREATE FUNCTION pgdist.unfilled() RETURNS TABLE (name text, error text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT x.name, m.error
      FROM pgdist.matviews m, LATERAL (SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = m.oid AND NOT c.relispopulated OFFSET 0) x -- one by one: not all of pg_class is read for a few
     ORDER BY x.oid;
END $$;

-- fill_begin takes the fence (a change of leader ends this transaction first, and
-- nothing is filled on a follower) and the locks that keep readers waiting until
-- there is something to read. LOCK TABLE takes no materialized view; an ALTER
-- that changes nothing locks as well. It is nobody's DDL, hence replica.
CREATE FUNCTION pgdist.fill_begin(expected bigint) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET session_replication_role = replica SET lock_timeout = '2s' AS $$
DECLARE name text;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pgdist.boot b, pgdist.fence f, pgdist.term t WHERE f.last_value & 1 = 1 AND b.term = t.last_value AND b.term = expected) THEN
        RAISE EXCEPTION 'this member does not lead term %', expected USING ERRCODE = 'PD001';
    END IF;
    FOR name IN SELECT u.name FROM pgdist.unfilled() u WHERE u.error IS NULL LOOP
        BEGIN
            EXECUTE (SELECT format('ALTER MATERIALIZED VIEW %s OWNER TO %I', name, pg_get_userbyid(c.relowner)) FROM pg_class c WHERE c.oid = to_regclass(name));
        EXCEPTION WHEN lock_not_available THEN NULL; -- readers may then find it empty for a moment
        END;
        RETURN NEXT name;
    END LOOP;
END $$;

-- fill computes one, under the session's search_path (hence names in full). What
-- its query writes is captured as ever.
CREATE FUNCTION pgdist.fill(name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    EXECUTE pg_catalog.format('REFRESH MATERIALIZED VIEW %s', name);
END $$;

CREATE FUNCTION pgdist.fill_failed(name text, why text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE pgdist.matviews SET error = why WHERE oid = to_regclass(name)
$$;

-- storage_text is the end of a CREATE that makes a relation's storage as it is.
CREATE FUNCTION pgdist.storage_text(rel oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format(' USING %I', m.amname)
           || coalesce((SELECT ' WITH (' || string_agg(x.prefix || format('%I = %L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', ') || ')'
                          FROM (SELECT '' AS prefix, c.reloptions AS list UNION ALL SELECT 'toast.', t.reloptions FROM pg_class t WHERE t.oid = c.reltoastrelid) x, unnest(x.list) o), '')
           || coalesce((SELECT format(' TABLESPACE %I', s.spcname) FROM pg_tablespace s WHERE s.oid = c.reltablespace), '')
      FROM pg_class c JOIN pg_am m ON m.oid = c.relam WHERE c.oid = rel
$$;

-- matview_text is the CREATE of a materialized view that runs no query. It is
-- meant for an empty search_path.
CREATE FUNCTION pgdist.matview_text(rel oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('CREATE MATERIALIZED VIEW %I.%I', n.nspname, c.relname)
           || coalesce(' (' || (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0) || ')', '')
           || pgdist.storage_text(c.oid) || ' AS ' || rtrim(pg_get_viewdef(c.oid), ';') || ' WITH NO DATA'
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = rel
$$;
