-- Roles, memberships, the settings of roles and of this database, its privileges
-- and those on parameters, event triggers: no event trigger fires for any of
-- these, and functions change them, too. So they are shipped as state: what the
-- leader has (shared_state) is made so on the followers (shared_begin, before
-- the DDL of a batch, and shared_end, which drops, after its rows). So is which
-- materialized views hold data, and by which indexes tables are clustered: CLUSTER tells no
-- event trigger.
--
-- What shared_state tells is all of one snapshot: names come by joins and never by
-- pg_get_userbyid or regproc, which tell of what is there now. Of what a later
-- transaction has dropped they give the number, and followers cannot make that.

-- role_name is a role's name in the statement's snapshot.
CREATE FUNCTION pgdist.role_name(role oid) RETURNS name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT r.rolname FROM pg_authid r WHERE r.oid = role $$;

-- privileges explodes an access control list; NULL means the built-in default.
CREATE FUNCTION pgdist.privileges(acl aclitem[], kind "char", owner oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_array(coalesce(r.rolname, ''), x.privilege_type, x.is_grantable)
                              ORDER BY coalesce(r.rolname, ''), x.privilege_type, x.is_grantable), '[]')
      FROM aclexplode(coalesce(acl, acldefault(kind, owner))) x LEFT JOIN pg_authid r ON r.oid = x.grantee WHERE x.grantee = 0 OR r.oid IS NOT NULL
$$;

-- role_ids tells what all members know this server's roles by. The number that a role has here says it,
-- not its name, which it may have got since; one that nobody has told of was made here. NULL: it is of
-- before roles had ids, and another member may call it otherwise.
CREATE FUNCTION pgdist.role_ids() RETURNS TABLE (oid oid, id text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT a.oid, CASE WHEN k.oid IS NOT NULL THEN k.id WHEN old.name IS NULL THEN c.system_identifier || '/' || a.oid END
      FROM pg_authid a CROSS JOIN pg_control_system() c LEFT JOIN (SELECT r.oid, max(r.id) AS id FROM pgdist.roles r GROUP BY r.oid) k ON k.oid = a.oid
      LEFT JOIN pgdist.roles old ON old.name = a.rolname AND old.oid IS NULL;
END $$;

-- same_role tells whether a role that is known here is the one that a leader has, or had, as that id,
-- or, where either knows no ids yet, under that number in that term. NULL: nobody can tell.
CREATE FUNCTION pgdist.same_role(k pgdist.roles, id text, number bigint, at bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$ SELECT CASE WHEN k.id IS NOT NULL AND id IS NOT NULL THEN k.id = id WHEN k.term = at THEN k.was = number END $$;

-- clustered lists the tables and materialized views that CLUSTER puts in the order of an index,
-- unless another is named, with that.
CREATE FUNCTION pgdist.clustered() RETURNS TABLE (tab text, idx text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT format('%I.%I', n.nspname, c.relname), x.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE i.indisclustered AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgdist') AND n.nspname !~ '^pg_(toast|temp)';
END $$;

-- cluster has a follower's tables be clustered by the same; now no row is moved. What somebody
-- else has to himself is passed over: mostly this member's own CLUSTER, which would be ended, and
-- notes the index itself.
CREATE FUNCTION pgdist.cluster(want jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r record;
BEGIN
    IF jsonb_typeof(want) IS DISTINCT FROM 'object' THEN RETURN; END IF; -- of a leader whose schema is older
    FOR r IN SELECT coalesce(h.tab, w.key) AS tab, w.value AS idx FROM pgdist.clustered() h FULL JOIN jsonb_each_text(want) w ON w.key = h.tab WHERE h.idx IS DISTINCT FROM w.value LOOP
        CONTINUE WHEN to_regclass(r.tab) IS NULL OR EXISTS (SELECT 1 FROM pg_locks l WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()
            AND l.relation = to_regclass(r.tab) AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()));
        EXECUTE format('ALTER TABLE %s %s', r.tab, CASE WHEN r.idx IS NULL THEN 'SET WITHOUT CLUSTER' ELSE format('CLUSTER ON %I', r.idx) END);
    END LOOP;
END $$;

CREATE FUNCTION pgdist.shared_state() RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET TimeZone = UTC SET DateStyle = 'ISO, YMD' AS $$
DECLARE db oid; parameters jsonb := '{}';
BEGIN
    SELECT d.oid INTO db FROM pg_database d WHERE d.datname = current_database();
    IF to_regclass('pg_catalog.pg_parameter_acl') IS NOT NULL THEN -- PostgreSQL 15
        EXECUTE 'SELECT coalesce(jsonb_object_agg(p.parname, pgdist.privileges(p.paracl, ''p'', 10)), ''{}'') FROM pg_parameter_acl p' INTO parameters;
    END IF;
    RETURN jsonb_build_object(
        'term', (SELECT t.last_value FROM pgdist.term t),
        'roles', (SELECT jsonb_object_agg(r.rolname, jsonb_build_object('oid', r.oid::bigint, 'id', i.id,
            'options', concat_ws(' ', CASE WHEN r.rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END, CASE WHEN r.rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
                CASE WHEN r.rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END, CASE WHEN r.rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END,
                CASE WHEN r.rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END, CASE WHEN r.rolreplication THEN 'REPLICATION' ELSE 'NOREPLICATION' END,
                CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END, 'CONNECTION LIMIT ' || r.rolconnlimit),
            'password', r.rolpassword, 'until', r.rolvaliduntil::text, 'comment', shobj_description(r.oid, 'pg_authid'))) FROM pg_authid r JOIN pgdist.role_ids() i ON i.oid = r.oid WHERE r.rolname !~ '^pg_'),
        'members', (SELECT coalesce(jsonb_agg(m.x ORDER BY m.x::text), '[]') FROM (
            SELECT jsonb_build_array(r.rolname, u.rolname, g.rolname, a.admin_option, to_jsonb(a) -> 'inherit_option', to_jsonb(a) -> 'set_option') AS x
              FROM pg_auth_members a JOIN pg_authid r ON r.oid = a.roleid JOIN pg_authid u ON u.oid = a.member LEFT JOIN pg_authid g ON g.oid = a.grantor
             WHERE u.rolname !~ '^pg_') m),
        'settings', (SELECT coalesce(jsonb_agg(jsonb_build_array(coalesce(r.rolname, ''), s.setdatabase <> 0, v.ord, v.kv) ORDER BY r.rolname, s.setdatabase, v.ord), '[]')
              FROM pg_db_role_setting s LEFT JOIN pg_authid r ON r.oid = s.setrole, unnest(s.setconfig) WITH ORDINALITY v(kv, ord)
             WHERE s.setdatabase IN (0, db) AND (s.setrole = 0 OR r.rolname IS NOT NULL)),
        'database', (SELECT jsonb_build_object('owner', pgdist.role_name(d.datdba), 'limit', d.datconnlimit, 'comment', shobj_description(d.oid, 'pg_database'),
            'privileges', pgdist.privileges(d.datacl, 'd', d.datdba)) FROM pg_database d WHERE d.oid = db),
        'parameters', parameters,
        'triggers', (SELECT coalesce(jsonb_object_agg(e.evtname, jsonb_build_object('event', e.evtevent, 'function', format('%I.%I', n.nspname, p.proname), 'owner', pgdist.role_name(e.evtowner),
            'enabled', e.evtenabled, 'tags', to_jsonb(e.evttags), 'comment', obj_description(e.oid, 'pg_event_trigger'))), '{}')
              FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid JOIN pg_namespace n ON n.oid = p.pronamespace WHERE e.evtname !~ '^!pgdist_'),
        'matviews', (SELECT coalesce(jsonb_agg(f.name ORDER BY f.name), '[]') FROM pgdist.filled() f),
        'clustered', (SELECT coalesce(jsonb_object_agg(c.tab, c.idx), '{}') FROM pgdist.clustered() c),
        'given away', pgdist.given_away());
END $$;

-- shared_marker changes with nearly everything that shared_state tells, at a
-- fraction of the cost: how many rows there are, and who wrote them.
CREATE FUNCTION pgdist.shared_marker() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE m text; p text := '';
BEGIN
    IF to_regclass('pg_catalog.pg_parameter_acl') IS NOT NULL THEN
        EXECUTE 'SELECT count(*) || '','' || coalesce(sum(xmin::text::bigint), 0) FROM pg_parameter_acl' INTO p;
    END IF;
    SELECT string_agg(concat_ws(',', x.n, x.s), ' ') INTO m FROM (
        SELECT count(*) AS n, sum(xmin::text::bigint) AS s FROM pg_authid
        UNION ALL SELECT count(*), sum(xmin::text::bigint) FROM pg_auth_members
        UNION ALL SELECT count(*), sum(xmin::text::bigint) FROM pg_db_role_setting
        UNION ALL SELECT count(*), sum(xmin::text::bigint) FROM pg_event_trigger
        UNION ALL SELECT count(*), sum(xmin::text::bigint) FROM pg_shdescription
        UNION ALL SELECT count(*), sum(xmin::text::bigint) FROM pg_description WHERE classoid = 'pg_event_trigger'::regclass
        UNION ALL SELECT count(*), sum(xmin::text::bigint) FROM pg_database) x;
    RETURN m || ' ' || p || ' ' || (SELECT md5(coalesce(string_agg(f.name, ',' ORDER BY f.name), '')) FROM pgdist.filled() f)
             || ' ' || (SELECT md5(coalesce(string_agg(c.tab || ' ' || c.idx, ',' ORDER BY c.tab), '')) FROM pgdist.clustered() c)
             || coalesce((SELECT ' unseen ' || string_agg(u.oid::text, ',' ORDER BY u.oid) FROM pgdist.unseen() u), '')
             || CASE WHEN pgdist.given_away() THEN ' unseen owners' ELSE '' END;
END $$;

-- setting_text is the value of a stored setting as ALTER ROLE … SET takes it:
-- lists of names are stored as such, all else is one value (as in pg_dump).
CREATE FUNCTION pgdist.setting_text(name text, value text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN lower(name) IN ('local_preload_libraries', 'search_path', 'session_preload_libraries', 'shared_preload_libraries', 'temp_tablespaces', 'unix_socket_directories')
        THEN (SELECT coalesce(string_agg(quote_literal(coalesce(replace(m[1], '""', '"'), m[2])), ', '), '''''') FROM regexp_matches(value, '"((?:[^"]|"")*)"|([^,\s"]+)', 'g') m)
        ELSE quote_literal(value) END
$$;

-- grants makes privileges on a shared object what they are at the leader. what
-- is "DATABASE name" or "PARAMETER name".
CREATE FUNCTION pgdist.grants(what text, have jsonb, want jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE x jsonb;
BEGIN
    FOR x IN SELECT DISTINCT e -> 0 FROM jsonb_array_elements(have) e LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %s CASCADE', what, CASE WHEN x #>> '{}' = '' THEN 'PUBLIC' ELSE quote_ident(x #>> '{}') END);
    END LOOP;
    FOR x IN SELECT e FROM jsonb_array_elements(want) e LOOP
        EXECUTE format('GRANT %s ON %s TO %s%s', x ->> 1, what, CASE WHEN x ->> 0 = '' THEN 'PUBLIC' ELSE quote_ident(x ->> 0) END,
            CASE WHEN (x ->> 2)::boolean THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END $$;

-- nameless leaves grantors out of memberships that this server has.
CREATE FUNCTION pgdist.nameless(list jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_set(e, '{2}', 'null')), '[]') FROM jsonb_array_elements(list) e
$$;

-- memberships says of memberships in what way they can be told from one another here.
-- Before PostgreSQL 16 a role inherits or it does not, and a membership has one
-- grantor, who may be anybody; since then a membership says whether it inherits and
-- allows SET ROLE, and may be granted several times, by who may grant it. roles are
-- those of the member that the list is of.
CREATE FUNCTION pgdist.memberships(list jsonb, roles jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE modern boolean := current_setting('server_version_num')::int >= 160000; x jsonb; found jsonb; hard text;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM jsonb_array_elements(list) e WHERE (e -> 4 = 'null') = modern) THEN RETURN list; END IF;
    IF modern THEN -- what pg_dumpall does with older servers' memberships
        SELECT jsonb_agg(jsonb_build_array(e -> 0, e -> 1, pg_get_userbyid(10), e -> 3, roles -> (e ->> 1) ->> 'options' !~ '\mNOINHERIT\M', true) ORDER BY e::text) INTO found FROM jsonb_array_elements(list) e;
        RETURN found;
    END IF;
    -- One that neither inherits nor may be taken on lets its member grant it, no more: who creates roles may do that in older versions anyhow.
    SELECT string_agg(format('%s in %s', e ->> 1, e ->> 0), ', ') INTO hard FROM jsonb_array_elements(list) e
     WHERE (e -> 4 = 'true' OR e -> 5 = 'true') AND (e -> 5 = 'false' OR (e -> 4 = 'true') = (roles -> (e ->> 1) ->> 'options' ~ '\mNOINHERIT\M'));
    IF hard IS NOT NULL THEN
        RAISE EXCEPTION 'PostgreSQL % has no WITH INHERIT and WITH SET for a single membership: %', current_setting('server_version'), hard
            USING ERRCODE = '0A000', HINT = 'Upgrade this server to the leader''s major version, or grant without these options.';
    END IF;
    SELECT jsonb_agg(m.x ORDER BY m.x::text) INTO found FROM (
        SELECT jsonb_build_array(e -> 0, e -> 1, NULL, bool_or((e ->> 3)::boolean), NULL, NULL) AS x FROM jsonb_array_elements(list) e WHERE e -> 4 = 'true' OR e -> 5 = 'true' GROUP BY e -> 0, e -> 1) m;
    RETURN coalesce(found, '[]');
END $$;

-- role_names notes which roles are the leader's, so that one it drops is dropped
-- here, while roles of this server alone stay.
CREATE FUNCTION pgdist.role_names(names jsonb, at bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO pgdist.roles AS k (name, term, was, id, oid) SELECT r.key, at, (r.value ->> 'oid')::bigint, r.value ->> 'id', a.oid FROM jsonb_each(names) r LEFT JOIN pg_authid a ON a.rolname = r.key
    ON CONFLICT (name) DO UPDATE SET term = EXCLUDED.term, was = EXCLUDED.was, id = EXCLUDED.id, oid = EXCLUDED.oid
     WHERE (k.term, k.was, k.id, k.oid) IS DISTINCT FROM (EXCLUDED.term, EXCLUDED.was, EXCLUDED.id, EXCLUDED.oid)
$$;

CREATE FUNCTION pgdist.shared_begin(w jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET TimeZone = UTC SET DateStyle = 'ISO, YMD' AS $$
DECLARE h jsonb; r record; x jsonb; db text := 'DATABASE ' || quote_ident(current_database()); modern boolean := current_setting('server_version_num')::int >= 160000; nameless boolean;
BEGIN
    -- Renamed at the leader, whoever led then: the same role under another name. By way of
    -- names that nobody has, for two may have changed places.
    FOR r IN SELECT k.name, e.key AS to_name FROM pgdist.roles k JOIN jsonb_each(w -> 'roles') e ON pgdist.same_role(k, e.value ->> 'id', (e.value ->> 'oid')::bigint, (w ->> 'term')::bigint) AND e.key <> k.name
              WHERE EXISTS (SELECT 1 FROM pg_authid a WHERE a.rolname = k.name AND a.oid = coalesce(k.oid, a.oid)) LOOP
        EXECUTE format('ALTER ROLE %I RENAME TO %I', r.name, 'pgdist ' || md5(r.to_name));
        DELETE FROM pgdist.roles k WHERE k.name = r.name;
    END LOOP;
    -- Dropped at the leader, and another has its name now, which is not to have what this one was
    -- given. DDL that is still to be run knows it by what it was (roles_then).
    FOR r IN SELECT k.name, coalesce(k.id, k.was::text) AS was FROM pgdist.roles k JOIN pg_authid a ON a.rolname = k.name AND a.oid = coalesce(k.oid, a.oid)
              WHERE NOT pgdist.same_role(k, w -> 'roles' -> k.name ->> 'id', (w -> 'roles' -> k.name ->> 'oid')::bigint, (w ->> 'term')::bigint) LOOP
        EXECUTE format('ALTER ROLE %I RENAME TO %I', r.name, 'pgdist dropped ' || r.was);
        UPDATE pgdist.roles k SET name = 'pgdist dropped ' || r.was WHERE k.name = r.name;
    END LOOP;
    FOR r IN SELECT e.key FROM jsonb_each(w -> 'roles') e JOIN pg_authid a ON a.rolname = 'pgdist ' || md5(e.key) LOOP
        EXECUTE format('ALTER ROLE %I RENAME TO %I', 'pgdist ' || md5(r.key), r.key);
    END LOOP;
    h := pgdist.shared_state();
    FOR r IN SELECT e.key AS name, e.value AS want, h -> 'roles' -> e.key AS have FROM jsonb_each(w -> 'roles') e LOOP
        IF r.have IS NULL THEN EXECUTE format('CREATE ROLE %I', r.name); END IF;
        IF r.have - '{oid,id}'::text[] IS DISTINCT FROM r.want - '{oid,id}'::text[] THEN
            -- A password's verifier is taken as it is.
            EXECUTE format('ALTER ROLE %I %s PASSWORD %s', r.name, r.want ->> 'options', coalesce(quote_literal(r.want ->> 'password'), 'NULL'))
                || CASE WHEN coalesce(r.want ->> 'until', r.have ->> 'until') IS NULL THEN '' ELSE format(' VALID UNTIL %L', coalesce(r.want ->> 'until', 'infinity')) END;
            IF r.have ->> 'comment' IS DISTINCT FROM r.want ->> 'comment' THEN EXECUTE format('COMMENT ON ROLE %I IS %L', r.name, r.want ->> 'comment'); END IF;
        END IF;
    END LOOP;
    PERFORM pgdist.role_names(w -> 'roles', (w ->> 'term')::bigint);
    IF jsonb_path_exists(w -> 'triggers', '$.* ? (@.event == "login")') THEN
        RAISE EXCEPTION 'event triggers on login are not supported: on a follower they would run for every connection, and what writes would let nobody in'
            USING ERRCODE = '0A000', HINT = 'DROP EVENT TRIGGER at the leader.';
    END IF;
    -- Event triggers go now, that their functions may, and come in shared_end.
    FOR r IN SELECT a.key AS name FROM jsonb_each(h -> 'triggers') a WHERE a.value IS DISTINCT FROM w -> 'triggers' -> a.key LOOP
        EXECUTE format('DROP EVENT TRIGGER %I', r.name);
    END LOOP;
    -- Memberships. A grantor needs ADMIN OPTION first: in rounds, until none is left.
    -- Compared by EXCEPT: to @>, arrays of the same words in another order are the same,
    -- so b in a would be a in b, and one option more, or fewer, than before none.
    nameless := NOT modern AND w -> 'members' @@ '$[*][4] != null';
    w := w || jsonb_build_object('members', pgdist.memberships(w -> 'members', w -> 'roles'));
    IF nameless THEN h := h || jsonb_build_object('members', pgdist.nameless(h -> 'members')); END IF;
    IF h -> 'members' IS DISTINCT FROM w -> 'members' THEN
        FOR x IN SELECT e FROM jsonb_array_elements(h -> 'members') e WHERE w -> 'roles' ? (e ->> 1) EXCEPT SELECT e FROM jsonb_array_elements(w -> 'members') e LOOP
            IF EXISTS (SELECT 1 FROM pg_auth_members a WHERE a.roleid = to_regrole(quote_ident(x ->> 0)) AND a.member = to_regrole(quote_ident(x ->> 1))) THEN
                EXECUTE format('REVOKE %I FROM %I', x ->> 0, x ->> 1) || CASE WHEN modern AND x ->> 2 IS NOT NULL THEN format(' GRANTED BY %I', x ->> 2) ELSE '' END || ' CASCADE';
            END IF;
        END LOOP;
        FOR round IN 1 .. 20 LOOP
            h := h || jsonb_build_object('members', CASE WHEN nameless THEN pgdist.nameless(pgdist.shared_state() -> 'members') ELSE pgdist.shared_state() -> 'members' END);
            EXIT WHEN NOT EXISTS (SELECT e FROM jsonb_array_elements(w -> 'members') e EXCEPT SELECT e FROM jsonb_array_elements(h -> 'members') e);
            FOR x IN SELECT e FROM jsonb_array_elements(w -> 'members') e EXCEPT SELECT e FROM jsonb_array_elements(h -> 'members') e LOOP
                BEGIN
                    EXECUTE format('GRANT %I TO %I', x ->> 0, x ->> 1)
                        || CASE WHEN modern THEN format(' WITH ADMIN %s, INHERIT %s, SET %s', x ->> 3, x ->> 4, x ->> 5) WHEN (x ->> 3)::boolean THEN ' WITH ADMIN OPTION' ELSE '' END
                        || CASE WHEN x ->> 2 IS NOT NULL THEN format(' GRANTED BY %I', x ->> 2) ELSE '' END;
                EXCEPTION WHEN insufficient_privilege OR invalid_grant_operation THEN
                    IF round = 20 THEN RAISE; END IF;
                END;
            END LOOP;
        END LOOP;
    END IF;
    -- Settings: those of a role, or the database, that differ are made anew.
    FOR r IN SELECT n.name, n.here, (SELECT jsonb_agg(e ORDER BY e -> 2) FROM jsonb_array_elements(w -> 'settings') e WHERE e ->> 0 = n.name AND (e ->> 1)::boolean = n.here) AS want,
                    (SELECT jsonb_agg(e ORDER BY e -> 2) FROM jsonb_array_elements(h -> 'settings') e WHERE e ->> 0 = n.name AND (e ->> 1)::boolean = n.here) AS have
               FROM (SELECT DISTINCT e ->> 0 AS name, (e ->> 1)::boolean AS here FROM jsonb_array_elements((w -> 'settings') || (h -> 'settings')) e) n
              WHERE n.name = '' OR w -> 'roles' ? n.name LOOP
        IF r.want IS DISTINCT FROM r.have THEN
            DECLARE target text := CASE WHEN r.name = '' AND r.here THEN db WHEN r.name = '' THEN 'ROLE ALL' ELSE 'ROLE ' || quote_ident(r.name) || CASE WHEN r.here THEN ' IN ' || db ELSE '' END END;
            BEGIN
                EXECUTE format('ALTER %s RESET ALL', target);
                FOR x IN SELECT e FROM jsonb_array_elements(coalesce(r.want, '[]')) e LOOP
                    EXECUTE format('ALTER %s SET %I TO %s', target, split_part(x ->> 3, '=', 1),
                        pgdist.setting_text(split_part(x ->> 3, '=', 1), substr(x ->> 3, strpos(x ->> 3, '=') + 1)));
                END LOOP;
            END;
        END IF;
    END LOOP;
    -- The database itself.
    IF h -> 'database' ->> 'owner' <> w -> 'database' ->> 'owner' THEN EXECUTE format('ALTER %s OWNER TO %I', db, w -> 'database' ->> 'owner'); END IF;
    IF h -> 'database' -> 'limit' <> w -> 'database' -> 'limit' THEN EXECUTE format('ALTER %s CONNECTION LIMIT %s', db, w -> 'database' ->> 'limit'); END IF;
    IF h -> 'database' ->> 'comment' IS DISTINCT FROM w -> 'database' ->> 'comment' THEN EXECUTE format('COMMENT ON %s IS %L', db, w -> 'database' ->> 'comment'); END IF;
    SELECT pgdist.privileges(d.datacl, 'd', d.datdba) INTO x FROM pg_database d WHERE d.datname = current_database();
    IF x <> w -> 'database' -> 'privileges' THEN PERFORM pgdist.grants(db, x, w -> 'database' -> 'privileges'); END IF;
    IF w -> 'parameters' <> '{}' AND to_regclass('pg_catalog.pg_parameter_acl') IS NULL THEN
        RAISE EXCEPTION 'PostgreSQL % has no privileges on parameters', current_setting('server_version')
            USING ERRCODE = '0A000', HINT = 'Upgrade this server to the leader''s major version, or REVOKE them there.';
    END IF;
    FOR r IN SELECT coalesce(a.key, b.key) AS name, coalesce(a.value, '[]') AS have, coalesce(b.value, '[]') AS want
               FROM jsonb_each(h -> 'parameters') a FULL JOIN jsonb_each(w -> 'parameters') b ON a.key = b.key WHERE a.value IS DISTINCT FROM b.value LOOP
        PERFORM pgdist.grants('PARAMETER ' || quote_ident(r.name), r.have, r.want);
    END LOOP;
END $$;

-- shared_end drops roles that the leader has no more, and puts event triggers in
-- place: their functions are there now.
CREATE FUNCTION pgdist.shared_end(w jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r record; h jsonb := pgdist.shared_state() -> 'triggers';
BEGIN
    FOR r IN SELECT coalesce(a.key, b.key) AS name, a.value AS have, b.value AS want FROM jsonb_each(h) a FULL JOIN jsonb_each(w -> 'triggers') b ON a.key = b.key
              WHERE a.value IS DISTINCT FROM b.value LOOP
        IF r.want IS NOT NULL THEN
            EXECUTE format('CREATE EVENT TRIGGER %I ON %I', r.name, r.want ->> 'event')
                || coalesce(' WHEN TAG IN (' || (SELECT string_agg(quote_literal(t), ', ') FROM jsonb_array_elements_text(nullif(r.want -> 'tags', 'null')) t) || ')', '')
                || format(' EXECUTE FUNCTION %s()', r.want ->> 'function');
            EXECUTE format('ALTER EVENT TRIGGER %I OWNER TO %I', r.name, r.want ->> 'owner');
            EXECUTE format('ALTER EVENT TRIGGER %I %s', r.name, CASE r.want ->> 'enabled' WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE' END);
            EXECUTE format('COMMENT ON EVENT TRIGGER %I IS %L', r.name, r.want ->> 'comment');
        END IF;
    END LOOP;
    -- Not while they own here what the leader has given away: that comes with the next batch.
    FOR r IN SELECT k.name FROM pgdist.roles k WHERE NOT w -> 'roles' ? k.name AND w -> 'given away' IS DISTINCT FROM 'true' LOOP
        EXECUTE format('DROP ROLE IF EXISTS %I', r.name);
        DELETE FROM pgdist.roles k WHERE k.name = r.name;
    END LOOP;
    PERFORM pgdist.hollow(w -> 'matviews');
    PERFORM pgdist.cluster(w -> 'clustered');
END $$;

-- shed makes a database that is to be filled by a copy go on with the roles that the one before it knew
-- as the set's: they are made what they are at the leader, and what the leader has no more is dropped. It tells
-- which ones other databases of this server keep from that: they are this server's own from now on. before is
-- NULL where a copy is gone on with, whose catch-up does the rest.
CREATE FUNCTION pgdist.shed(before jsonb, w jsonb) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r record; kept text[];
BEGIN
    INSERT INTO pgdist.roles SELECT k.* FROM jsonb_populate_recordset(NULL::pgdist.roles, before) k JOIN pg_authid a ON a.rolname = k.name AND a.oid = coalesce(k.oid, a.oid) ON CONFLICT DO NOTHING;
    PERFORM pgdist.shared_begin(w);
    FOR r IN SELECT k.name FROM pgdist.roles k WHERE NOT w -> 'roles' ? k.name AND before IS NOT NULL LOOP
        BEGIN
            EXECUTE format('DROP ROLE IF EXISTS %I', r.name);
        EXCEPTION WHEN dependent_objects_still_exist THEN
            kept := kept || r.name::text;
        END;
        DELETE FROM pgdist.roles k WHERE k.name = r.name;
    END LOOP;
    RETURN array_to_string(kept, ', ');
END $$;

-- role_numbers tells the leader's numbers of roles that DDL names.
CREATE FUNCTION pgdist.role_numbers(names jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT coalesce(jsonb_object_agg(a.rolname, a.oid::bigint), '{}') FROM pg_authid a WHERE names ? a.rolname);
END $$;

-- ids_of tells what all members know roles by that DDL names.
CREATE FUNCTION pgdist.ids_of(names jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT coalesce(jsonb_object_agg(a.rolname, i.id), '{}') FROM pg_authid a JOIN pgdist.role_ids() i USING (oid) WHERE names ? a.rolname);
END $$;

-- rights_of tells what a role may do by being what it is, and not by privileges, which are
-- DDL themselves (but for that to make schemas): whether it is a superuser, or else as which
-- other roles it may act.
CREATE FUNCTION pgdist.rights_of(who text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT jsonb_build_object('super', w.rolsuper, 'as', (SELECT coalesce(jsonb_agg(a.rolname), '[]') FROM pg_authid a WHERE NOT w.rolsuper AND a.oid <> w.oid AND pg_has_role(w.oid, a.oid, 'USAGE')),
            'create', has_database_privilege(w.oid, current_database(), 'CREATE'))
      FROM pg_authid w WHERE w.rolname = who);
END $$;

-- lend gives a role what it had of these when it ran a DDL, and has no more. (Roles are here
-- as they are at the leader by now.) It tells what take_back has to take.
CREATE FUNCTION pgdist.lend(who text, rights jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE lent jsonb := pgdist.rights_of(who); n text;
BEGIN
    IF rights IS NULL OR lent IS NULL OR lent -> 'super' = 'true' THEN RETURN NULL; END IF;
    SELECT jsonb_build_object('super', rights -> 'super', 'create', rights -> 'create' = 'true' AND lent -> 'create' = 'false', 'as', coalesce(jsonb_agg(r.n), '[]')) INTO lent
      FROM jsonb_array_elements_text(rights -> 'as') r(n) WHERE NOT lent -> 'as' ? r.n AND EXISTS (SELECT 1 FROM pg_authid a WHERE a.rolname = r.n)
       AND NOT EXISTS (SELECT 1 FROM pg_auth_members m WHERE m.roleid = to_regrole(quote_ident(r.n)) AND m.member = to_regrole(quote_ident(who)));
    IF lent -> 'super' = 'true' THEN UPDATE pg_authid a SET rolsuper = true WHERE a.rolname = who; END IF;
    IF lent -> 'create' = 'true' THEN EXECUTE format('GRANT CREATE ON DATABASE %I TO %I', current_database(), who); END IF;
    FOR n IN SELECT jsonb_array_elements_text(lent -> 'as') LOOP
        EXECUTE format('GRANT %I TO %I', n, who);
    END LOOP;
    RETURN lent;
END $$;

CREATE FUNCTION pgdist.take_back(who text, lent jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE n text;
BEGIN
    IF lent IS NULL THEN RETURN; END IF;
    IF lent -> 'super' = 'true' THEN UPDATE pg_authid a SET rolsuper = false WHERE a.rolname = who; END IF;
    IF lent -> 'create' = 'true' THEN EXECUTE format('REVOKE CREATE ON DATABASE %I FROM %I', current_database(), who); END IF;
    FOR n IN SELECT jsonb_array_elements_text(lent -> 'as') LOOP
        EXECUTE format('REVOKE %I FROM %I', n, who);
    END LOOP;
END $$;

-- roles_then calls roles what they were called when DDL was run that names them: they have
-- the leader's names of now already, and a name may be another role's since. For one that the
-- leader has dropped since there is a stand-in, known by what it was whatever it was called, and
-- dropped at the batch's end: whoever has its name now must not get what it was given. It tells
-- what call_roles has to undo.
CREATE FUNCTION pgdist.roles_then(d jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE undo jsonb; others jsonb; gone record; at bigint := (d -> 'at' ->> 0)::bigint; names jsonb := coalesce(nullif(d -> 'roles', 'null'), '[]');
BEGIN
    FOR gone IN SELECT d -> 'ids' ->> n.old AS id, (d -> 'numbers' ->> n.old)::bigint AS number FROM jsonb_array_elements_text(names) n(old)
                 WHERE (d -> 'numbers' ->> n.old)::bigint >= 16384
                   AND EXISTS (SELECT 1 FROM pgdist.roles k WHERE pgdist.same_role(k, d -> 'ids' ->> n.old, (d -> 'numbers' ->> n.old)::bigint, at) IS NOT NULL) -- it can be told
                   AND NOT EXISTS (SELECT 1 FROM pgdist.roles k WHERE pgdist.same_role(k, d -> 'ids' ->> n.old, (d -> 'numbers' ->> n.old)::bigint, at)) LOOP
        EXECUTE format('CREATE ROLE %I', 'pgdist dropped ' || coalesce(gone.id, gone.number::text));
        INSERT INTO pgdist.roles (name, term, was, id) VALUES ('pgdist dropped ' || coalesce(gone.id, gone.number::text), at, gone.number, gone.id);
    END LOOP;
    SELECT jsonb_object_agg(n.old, k.name) INTO undo
      FROM jsonb_array_elements_text(names) n(old) JOIN pgdist.roles k ON pgdist.same_role(k, d -> 'ids' ->> n.old, (d -> 'numbers' ->> n.old)::bigint, at) AND k.name <> n.old
      JOIN pg_authid a ON a.rolname = k.name AND a.oid = coalesce(k.oid, a.oid);
    IF undo IS NULL THEN RETURN NULL; END IF;
    SELECT jsonb_object_agg('pgdist ' || md5(a.rolname), a.rolname) INTO others FROM pg_authid a
     WHERE undo ? a.rolname AND NOT EXISTS (SELECT 1 FROM jsonb_each_text(undo) u WHERE u.value = a.rolname);
    undo := undo || coalesce(others, '{}');
    PERFORM pgdist.call_roles((SELECT jsonb_object_agg(u.value, u.key) FROM jsonb_each_text(undo) u));
    RETURN undo;
END $$;

-- call_roles gives roles, by the names that they have, others, which may be each other's. Not
-- by ALTER ROLE, which takes an MD5 password away.
CREATE FUNCTION pgdist.call_roles(names jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF names IS NULL THEN RETURN; END IF;
    UPDATE pg_authid a SET rolname = 'pgdist then ' || md5(a.rolname) FROM jsonb_each_text(names) n WHERE a.rolname = n.key;
    UPDATE pg_authid a SET rolname = n.value FROM jsonb_each_text(names) n WHERE a.rolname = 'pgdist then ' || md5(n.key);
END $$;

-- roles_of gives DDL the roles its text names, on a member that missed their
-- making: they may be gone again at the leader. What is left over is dropped at
-- the batch's end.
CREATE FUNCTION pgdist.roles_of(names jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE n text;
BEGIN
    FOR n IN SELECT x FROM jsonb_array_elements_text(coalesce(names, '[]')) x WHERE to_regrole(quote_ident(x)) IS NULL LOOP
        EXECUTE format('CREATE ROLE %I', n);
        INSERT INTO pgdist.roles (name, term, was) VALUES (n, 0, 0) ON CONFLICT DO NOTHING;
    END LOOP;
END $$;
