-- What DDL names must be the same things to followers, who run it when it is committed, as
-- to the leader. PostgreSQL keeps a table that a statement has opened from being renamed or
-- dropped until its transaction ends, but not what it has only looked up: a table's row type,
-- a sequence in a default, a name that another schema of the search_path has, too. Each of
-- the locks here waits for the transaction that did, and is waited for.

-- path_names lists the schemas that a search_path names, whether they are there or not.
CREATE FUNCTION pgdist.path_names(path text, caller name) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT coalesce(array_agg(CASE WHEN x.n = '$user' THEN caller::text ELSE x.n END ORDER BY x.o), '{}')
      FROM (SELECT coalesce(replace(r.m[1], '""', '"'), lower(r.m[2])) AS n, r.o FROM regexp_matches(path, '"((?:[^"]|"")*)"|([^\s,"]+)', 'g') WITH ORDINALITY r(m, o)) x);
END $$;

-- path_text is a search_path to be set, with the caller's name in place of "$user".
CREATE FUNCTION pgdist.path_text(path text, caller name) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT coalesce(string_agg(quote_ident(p.n), ', ' ORDER BY p.o), '') FROM unnest(pgdist.path_names(path, caller)) WITH ORDINALITY p(n, o));
END $$;

-- hold_path keeps the schemas of a search_path from getting anything that would be found by
-- a name of before (hold_names).
CREATE FUNCTION pgdist.hold_path(path text, caller name) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(pgdist.secret_lock('path ' || x.nsp)) FROM (SELECT DISTINCT u.nsp FROM unnest(pgdist.path_names(path, caller)) u(nsp)) x;
END $$;

-- hold_models keeps tables that a CREATE TABLE is LIKE from being changed: it locks them
-- against being dropped or renamed itself, but not against new indexes, comments and statistics.
CREATE FUNCTION pgdist.hold_models(body text, path text, caller name) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    names text[]; n text; rel regclass; theirs text := pgdist.path_text(path, caller);
BEGIN
    IF body !~* '\mLIKE\M' THEN RETURN; END IF;
    SELECT array_agg(m[1]) INTO names FROM regexp_matches(body, '\mLIKE\s+((?:"(?:[^"]|"")+"|[\w$]+)(?:\s*\.\s*(?:"(?:[^"]|"")+"|[\w$]+))?)', 'gi') m;
    FOREACH n IN ARRAY coalesce(names, '{}') LOOP
        PERFORM set_config('search_path', theirs, true);
        rel := pg_catalog.to_regclass(n); -- nothing else is looked up by their path
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        IF EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = rel AND c.relkind IN ('r', 'p')) THEN
            EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', (SELECT format('%I.%I', s.nspname, c.relname) FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace WHERE c.oid = rel));
        END IF;
    END LOOP;
END $$;

-- hold_names keeps what a statement has made, and what its definition names, from being taken
-- for something else: something new whose name there is elsewhere, too, waits for open DDL that
-- would have found the other; and a relation that is named and not locked is locked.
CREATE FUNCTION pgdist.hold_names(tag text, body text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r record; now_called text;
BEGIN
    IF tag IN ('GRANT', 'REVOKE', 'COMMENT', 'CREATE INDEX') OR tag LIKE 'DROP%' THEN RETURN; END IF;
    IF tag LIKE 'CREATE%' OR tag = 'SELECT INTO' OR tag LIKE 'ALTER%' AND body ~* '\m(RENAME|SCHEMA)\M' THEN
        PERFORM pg_advisory_xact_lock(pgdist.secret_lock('path ' || x.nsp)) FROM (
            SELECT n.nspname AS nsp FROM pg_event_trigger_ddl_commands() c, LATERAL (
                SELECT a.relnamespace AS nsp FROM pg_class a WHERE c.classid = 'pg_class'::regclass AND a.oid = c.objid AND a.relkind NOT IN ('i', 'I')
                   AND EXISTS (SELECT 1 FROM pg_class o WHERE o.relname = a.relname AND o.relnamespace <> a.relnamespace AND o.relpersistence <> 't')
                UNION ALL SELECT a.typnamespace FROM pg_type a WHERE c.classid = 'pg_type'::regclass AND a.oid = c.objid
                   AND EXISTS (SELECT 1 FROM pg_type o WHERE o.typname = a.typname AND o.typnamespace <> a.typnamespace)
                -- Of functions the one that fits best is taken, from wherever.
                UNION ALL SELECT a.pronamespace FROM pg_proc a WHERE c.classid = 'pg_proc'::regclass AND a.oid = c.objid
                   AND EXISTS (SELECT 1 FROM pg_proc o WHERE o.proname = a.proname AND o.oid <> a.oid)) y JOIN pg_namespace n ON n.oid = y.nsp
             GROUP BY 1 ORDER BY 1) x;
    END IF;
    FOR r IN SELECT DISTINCT k.oid, format('%I.%I', n.nspname, k.relname) AS name
               FROM pg_event_trigger_ddl_commands() c
               JOIN LATERAL (SELECT c.classid, c.objid UNION ALL SELECT 'pg_attrdef'::regclass, a.oid FROM pg_attrdef a WHERE c.classid = 'pg_class'::regclass AND a.adrelid = c.objid) o ON true
               JOIN pg_depend d ON d.classid = o.classid AND d.objid = o.objid AND d.deptype = 'n'
               LEFT JOIN pg_type y ON d.refclassid = 'pg_type'::regclass AND y.oid = d.refobjid LEFT JOIN pg_type e ON e.oid = y.typelem
               JOIN pg_class k ON k.oid = CASE d.refclassid WHEN 'pg_class'::regclass THEN d.refobjid ELSE coalesce(nullif(y.typrelid, 0), e.typrelid) END
               JOIN pg_namespace n ON n.oid = k.relnamespace
              WHERE k.oid >= 16384 AND k.oid <> c.objid AND k.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND k.relpersistence <> 't'
                AND NOT EXISTS (SELECT 1 FROM pg_locks l WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.relation = k.oid) ORDER BY 1 LOOP
        BEGIN -- To be read is enough, and nothing of it is run. (LOCK takes tables and views only.)
            EXECUTE 'PREPARE pgdist_held AS SELECT FROM ' || r.name;
            EXECUTE 'DEALLOCATE pgdist_held';
        EXCEPTION WHEN undefined_table THEN NULL; -- as is told below
        END;
        SELECT format('%I.%I', n.nspname, k.relname) INTO now_called FROM pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace WHERE k.oid = r.oid;
        IF now_called IS DISTINCT FROM r.name THEN
            RAISE EXCEPTION '% was renamed or dropped meanwhile', r.name USING ERRCODE = '40001', HINT = 'Run the transaction again.';
        END IF;
    END LOOP;
END $$;
