-- capture_insert is the INSERT that journals what one statement touched. The
-- fence is in it: it finds nothing to insert unless this member leads, has not
-- crashed since, and the transaction's snapshot is of the present term. Every
-- name and operator is in full: a search_path of the function's own would cost
-- a tenth of the capture. pgdist.last tells whoever ran a procedure that commits
-- inside which of its transactions was the last. wide: source tells in w how wide the widest row is.
CREATE FUNCTION pgdist.capture_insert(id int, gen int, op text, source text, wide boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT format($f$INSERT INTO pgdist.journal (slot, id, term, xid, tab, gen, op, conn, keys)
        SELECT coalesce(pg_catalog.pg_sequence_last_value('pgdist.slot'::pg_catalog.regclass), 0), pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0'::pg_catalog.pg_lsn)::pg_catalog.int8,
               b.term, pg_catalog.set_config('pgdist.last', pg_catalog.pg_current_xact_id()::pg_catalog.text, false)::pg_catalog.xid8, %s, %s, %s, %s, k.keys
          FROM pgdist.boot b, (%s) k
         WHERE k.keys IS NOT NULL AND b.term OPERATOR(pg_catalog.=) pg_catalog.pg_sequence_last_value('pgdist.term'::pg_catalog.regclass)
           AND (pg_catalog.pg_sequence_last_value('pgdist.fence'::pg_catalog.regclass) OPERATOR(pg_catalog.&) 1) OPERATOR(pg_catalog.=) 1$f$, id, gen, op,
        CASE WHEN wide THEN format('CASE WHEN k.w OPERATOR(pg_catalog.>) 1000000000 THEN pgdist.oversize(%s, k.w) ELSE pg_catalog.current_setting(''pgdist.conn'', true) END', id)
             ELSE 'pg_catalog.current_setting(''pgdist.conn'', true)' END, source));
END $$;

-- capture_arm is one branch of a capture function: journal the texts that
-- source yields, up to per in one entry. More go into further entries, from
-- rest; skip is how many of these the first entry has already.
CREATE FUNCTION pgdist.capture_arm(id int, gen int, op text, source text, rest text, any_row text, per int, skip int, wide boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT format($f$
        %s RETURNING pg_catalog.cardinality(keys) INTO pgdist_n;
        IF pgdist_n IS NULL THEN
            IF EXISTS (%s) THEN PERFORM pgdist.refuse(); END IF;
        ELSIF pgdist_n OPERATOR(pg_catalog.=) %s THEN
            %s;
        END IF;$f$,
        pgdist.capture_insert(id, gen, quote_literal(op), format('SELECT pg_catalog.array_agg(x.k) AS keys%s FROM (%s LIMIT %s) x', w.x, source, per), wide),
        any_row, per,
        pgdist.capture_insert(id, gen, quote_literal(op), format(
            'SELECT pg_catalog.array_agg(x.k) AS keys%s FROM (SELECT z.*, (pg_catalog.row_number() OVER () OPERATOR(pg_catalog.-) 1) OPERATOR(pg_catalog./) %s AS g FROM (%s OFFSET %s) z) x GROUP BY x.g ORDER BY x.g',
            w.x, per, rest, skip), wide))
      FROM (SELECT CASE WHEN wide THEN ', pg_catalog.max(x.w) AS w' ELSE '' END AS x) w);
END $$;

-- merges tells whether a relation is, or is of, a partition tree that a MERGE may update. Of
-- one, PostgreSQL (15 to 18) has the transition tables wrong: a row that goes to another
-- partition is in neither of the UPDATE's, and in those of an INSERT and a DELETE whose
-- triggers do not fire; and a row that is updated after another was inserted is there as that
-- other. (An UPDATE has them right, and triggers on rows are, so those tell what MERGE does.)
CREATE FUNCTION pgdist.merges(rel oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT current_setting('server_version_num')::int >= 150000 AND EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = rel AND (c.relkind = 'p' OR c.relispartition)));
END $$;

-- on_merge keeps in a setting that a MERGE is updating a partition tree; a number, since its
-- triggers may run another. Before, what cannot be told to be none counts as one, which costs
-- time and changes nothing else: what a cursor, a function in SQL or an EXECUTE runs, whose
-- text is not at hand.
CREATE FUNCTION pgdist.on_merge() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lc_messages = 'C' AS $$
DECLARE around text; n int := coalesce(nullif(current_setting('pgdist.merging', true), ''), '0')::int;
BEGIN
    GET DIAGNOSTICS around = PG_CONTEXT;
    around := substr(around, strpos(around || E'\n', E'\n') + 1); -- but for this function
    IF around = '' THEN
        around := current_query();
    ELSIF around LIKE 'SQL statement "%' THEN
        around := regexp_replace(around, ' at EXECUTE$', '', 'gn');
    ELSE
        around := 'MERGE';
    END IF;
    IF around ~* '\m(merge|execute)\M' THEN
        n := n + CASE TG_WHEN WHEN 'BEFORE' THEN 1 ELSE -1 END;
        PERFORM set_config('pgdist.merging', CASE WHEN n > 0 THEN n::text ELSE '' END, true);
    END IF;
    RETURN NULL;
END $$;

-- merge_arm is what a capture function does for each row that a MERGE has touched in a
-- partition. The key is journaled, once more perhaps. Without one nobody can say which of the
-- images that the UPDATE's triggers journal are right, so the tree is copied; unless nothing
-- was inserted or moved: then all are.
CREATE FUNCTION pgdist.merge_arm(root oid, id int, gen int) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE idx oid := pgdist.key_index(root); wide text := pgdist.width(root, 'NEW'); knew text; kold text; isnew text; isold text;
BEGIN
    IF idx IS NULL THEN
        RETURN format($f$ IF TG_LEVEL OPERATOR(pg_catalog.=) 'ROW' THEN
                IF TG_OP OPERATOR(pg_catalog.=) 'INSERT' AND pg_catalog.current_setting('pgdist.merged_%1$s', true) IS DISTINCT FROM 'on' THEN
                    PERFORM pgdist.note(%1$s, 'c', NULL), pg_catalog.set_config('pgdist.merged_%1$s', 'on', true);
                END IF;
                RETURN NULL;
            END IF;$f$, id);
    END IF;
    knew := pgdist.key_text(idx, 'NEW');
    kold := pgdist.key_text(idx, 'OLD');
    isnew := 'SELECT ' || knew || ' AS k' || coalesce(', ' || wide || ' AS w', '');
    isold := 'SELECT ' || kold || ' AS k' || CASE WHEN wide IS NULL THEN '' ELSE ', 0::pg_catalog.int8 AS w' END;
    RETURN format($f$ IF TG_LEVEL OPERATOR(pg_catalog.=) 'ROW' THEN
                IF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN %s
                ELSIF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN %s
                ELSIF %s OPERATOR(pg_catalog.<>) %s COLLATE pg_catalog."C" THEN %s
                END IF;
                RETURN NULL;
            END IF;$f$,
        pgdist.capture_arm(id, gen, 'k', isnew, isnew, 'SELECT 1', 3, 3, wide IS NOT NULL),
        pgdist.capture_arm(id, gen, 'k', isold, isold, 'SELECT 1', 3, 3, wide IS NOT NULL),
        knew, kold, pgdist.capture_arm(id, gen, 'k', isnew, isnew, 'SELECT 1', 3, 3, wide IS NOT NULL));
END $body$;

-- width is the expression for how long a row's values are on their way as text,
-- twice quoted; NULL if they cannot be long. Lengths are known without reading
-- the values; only a text that could be too long is looked at.
CREATE FUNCTION pgdist.width(rel oid, alias text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT string_agg(CASE WHEN pgdist.base_type(a.atttypid) = 'bytea'::regtype
            THEN format('(coalesce(pg_catalog.octet_length(%s.%I), 0)::pg_catalog.int8 OPERATOR(pg_catalog.*) 2)', alias, a.attname) -- OPERATOR() knows no precedence
            ELSE replace($f$CASE WHEN pg_catalog.octet_length(@) OPERATOR(pg_catalog.>) 250000000
                THEN pg_catalog.octet_length(pg_catalog.replace(pg_catalog.replace(@, E'\\', E'\\\\\\\\'), '"', '""""'))
                ELSE coalesce(pg_catalog.octet_length(@), 0) END::pg_catalog.int8$f$, '@', format('%s.%I::pg_catalog.text', alias, a.attname)) END,
            ' OPERATOR(pg_catalog.+) ')
      FROM pg_attribute a WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypmod < 0 AND a.attgenerated = ''
       AND pgdist.base_type(a.atttypid) = ANY ('{text,varchar,bytea}'::regtype[]));
END $$;

-- oversize refuses a row that could not be put into one message to a follower.
CREATE FUNCTION pgdist.oversize(id int, bytes bigint) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'a row of table % is too large to be mirrored: % bytes as text', (SELECT format('%I.%I', t.nsp, t.rel) FROM pgdist.tables t WHERE t.id = oversize.id), bytes
        USING ERRCODE = '54000', HINT = 'A row may have 1000000000 bytes; bytea counts twice, a quote or backslash in a text of more than 250 MB four times. Store it in pieces.';
END $$;

-- path_of is the search_path under which a table's rows are read and put in place: users' code
-- (of types, operator classes, domains, checks) mostly finds by its search_path what lies
-- beside it, and so beside the table or its types.
CREATE FUNCTION pgdist.path_of(tab oid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT '"$user", public' || coalesce(string_agg(DISTINCT ', ' || quote_ident(n.nspname), ''), '')
      FROM pg_namespace n WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'public') AND (n.oid = (SELECT c.relnamespace FROM pg_class c WHERE c.oid = tab)
        OR n.oid IN (SELECT y.typnamespace FROM pg_attribute a JOIN pg_type t ON t.oid IN (a.atttypid, pgdist.base_type(a.atttypid)) JOIN pg_type y ON y.oid IN (t.oid, t.typelem)
                      WHERE a.attrelid = tab AND a.attnum > 0 AND NOT a.attisdropped)));
END $$;

-- A table's generated functions: c_N captures, r_N reads rows by key, a_N puts
-- rows in place, w_N empties, x_N reads whole. All but the first belong to the
-- table's owner: domains, checks, index expressions and generated columns run
-- users' code. Names of any bytes go into them: bodies are quoted by a tag that
-- cannot be guessed, parameters are $1 and $2, and a name that means two things
-- means the column.
CREATE FUNCTION pgdist.generate(root oid, id int, gen int, byrow boolean, upsert boolean, layout text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    idx oid := pgdist.key_index(root);
    tag text := '$pgdist' || md5(gen_random_uuid()::text) || '$';
    tab text; owner name; onl text; sets text; known text; arms text; cols text; vals text; upd text; hasid boolean;
    knew text; kold text; src text; per int := 1000; img text; ins text; fn text; all_of text; theirs boolean;
    wide text; aligned text; misread text := ''; isnew text; isold text; newrow text; oldrow text; path text; own text := ''; merged text := '';
    -- Text must not depend on a session's settings.
    pins text := ' SET DateStyle = ''ISO, YMD'' SET IntervalStyle = postgres SET extra_float_digits = 1 SET bytea_output = hex'
              || ' SET TimeZone = UTC SET lc_monetary = ''C'' SET xmloption = content SET quote_all_identifiers = off';
BEGIN
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), pg_get_userbyid(c.relowner),
           CASE WHEN c.relkind = 'p' THEN '' ELSE 'ONLY ' END
      INTO tab, owner, onl FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = root;
    known := pgdist.pins(CASE WHEN idx IS NULL THEN ARRAY(SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = root AND a.attnum > 0 AND NOT a.attisdropped)
                              ELSE ARRAY(SELECT k.typ FROM pgdist.key_columns(idx) k) END);
    path := pgdist.path_of(root);
    IF path <> '"$user", public' THEN own := ' SET search_path = ' || path; END IF; -- which costs each call a little
    sets := coalesce(known, pins || ' SET search_path = pg_catalog, pg_temp'); -- output functions may look names up
    img := pgdist.row_text(root, 't');
    IF idx IS NOT NULL THEN
        knew := pgdist.key_text(idx, CASE WHEN byrow THEN 'NEW' ELSE 'n' END);
        kold := pgdist.key_text(idx, CASE WHEN byrow THEN 'OLD' ELSE 'o' END);
    ELSE
        knew := pgdist.row_text(root, CASE WHEN byrow THEN 'NEW' ELSE 'n' END);
        kold := pgdist.row_text(root, CASE WHEN byrow THEN 'OLD' ELSE 'o' END);
        per := 200;
    END IF;

    -- c_N. For keys a further entry may repeat the first one's (shipping a key
    -- twice is harmless, and a UNION has no order to continue from); images must not.
    -- An UPDATE of few rows journals keys before and after as they come, one of
    -- many rows each once.
    wide := pgdist.width(root, CASE WHEN byrow THEN 'NEW' ELSE 'n' END);
    isnew := 'SELECT ' || knew || ' AS k' || coalesce(', ' || wide || ' AS w', '') || CASE WHEN byrow THEN '' ELSE ' FROM pgdist_new n' END;
    isold := 'SELECT ' || kold || ' AS k' || CASE WHEN wide IS NULL THEN '' ELSE ', 0::pg_catalog.int8 AS w' END || CASE WHEN byrow THEN '' ELSE ' FROM pgdist_old o' END;
    newrow := CASE WHEN byrow THEN 'SELECT 1' ELSE 'SELECT 1 FROM pgdist_new' END;
    oldrow := CASE WHEN byrow THEN 'SELECT 1' ELSE 'SELECT 1 FROM pgdist_old' END;
    IF byrow THEN per := 3; END IF; -- never reached
    IF idx IS NOT NULL THEN
        arms := format($f$ IF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN %s ELSIF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN %s ELSE %s END IF;$f$,
            pgdist.capture_arm(id, gen, 'k', isnew, isnew, newrow, per, per, wide IS NOT NULL),
            pgdist.capture_arm(id, gen, 'k', isold, isold, oldrow, per, per, wide IS NOT NULL),
            pgdist.capture_arm(id, gen, 'k', isnew || ' UNION ALL ' || isold,
                CASE WHEN wide IS NULL THEN '(' || isnew || ' UNION ' || isold || ')'
                     ELSE 'SELECT u.k, pg_catalog.max(u.w) AS w FROM (' || isnew || ' UNION ALL ' || isold || ') u GROUP BY u.k' END, newrow, per, 0, wide IS NOT NULL));
    ELSE
        arms := format($f$ IF TG_OP OPERATOR(pg_catalog.<>) 'INSERT' THEN %s END IF; IF TG_OP OPERATOR(pg_catalog.<>) 'DELETE' THEN %s END IF;$f$,
            pgdist.capture_arm(id, gen, '-', isold, isold, oldrow, per, per, wide IS NOT NULL),
            pgdist.capture_arm(id, gen, '+', isnew, isnew, newrow, per, per, wide IS NOT NULL));
    END IF;
    IF pgdist.merges(root) THEN merged := pgdist.merge_arm(root, id, gen); END IF;
    -- A leaf of a tree without a key that is emptied: which images were its own
    -- cannot be told, so the tree is copied.
    ins := pgdist.capture_insert(id, gen,
        CASE WHEN idx IS NULL THEN format('CASE WHEN TG_RELID OPERATOR(pg_catalog.=) %s THEN ''t'' ELSE ''c'' END::pg_catalog."char"', root) ELSE '''t''' END,
        'SELECT ARRAY[pg_catalog.format(''%I.%I'', TG_TABLE_SCHEMA, TG_TABLE_NAME)] AS keys', false);
    EXECUTE format('CREATE OR REPLACE FUNCTION pgdist.c_%s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER', id)
        || sets || ' AS ' || tag || $f$
        #variable_conflict use_column
        DECLARE pgdist_n int;
        BEGIN
            IF TG_OP OPERATOR(pg_catalog.=) 'TRUNCATE' THEN
                $f$ || ins || $f$ RETURNING 1 INTO pgdist_n;
                IF pgdist_n IS NULL THEN PERFORM pgdist.refuse(); END IF;
                RETURN NULL;
            END IF;
            $f$ || merged || arms || $f$
            RETURN NULL;
        END $f$ || tag;

    -- Column lists.
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum), string_agg('(x.r).' || quote_ident(attname), ', ' ORDER BY attnum),
           bool_or(attidentity <> '')
      INTO cols, vals, hasid
      FROM pg_attribute WHERE attrelid = root AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
    src := format('(SELECT v::%s AS r FROM pg_catalog.unnest($2) v OFFSET 0) x', tab);
    -- Since PostgreSQL 15 a "char" above 127 is written \ooo, which older ones take for a backslash.
    IF current_setting('server_version_num')::int < 150000 AND EXISTS (SELECT 1 FROM pg_attribute a JOIN pg_type y ON y.oid = pgdist.base_type(a.atttypid)
            WHERE a.attrelid = root AND a.attnum > 0 AND NOT a.attisdropped AND (y.oid = '"char"'::regtype OR y.typelem = '"char"'::regtype AND y.typlen = -1)) THEN
        misread := format($f$IF EXISTS (SELECT 1 FROM pg_catalog.unnest($2) v WHERE pg_catalog.textin(pg_catalog.record_out(v::%s)) OPERATOR(pg_catalog.<>) v) THEN
                        RAISE EXCEPTION 'the leader writes a value in a form that PostgreSQL %% does not know', pg_catalog.current_setting('server_version')
                            USING ERRCODE = '0A000', HINT = 'Upgrade this server to the leader''s major version.';
                    END IF;
                    $f$, tab);
    END IF;
    ins := 'INSERT INTO ' || tab || ' AS pgdist_t' || coalesce(' (' || cols || ')', '') || CASE WHEN hasid THEN ' OVERRIDING SYSTEM VALUE' ELSE '' END
        || ' SELECT ' || coalesce(vals, '') || ' FROM ' || src;

    -- Rows come as text, by the order of columns alone. Nothing is to make it another one here
    -- than at the leader; should anything, then this table's rows are not put where they do not belong.
    aligned := format($f$IF $3 OPERATOR(pg_catalog.<>) %L THEN
                    RAISE EXCEPTION 'table %% has other columns here than at the leader, or another key', %L
                        USING ERRCODE = 'PD007', HINT = 'Copy this member: pgdist resync MEMBER --force.';
                END IF;$f$, layout, tab);
    IF to_regprocedure(format('pgdist.a_%s(text[],text[])', id)) IS NOT NULL THEN EXECUTE format('DROP FUNCTION pgdist.a_%s(text[],text[])', id); END IF; -- of version 1
    -- Anew: by that whoever reads in an older snapshot sees that the definition has changed (redefined()).
    FOREACH fn IN ARRAY ARRAY['r_' || id || '(text[])', 'x_' || id || '()'] LOOP
        IF to_regprocedure('pgdist.' || fn) IS NOT NULL THEN EXECUTE 'DROP FUNCTION pgdist.' || fn; END IF; -- IF EXISTS would tell the client of it
    END LOOP;

    -- Rows come as they lie at the leader, so that they lie alike everywhere: queries
    -- without an order mostly have the same one, and BRIN indexes are of use.
    IF idx IS NOT NULL THEN
        EXECUTE format('CREATE FUNCTION pgdist.r_%s(text[], OUT pgdist_dels text[], OUT pgdist_rows text[]) LANGUAGE plpgsql STABLE SECURITY DEFINER', id)
            || ' SET search_path = ' || path || ' AS ' || tag || '
            #variable_conflict use_column
            BEGIN '
            || CASE WHEN upsert THEN
                   'IF pg_catalog.cardinality($1) OPERATOR(pg_catalog.=) 1 THEN
                        SELECT ARRAY[' || img || '] INTO pgdist_rows FROM ' || onl || tab || ' t WHERE ' || pgdist.key_match(idx, 't', '$1[1]') || ';
                        IF pgdist_rows IS NULL THEN pgdist_dels := $1; END IF;
                        RETURN;
                    END IF;
                    SELECT pg_catalog.array_agg(q.k) FILTER (WHERE t.ctid IS NULL), pg_catalog.array_agg(' || img || ' ORDER BY t.ctid) FILTER (WHERE t.ctid IS NOT NULL)
                      INTO pgdist_dels, pgdist_rows FROM pg_catalog.unnest($1) q(k) LEFT JOIN ' || onl || tab || ' t ON ' || pgdist.key_match(idx, 't', 'q.k') || ';'
               ELSE
                   'pgdist_dels := $1;
                    SELECT pg_catalog.array_agg(z.img) INTO pgdist_rows FROM (SELECT DISTINCT ON (t.ctid, t.tableoid) ' || img || ' AS img
                           FROM pg_catalog.unnest($1) q(k) JOIN ' || onl || tab || ' t ON ' || pgdist.key_match(idx, 't', 'q.k') || ' ORDER BY t.ctid, t.tableoid) z;'
               END || ' END ' || tag;
        IF upsert THEN
            SELECT string_agg(format('%I = EXCLUDED.%1$I', attname), ', ' ORDER BY attnum) INTO upd
              FROM pg_attribute a WHERE attrelid = root AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
               AND (NOT EXISTS (SELECT 1 FROM pgdist.key_columns(idx) k WHERE k.col = a.attname)
                    -- Generated columns are made anew when what they are made of is set.
                    OR EXISTS (SELECT 1 FROM pg_attribute g WHERE g.attrelid = root AND g.attgenerated = 's' AND pgdist.by_code(root, g.attnum)));
            ins := ins || format(' ON CONFLICT (%s) DO ', (SELECT string_agg(quote_ident(col), ', ' ORDER BY ord) FROM pgdist.key_columns(idx)))
                || coalesce('UPDATE SET ' || upd, 'NOTHING');
        END IF;
        EXECUTE format('CREATE OR REPLACE FUNCTION pgdist.a_%s(text[], text[], text DEFAULT NULL) RETURNS void LANGUAGE plpgsql SECURITY DEFINER', id) || own || ' AS ' || tag || '
            #variable_conflict use_column
            BEGIN
                ' || aligned || '
                IF $1 IS NOT NULL THEN
                    DELETE FROM ' || onl || tab || ' t USING pg_catalog.unnest($1) q(k) WHERE ' || pgdist.key_match(idx, 't', 'q.k') || ';
                END IF;
                IF $2 IS NOT NULL THEN
                    ' || misread || ins || ';
                END IF;
            END ' || tag;
    ELSE
        -- y_N finds rows by their images, made exactly as capture makes them, and
        -- a_N takes their places. Copies of one row are told apart by place only;
        -- which of equal rows goes makes no difference.
        EXECUTE format('CREATE OR REPLACE FUNCTION pgdist.y_%s(text[]) RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp', id)
            || coalesce(known, pins) || ' AS ' || tag || '
            #variable_conflict use_column
            DECLARE pgdist_found text[];
            BEGIN
                IF $1 IS NULL THEN RETURN NULL; END IF;
                SELECT array_agg(z.place) INTO pgdist_found FROM (
                        SELECT i.img, i.place, row_number() OVER (PARTITION BY i.img) AS r
                          FROM (SELECT t.tableoid || '' '' || t.ctid AS place, ' || img || ' COLLATE "C" AS img FROM ' || onl || tab || ' t OFFSET 0) i
                         WHERE i.img IN (SELECT u.k COLLATE "C" FROM unnest($1) u(k))) z
                    JOIN (SELECT u.k COLLATE "C" AS k, count(*) AS n FROM unnest($1) u(k) GROUP BY 1) w ON w.k = z.img AND z.r <= w.n;
                IF coalesce(cardinality(pgdist_found), 0) <> cardinality($1) THEN
                    RAISE EXCEPTION ''table % lacks % of % rows the leader deleted'', ' || quote_literal(tab) || ', cardinality($1) - coalesce(cardinality(pgdist_found), 0), cardinality($1)
                        USING ERRCODE = ''PD004'', TABLE = ' || quote_literal(tab) || ';
                END IF;
                RETURN pgdist_found;
            END ' || tag;
        EXECUTE format('CREATE OR REPLACE FUNCTION pgdist.a_%s(text[], text[], text DEFAULT NULL) RETURNS void LANGUAGE plpgsql SECURITY DEFINER', id) || own || ' AS ' || tag || '
            #variable_conflict use_column
            BEGIN
                ' || aligned || '
                IF $1 IS NOT NULL THEN
                    DELETE FROM ' || onl || tab || ' d USING pg_catalog.unnest($1) q(k)
                     WHERE d.tableoid = pg_catalog.split_part(q.k, '' '', 1)::pg_catalog.oid AND d.ctid = pg_catalog.split_part(q.k, '' '', 2)::pg_catalog.tid;
                END IF;
                IF $2 IS NOT NULL THEN
                    ' || misread || ins || ';
                END IF;
            END ' || tag;
    END IF;
    IF idx IS NOT NULL AND to_regprocedure(format('pgdist.y_%s(text[])', id)) IS NOT NULL THEN EXECUTE format('DROP FUNCTION pgdist.y_%s(text[])', id); END IF;
    EXECUTE format('CREATE OR REPLACE FUNCTION pgdist.w_%s() RETURNS void LANGUAGE plpgsql SECURITY DEFINER', id) || own || ' AS ' || tag || ' BEGIN DELETE FROM ' || onl || tab || '; END ' || tag;
    EXECUTE format('CREATE FUNCTION pgdist.x_%s() RETURNS SETOF text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ', id) || path || ' AS ' || tag
        || ' BEGIN RETURN QUERY SELECT ' || img || ' FROM ' || onl || tab || ' t; END ' || tag;
    -- ALTER FUNCTION locks the function to the transaction's end: of thousands of tables that is
    -- more than a server has locks for, so it is left out where it would change nothing.
    FOR fn, theirs IN SELECT format('pgdist.%I(%s)', p.proname, pg_get_function_identity_arguments(p.oid)), p.proowner = c.relowner
                        FROM pg_proc p, pg_class c
                       WHERE c.oid = root AND p.pronamespace = 'pgdist'::regnamespace AND p.proname = ANY (ARRAY(SELECT (l || '_' || id)::name FROM unnest('{c,a,w,x,r,y}'::text[]) l)) LOOP
        all_of := concat_ws(', ', all_of, fn);
        IF NOT theirs AND fn NOT LIKE 'pgdist.c\_%' THEN EXECUTE format('ALTER FUNCTION %s OWNER TO %I', fn, owner); END IF;
    END LOOP;
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', all_of);
END $body$;

-- by_settings tells whether what a relation, or one below it, generates and stores, or where
-- its rows lie, is made with what PostgreSQL calls immutable and settings change all the same:
-- the text of floating-point numbers, of what consists of such, and of bytea, and XML. A
-- follower makes it anew, under settings of its own.
CREATE FUNCTION pgdist.by_settings(rel oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Most relations are neither, and it is asked of each partition.
    IF NOT EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = rel AND a.attgenerated = 's')
       AND NOT EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhparent = rel) AND NOT EXISTS (SELECT 1 FROM pg_partitioned_table p WHERE p.partrelid = rel) THEN
        RETURN false;
    END IF;
    RETURN (WITH RECURSIVE d(oid) AS (SELECT rel UNION SELECT i.inhrelid FROM d JOIN pg_inherits i ON i.inhparent = d.oid)
    SELECT EXISTS (SELECT 1 FROM (
        SELECT x.adbin::text AS e FROM d JOIN pg_attribute a ON a.attrelid = d.oid JOIN pg_attrdef x ON x.adrelid = d.oid AND x.adnum = a.attnum WHERE a.attgenerated = 's'
        UNION ALL SELECT p.partexprs::text FROM d JOIN pg_partitioned_table p ON p.partrelid = d.oid) x
     WHERE x.e ~ '\{XMLEXPR ' OR x.e ~ '\{COERCEVIAIO ' AND EXISTS (
        SELECT 1 FROM regexp_matches(x.e, 'type(?:id)? (\d+)', 'g') m
         WHERE pgdist.base_type(m[1]::oid) = ANY ('{float4,float8,bytea,point,lseg,path,box,polygon,line,circle}'::regtype[]::oid[]))));
END $$;

-- odd_settings is the condition that a session's settings would show there.
CREATE FUNCTION pgdist.odd_settings() RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT 'pg_catalog.current_setting(''extra_float_digits'')::pg_catalog.int4 OPERATOR(pg_catalog.<=) 0'
        || ' OR pg_catalog.current_setting(''bytea_output'') OPERATOR(pg_catalog.<>) ''hex'''
        || ' OR pg_catalog.current_setting(''xmlbinary'') OPERATOR(pg_catalog.<>) ''base64'''
$$;

-- on_settings refuses to write then.
CREATE FUNCTION pgdist.on_settings() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgdist.refuse_settings(TG_RELID);
    RETURN NULL;
END $$;

CREATE FUNCTION pgdist.refuse_settings(rel oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'what table % generates would depend on this session''s extra_float_digits, bytea_output or xmlbinary', (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = rel)
        USING ERRCODE = '0A000', HINT = 'SET extra_float_digits = 1, bytea_output = hex and xmlbinary = base64, or generate it without casts to text and without XML: by encode(), for example.';
END $$;

-- triggers puts capture on one relation of a tree.
CREATE FUNCTION pgdist.triggers(rel oid, id int, byrow boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE tab text := rel::regclass::text; t name; kind "char"; merging text := 'pg_catalog.current_setting(''pgdist.merging'', true) OPERATOR(pg_catalog.<>) ''''';
BEGIN
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind INTO tab, kind
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = rel;
    FOR t IN SELECT tgname FROM pg_trigger WHERE tgrelid = rel AND tgname = ANY (pgdist.trigger_names()) LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', t, tab);
    END LOOP;
    IF byrow THEN
        EXECUTE format('CREATE TRIGGER pgdist_i AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION pgdist.c_%s()', tab, id);
    ELSE
        EXECUTE format('CREATE TRIGGER pgdist_i AFTER INSERT ON %s REFERENCING NEW TABLE AS pgdist_new FOR EACH STATEMENT EXECUTE FUNCTION pgdist.c_%s()', tab, id);
        EXECUTE format('CREATE TRIGGER pgdist_u AFTER UPDATE ON %s REFERENCING OLD TABLE AS pgdist_old NEW TABLE AS pgdist_new FOR EACH STATEMENT EXECUTE FUNCTION pgdist.c_%s()', tab, id);
        EXECUTE format('CREATE TRIGGER pgdist_d AFTER DELETE ON %s REFERENCING OLD TABLE AS pgdist_old FOR EACH STATEMENT EXECUTE FUNCTION pgdist.c_%s()', tab, id);
    END IF;
    EXECUTE format('CREATE TRIGGER pgdist_t AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION pgdist.c_%s()', tab, id);
    IF pgdist.by_settings(rel) THEN
        EXECUTE format('CREATE TRIGGER pgdist_s BEFORE INSERT OR UPDATE ON %s FOR EACH STATEMENT WHEN (%s) EXECUTE FUNCTION pgdist.on_settings()', tab, pgdist.odd_settings());
    END IF;
    IF pgdist.merges(rel) THEN
        IF kind = 'p' THEN
            EXECUTE format('CREATE TRIGGER pgdist_b BEFORE UPDATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION pgdist.on_merge()', tab);
            EXECUTE format('CREATE TRIGGER pgdist_a AFTER UPDATE ON %s FOR EACH STATEMENT WHEN (%s) EXECUTE FUNCTION pgdist.on_merge()', tab, merging);
        ELSE
            EXECUTE format('CREATE TRIGGER pgdist_m AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW WHEN (%s) EXECUTE FUNCTION pgdist.c_%s()', tab, merging, id);
        END IF;
    END IF;
END $$;

-- trigger_names are those of all that triggers makes.
CREATE FUNCTION pgdist.trigger_names() RETURNS name[]
LANGUAGE sql IMMUTABLE AS $$ SELECT '{pgdist_i,pgdist_u,pgdist_d,pgdist_t,pgdist_a,pgdist_b,pgdist_m,pgdist_s}'::pg_catalog.name[] $$;

-- trigger_count is how many of these a table has, with its partitions.
CREATE FUNCTION pgdist.trigger_count(rels oid[], byrow boolean) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT sum(CASE WHEN byrow THEN 2 WHEN NOT pgdist.merges(c.oid) THEN 4 WHEN c.relkind = 'p' THEN 6 ELSE 5 END + pgdist.by_settings(c.oid)::int) FROM pg_class c WHERE c.oid = ANY (rels));
END $$;

-- triggers_of counts those that it has.
CREATE FUNCTION pgdist.triggers_of(rels oid[], id int) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT count(*) FROM pg_trigger g WHERE g.tgrelid = ANY (rels) AND g.tgname = ANY (pgdist.trigger_names())
               AND g.tgfoid IN (to_regproc('pgdist.c_' || id), 'pgdist.on_merge'::regproc, 'pgdist.on_settings'::regproc) AND g.tgenabled = 'O');
END $$;
