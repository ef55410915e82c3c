-- EXPLAIN ANALYZE of CREATE TABLE AS, SELECT INTO or CREATE MATERIALIZED VIEW makes what it
-- explains, and PostgreSQL tells no event trigger of it. So whatever is in the catalog and
-- on no list is taken up: by the next DDL, in its transaction, before anything else
-- happens to it (on_start), or by the flush that acknowledges what made it (batches tell
-- of it in the shared objects' marker). What somebody wrote to it until then is in the copy.

-- unseen lists what was made so: of nothing but columns and rows. (An extension's script
-- is shipped as the CREATE EXTENSION that runs it, and is under way.)
CREATE FUNCTION pgdist.unseen() RETURNS TABLE (oid oid, kind "char")
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT x.oid, x.kind FROM (
        SELECT u.oid, 'r'::"char" AS kind FROM pgdist.user_roots() u WHERE NOT EXISTS (SELECT 1 FROM pgdist.tables t WHERE t.oid = u.oid)
        UNION ALL SELECT c.oid, c.relkind FROM pg_class c WHERE c.relkind = 'm' AND NOT EXISTS (SELECT 1 FROM pgdist.views v WHERE v.oid = c.oid)) x
     WHERE NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = x.oid AND d.deptype = 'e')
       AND NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = x.oid AND (c.relkind = 'p' OR x.kind = 'r' AND (c.relhasindex OR c.relhasrules OR c.relchecks > 0)))
       AND NOT EXISTS (SELECT 1 FROM pg_inherits h WHERE h.inhrelid = x.oid OR h.inhparent = x.oid);
END $$;

-- adopt journals what was made unseen as if its making had been seen, and lists what
-- cannot be mirrored: that stays here alone, and all DDL but its DROP is refused by its
-- name. The lock is for two that find the same; it waits for nobody's DDL.
CREATE FUNCTION pgdist.adopt() RETURNS SETOF oid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE r record; body text;
BEGIN
    IF (SELECT f.last_value & 1 FROM pgdist.fence f) = 0 OR NOT EXISTS (SELECT 1 FROM pgdist.unseen()) THEN RETURN; END IF;
    LOCK TABLE pgdist.views IN SHARE UPDATE EXCLUSIVE MODE;
    FOR r IN SELECT u.oid, u.kind, pg_get_userbyid(c.relowner) AS owner FROM pgdist.unseen() u JOIN pg_class c ON c.oid = u.oid ORDER BY u.oid LOOP
        IF r.kind = 'r' AND pgdist.unfit(r.oid) IS NOT NULL THEN
            RETURN NEXT r.oid;
            CONTINUE;
        END IF;
        body := CASE r.kind WHEN 'r' THEN pgdist.table_text(r.oid) ELSE pgdist.matview_text(r.oid) END;
        PERFORM pgdist.sync_of(NULL, ARRAY[r.oid]);
        PERFORM pgdist.note(0, 'd', jsonb_build_object('tag', CASE r.kind WHEN 'r' THEN 'CREATE TABLE AS' ELSE 'CREATE MATERIALIZED VIEW' END, 'text', body, 'path', '',
            'role', r.owner, 'roles', jsonb_build_array(r.owner), 'numbers', pgdist.role_numbers(jsonb_build_array(r.owner)), 'ids', pgdist.ids_of(jsonb_build_array(r.owner)), 'settings', '{}'::jsonb,
            'objects', (SELECT coalesce(jsonb_agg(t.id), '[]') FROM pgdist.tables t WHERE t.oid = r.oid),
            'some', true,
            'tables', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', t.id, 'nsp', t.nsp, 'rel', t.rel, 'gen', t.gen)), '[]') FROM pgdist.tables t WHERE t.oid = r.oid))::text);
        PERFORM pgdist.note(t.id, 'c', NULL) FROM pgdist.tables t WHERE t.oid = r.oid;
    END LOOP;
END $$;

-- adopt_soon is adopt, and give_away, for whoever flushes, who cannot wait for others.
CREATE FUNCTION pgdist.adopt_soon() RETURNS SETOF text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
    SELECT pgdist.give_away();
    SELECT a::regclass::text FROM pgdist.adopt() a
$$;
