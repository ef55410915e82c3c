-- busy tells that pgdist itself is at work in this transaction: the value is a
-- secret that only its own functions can read, so that nobody else can say so.
CREATE FUNCTION pgdist.busy() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT 1 FROM pgdist.meta m WHERE m.secret = current_setting('pgdist.busy', true))
$$;

-- on_ddl keeps the caller's search_path to hand it on; hence it names
-- everything in full.
CREATE FUNCTION pgdist.on_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN PERFORM pgdist.statement(TG_TAG, pg_catalog.current_setting('search_path')); END $$;

-- statement journals DDL that pgdist announced, with all its outcome depends on,
-- and refuses the rest, which would stay local.
CREATE FUNCTION pgdist.statement(tag text, path text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    announced text := nullif(current_setting('pgdist.ddl', true), '');
    dropped text := current_setting('pgdist.dropped', true);
    temp boolean; inside boolean; id int; whole int[];
BEGIN
    IF pgdist.busy() THEN RETURN; END IF;
    SELECT bool_and(c.schema_name = 'pg_temp' OR c.schema_name LIKE 'pg\_temp\_%'), bool_and(c.in_extension)
      INTO temp, inside FROM pg_event_trigger_ddl_commands() c;
    IF tag LIKE 'DROP%' THEN
        PERFORM set_config('pgdist.dropped', '', true);
        temp := dropped = 'temp';
    END IF;
    IF temp OR inside THEN RETURN; END IF;
    IF announced IS NULL THEN
        RAISE EXCEPTION '% was not announced: it would stay local to this database', tag
            USING ERRCODE = '0A000', HINT = 'Run it through pgdist as a statement of its own, not from a function, a DO block or a connection to one server.';
    END IF;
    IF EXISTS (SELECT 1 FROM pg_event_trigger_ddl_commands() c JOIN pg_class r ON c.classid = 'pg_class'::regclass AND r.oid = c.objid WHERE r.relkind = 'm') THEN
        RAISE EXCEPTION 'materialized views are not mirrored' USING ERRCODE = '0A000', HINT = 'Use a table, or a view.';
    END IF;
    PERFORM set_config('pgdist.ddl', '', true); -- one announcement, one statement
    whole := ARRAY(SELECT pgdist.sync());
    IF tag IN ('CREATE TABLE AS', 'SELECT INTO') THEN
        whole := whole || ARRAY(SELECT t.id FROM pgdist.tables t JOIN pg_event_trigger_ddl_commands() c ON c.objid = t.oid);
    END IF;
    PERFORM pgdist.note(0, 'd', jsonb_build_object('tag', tag, 'text', announced, 'path', path,
        'role', CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END,
        'settings', (SELECT jsonb_object_agg(g.name, g.setting) FROM pg_settings g WHERE g.name IN (
            'DateStyle', 'IntervalStyle', 'TimeZone', 'lc_monetary', 'lc_numeric', 'lc_time', 'bytea_output', 'extra_float_digits', 'xmloption',
            'default_tablespace', 'default_table_access_method', 'default_toast_compression', 'check_function_bodies', 'array_nulls',
            'standard_conforming_strings', 'default_text_search_config')),
        'objects', (SELECT coalesce(jsonb_agg(DISTINCT t.id), '[]') FROM pg_event_trigger_ddl_commands() c LEFT JOIN pg_index i ON i.indexrelid = c.objid
                      JOIN pgdist.tables t ON coalesce(i.indrelid, c.objid) = ANY (t.files || t.oid) WHERE c.classid = 'pg_class'::regclass),
        'tables', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', t.id, 'nsp', t.nsp, 'rel', t.rel, 'gen', t.gen)), '[]') FROM pgdist.tables t))::text);
    FOREACH id IN ARRAY whole LOOP
        PERFORM pgdist.note(id, 'c', NULL);
    END LOOP;
END $$;

-- note makes one journal entry that is not about rows.
CREATE FUNCTION pgdist.note(tab int, op "char", body text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO pgdist.journal (slot, id, term, xid, tab, gen, op, conn, keys)
    SELECT s.last_value, nextval('pgdist.journal_id'), b.term, pg_current_xact_id(), note.tab, 0, note.op,
           current_setting('pgdist.conn', true), CASE WHEN body IS NULL THEN NULL ELSE ARRAY[body] END
      FROM pgdist.boot b, pgdist.fence f, pgdist.term t, pgdist.slot s
     WHERE f.last_value & 1 = 1 AND b.term = t.last_value;
    IF NOT FOUND THEN PERFORM pgdist.refuse(); END IF;
END $$;

-- on_drop notes for statement() whether only temporary objects went, and keeps
-- pgdist's own from being dropped by hand.
CREATE FUNCTION pgdist.on_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE all_temp boolean; own text;
BEGIN
    IF pgdist.busy() THEN RETURN; END IF;
    SELECT bool_and(d.is_temporary), min(d.object_identity) FILTER (WHERE d.original AND (d.schema_name = 'pgdist' OR d.object_identity = 'pgdist'
                                                                OR d.object_identity LIKE 'pgdist\_% on %'))
      INTO all_temp, own FROM pg_event_trigger_dropped_objects() d;
    IF own IS NOT NULL THEN
        RAISE EXCEPTION '% belongs to pgdist', own USING ERRCODE = '2BP01', HINT = 'pgdist uninstall removes it from all members.';
    END IF;
    PERFORM set_config('pgdist.dropped', CASE WHEN all_temp THEN 'temp' ELSE 'user' END, true);
END $$;

-- on_rewrite notes tables whose rows an ALTER computes anew: only a copy is
-- sure to bring the same bytes. (Reasons 2 and 4: a volatile default, a type.)
CREATE FUNCTION pgdist.on_rewrite() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE id int;
BEGIN
    IF pg_event_trigger_table_rewrite_reason() & 6 <> 0 THEN
        SELECT t.id INTO id FROM pgdist.tables t WHERE pg_event_trigger_table_rewrite_oid() = ANY (t.files);
        IF id IS NOT NULL THEN PERFORM pgdist.note(id, 'c', NULL); END IF;
    END IF;
END $$;

-- replay runs a leader's DDL here, as the role it ran under: within a function
-- that belongs to that role, which cannot set the role back. Settings are set
-- by value, never put into a statement: what a client makes of a search_path
-- is any text.
CREATE FUNCTION pgdist.replay(d jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE s record; before jsonb := '{}'; into_table boolean := d->>'tag' = 'SELECT INTO';
BEGIN
    -- plpgsql takes INTO for its own.
    PERFORM set_config('check_function_bodies', 'off', true);
    EXECUTE format('CREATE FUNCTION pgdist.replay_as(statement text) RETURNS void LANGUAGE %s SECURITY DEFINER AS %L',
        CASE WHEN into_table THEN 'sql' ELSE 'plpgsql' END, CASE WHEN into_table THEN d->>'text' ELSE 'BEGIN EXECUTE statement; END' END);
    EXECUTE 'REVOKE ALL ON FUNCTION pgdist.replay_as(text) FROM PUBLIC';
    EXECUTE format('ALTER FUNCTION pgdist.replay_as(text) OWNER TO %I', d->>'role');
    FOR s IN SELECT e.key, e.value FROM jsonb_each_text(d->'settings') e JOIN pg_settings g ON g.name = e.key AND g.context = 'user' LOOP
        before := before || jsonb_build_object(s.key, current_setting(s.key));
        PERFORM set_config(s.key, s.value, true);
    END LOOP;
    PERFORM set_config('search_path', coalesce(d->>'path', ''), true);
    PERFORM pgdist.replay_as(d->>'text');
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    FOR s IN SELECT e.key, e.value FROM jsonb_each_text(before) e LOOP
        PERFORM set_config(s.key, s.value, true);
    END LOOP;
    EXECUTE 'DROP FUNCTION pgdist.replay_as(text)';
    PERFORM pgdist.sync(d->'tables');
END $$;
