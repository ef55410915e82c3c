-- capture_insert is the INSERT that journals what one statement touched. The
-- fence is in it: it finds nothing to insert unless this member leads, has not
-- crashed since, and the transaction's snapshot is of the present term.
CREATE FUNCTION pgdist.capture_insert(id int, gen int, op text, source text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format($f$INSERT INTO pgdist.journal (slot, id, term, xid, tab, gen, op, conn, keys)
        SELECT s.last_value, nextval('pgdist.journal_id'), b.term, pg_current_xact_id(), %s, %s, %L, current_setting('pgdist.conn', true), k.keys
          FROM pgdist.boot b, pgdist.fence f, pgdist.term t, pgdist.slot s, (%s) k
         WHERE f.last_value & 1 = 1 AND b.term = t.last_value AND k.keys IS NOT NULL$f$, id, gen, op, source)
$$;

-- capture_arm is one branch of a capture function: journal the texts that
-- source yields, up to per in one entry, the rest in further ones.
CREATE FUNCTION pgdist.capture_arm(id int, gen int, op text, source text, any_row text, per int, again boolean) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format($f$
        %s RETURNING cardinality(keys) INTO pgdist_n;
        IF pgdist_n IS NULL THEN
            IF EXISTS (%s) THEN PERFORM pgdist.refuse(); END IF;
        ELSIF pgdist_n = %s THEN
            %s;
        END IF;$f$,
        pgdist.capture_insert(id, gen, op, format('SELECT array_agg(x.k) AS keys FROM (%s LIMIT %s) x', source, per)),
        any_row, per,
        pgdist.capture_insert(id, gen, op, format(
            'SELECT array_agg(y.k) AS keys FROM (SELECT x.k, (row_number() OVER () - 1) / %s AS g FROM (%s OFFSET %s) x) y GROUP BY y.g',
            per, source, CASE WHEN again THEN 0 ELSE per END)))
$$;

-- A table's generated functions: c_N captures, r_N reads rows by key, a_N puts
-- rows in place. The last two belong to the table's owner: domains, checks,
-- index expressions and generated columns run users' code.
CREATE FUNCTION pgdist.generate(root oid, id int, gen int, byrow boolean, upsert boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    idx oid := pgdist.key_index(root);
    tab text; owner name; onl text; sets text := ''; arms text; cols text; vals text; upd text; hasid boolean;
    knew text; kold text; src text; per int := 1000; img text; dummy text;
BEGIN
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), pg_get_userbyid(c.relowner),
           CASE WHEN c.relkind = 'p' THEN '' ELSE 'ONLY ' END
      INTO tab, owner, onl FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = root;

    -- Text must not depend on the client's settings.
    IF idx IS NULL OR EXISTS (SELECT 1 FROM pgdist.key_columns(idx) k WHERE NOT pgdist.plain_type(k.typ)) THEN
        sets := ' SET DateStyle = ''ISO, YMD'' SET IntervalStyle = postgres SET extra_float_digits = 1 SET bytea_output = hex'
             || ' SET TimeZone = UTC SET lc_monetary = ''C'' SET xmloption = content';
    END IF;

    IF idx IS NOT NULL THEN
        knew := pgdist.key_text(idx, CASE WHEN byrow THEN 'NEW' ELSE 'n' END);
        kold := pgdist.key_text(idx, CASE WHEN byrow THEN 'OLD' ELSE 'o' END);
    ELSE
        knew := pgdist.row_text(root, CASE WHEN byrow THEN 'NEW' ELSE 'n' END);
        kold := pgdist.row_text(root, CASE WHEN byrow THEN 'OLD' ELSE 'o' END);
        per := 200;
    END IF;

    -- c_N
    IF byrow AND idx IS NOT NULL THEN
        arms := format($f$ IF TG_OP = 'INSERT' THEN %s ELSIF TG_OP = 'DELETE' THEN %s ELSE %s END IF;$f$,
            pgdist.capture_arm(id, gen, 'k', 'SELECT ' || knew || ' AS k', 'SELECT 1', 2, true),
            pgdist.capture_arm(id, gen, 'k', 'SELECT ' || kold || ' AS k', 'SELECT 1', 2, true),
            pgdist.capture_arm(id, gen, 'k', '(SELECT ' || knew || ' AS k UNION SELECT ' || kold || ')', 'SELECT 1', 3, true));
    ELSIF byrow THEN
        arms := format($f$ IF TG_OP <> 'INSERT' THEN %s END IF; IF TG_OP <> 'DELETE' THEN %s END IF;$f$,
            pgdist.capture_arm(id, gen, '-', 'SELECT ' || kold || ' AS k', 'SELECT 1', 2, true),
            pgdist.capture_arm(id, gen, '+', 'SELECT ' || knew || ' AS k', 'SELECT 1', 2, true));
    ELSIF idx IS NOT NULL THEN
        arms := format($f$ IF TG_OP = 'INSERT' THEN %s ELSIF TG_OP = 'DELETE' THEN %s ELSE %s END IF;$f$,
            pgdist.capture_arm(id, gen, 'k', 'SELECT ' || knew || ' AS k FROM pgdist_new n', 'SELECT 1 FROM pgdist_new', per, true),
            pgdist.capture_arm(id, gen, 'k', 'SELECT ' || kold || ' AS k FROM pgdist_old o', 'SELECT 1 FROM pgdist_old', per, true),
            pgdist.capture_arm(id, gen, 'k', '(SELECT ' || knew || ' AS k FROM pgdist_new n UNION SELECT ' || kold || ' FROM pgdist_old o)',
                               'SELECT 1 FROM pgdist_new', per, true));
    ELSE
        arms := format($f$ IF TG_OP <> 'INSERT' THEN %s END IF; IF TG_OP <> 'DELETE' THEN %s END IF;$f$,
            pgdist.capture_arm(id, gen, '-', 'SELECT ' || kold || ' AS k FROM pgdist_old o', 'SELECT 1 FROM pgdist_old', per, false),
            pgdist.capture_arm(id, gen, '+', 'SELECT ' || knew || ' AS k FROM pgdist_new n', 'SELECT 1 FROM pgdist_new', per, false));
    END IF;
    -- For keys a further entry may repeat the first one's (shipping a key twice
    -- is harmless, and a UNION has no order to continue from); images must not.
    EXECUTE format($f$CREATE OR REPLACE FUNCTION pgdist.c_%s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp%s AS $pgdist$
        DECLARE pgdist_n int;
        BEGIN
            IF TG_OP = 'TRUNCATE' THEN
                %s RETURNING 1 INTO pgdist_n;
                IF pgdist_n IS NULL THEN PERFORM pgdist.refuse(); END IF;
                RETURN NULL;
            END IF;
            %s
            RETURN NULL;
        END $pgdist$$f$, id, sets,
        replace(pgdist.capture_insert(id, gen, 't', 'SELECT ARRAY[format(''%I.%I'', TG_TABLE_SCHEMA, TG_TABLE_NAME)] AS keys'),
                '''t'', current_setting', CASE WHEN idx IS NULL THEN format('CASE WHEN TG_RELID = %s THEN ''t'' ELSE ''c'' END::"char"', root)
                                               ELSE '''t''' END || ', current_setting'),
        arms);

    -- Column lists.
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum), string_agg('(x.r).' || quote_ident(attname), ', ' ORDER BY attnum),
           bool_or(attidentity <> '')
      INTO cols, vals, hasid
      FROM pg_attribute WHERE attrelid = root AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
    img := pgdist.row_text(root, 't');
    src := format('(SELECT v::%s AS r FROM pg_catalog.unnest(pgdist_rows) v OFFSET 0) x', tab);

    IF idx IS NOT NULL THEN
        EXECUTE format($f$CREATE OR REPLACE FUNCTION pgdist.r_%s(pgdist_keys text[], OUT pgdist_dels text[], OUT pgdist_rows text[])
            LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $pgdist$
            BEGIN %s END $pgdist$$f$, id,
            CASE WHEN upsert THEN format(
                $q$SELECT array_agg(q.k) FILTER (WHERE t.ctid IS NULL), array_agg(%s) FILTER (WHERE t.ctid IS NOT NULL)
                     INTO pgdist_dels, pgdist_rows FROM unnest(pgdist_keys) q(k) LEFT JOIN %s%s t ON %s;$q$,
                img, onl, tab, pgdist.key_match(idx, 't', 'q.k'))
            ELSE format(
                $q$pgdist_dels := pgdist_keys;
                   SELECT array_agg(DISTINCT (%s)) INTO pgdist_rows FROM unnest(pgdist_keys) q(k) JOIN %s%s t ON %s;$q$,
                img, onl, tab, pgdist.key_match(idx, 't', 'q.k')) END);
        IF upsert THEN
            SELECT string_agg(format('%I = EXCLUDED.%1$I', attname), ', ' ORDER BY attnum) INTO upd
              FROM pg_attribute a WHERE attrelid = root AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
               AND NOT EXISTS (SELECT 1 FROM pgdist.key_columns(idx) k WHERE k.col = a.attname);
        END IF;
        EXECUTE format($f$CREATE OR REPLACE FUNCTION pgdist.a_%s(pgdist_dels text[], pgdist_rows text[]) RETURNS bigint
            LANGUAGE plpgsql SECURITY DEFINER SET row_security = off AS $pgdist$
            DECLARE pgdist_n bigint;
            BEGIN
                IF pgdist_dels IS NOT NULL THEN
                    DELETE FROM %s%s t USING pg_catalog.unnest(pgdist_dels) q(k) WHERE %s;
                END IF;
                IF pgdist_rows IS NOT NULL THEN
                    INSERT INTO %s%s %s SELECT %s FROM %s%s;
                    GET DIAGNOSTICS pgdist_n = ROW_COUNT;
                END IF;
                RETURN pgdist_n;
            END $pgdist$$f$, id, onl, tab, pgdist.key_match(idx, 't', 'q.k'),
            tab, coalesce(' (' || cols || ')', ''), CASE WHEN hasid THEN 'OVERRIDING SYSTEM VALUE' ELSE '' END,
            coalesce(vals, ''), src,
            CASE WHEN NOT upsert THEN ''
                 ELSE format(' ON CONFLICT (%s) DO ', (SELECT string_agg(quote_ident(col), ', ' ORDER BY ord) FROM pgdist.key_columns(idx)))
                      || coalesce('UPDATE SET ' || upd, 'NOTHING') END);
    ELSE
        -- Copies of one row are told apart by place only; which of equal rows
        -- goes makes no difference.
        EXECUTE format($f$CREATE OR REPLACE FUNCTION pgdist.a_%1$s(pgdist_dels text[], pgdist_rows text[]) RETURNS bigint
            LANGUAGE plpgsql SECURITY DEFINER SET row_security = off AS $pgdist$
            DECLARE pgdist_n bigint;
            BEGIN
                IF pgdist_dels IS NOT NULL THEN
                    DELETE FROM %2$s%3$s d USING (
                        SELECT z.o, z.c FROM (
                            SELECT i.o, i.c, i.img, pg_catalog.row_number() OVER (PARTITION BY i.img) AS r
                              FROM (SELECT t.tableoid AS o, t.ctid AS c, %4$s COLLATE "C" AS img FROM %2$s%3$s t OFFSET 0) i
                             WHERE i.img IN (SELECT u.k COLLATE "C" FROM pg_catalog.unnest(pgdist_dels) u(k))) z
                        JOIN (SELECT u.k COLLATE "C" AS k, pg_catalog.count(*) AS n FROM pg_catalog.unnest(pgdist_dels) u(k) GROUP BY 1) w
                          ON w.k = z.img AND z.r <= w.n) v
                     WHERE d.ctid = v.c AND d.tableoid = v.o;
                    GET DIAGNOSTICS pgdist_n = ROW_COUNT;
                    IF pgdist_n <> pg_catalog.cardinality(pgdist_dels) THEN
                        RAISE EXCEPTION 'table %% lacks %% of %% rows the leader deleted', %6$L, pg_catalog.cardinality(pgdist_dels) - pgdist_n, pg_catalog.cardinality(pgdist_dels)
                            USING ERRCODE = 'PD004';
                    END IF;
                END IF;
                IF pgdist_rows IS NOT NULL THEN
                    INSERT INTO %3$s%7$s %8$s SELECT %9$s FROM %5$s;
                    GET DIAGNOSTICS pgdist_n = ROW_COUNT;
                END IF;
                RETURN pgdist_n;
            END $pgdist$$f$, id, onl, tab, img, src, tab, coalesce(' (' || cols || ')', ''),
            CASE WHEN hasid THEN 'OVERRIDING SYSTEM VALUE' ELSE '' END, coalesce(vals, ''));
        EXECUTE format('DROP FUNCTION IF EXISTS pgdist.r_%s(text[])', id);
    END IF;

    -- w_N empties the table: where its rows are to be copied whole.
    EXECUTE format($f$CREATE OR REPLACE FUNCTION pgdist.w_%s() RETURNS void
        LANGUAGE plpgsql SECURITY DEFINER SET row_security = off AS $pgdist$
        BEGIN DELETE FROM %s%s; END $pgdist$$f$, id, onl, tab);
    -- x_N reads the table whole, for the same purpose.
    EXECUTE format($f$CREATE OR REPLACE FUNCTION pgdist.x_%s() RETURNS SETOF text
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $pgdist$
        SELECT %s FROM %s%s t $pgdist$$f$, id, img, onl, tab);

    EXECUTE format('REVOKE ALL ON FUNCTION pgdist.c_%1$s(), pgdist.a_%1$s(text[], text[]), pgdist.w_%1$s(), pgdist.x_%1$s() FROM PUBLIC', id);
    EXECUTE format('ALTER FUNCTION pgdist.a_%s(text[], text[]) OWNER TO %I', id, owner);
    EXECUTE format('ALTER FUNCTION pgdist.w_%s() OWNER TO %I', id, owner);
    EXECUTE format('ALTER FUNCTION pgdist.x_%s() OWNER TO %I', id, owner);
    IF idx IS NOT NULL THEN
        EXECUTE format('REVOKE ALL ON FUNCTION pgdist.r_%s(text[]) FROM PUBLIC', id);
        EXECUTE format('ALTER FUNCTION pgdist.r_%s(text[]) OWNER TO %I', id, owner);
    END IF;
END $body$;

-- triggers puts capture on one relation of a tree.
CREATE FUNCTION pgdist.triggers(rel oid, id int, byrow boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE tab text := rel::regclass::text; t name;
BEGIN
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) INTO tab
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = rel;
    FOR t IN SELECT tgname FROM pg_trigger WHERE tgrelid = rel AND tgname IN ('pgdist_i', 'pgdist_u', 'pgdist_d', 'pgdist_t') LOOP
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
END $$;
