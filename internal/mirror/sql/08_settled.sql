-- What a definition takes from the session or the moment it is made in is settled once it has
-- been made at the leader: on followers it would be something else. What a statement's text says of
-- it is replaced by what the leader's catalog has.

-- settled is a statement's text as followers can run it.
CREATE FUNCTION pgdist.settled(tag text, body text, path text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF body ~* '\msession_user\M' THEN body := pgdist.with_user(tag, body); END IF;
    IF body ~* '''\s*(now|today|tomorrow|yesterday)\M'
            AND tag ~ '^(CREATE|ALTER) (TABLE|FOREIGN TABLE|VIEW|INDEX|FUNCTION|PROCEDURE|DOMAIN|RULE|POLICY|TRIGGER|STATISTICS|SCHEMA|PUBLICATION)$' THEN body := pgdist.with_dates(body); END IF;
    IF body ~* '\mPARTITION\M.*\mVALUES\M' THEN body := pgdist.with_bound(body, path); END IF;
    RETURN body;
END $$;

-- tokens divides a text into its tokens; together they are the text.
CREATE FUNCTION pgdist.tokens(body text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE out text[] := '{}'; rest text := body; m text := '';
BEGIN
    WHILE rest <> '' LOOP
        m := pgdist.token(rest, right(m, 2), true);
        out := out || m;
        rest := substr(rest, length(m) + 1);
    END LOOP;
    RETURN out;
END $$;

-- with_user replaces SESSION_USER where it is a role; in expressions it is a function. (Followers
-- run a statement as the role that ran it, so CURRENT_USER needs nothing.)
CREATE FUNCTION pgdist.with_user(tag text, body text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text; out text := ''; depth int := 0; last text := ''; before text := '';
    roles boolean := tag ~ '^(GRANT|REVOKE|ALTER DEFAULT PRIVILEGES|REASSIGN OWNED|DROP OWNED|(CREATE|ALTER|DROP) USER MAPPING)$';
BEGIN
    FOREACH t IN ARRAY pgdist.tokens(body) LOOP
        depth := depth + CASE t WHEN '(' THEN 1 WHEN ')' THEN -1 ELSE 0 END;
        IF upper(t) = 'SESSION_USER' AND (roles OR tag ~ ' POLICY$' AND depth = 0 OR last = 'AUTHORIZATION' OR before = 'OWNER' AND last = 'TO') THEN
            t := quote_ident(session_user);
        END IF;
        IF t ~ '\S' AND t !~ '^(--|/\*)' THEN before := last; last := upper(t); END IF;
        out := out || t;
    END LOOP;
    RETURN out;
END $$;

-- with_bound puts a partition's bound in place of the expressions that it was computed from.
CREATE FUNCTION pgdist.with_bound(body text, path text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET DateStyle = 'ISO, YMD' SET IntervalStyle = postgres SET extra_float_digits = 1 SET bytea_output = hex AS $$
DECLARE
    t text; head text := ''; clause text := ''; tail text := ''; depth int := 0; stage int := 0; last text := ''; fixed boolean := true; name text := ''; naming boolean := false;
    part regclass; bound text;
BEGIN
    FOREACH t IN ARRAY pgdist.tokens(body) LOOP
        depth := depth + CASE t WHEN '(' THEN 1 WHEN ')' THEN -1 ELSE 0 END;
        IF t !~ '\S' OR t ~ '^(--|/\*)' THEN NULL;
        ELSIF stage = 0 AND depth = 0 AND upper(t) = 'FOR' THEN stage := 1; naming := false;
        ELSIF stage = 1 THEN
            IF upper(t) = 'VALUES' THEN stage := 2; ELSE stage := 0; head := head || clause; clause := ''; END IF;
        ELSIF stage = 2 AND last = ')' AND depth = 0 AND t <> ')' AND upper(t) <> 'TO' THEN stage := 3;
        ELSIF stage = 2 THEN
            fixed := fixed AND (t !~ '^["\w]' OR upper(t) ~ '^([0-9][0-9a-z_]*|IN|FROM|TO|WITH|MODULUS|REMAINDER|MINVALUE|MAXVALUE|NULL|TRUE|FALSE|E|DATE|TIMESTAMP|TIME|ZONE|INTERVAL)$') AND t !~* '^''\s*(now|today|tomorrow|yesterday)\M';
        ELSIF stage = 0 AND upper(t) = 'PARTITION' AND last = 'ATTACH' THEN naming := true;
        ELSIF naming THEN name := name || t;
        END IF;
        IF t ~ '\S' AND t !~ '^(--|/\*)' THEN last := upper(t); END IF;
        CASE stage WHEN 0 THEN head := head || t; WHEN 3 THEN tail := tail || t; ELSE clause := clause || t; END CASE;
    END LOOP;
    IF stage < 2 OR fixed THEN RETURN body; END IF;
    IF name = '' THEN
        SELECT c.objid INTO part FROM pg_event_trigger_ddl_commands() c JOIN pg_class r ON c.classid = 'pg_class'::regclass AND r.oid = c.objid WHERE r.relispartition AND r.relkind IN ('r', 'p', 'f');
    ELSE
        PERFORM set_config('search_path', pgdist.path_text(path, current_setting('pgdist.as', true)), true);
        part := pg_catalog.to_regclass(name);
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    END IF;
    bound := (SELECT pg_get_expr(r.relpartbound, r.oid) FROM pg_class r WHERE r.oid = part);
    IF bound IS NULL THEN RETURN body; END IF;
    RETURN head || bound || ' ' || tail;
END $$;

-- with_dates puts the time in place of 'now' and its like where the server has taken it for one: the
-- definition has the time instead. Where it was a text, the definition still has that; if it was both,
-- they cannot be told apart.
CREATE FUNCTION pgdist.with_dates(body text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET DateStyle = 'ISO, YMD' AS $$
DECLARE
    toks text[] := pgdist.tokens(body); t text; m text[]; n int; kept int; defs text; day date;
BEGIN
    FOR i IN 1 .. cardinality(toks) LOOP
        t := toks[i];
        m := regexp_match(t, '^''\s*(now|today|tomorrow|yesterday)((?:\s+[-0-9:.+apmnoidghlbsutcz]+)?)\s*''$', 'i');
        CONTINUE WHEN m IS NULL;
        defs := coalesce(defs, pgdist.definitions());
        n := (SELECT count(*) FROM unnest(toks) x WHERE x = t);
        kept := (length(defs) - length(replace(defs, t, ''))) / length(t);
        day := current_date + CASE lower(m[1]) WHEN 'tomorrow' THEN 1 WHEN 'yesterday' THEN -1 ELSE 0 END;
        CONTINUE WHEN kept >= n OR strpos(defs, day::text) = 0 AND (lower(m[1]) <> 'now' OR strpos(defs, to_char(now(), 'HH24:MI:')) = 0);
        IF kept > 0 THEN
            RAISE EXCEPTION '% is the time of this moment in one place and a text in another', t
                USING ERRCODE = '0A000', HINT = 'Use now(), or write the time.';
        END IF;
        toks[i] := quote_literal(CASE lower(m[1]) WHEN 'now' THEN now()::text ELSE day::text END || m[2]);
    END LOOP;
    RETURN array_to_string(toks, '');
END $$;

-- definitions are what the statement that is being run has defined, as the catalog has it.
CREATE FUNCTION pgdist.definitions() RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT coalesce(string_agg(x.def, E'\n'), '') FROM (SELECT DISTINCT c.classid, c.objid FROM pg_event_trigger_ddl_commands() c) c, LATERAL (
        SELECT pg_get_expr(d.adbin, d.adrelid) AS def FROM pg_attrdef d WHERE c.classid = 'pg_class'::regclass AND d.adrelid = c.objid
        UNION ALL SELECT pg_get_constraintdef(k.oid) FROM pg_constraint k WHERE c.classid = 'pg_class'::regclass AND k.conrelid = c.objid
            OR c.classid = 'pg_type'::regclass AND k.contypid = c.objid OR c.classid = 'pg_constraint'::regclass AND k.oid = c.objid
        UNION ALL SELECT CASE WHEN r.relkind IN ('v', 'm') THEN pg_get_viewdef(r.oid) WHEN r.relkind IN ('i', 'I') THEN pg_get_indexdef(r.oid) ELSE pg_get_expr(r.relpartbound, r.oid) END
            FROM pg_class r WHERE c.classid = 'pg_class'::regclass AND r.oid = c.objid
        UNION ALL SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i WHERE c.classid = 'pg_class'::regclass AND i.indrelid = c.objid
        UNION ALL SELECT pg_get_expr(y.typdefaultbin, 0) FROM pg_type y WHERE c.classid = 'pg_type'::regclass AND y.oid = c.objid
        UNION ALL SELECT pg_get_function_arguments(p.oid) FROM pg_proc p WHERE c.classid = 'pg_proc'::regclass AND p.oid = c.objid
        UNION ALL SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE c.classid = 'pg_proc'::regclass AND p.oid = c.objid AND p.prokind <> 'a' AND to_jsonb(p) ->> 'prosqlbody' IS NOT NULL
        UNION ALL SELECT pg_get_ruledef(w.oid) FROM pg_rewrite w WHERE c.classid = 'pg_rewrite'::regclass AND w.oid = c.objid
        UNION ALL SELECT concat(pg_get_expr(l.polqual, l.polrelid), ' ', pg_get_expr(l.polwithcheck, l.polrelid)) FROM pg_policy l WHERE c.classid = 'pg_policy'::regclass AND l.oid = c.objid
        UNION ALL SELECT pg_get_triggerdef(g.oid) FROM pg_trigger g WHERE c.classid = 'pg_trigger'::regclass AND g.oid = c.objid
        UNION ALL SELECT pg_get_statisticsobjdef(e.oid) FROM pg_statistic_ext e WHERE c.classid = 'pg_statistic_ext'::regclass AND e.oid = c.objid) x);
END $$;

-- taken_from_here lists the settings that a definition takes as they are (SET … FROM CURRENT).
CREATE FUNCTION pgdist.taken_from_here(body text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF body !~* '\mFROM\s+CURRENT\M' THEN RETURN '{}'; END IF;
    RETURN ARRAY(SELECT lower(m[1]) FROM regexp_matches(body, '\mSET\s+([\w.]+)\s+FROM\s+CURRENT\M', 'gi') m WHERE lower(m[1]) NOT IN ('search_path', 'role', 'session_authorization', 'session_replication_role'));
END $$;

-- names_passing tells whether a statement names something temporary of which what it makes does not
-- depend: a model (LIKE), a column's type (%TYPE), a function that computes values once.
CREATE FUNCTION pgdist.names_passing(body text, path text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    toks text[]; n int; names text[] := '{}'; name text; i int; found boolean := false;
BEGIN
    IF body !~* '\m(LIKE|TYPE|pg_temp(_[0-9]+)?)\M' THEN RETURN false; END IF;
    toks := ARRAY(SELECT t FROM unnest(pgdist.tokens(body)) WITH ORDINALITY x(t, o) WHERE t ~ '\S' AND t !~ '^(--|/\*)' ORDER BY o);
    n := cardinality(toks);
    FOR at IN 1 .. n LOOP
        IF toks[at] ~* '^"?pg_temp(_[0-9]+)?"?$' AND toks[at + 1] = '.' THEN RETURN true; END IF;
        IF upper(toks[at]) = 'LIKE' AND toks[at + 1] ~ '^["\w]' THEN
            names := names || (toks[at + 1] || CASE WHEN toks[at + 2] = '.' THEN '.' || toks[at + 3] ELSE '' END);
        ELSIF toks[at] = '%' AND upper(toks[at + 1]) = 'TYPE' THEN
            i := at - 1;
            WHILE toks[i - 1] = '.' LOOP i := i - 2; END LOOP;
            names := names || array_to_string(toks[i:at - 3], '');
        END IF;
    END LOOP;
    IF names = '{}' THEN RETURN false; END IF;
    PERFORM set_config('search_path', pgdist.path_text(path, current_setting('pgdist.as', true)), true);
    FOREACH name IN ARRAY names LOOP
        BEGIN
            found := found OR coalesce((SELECT c.relnamespace FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(name)) OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema(), false);
        EXCEPTION WHEN invalid_name OR syntax_error THEN NULL;
        END;
    END LOOP;
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    RETURN found;
END $$;
