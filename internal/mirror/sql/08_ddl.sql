-- busy tells that pgdist itself is at work in this transaction: the value is a
-- secret that only its own functions can read, so that nobody else can say so.
CREATE FUNCTION pgdist.busy() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF coalesce(current_setting('pgdist.busy', true), '') = '' THEN RETURN false; END IF;
    RETURN EXISTS (SELECT 1 FROM pgdist.meta m WHERE m.secret = current_setting('pgdist.busy', true));
END $$;

-- on_as tells on_ddl who runs the statement, which a SECURITY DEFINER function
-- cannot know. Its name comes first; the names of all of pgdist's event triggers
-- come before those of users', so that what these run is journaled after.
CREATE FUNCTION pgdist.on_as() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_catalog.set_config('pgdist.as', current_user::pg_catalog.text, true); END $$;

-- on_ddl keeps the caller's search_path to hand it on; hence it names
-- everything in full.
CREATE FUNCTION pgdist.on_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET lc_messages = 'C' AS $$
DECLARE around pg_catalog.text;
BEGIN
    GET DIAGNOSTICS around = PG_CONTEXT;
    PERFORM pgdist.statement(TG_TAG, pg_catalog.current_setting('search_path'), around);
END $$;

-- inner_text finds the text of a statement that a function or a DO block runs in
-- the call stack, where the server's SPI puts it in full. NULL: no function does.
-- over says that the statement has been carried out, not that it begins; must, that the text
-- is needed.
CREATE FUNCTION pgdist.inner_text(tag text, around text, over boolean, must boolean) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE rest text := pgdist.stack(around); found text;
BEGIN
    IF rest = '' THEN RETURN NULL; END IF;
    found := substring(rest FROM '^SQL statement "(.*?)"(?:\n(?:PL/pgSQL function [^\n]+ line [0-9]+ at [^\n]+|PL/[A-Za-z0-9]+ (?:function|anonymous) [^\n]+)(?:\n|$)|$)');
    IF found IS NULL AND must THEN
        RAISE EXCEPTION '% cannot be mirrored from within: %', tag, split_part(rest, E'\n', 1)
            USING ERRCODE = '0A000', HINT = 'Run it as a statement of its own, or from a function in plpgsql.';
    END IF;
    IF found ~ ';\s*\S' THEN
        found := pgdist.piece(tag, found, md5(rest), over);
        IF found IS NULL AND must THEN
            RAISE EXCEPTION '% cannot be mirrored from within a string of several statements', tag USING ERRCODE = '0A000', HINT = 'EXECUTE them one by one.';
        END IF;
    END IF;
    RETURN found;
END $$;

-- stack is a PG_CONTEXT but for the function that asked for it.
CREATE FUNCTION pgdist.stack(around text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE WHEN strpos(around, E'\n') > 0 THEN substr(around, strpos(around, E'\n') + 1) ELSE '' END;
END $$;

-- piece finds which of the statements in one string, such as EXECUTE may be given, is being run:
-- the next one that event triggers hear of; NULL: it does not look like one of this tag. They are run
-- one after another, each once, all or none; so how far the string of a call stack (place) has come is
-- kept in a setting that a rollback, of a savepoint too, puts back. One that has come to its end begins
-- again.
CREATE FUNCTION pgdist.piece(tag text, several text, place text, over boolean) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    pieces text[]; done jsonb := coalesce(nullif(current_setting('pgdist.done', true), ''), '{}'); at int; n int; i int; p text;
    -- The words of the tag in their order, with others (OR REPLACE, UNIQUE, TEMP …) in between.
    words text := '^\s*' || replace(regexp_replace(tag, ' AS$', ''), ' ', '\s+(\w+\s+){0,4}?') || '\M';
BEGIN
    IF current_setting('pgdist.pieces_of', true) = md5(several) THEN
        pieces := current_setting('pgdist.pieces')::text[];
    ELSE
        pieces := pgdist.pieces(several);
        PERFORM set_config('pgdist.pieces_of', md5(several), true), set_config('pgdist.pieces', pieces::text, true);
    END IF;
    n := cardinality(pieces);
    IF n = 1 THEN RETURN several; END IF;
    at := coalesce((done ->> place)::int, 0);
    FOR k IN at .. at + n - 1 LOOP
        i := k % n + 1;
        CONTINUE WHEN pieces[i] !~* '^\s*(CREATE|ALTER|DROP|GRANT|REVOKE|COMMENT|SECURITY|IMPORT)\M';
        p := regexp_replace(pieces[i], '--[^\n]*|/\*([^*]|\*+[^*/])*\*+/', ' ', 'g');
        -- Of what is not the database's own event triggers are not told (PostgreSQL docs, "Overview of Event Trigger Behavior").
        CONTINUE WHEN p ~* '^\s*(CREATE|ALTER|DROP)\s+(ROLE|GROUP|USER(?!\s+MAPPING\M)|DATABASE|TABLESPACE|EVENT|SYSTEM)\M|^\s*(GRANT|REVOKE)\M((?!\mON\M).)*$'
                   OR p ~* '^\s*(GRANT|REVOKE|COMMENT|SECURITY)\M((?!\mON\M).)*\mON\s+(DATABASE|TABLESPACE|PARAMETER|ROLE|EVENT)\M';
        IF p !~* words THEN RETURN NULL; END IF;
        IF over THEN PERFORM set_config('pgdist.done', (done || jsonb_build_object(place, i))::text, true); END IF;
        RETURN pieces[i];
    END LOOP;
    RETURN NULL;
END $$;

-- lasting is a GRANT or REVOKE without what is temporary, of which no event trigger is told:
-- followers have none of it. NULL: nothing else is left.
CREATE FUNCTION pgdist.lasting(body text, path text, caller name) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text; depth int := 0; stage int := 0; head text := ''; kind text := ''; one text := ''; tail text := ''; kept text[] := '{}'; all_of boolean := true; mine boolean;
    theirs text := pgdist.path_text(path, caller);
BEGIN
    FOREACH t IN ARRAY pgdist.tokens(body) LOOP
        CONTINUE WHEN t !~ '\S' OR t ~ '^(--|/\*)';
        depth := depth + CASE t WHEN '(' THEN 1 WHEN ')' THEN -1 ELSE 0 END;
        IF stage = 0 THEN
            head := head || ' ' || t;
            IF depth = 0 AND upper(t) = 'ON' THEN stage := 1; END IF;
        ELSIF stage = 1 AND upper(t) IN ('TABLE', 'SEQUENCE', 'TYPE', 'DOMAIN', 'FUNCTION', 'PROCEDURE', 'ROUTINE', 'SCHEMA', 'ALL', 'TABLES', 'SEQUENCES', 'FUNCTIONS', 'PROCEDURES', 'ROUTINES', 'IN') AND one = '' AND kept = '{}' AND all_of THEN
            kind := kind || ' ' || upper(t);
        ELSIF stage = 1 AND depth = 0 AND (t = ',' OR upper(t) IN ('TO', 'FROM')) THEN
            mine := one ~* ('^ pg_temp(_[0-9]+)?' || CASE WHEN kind LIKE '% SCHEMA' THEN '$' ELSE ' \.' END);
            IF NOT mine AND kind IN ('', ' TABLE', ' SEQUENCE', ' TYPE', ' DOMAIN') AND pg_my_temp_schema() <> 0 THEN
                BEGIN
                    PERFORM set_config('search_path', theirs, true);
                    mine := CASE WHEN kind IN (' TYPE', ' DOMAIN') THEN (SELECT y.typnamespace FROM pg_catalog.pg_type y WHERE y.oid = pg_catalog.to_regtype(one))
                                 ELSE (SELECT c.relnamespace FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(one)) END = pg_catalog.pg_my_temp_schema();
                    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
                EXCEPTION WHEN invalid_name OR syntax_error THEN NULL; -- no name of a thing
                END;
            END IF;
            IF mine THEN all_of := false; ELSE kept := kept || one; END IF;
            one := '';
            IF t <> ',' THEN stage := 2; tail := ' ' || t; END IF;
        ELSIF stage = 1 THEN
            one := one || ' ' || t;
        ELSE
            tail := tail || ' ' || t;
        END IF;
    END LOOP;
    IF stage < 2 OR all_of THEN RETURN body; END IF;
    IF kept = '{}' THEN RETURN NULL; END IF;
    RETURN ltrim(head) || kind || array_to_string(kept, ',') || tail;
END $$;

-- token is the first token of a text, with what stands before it: a comment, a string, a name in
-- quotes, a word, or one character; if words do not matter, a run of characters that begin none of
-- the others (PostgreSQL docs, "Lexical Structure").
CREATE FUNCTION pgdist.token(rest text, before text, words boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE m text; deep int;
BEGIN
    m := coalesce(
        CASE WHEN NOT words THEN substring(rest FROM '^[^-/''"$();]+') END,
        substring(rest FROM '^--[^\n]*'),
        substring(rest FROM '^/\*'),
        CASE WHEN before ~* '(?:^|[^\w$])e$' THEN substring(rest FROM '^''(?:[^''\\]|\\.|'''')*''') ELSE substring(rest FROM '^''(?:[^'']|'''')*''') END,
        substring(rest FROM '^"(?:[^"]|"")*"'),
        CASE WHEN before !~ '[\w$]$' THEN substring(rest FROM '^\$(?:[A-Za-z_\u0080-\uffff]\w*)?\$') END,
        substring(rest FROM '^(?:[A-Za-z_\u0080-\uffff][\w$]*|\w+)'),
        left(rest, 1));
    IF m = '/*' THEN -- they nest
        deep := 1;
        WHILE deep > 0 AND length(m) < length(rest) LOOP
            IF substr(rest, length(m) + 1, 2) = '/*' THEN m := left(rest, length(m) + 2); deep := deep + 1;
            ELSIF substr(rest, length(m) + 1, 2) = '*/' THEN m := left(rest, length(m) + 2); deep := deep - 1;
            ELSE m := left(rest, length(m) + 1); END IF;
        END LOOP;
    ELSIF m ~ '^\$.*\$$' THEN
        deep := strpos(substr(rest, length(m) + 1), m);
        m := left(rest, CASE WHEN deep = 0 THEN length(rest) ELSE deep + 2 * length(m) - 1 END);
    END IF;
    RETURN m;
END $body$;

-- pieces divides a text at the semicolons that stand outside of quotes, comments, parentheses
-- and BEGIN ATOMIC … END.
CREATE FUNCTION pgdist.pieces(several text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE out text[] := '{}'; rest text := several; one text := ''; m text; depth int := 0; atomic int := 0; words boolean := several ~* '\matomic\M';
BEGIN
    WHILE rest <> '' LOOP
        m := pgdist.token(rest, one, words);
        IF m = '(' THEN depth := depth + 1;
        ELSIF m = ')' THEN depth := depth - 1;
        ELSIF lower(m) = 'atomic' AND one ~* '\mbegin\s+$' THEN atomic := 1;
        ELSIF atomic > 0 AND lower(m) = 'case' THEN atomic := atomic + 1;
        ELSIF atomic > 0 AND lower(m) = 'end' THEN atomic := atomic - 1;
        END IF;
        IF m = ';' AND depth = 0 AND atomic = 0 THEN
            out := out || one; one := '';
        ELSIF one ~ '\S' OR m !~ '^(--|/\*)' THEN -- comments before it are not part of it
            one := one || m;
        END IF;
        rest := substr(rest, length(m) + 1);
    END LOOP;
    out := out || one;
    RETURN ARRAY(SELECT x FROM unnest(out) x WHERE x ~ '\S');
END $body$;

-- table_text is a CREATE TABLE without rows or constraints: of one that a query
-- has made. Its rows are copied; running the query again would make others.
CREATE FUNCTION pgdist.table_text(rel oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('CREATE %sTABLE %I.%I (%s)', CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' END, n.nspname, c.relname,
               (SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
                       || CASE WHEN a.attcollation <> y.typcollation THEN (SELECT format(' COLLATE %I.%I', k.nspname, o.collname) FROM pg_collation o JOIN pg_namespace k ON k.oid = o.collnamespace WHERE o.oid = a.attcollation) ELSE '' END,
                       ', ' ORDER BY a.attnum)
                  FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid WHERE a.attrelid = c.oid AND a.attnum > 0))
           || pgdist.storage_text(c.oid)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = rel
$$;

-- statement journals DDL with all its outcome depends on: the text that pgdist
-- announced, or that a function runs. What is neither would stay local and is
-- refused.
CREATE FUNCTION pgdist.statement(tag text, path text, around text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET jit = off AS $$
DECLARE
    body text; who text := current_setting('pgdist.as', true);
    dropped text := current_setting('pgdist.dropped', true);
    temp boolean; inside boolean; made oid; id int; whole int[]; ids int[]; files oid[]; seen boolean := false; these oid[]; reworded oid[];
    given jsonb; rels oid[]; named jsonb; rights jsonb; makes text;
BEGIN
    IF pgdist.busy() THEN RETURN; END IF;
    IF tag = 'REINDEX' THEN RETURN; END IF; -- of which triggers hear since PostgreSQL 17: it defines nothing
    IF tag = 'REFRESH MATERIALIZED VIEW' THEN
        PERFORM pgdist.refreshed(strpos(around, E'\n') = 0);
        RETURN;
    END IF;
    -- Of triggers, rules and policies it does not tell the schema: they are where their table is.
    SELECT bool_and(c.schema_name = 'pg_temp' OR c.schema_name LIKE 'pg\_temp\_%' OR c.schema_name IS NULL AND pg_my_temp_schema() <> 0 AND EXISTS (
               SELECT 1 FROM (SELECT g.tgrelid AS rel FROM pg_trigger g WHERE c.classid = 'pg_trigger'::regclass AND g.oid = c.objid
                              UNION ALL SELECT w.ev_class FROM pg_rewrite w WHERE c.classid = 'pg_rewrite'::regclass AND w.oid = c.objid
                              UNION ALL SELECT p.polrelid FROM pg_policy p WHERE c.classid = 'pg_policy'::regclass AND p.oid = c.objid) x JOIN pg_class r ON r.oid = x.rel
                WHERE r.relpersistence = 't')), bool_and(c.in_extension)
      INTO temp, inside FROM pg_event_trigger_ddl_commands() c;
    PERFORM set_config('pgdist.dropped', '', true); -- ALTER drops, too, and is not what comes next
    IF tag LIKE 'DROP%' THEN temp := dropped = 'temp'; END IF;
    -- The CREATE EXTENSION around it is shipped.
    IF inside OR strpos(around, E'\nextension script file "') > 0 THEN RETURN; END IF;
    IF tag ~ '^(CREATE|ALTER) EXTENSION$' THEN PERFORM set_config('pgdist.within', '', true);
    ELSIF current_setting('pgdist.within', true) = md5(pgdist.stack(around)) THEN RETURN; END IF;
    -- What a function does; of what a client sends itself pgdist knows beforehand.
    IF tag LIKE '% SUBSCRIPTION' THEN
        RAISE EXCEPTION 'subscriptions are not supported: what they apply is not seen by mirroring' USING ERRCODE = '0A000', HINT = 'Let a client write the rows through pgdist.';
    END IF;
    IF EXISTS (SELECT 1 FROM pg_event_trigger_ddl_commands() c WHERE c.classid = 'pg_class'::regclass AND c.schema_name = 'pgdist') THEN
        RAISE EXCEPTION 'schema pgdist belongs to pgdist' USING ERRCODE = '2BP01', HINT = 'Use another schema; the command pgdist uninstall removes this one.';
    END IF;
    -- REFRESH … CONCURRENTLY makes itself a temporary table, of which it lets no
    -- event trigger see more than the text.
    IF temp IS NULL AND around ~ '^[^\n]*\nSQL statement "(CREATE TEMP|ALTER) TABLE pg_temp_[0-9]+\.pg_temp_[0-9]+(_2)? [^;\n]*"(\n|$)' THEN RETURN; END IF;
    body := pgdist.inner_text(tag, around, true, temp IS NOT TRUE);
    IF tag NOT LIKE '% EXTENSION' AND coalesce(body, current_setting('pgdist.ddl', true)) ~* '^(\s|--[^\n]*\n|/\*([^*]|\*+[^*/])*\*+/)*(CREATE|ALTER)\s+EXTENSION\M' THEN RETURN; END IF;
    IF body IS NULL AND pgdist.stack(around) = '' THEN
        body := nullif(current_setting('pgdist.ddl', true), '');
        PERFORM set_config('pgdist.ddl', '', true); -- one announcement, one statement
    END IF;
    IF temp THEN RETURN; END IF;
    IF tag IN ('GRANT', 'REVOKE') AND pg_my_temp_schema() <> 0 THEN
        body := pgdist.lasting(body, path, who);
        IF body IS NULL THEN RETURN; END IF;
    END IF;
    -- DROP … IF EXISTS of what is not there, CREATE … IF NOT EXISTS of what is:
    -- nothing was done that could stay local. Nor is it journaled: what an open transaction
    -- has made or dropped, which this one did not see, is there or not on a member that finds
    -- both later. (Users' triggers on drops may run DDL, which makes dropped anew.)
    IF tag LIKE 'DROP%' AND tag <> 'DROP OWNED' AND coalesce(dropped, '') = ''
           AND (body IS NULL OR NOT EXISTS (SELECT 1 FROM pg_event_trigger e WHERE e.evtevent = 'sql_drop' AND e.evtname NOT LIKE '!pgdist\_%'))
       OR (tag LIKE 'CREATE%' OR tag LIKE 'ALTER%' AND body IS NOT NULL) AND (body IS NULL OR body ~* '\mIF\s+(NOT\s+)?EXISTS\M') AND NOT EXISTS (SELECT 1 FROM pg_event_trigger_ddl_commands()) THEN RETURN; END IF;
    -- Maintenance, which each member does for itself.
    IF body IS NULL AND tag = 'ALTER COLLATION' AND current_query() ~* '^[^;]*\mREFRESH\s+VERSION\s*;?\s*$' THEN RETURN; END IF;
    IF body IS NULL THEN
        RAISE EXCEPTION '% was not announced: it would stay local to this database', tag
            USING ERRCODE = '0A000', HINT = 'Run it through pgdist, not over a connection to one server. If it was: pgdist does not know its words yet, or it is longer than 4 MB; run it in a DO block.';
    END IF;
    IF EXISTS (SELECT 1 FROM pg_event_trigger_ddl_commands() c JOIN pg_proc p ON c.classid = 'pg_proc'::regclass AND p.oid = c.objid AND p.prokind <> 'a'
                WHERE pg_get_functiondef(p.oid) ~* '\m(lo_(creat|create|from_bytea|import|open|put|truncate|truncate64|unlink)|lowrite)"?\s*\(') THEN
        RAISE EXCEPTION 'large objects are not supported: they cannot be mirrored, and the function uses some' USING ERRCODE = '0A000', HINT = 'Store the data in a column of type bytea.';
    END IF;
    IF tag = 'CREATE FUNCTION' THEN
        SELECT string_agg(format('%s (%I)', a.attrelid::regclass, a.attname), ', ') INTO makes
          FROM pg_event_trigger_ddl_commands() c JOIN pg_depend d ON c.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = c.objid
          LEFT JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
          -- Before PostgreSQL 15 it is the column itself that depends.
          JOIN pg_attribute a ON a.attrelid = coalesce(f.adrelid, CASE d.classid WHEN 'pg_class'::regclass THEN d.objid END) AND a.attnum = coalesce(f.adnum, d.objsubid) AND a.attgenerated = 's';
        IF makes IS NOT NULL THEN
            RAISE WARNING 'the function makes generated columns: %', makes
                USING HINT = 'If it gives other results now, have all rows made anew: UPDATE … SET a = a, where a is a column that they are made of. Other members make theirs anew whenever a row is written there, or copied.';
        END IF;
    END IF;
    -- It fills columns that are generated.
    IF tag = 'ALTER TABLE' THEN
        EXECUTE 'SELECT min(c.objid) FROM pg_event_trigger_ddl_commands() c WHERE c.classid = ''pg_class''::regclass AND (' || pgdist.odd_settings() || ') AND pgdist.by_settings(c.objid)' INTO made;
        IF made IS NOT NULL THEN PERFORM pgdist.refuse_settings(made); END IF;
    END IF;
    -- Bodies of functions are no matter (replay() does not check them), but what a definition
    -- itself names must be there.
    IF pg_my_temp_schema() <> 0 AND EXISTS (SELECT 1 FROM pg_event_trigger_ddl_commands() c JOIN pg_depend d ON d.classid = c.classid AND d.objid = c.objid, LATERAL (
            SELECT r.relnamespace AS nsp FROM pg_class r WHERE d.refclassid = 'pg_class'::regclass AND r.oid = d.refobjid
            UNION ALL SELECT y.typnamespace FROM pg_type y WHERE d.refclassid = 'pg_type'::regclass AND y.oid = d.refobjid
            UNION ALL SELECT p.pronamespace FROM pg_proc p WHERE d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid) o WHERE o.nsp = pg_my_temp_schema())
            OR pg_my_temp_schema() <> 0 AND tag ~ '^(CREATE|ALTER) (TABLE|FUNCTION|PROCEDURE)$' AND pgdist.names_passing(body, path) THEN
        RAISE EXCEPTION '% that depends on something temporary is not supported: only the leader has it', tag USING ERRCODE = '0A000', HINT = 'Use what is not temporary, or make this temporary, too (in schema pg_temp).';
    END IF;
    IF tag IN ('ALTER TABLE', 'ALTER TRIGGER', 'COMMENT') AND body ~ '"RI_ConstraintTrigger_[ac]_[0-9]+"' THEN
        RAISE EXCEPTION 'triggers of foreign keys cannot be named: their names have numbers that differ between databases'
            USING ERRCODE = '0A000', HINT = 'Drop the foreign key, and add it again NOT VALID.';
    END IF;
    PERFORM pgdist.hold_names(tag, body);
    these := pgdist.concern(tag, body);
    -- What has another owner now, by this statement or by REASSIGN OWNED beside it.
    SELECT l.given, l.tables INTO given, rels FROM pgdist.list() l;
    these := CASE WHEN rels = '{}' THEN these WHEN these IS NOT NULL AND rels IS NOT NULL THEN these || pgdist.roots_of(rels) END;
    IF these IS NULL OR tag LIKE 'ALTER%' AND body ~* '\m(ATTACH|DETACH|INHERIT)\M' THEN -- what may join a tree or leave one
        SELECT array_agg(t.id), array_agg(f) INTO ids, files FROM pgdist.tables t, unnest(t.files) f;
    END IF;
    IF tag IN ('CREATE TABLE AS', 'SELECT INTO', 'CREATE MATERIALIZED VIEW') THEN
        SELECT c.objid INTO made FROM pg_event_trigger_ddl_commands() c WHERE c.classid = 'pg_class'::regclass;
        -- Its query called a function with DDL, which took it up, half made as it was.
        seen := EXISTS (SELECT 1 FROM pgdist.tables t WHERE t.oid = made) OR EXISTS (SELECT 1 FROM pgdist.views v WHERE v.oid = made);
    END IF;
    reworded := pgdist.reworded(tag, body);
    IF reworded <> '{}' THEN
        IF these IS NOT NULL THEN these := these || reworded; END IF; -- NULL is any, not none
        UPDATE pgdist.tables t SET shape = '', form = '' WHERE t.oid = ANY (reworded); -- for sync_of to raise gen
    END IF;
    IF these IS NULL OR these <> '{}' OR tag <> 'COMMENT' AND (tag !~ '^(CREATE|GRANT|REVOKE)' OR EXISTS (SELECT 1 FROM pg_event_trigger_ddl_commands() c WHERE c.classid = 'pg_class'::regclass)) THEN
        whole := ARRAY(SELECT pgdist.sync_of(NULL, these, tag = 'CREATE TABLE'));
    END IF;
    IF tag IN ('CREATE TABLE AS', 'SELECT INTO', 'CREATE MATERIALIZED VIEW') THEN
        IF made IS NULL THEN RETURN; END IF; -- IF NOT EXISTS, and it does
        IF tag = 'CREATE MATERIALIZED VIEW' THEN
            body := pgdist.matview_text(made); path := '';
        ELSE
            body := pgdist.table_text(made);
            whole := whole || ARRAY(SELECT t.id FROM pgdist.tables t WHERE t.oid = made);
        END IF;
    END IF;
    IF tag LIKE 'DROP%' AND dropped LIKE 'DROP%' THEN body := dropped; END IF; -- of what followers have
    body := pgdist.settled(tag, body, path);
    IF NOT seen THEN
        rights := pgdist.rights_of(who);
        named := (SELECT coalesce(jsonb_agg(a.rolname), '[]') FROM pg_authid a WHERE a.rolname !~ '^pg_' AND (a.rolname = who OR rights -> 'as' ? a.rolname OR strpos(body, a.rolname) > 0 OR given @@ format('$[*][3] == %s', to_json(a.rolname))::jsonpath));
        PERFORM pgdist.note(0, 'd', jsonb_build_object('tag', tag, 'text', body, 'path', path, 'role', who,
        'roles', named, 'numbers', pgdist.role_numbers(named), 'ids', pgdist.ids_of(named), 'rights', rights,
        'owners', given,
        'settings', (SELECT jsonb_object_agg(g, current_setting(g, true)) FROM unnest('{DateStyle,IntervalStyle,TimeZone,lc_monetary,lc_numeric,lc_time,bytea_output,extra_float_digits,xmloption,xmlbinary,default_tablespace,default_table_access_method,default_toast_compression,array_nulls,
            standard_conforming_strings,default_text_search_config,timezone_abbreviations,transform_null_equals,backslash_quote}'::text[] || pgdist.taken_from_here(body)) g WHERE current_setting(g, true) IS NOT NULL),
        'extensions', CASE WHEN tag ~ ' EXTENSION$' THEN (SELECT jsonb_object_agg(x.extname, x.extversion) FROM pg_extension x) END,
        'enums', (SELECT jsonb_agg(jsonb_build_array(format('%I.%I', n.nspname, y.typname), (SELECT jsonb_agg(l.enumlabel ORDER BY l.enumsortorder) FROM pg_enum l WHERE l.enumtypid = y.oid)))
                    FROM pg_event_trigger_ddl_commands() c JOIN pg_type y ON c.classid = 'pg_type'::regclass AND y.oid = c.objid JOIN pg_namespace n ON n.oid = y.typnamespace
                   WHERE statement.tag = 'ALTER TYPE' AND y.typtype = 'e' AND body ~* '\mADD\s+VALUE\M' AND body !~* '\mRENAME\M'),
        'objects', (SELECT coalesce(jsonb_agg(DISTINCT t.id), '[]') FROM pg_event_trigger_ddl_commands() c LEFT JOIN pg_index i ON i.indexrelid = c.objid
                      JOIN pgdist.tables t ON coalesce(i.indrelid, c.objid) = ANY (t.files || t.oid) WHERE c.classid = 'pg_class'::regclass),
        -- Rows that were journaled under one number and now belong to another.
        'moved', (SELECT jsonb_agg(DISTINCT jsonb_build_array(o.id, t.id)) FROM unnest(ids, files) o(id, f) JOIN (SELECT t.id, f FROM pgdist.tables t, unnest(t.files) f) t ON t.f = o.f AND t.id <> o.id),
        'some', these IS NOT NULL,
        'tables', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', t.id, 'nsp', t.nsp, 'rel', t.rel, 'gen', t.gen)), '[]') FROM pgdist.tables t WHERE these IS NULL OR t.oid = ANY (these)))::text);
    ELSIF given IS NOT NULL THEN
        PERFORM pgdist.note_owners(given, these);
    END IF;
    FOREACH id IN ARRAY coalesce(whole, '{}') LOOP
        PERFORM pgdist.note(id, 'c', NULL);
    END LOOP;
END $$;

-- refreshed notes that a materialized view was filled or emptied. There is no text
-- to ship, and nothing to undo should the set go on without this: followers hear
-- of it with the shared state. alone: no function did it, so it was announced.
CREATE FUNCTION pgdist.refreshed(alone boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF alone THEN PERFORM set_config('pgdist.ddl', '', true); END IF;
    PERFORM pgdist.note(0, 'm', NULL);
    DELETE FROM pgdist.matviews m USING pg_event_trigger_ddl_commands() c WHERE c.classid = 'pg_class'::regclass AND c.objid = m.oid;
END $$;

-- note makes one journal entry that is not about rows.
CREATE FUNCTION pgdist.note(tab int, op "char", body text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO pgdist.journal (slot, id, term, xid, tab, gen, op, conn, keys)
    SELECT s.last_value, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint, b.term, set_config('pgdist.last', pg_current_xact_id()::text, false)::xid8, note.tab, 0, note.op,
           current_setting('pgdist.conn', true), CASE WHEN body IS NULL THEN NULL ELSE ARRAY[body] END
      FROM pgdist.boot b, pgdist.fence f, pgdist.term t, pgdist.slot s
     WHERE f.last_value & 1 = 1 AND b.term = t.last_value;
    IF NOT FOUND THEN PERFORM pgdist.refuse(); END IF;
END $$;

-- on_drop notes for statement() whether only temporary objects went, or what to ship
-- where one statement names some of both kinds, and keeps pgdist's own from being dropped
-- by hand.
CREATE FUNCTION pgdist.on_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE all_temp boolean; own text; mixed text; around text; here oid[] := string_to_array(nullif(current_setting('pgdist.here', true), ''), ',')::oid[];
BEGIN
    IF pgdist.busy() THEN RETURN; END IF;
    -- Triggers, rules and policies of temporary tables are not told to be temporary.
    SELECT bool_and(d.is_temporary OR d.schema_name IS NULL AND d.object_type IN ('trigger', 'rule', 'policy') AND d.object_identity ~ '^("([^"]|"")+"|[^" ]+) on pg_temp(_[0-9]+)?\.'), TG_TAG || ' ' || string_agg(d.object_identity, ', ') FILTER (WHERE d.original AND NOT d.is_temporary) || ' CASCADE', min(d.object_identity) FILTER (WHERE d.original AND (d.schema_name = 'pgdist' OR d.object_identity = 'pgdist'
                                                                OR d.object_type = 'trigger' AND d.object_identity ~ '^pgdist_[iudtabms] on ' OR d.object_identity LIKE '"!pgdist\_%'))
      INTO all_temp, mixed, own FROM pg_event_trigger_dropped_objects() d
     WHERE NOT (TG_TAG = 'DROP OWNED' AND d.object_identity ~ '^pgdist\.[arwxy]_[0-9]+\('); -- of a table that goes with them
    IF own IS NOT NULL THEN
        RAISE EXCEPTION '% belongs to pgdist', own USING ERRCODE = '2BP01', HINT = 'pgdist uninstall removes it from all members.';
    END IF;
    IF here IS NOT NULL THEN -- followers never had these, on which nothing depends
        SELECT bool_and(d.is_temporary OR d.objid = ANY (here)), TG_TAG || ' ' || string_agg(d.object_identity, ', ') FILTER (WHERE NOT d.is_temporary AND d.objid <> ALL (here)) || ' CASCADE'
          INTO all_temp, mixed FROM pg_event_trigger_dropped_objects() d WHERE d.original;
    ELSIF NOT EXISTS (SELECT 1 FROM pg_event_trigger_dropped_objects() d WHERE d.original AND d.is_temporary) THEN
        -- Of what IF EXISTS names an open transaction may have made some.
        GET DIAGNOSTICS around = PG_CONTEXT;
        IF TG_TAG !~ '^DROP (TABLE|VIEW|MATERIALIZED VIEW|SEQUENCE|INDEX)$' OR coalesce(nullif(current_setting('pgdist.ddl', true), ''), around) !~* '\mIF\s+EXISTS\M' THEN mixed := NULL; END IF;
    END IF;
    -- DROP OWNED names nothing that followers lack, and takes privileges away besides.
    PERFORM set_config('pgdist.dropped', CASE WHEN TG_TAG = 'DROP OWNED' THEN 'user' WHEN all_temp THEN 'temp' ELSE coalesce(mixed, 'user') END, true);
END $$;

-- start keeps names what they are until DDL that uses them is committed.
-- PostgreSQL locks tables for that, but no schemas, types or functions: a function
-- may be made in a schema that is renamed before it is committed. The followers
-- would rename first, and then not know the name in the function's text (or, by the
-- search path, take it for another schema's). The same goes for dropping: PostgreSQL
-- itself lets a type be dropped that a table not yet committed has a column of. So
-- renaming and dropping wait for the transactions with DDL, and these for them, but
-- for temporary tables that functions make, which may not keep others waiting.
--
-- It also keeps the whole schema from being dropped, which takes the event
-- triggers with it before they could say anything: what a function does that
-- empties a database for a test.
--
-- What a text means to followers must be what it meant to the leader, so whatever could
-- change that waits, too: default privileges, grants on all of a schema, casts and
-- operators. on_start hands on the caller's search_path, by which names are found.
CREATE FUNCTION pgdist.start(tag text, path text, around text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE body text; owner name; relation boolean := tag ~ '(TABLE|TABLE AS|SELECT INTO|INDEX|VIEW|SEQUENCE|TRIGGER|RULE|POLICY)$'; caller name := coalesce(nullif(current_setting('role'), 'none'), session_user);
BEGIN
    IF pgdist.busy() OR tag = 'REINDEX' THEN RETURN; END IF;
    -- What its script does has no text of its own.
    IF tag ~ '^(CREATE|ALTER) EXTENSION$' THEN PERFORM set_config('pgdist.within', md5(pgdist.stack(around)), true); END IF;
    body := current_setting('pgdist.ddl', true);
    -- What was not announced, and is run by no function, is about something temporary, or is
    -- refused once it has run: it concerns nobody else.
    IF coalesce(body, '') = '' AND strpos(around, E'\n') = 0 THEN NULL;
    -- The text of what a function runs is not at hand yet: any ALTER counts there.
    ELSIF NOT relation AND (tag LIKE 'DROP %' OR tag LIKE 'ALTER %' AND (coalesce(body, '') = '' OR body ~* '\m(RENAME|SCHEMA)\M' OR tag = 'ALTER DEFAULT PRIVILEGES')
            OR tag IN ('CREATE CAST', 'CREATE OPERATOR', 'CREATE OPERATOR CLASS')
            -- Privileges on columns: no lock keeps their table's name.
            OR tag IN ('GRANT', 'REVOKE') AND coalesce(nullif(body, ''), around) ~* '\mON\s+ALL\M|\m(SELECT|INSERT|UPDATE|REFERENCES|ALL|PRIVILEGES)\s*\(') THEN
        LOCK TABLE pgdist.renames IN EXCLUSIVE MODE;
    ELSIF body <> '' OR NOT relation OR around !~* '(\mTEMP\M|\mTEMPORARY\M|\mpg_temp)' THEN
        LOCK TABLE pgdist.renames IN ROW EXCLUSIVE MODE;
        PERFORM pgdist.hold_path(path, caller);
        IF tag = 'CREATE TABLE' THEN PERFORM pgdist.hold_models(coalesce(nullif(body, ''), around), path, caller); END IF;
    END IF;
    -- What cannot be mirrored stays at this server, so that on_drop must know of it.
    PERFORM set_config('pgdist.here', coalesce((SELECT string_agg(a::text, ',') FROM pgdist.adopt() a), ''), true);
    IF pgdist.given_away() THEN
        BEGIN
            PERFORM pgdist.give_away();
        EXCEPTION WHEN feature_not_supported THEN -- a table's new owner lacks rights on it: this may be the GRANT
            IF tag = 'DROP OWNED' THEN RAISE; END IF;
        END;
    END IF;
    IF tag NOT IN ('DROP SCHEMA', 'DROP OWNED') THEN RETURN; END IF;
    body := coalesce(pgdist.inner_text(tag, around, false, true), nullif(current_setting('pgdist.ddl', true), ''), current_query());
    -- What the first superuser owns PostgreSQL itself keeps from DROP OWNED.
    SELECT pg_get_userbyid(n.nspowner) INTO owner FROM pg_namespace n WHERE n.nspname = 'pgdist' AND n.nspowner <> 10;
    IF tag = 'DROP SCHEMA' AND body ~* '\mpgdist\M'
       OR tag = 'DROP OWNED' AND (body ~* ('[\s",]' || regexp_replace(owner, '(\W)', '\\\1', 'g') || '([\s",;]|$)') OR caller = owner AND body ~* '\m(current_user|current_role|session_user)\M') THEN
        RAISE EXCEPTION 'schema pgdist belongs to pgdist' USING ERRCODE = '2BP01', HINT = 'pgdist uninstall removes it from all members.';
    END IF;
END $$;

-- on_start comes after what it calls, for an upgrade's next CREATE FUNCTION runs it.
CREATE FUNCTION pgdist.on_start() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET lc_messages = 'C' AS $$
DECLARE around pg_catalog.text;
BEGIN
    GET DIAGNOSTICS around = PG_CONTEXT;
    PERFORM pgdist.start(TG_TAG, pg_catalog.current_setting('search_path'), around);
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
--
-- An index that is made in several transactions is left behind, invalid, by a server
-- that crashes meanwhile, or whose client is gone: there alone, and nothing is
-- journaled. Here it would be in the way of that index, and where it is not, of its
-- removal from there.
CREATE FUNCTION pgdist.replay(d jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE body text := d->>'text'; called jsonb; lent jsonb;
BEGIN
    IF pgdist.was_replayed(d) THEN RETURN; END IF;
    PERFORM set_config('pgdist.at', d->>'at', true);
    called := pgdist.roles_then(d);
    PERFORM pgdist.roles_of(d->'roles');
    IF jsonb_typeof(d->'enums') = 'array' THEN
        PERFORM pgdist.labels(d->'enums');
        PERFORM pgdist.give(d->'owners');
        PERFORM pgdist.call_roles(called);
        RETURN;
    END IF;
    -- What it finds to drop depends on owners.
    IF d->>'tag' IN ('DROP OWNED', 'REASSIGN OWNED') THEN PERFORM pgdist.give(d->'owners'); END IF;
    IF body <> '' THEN
        lent := pgdist.lend(d->>'role', d->'rights');
        PERFORM pgdist.replay_text(d);
        PERFORM pgdist.take_back(d->>'role', lent);
    END IF;
    PERFORM pgdist.give(d->'owners');
    PERFORM pgdist.list();
    PERFORM pgdist.sync_of(d->'tables', CASE WHEN d->'some' = 'true' THEN pgdist.listed(d->'tables') END, d->>'tag' = 'CREATE TABLE');
    PERFORM pgdist.call_roles(called);
    UPDATE pgdist.position p SET ddl = p.ddl + 1 WHERE p.ctid = (SELECT q.ctid FROM pgdist.position q ORDER BY q.one DESC LIMIT 1);
END $$;

-- versioned is a definition of an extension that names the version which the leader has now,
-- if this server has another one by itself and has that one, too.
CREATE FUNCTION pgdist.versioned(body text, leaders jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE one text; m text[]; x text; v text;
BEGIN
    one := regexp_replace((pgdist.pieces(body))[1], '--[^\n]*|/\*([^*]|\*+[^*/])*\*+/', ' ', 'g');
    m := regexp_match(one, '^\s*(CREATE|ALTER)\s+EXTENSION\s+(?:IF\s+NOT\s+EXISTS\s+)?("(?:[^"]|"")+"|[\w$]+)', 'i');
    x := CASE WHEN m[2] ~ '^"' THEN replace(trim(BOTH '"' FROM m[2]), '""', '"') ELSE lower(m[2]) END;
    v := leaders ->> x;
    IF v IS NULL OR NOT EXISTS (SELECT 1 FROM pg_available_extension_versions a WHERE a.name = x AND a.version = v)
       OR v = (SELECT a.default_version FROM pg_available_extensions a WHERE a.name = x) THEN RETURN body; END IF;
    IF upper(m[1]) = 'CREATE' AND one !~* '\mVERSION\M' THEN RETURN one || ' VERSION ' || quote_literal(v); END IF;
    IF upper(m[1]) = 'ALTER' AND one ~* '\mUPDATE\M' AND one !~* '\mTO\M' THEN RETURN one || ' TO ' || quote_literal(v); END IF;
    RETURN body;
END $$;

-- replay_text runs the statement itself.
CREATE FUNCTION pgdist.replay_text(d jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE s record; before jsonb := '{}'; body text := d->>'text'; wrote bigint := pgdist.written();
BEGIN
    PERFORM set_config('check_function_bodies', 'off', true);
    EXECUTE 'CREATE FUNCTION pgdist.replay_as(statement text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS ''BEGIN EXECUTE statement; END''';
    EXECUTE 'REVOKE ALL ON FUNCTION pgdist.replay_as(text) FROM PUBLIC';
    EXECUTE format('ALTER FUNCTION pgdist.replay_as(text) OWNER TO %I', d->>'role');
    FOR s IN SELECT e.key, e.value FROM jsonb_each_text(d->'settings') e WHERE current_setting(e.key, true) <> e.value -- NULL: not in this version
                OR e.key LIKE '%.%' AND current_setting(e.key, true) IS NULL LOOP
        before := before || jsonb_build_object(s.key, coalesce(current_setting(s.key, true), ''));
        PERFORM set_config(s.key, s.value, true);
    END LOOP;
    IF d->>'tag' = 'CREATE INDEX' THEN
        FOR s IN SELECT n.nspname, c.relname FROM jsonb_array_elements_text(d->'objects') o JOIN pgdist.tables t ON t.id = o::int
                   JOIN pg_index i ON i.indrelid = ANY (t.files || t.oid) JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relname !~ '_cc(new|old)[0-9]*$' LOOP
            PERFORM pgdist.replay_as(format('DROP INDEX %I.%I', s.nspname, s.relname));
        END LOOP;
        -- Nor can one of this name be anything but what was left behind here, and made whole since.
        FOR s IN SELECT n.nspname, c.relname FROM jsonb_array_elements_text(d->'objects') o JOIN pgdist.tables t ON t.id = o::int
                   JOIN pg_index i ON i.indrelid = ANY (t.files || t.oid) JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.relname = (parse_ident((regexp_match(body, '^\s*CREATE\s+(?:UNIQUE\s+)?INDEX\s+(?:IF\s+NOT\s+EXISTS\s+)?(?!ON\M)("(?:[^"]|"")+"|[\w$]+)\s+ON\M', 'i'))[1]))[1] LOOP
            PERFORM pgdist.replay_as(format('DROP INDEX %I.%I', s.nspname, s.relname));
        END LOOP;
    ELSIF d->>'tag' ~ ' EXTENSION$' THEN
        body := pgdist.versioned(body, d->'extensions');
    ELSIF d->>'tag' = 'DROP INDEX' THEN
        body := regexp_replace(body, '^(\s*DROP\s+INDEX)\s+(?!IF\s)', '\1 IF EXISTS ', 'i');
    END IF;
    PERFORM set_config('search_path', coalesce(d->>'path', ''), true);
    PERFORM pgdist.replay_as(body);
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF d->>'tag' = 'DROP OWNED' THEN PERFORM pgdist.must_stay(d->'tables'); END IF;
    -- It does here what it did at the leader, whose rows come, too. So these tables are copied
    -- whole instead: the leader has journaled what it wrote to them.
    IF pgdist.written() > wrote AND d->>'tag' !~ ' EXTENSION$' AND current_setting('pgdist.vacated', true) IS DISTINCT FROM 'on' THEN
        RAISE EXCEPTION 'a function that % calls has written rows', d->>'tag' USING ERRCODE = '42PD7';
    END IF;
    FOR s IN SELECT e.key, e.value FROM jsonb_each_text(before) e LOOP
        PERFORM set_config(s.key, s.value, true);
    END LOOP;
    -- Who drops all that is his own drops this, too.
    IF to_regprocedure('pgdist.replay_as(text)') IS NOT NULL THEN EXECUTE 'DROP FUNCTION pgdist.replay_as(text)'; END IF;
    -- Without a VERSION in the statement it is the one that this server brings.
    FOR s IN SELECT x.extname, x.extversion, e.value FROM pg_extension x JOIN jsonb_each_text(nullif(d->'extensions', 'null')) e ON e.key = x.extname AND e.value <> x.extversion LOOP
        RAISE EXCEPTION 'extension % is of version % here, of % at the leader', s.extname, s.extversion, s.value
            USING ERRCODE = '0A000', HINT = 'In a set of several major versions say CREATE EXTENSION … VERSION, ALTER EXTENSION … UPDATE TO one that all servers have.';
    END LOOP;
END $$;

-- written counts the rows of mirrored tables that this transaction has written (PostgreSQL docs,
-- "The Cumulative Statistics System"; nothing with track_counts off).
CREATE FUNCTION pgdist.written() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT coalesce(sum(pg_stat_get_xact_tuples_inserted(f) + pg_stat_get_xact_tuples_updated(f) + pg_stat_get_xact_tuples_deleted(f)), 0) FROM pgdist.tables t, unnest(t.files) f);
END $$;

-- must_stay refuses what has dropped a table that the leader still has. (Owners are alike, so
-- this does not happen: it is here because nothing else would notice.)
CREATE FUNCTION pgdist.must_stay(list jsonb) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE lost text;
BEGIN
    SELECT string_agg(format('%I.%I', t.nsp, t.rel), ', ') INTO lost FROM pgdist.tables t JOIN jsonb_array_elements(list) e ON (e->>'id')::int = t.id
     WHERE NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = t.oid);
    IF lost IS NOT NULL THEN
        RAISE EXCEPTION 'DROP OWNED drops here what the leader still has: %', lost USING ERRCODE = '2BP01', HINT = 'Owners differ; pgdist resync copies the database afresh.';
    END IF;
END $$;

-- listed finds tables of a leader's list here, under their numbers and names.
CREATE FUNCTION pgdist.listed(list jsonb) RETURNS oid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT coalesce(array_agg(DISTINCT y.oid), '{}') FROM jsonb_array_elements(list) e, LATERAL (
        SELECT t.oid FROM pgdist.tables t WHERE t.id = (e->>'id')::int
        UNION ALL SELECT c.oid FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid WHERE n.nspname = e->>'nsp' AND c.relname = e->>'rel') y);
END $$;

-- was_replayed tells that a DDL was run ahead of its batch.
CREATE FUNCTION pgdist.was_replayed(d jsonb) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (SELECT 1 FROM pgdist.replayed r, pgdist.position p WHERE p.term = r.pos_term AND p.snap::text IS NOT DISTINCT FROM r.pos_snap
                      AND ((d->'at'->>0)::bigint, (d->'at'->>1)::bigint) <= (r.term, r.id));
END $$;

-- replayed notes that the DDL up to here stays, though the member does not move
-- from its place yet.
CREATE FUNCTION pgdist.replayed() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM pgdist.replayed;
    INSERT INTO pgdist.replayed (term, id, pos_term, pos_snap)
    SELECT (x.at->>0)::bigint, (x.at->>1)::bigint, p.term, p.snap::text FROM pgdist.position p, (SELECT current_setting('pgdist.at')::jsonb AS at) x;
END $$;

-- half_made are the indexes that somebody began to make, to make anew or to drop in several
-- transactions, and their tables: invalid, and at this member alone, because only the last
-- transaction is mirrored. known: dropping it may be what somebody began, so that others have it.
-- (What is about to be made is not ready at first; what is about to be dropped is dead in the
-- end. In between the two look the same.)
CREATE FUNCTION pgdist.half_made() RETURNS TABLE (name text, tab text, known boolean, index oid, rel oid, owner name)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT format('%I.%I', n.nspname, c.relname), i.indrelid::regclass::text, (i.indisready OR NOT i.indislive) AND c.relname !~ '_cc(new|old)[0-9]*$', i.indexrelid, i.indrelid, pg_get_userbyid(c.relowner)
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_toast', 'pg_catalog', 'pgdist');
END $$;

-- whole_indexes are those of names that are whole here, and of the table that tabs says.
CREATE FUNCTION pgdist.whole_indexes(names text[], tabs text[]) RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT x.name FROM unnest(names, tabs) x(name, tab) JOIN pg_index i ON i.indexrelid = to_regclass(x.name) AND i.indrelid = to_regclass(x.tab) WHERE i.indisvalid
$$;

-- unmade drops those of them that nobody will ever finish: the server crashed, whoever was at
-- it was ended, or another member leads by now. Who is has a lock on the table through all
-- transactions (PostgreSQL docs, "Building Indexes Concurrently"); away ends whoever still is,
-- at a member that is out of sync. What is in use, or another index's part, stays, and so do
-- those in keep. leads: the followers may have it, so they are told.
CREATE FUNCTION pgdist.unmade(away boolean, keep text[] DEFAULT '{}', leads boolean DEFAULT false) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE r record;
BEGIN
    IF away THEN PERFORM set_config('lock_timeout', '2s', true); END IF;
    FOR r IN SELECT * FROM pgdist.half_made() LOOP
        IF away THEN
            PERFORM pg_terminate_backend(m) FROM pgdist.makers(r.rel) m;
        ELSIF EXISTS (SELECT 1 FROM pgdist.makers(r.rel)) THEN
            CONTINUE;
        END IF;
        CONTINUE WHEN r.name = ANY (keep);
        PERFORM set_config('pgdist.busy', m.secret, true), set_config('session_replication_role', 'replica', true) FROM pgdist.meta m;
        BEGIN
            EXECUTE 'CREATE FUNCTION pgdist.replay_as(statement text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS ''BEGIN EXECUTE statement; END''';
            EXECUTE 'REVOKE ALL ON FUNCTION pgdist.replay_as(text) FROM PUBLIC';
            EXECUTE format('ALTER FUNCTION pgdist.replay_as(text) OWNER TO %I', r.owner);
            -- What locks as DROP INDEX will, and changes nothing: LOCK TABLE takes no materialized views.
            EXECUTE format('ALTER TABLE %s OWNER TO %I', r.rel::regclass, r.owner);
            IF EXISTS (SELECT 1 FROM pg_index i WHERE i.indexrelid = r.index AND NOT i.indisvalid) THEN
                IF leads THEN
                    PERFORM set_config('pgdist.busy', '', true), set_config('session_replication_role', 'origin', true);
                    EXECUTE 'DROP INDEX IF EXISTS ' || r.name;
                    PERFORM set_config('pgdist.busy', m.secret, true), set_config('session_replication_role', 'replica', true) FROM pgdist.meta m;
                ELSE
                    PERFORM pgdist.replay_as('DROP INDEX ' || r.name);
                END IF;
                RETURN NEXT r.name;
            END IF;
            EXECUTE 'DROP FUNCTION pgdist.replay_as(text)';
        EXCEPTION
            WHEN lock_not_available THEN IF away THEN RAISE; END IF; -- another time
            WHEN dependent_objects_still_exist OR undefined_object OR undefined_table THEN NULL;
        END;
        PERFORM set_config('pgdist.busy', '', true), set_config('session_replication_role', 'origin', true);
    END LOOP;
END $$;

-- makers are those who make an index on a table in several transactions, or could.
CREATE FUNCTION pgdist.makers(rel oid) RETURNS SETOF int
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT l.pid FROM pg_locks l
     WHERE l.locktype = 'relation' AND l.relation = rel AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()
       AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
       AND NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.pid = l.pid AND a.backend_type = 'autovacuum worker')
$$;

-- labels adds what an enum lacks, each before the one that follows it. What it has
-- is left alone: even IF NOT EXISTS locks the type until the transaction ends, and
-- the next call, on a connection of its own, would wait for that.
CREATE FUNCTION pgdist.labels(enums jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE e jsonb; l record;
BEGIN
    PERFORM set_config('pgdist.busy', m.secret, true) FROM pgdist.meta m;
    FOR e IN SELECT x FROM jsonb_array_elements(enums) x WHERE to_regtype(x ->> 0) IS NOT NULL LOOP
        FOR l IN SELECT y.label, lead(y.label) OVER (ORDER BY y.ord) AS next FROM jsonb_array_elements_text(e -> 1) WITH ORDINALITY y(label, ord) ORDER BY y.ord DESC LOOP
            CONTINUE WHEN EXISTS (SELECT 1 FROM pg_enum n WHERE n.enumtypid = to_regtype(e ->> 0) AND n.enumlabel = l.label);
            EXECUTE format('ALTER TYPE %s ADD VALUE IF NOT EXISTS %L', e ->> 0, l.label) || CASE WHEN l.next IS NULL THEN '' ELSE format(' BEFORE %L', l.next) END;
        END LOOP;
    END LOOP;
    PERFORM set_config('pgdist.busy', '', true);
END $$;

-- labels_ahead is labels for whoever applies, in a transaction of its own before
-- the rows: a label cannot be used in the transaction that adds it (PostgreSQL
-- docs, "ALTER TYPE").
CREATE FUNCTION pgdist.labels_ahead(d jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET session_replication_role = replica AS $$
BEGIN
    IF NOT pgdist.was_replayed(d) THEN PERFORM pgdist.labels(d->'enums'); END IF;
END $$;
