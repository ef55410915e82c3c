-- PostgreSQL tells no event trigger of REASSIGN OWNED, and functions run it, too. So the
-- owners that followers have are on a list (pgdist.owners), and who differs from it has
-- been given away unseen: that is journaled by the next DDL, in its transaction and before
-- it does anything (on_start), or by the flush that acknowledges what may have done it (the
-- shared objects' marker tells of it), or with the DDL that it happened beside. What is journaled
-- is who owns what, never how it came to be: followers set what is not so (give).

-- owner_of looks an object up that ALTER … OWNER or REASSIGN OWNED may give away. NULL: it
-- is gone, temporary, or of a kind that is shipped otherwise. (An owner that came with the
-- server, as the first superuser did, is not in pg_shdepend.)
CREATE FUNCTION pgdist.owner_of(class oid, obj oid) RETURNS oid
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE class
        WHEN 'pg_class'::regclass THEN (SELECT c.relowner FROM pg_class c WHERE c.oid = obj AND c.relpersistence <> 't')
        WHEN 'pg_proc'::regclass THEN (SELECT p.proowner FROM pg_proc p WHERE p.oid = obj AND NOT pg_is_other_temp_schema(p.pronamespace) AND p.pronamespace <> pg_my_temp_schema())
        WHEN 'pg_type'::regclass THEN (SELECT y.typowner FROM pg_type y WHERE y.oid = obj AND NOT pg_is_other_temp_schema(y.typnamespace) AND y.typnamespace <> pg_my_temp_schema())
        WHEN 'pg_namespace'::regclass THEN (SELECT n.nspowner FROM pg_namespace n WHERE n.oid = obj AND n.nspname !~ '^pg_(toast_)?temp_')
        WHEN 'pg_operator'::regclass THEN (SELECT o.oprowner FROM pg_operator o WHERE o.oid = obj)
        WHEN 'pg_opclass'::regclass THEN (SELECT o.opcowner FROM pg_opclass o WHERE o.oid = obj)
        WHEN 'pg_opfamily'::regclass THEN (SELECT o.opfowner FROM pg_opfamily o WHERE o.oid = obj)
        WHEN 'pg_collation'::regclass THEN (SELECT o.collowner FROM pg_collation o WHERE o.oid = obj)
        WHEN 'pg_conversion'::regclass THEN (SELECT o.conowner FROM pg_conversion o WHERE o.oid = obj)
        WHEN 'pg_ts_dict'::regclass THEN (SELECT o.dictowner FROM pg_ts_dict o WHERE o.oid = obj)
        WHEN 'pg_ts_config'::regclass THEN (SELECT o.cfgowner FROM pg_ts_config o WHERE o.oid = obj)
        WHEN 'pg_statistic_ext'::regclass THEN (SELECT o.stxowner FROM pg_statistic_ext o WHERE o.oid = obj)
        WHEN 'pg_language'::regclass THEN (SELECT o.lanowner FROM pg_language o WHERE o.oid = obj)
        WHEN 'pg_foreign_data_wrapper'::regclass THEN (SELECT o.fdwowner FROM pg_foreign_data_wrapper o WHERE o.oid = obj)
        WHEN 'pg_foreign_server'::regclass THEN (SELECT o.srvowner FROM pg_foreign_server o WHERE o.oid = obj)
        WHEN 'pg_publication'::regclass THEN (SELECT o.pubowner FROM pg_publication o WHERE o.oid = obj)
        WHEN 'pg_extension'::regclass THEN (SELECT o.extowner FROM pg_extension o WHERE o.oid = obj)
    END;
END $$;

-- unlisted tells where the list and the catalog differ: was is NULL of what is new, now of
-- what is gone.
CREATE FUNCTION pgdist.unlisted() RETURNS TABLE (class oid, obj oid, was oid, now oid)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE db oid := (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
BEGIN
    RETURN QUERY SELECT x.class, x.obj, x.was, pgdist.owner_of(x.class, x.obj) FROM (
        SELECT coalesce(o.class, d.classid) AS class, coalesce(o.obj, d.objid) AS obj, o.owner AS was
          FROM pgdist.owners o FULL JOIN (SELECT s.classid, s.objid, s.refobjid FROM pg_shdepend s WHERE s.dbid = db AND s.deptype = 'o') d ON d.classid = o.class AND d.objid = o.obj
         WHERE o.owner IS DISTINCT FROM d.refobjid) x;
END $$;

-- given_away tells whether anything has another owner than followers know.
CREATE FUNCTION pgdist.given_away() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (SELECT 1 FROM pgdist.unlisted() u WHERE u.was <> u.now);
END $$;

-- list brings the list up to the catalog and returns what has another owner than before, for
-- give: type, names and arguments as pg_get_object_address takes them (it takes no operators with
-- one operand), and the owner; NULL is nothing. tables are the relations among it; NULL is any. Sequences of a column go with their table.
CREATE FUNCTION pgdist.list(OUT given jsonb, OUT tables oid[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE u record;
BEGIN
    tables := '{}';
    FOR u IN SELECT x.class, x.obj, x.was, x.now FROM pgdist.unlisted() x WHERE x.was IS DISTINCT FROM x.now ORDER BY x.class, x.obj LOOP
        IF u.was IS NULL THEN
            INSERT INTO pgdist.owners (class, obj, owner) VALUES (u.class, u.obj, u.now) ON CONFLICT DO NOTHING;
            CONTINUE;
        ELSIF u.now IS NULL OR u.now < 16384 THEN -- one that PostgreSQL itself made (FirstNormalObjectId)
            DELETE FROM pgdist.owners o WHERE o.class = u.class AND o.obj = u.obj AND o.owner = u.was;
        ELSE
            UPDATE pgdist.owners o SET owner = u.now WHERE o.class = u.class AND o.obj = u.obj AND o.owner = u.was;
        END IF;
        -- Not found: somebody else has journaled it since.
        CONTINUE WHEN u.now IS NULL OR NOT FOUND OR EXISTS (SELECT 1 FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S'
            WHERE u.class = 'pg_class'::regclass AND d.classid = u.class AND d.objid = u.obj AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid <> 0 AND d.deptype IN ('a', 'i'));
        -- Dropped meanwhile: it has no name.
        SELECT CASE WHEN a.object_names IS NULL THEN given ELSE coalesce(given, '[]') || jsonb_build_array(jsonb_build_array(a.type,
                    CASE WHEN u.class = 'pg_operator'::regclass THEN to_jsonb(ARRAY[i.identity]) ELSE to_jsonb(a.object_names) END, to_jsonb(a.object_args), pg_get_userbyid(u.now))) END
          INTO given FROM pg_identify_object_as_address(u.class, u.obj, 0) a, pg_identify_object(u.class, u.obj, 0) i;
        -- An owner needs rights on his table's schema.
        tables := CASE u.class WHEN 'pg_class'::regclass THEN tables || u.obj WHEN 'pg_namespace'::regclass THEN NULL ELSE tables END;
    END LOOP;
END $$;

-- give_away journals what was given away unseen.
CREATE FUNCTION pgdist.give_away() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE given jsonb; these oid[]; whole int[];
BEGIN
    IF (SELECT f.last_value & 1 FROM pgdist.fence f) = 0 OR NOT pgdist.given_away() THEN RETURN; END IF;
    SELECT x.given, CASE WHEN x.tables IS NOT NULL THEN pgdist.roots_of(x.tables) END INTO given, these FROM pgdist.list() x;
    IF given IS NULL THEN RETURN; END IF;
    whole := ARRAY(SELECT pgdist.sync_of(NULL, these));
    PERFORM pgdist.note_owners(given, these);
    PERFORM pgdist.note(id, 'c', NULL) FROM unnest(whole) id;
END $$;

-- note_owners journals owners as DDL that has no text.
CREATE FUNCTION pgdist.note_owners(given jsonb, these oid[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgdist.note(0, 'd', jsonb_build_object('tag', 'REASSIGN OWNED', 'text', '', 'owners', given, 'objects', '[]'::jsonb,
        'roles', (SELECT coalesce(jsonb_agg(DISTINCT e -> 3), '[]') FROM jsonb_array_elements(given) e WHERE e ->> 3 !~ '^pg_'), 'numbers', pgdist.role_numbers((SELECT jsonb_agg(e -> 3) FROM jsonb_array_elements(given) e)), 'ids', pgdist.ids_of((SELECT jsonb_agg(e -> 3) FROM jsonb_array_elements(given) e)), 'some', these IS NOT NULL,
        'tables', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', t.id, 'nsp', t.nsp, 'rel', t.rel, 'gen', t.gen)), '[]') FROM pgdist.tables t WHERE these IS NULL OR t.oid = ANY (these)))::text);
END $$;

-- give has objects belong to whom they belong at the leader. What is not here (a table that
-- cannot be mirrored) need not.
CREATE FUNCTION pgdist.give(owners jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE e jsonb; class oid; obj oid; i record; role oid;
BEGIN
    IF jsonb_typeof(owners) IS DISTINCT FROM 'array' THEN RETURN; END IF;
    FOR e IN SELECT x FROM jsonb_array_elements(owners) x LOOP
        BEGIN
            IF e ->> 0 = 'operator' THEN
                class := 'pg_operator'::regclass; obj := (e -> 1 ->> 0)::regoperator;
            ELSE
                SELECT a.classid, a.objid INTO class, obj FROM pg_get_object_address(e ->> 0, ARRAY(SELECT jsonb_array_elements_text(e -> 1)), ARRAY(SELECT jsonb_array_elements_text(e -> 2))) a;
            END IF;
        EXCEPTION WHEN undefined_object OR undefined_table OR undefined_function OR invalid_schema_name THEN
            CONTINUE;
        END;
        role := to_regrole(quote_ident(e ->> 3));
        CONTINUE WHEN pgdist.owner_of(class, obj) = role;
        IF class = 'pg_extension'::regclass THEN
            PERFORM pgdist.give_extension(obj, role);
            CONTINUE;
        END IF;
        SELECT x.type, x.identity INTO i FROM pg_identify_object(class, obj, 0) x;
        EXECUTE format('ALTER %s %s OWNER TO %I', CASE WHEN class = 'pg_proc'::regclass THEN 'ROUTINE' WHEN i.type = 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER'
            WHEN i.type = 'statistics object' THEN 'STATISTICS' ELSE upper(i.type) END, i.identity, e ->> 3);
    END LOOP;
END $$;

-- give_extension does what REASSIGN OWNED does with an extension. There is no statement for
-- that alone, and DROP OWNED BY the owner of before would drop it.
CREATE FUNCTION pgdist.give_extension(ext oid, role oid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE db oid := (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
BEGIN
    UPDATE pg_extension SET extowner = role WHERE oid = ext;
    DELETE FROM pg_shdepend WHERE dbid = db AND classid = 'pg_extension'::regclass AND objid = ext AND deptype = 'o';
    INSERT INTO pg_shdepend (dbid, classid, objid, objsubid, refclassid, refobjid, deptype)
    SELECT db, 'pg_extension'::regclass, ext, 0, 'pg_authid'::regclass, role, 'o' WHERE role >= 16384;
END $$;
