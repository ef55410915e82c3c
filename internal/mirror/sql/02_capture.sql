-- refuse says why a write may not happen here. Called when capture found no
-- boot row of the present term, or the role is not the leader's.
CREATE FUNCTION pgdist.refuse() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fence bigint; term bigint; booted bigint; host text;
BEGIN
    SELECT f.last_value INTO fence FROM pgdist.fence f;
    SELECT t.last_value INTO term FROM pgdist.term t;
    SELECT b.term INTO booted FROM pgdist.boot b;
    IF fence & 1 = 0 THEN
        SELECT m->>'host' INTO host FROM pgdist.register r, jsonb_array_elements(r.view->'members') m
         WHERE (m->>'id')::int = (r.view->>'leader')::int;
        RAISE EXCEPTION 'this database is a follower: pgdist does not let it be written to'
            USING ERRCODE = '25006', HINT = 'Write through pgdist, or to the leader' || coalesce(' (' || host || ')', '') || '.';
    ELSIF booted IS NULL THEN
        RAISE EXCEPTION 'this database crashed and has not been given the leader''s role since'
            USING ERRCODE = '40001', HINT = 'Run the transaction again; pgdist is electing a leader.';
    ELSE
        RAISE EXCEPTION 'this transaction''s snapshot is older than the leader''s term'
            USING ERRCODE = '40001', HINT = 'Run the transaction again.';
    END IF;
END $$;

-- base_type follows domains down to the type they are made of.
CREATE FUNCTION pgdist.base_type(t oid) RETURNS oid
LANGUAGE plpgsql STABLE AS $$
DECLARE b oid := t; up oid;
BEGIN
    LOOP
        SELECT y.typbasetype INTO up FROM pg_catalog.pg_type y WHERE y.oid = b AND y.typtype = 'd';
        IF NOT FOUND THEN RETURN b; END IF;
        b := up;
    END LOOP;
END $$;

-- row_text is the expression for a row's text with the columns in the root's
-- order. Output functions only, never a cast: a cast may be the table owner's.
-- Virtual generated columns (PostgreSQL 18) are NULL in a trigger's transition tables,
-- so they are everywhere: what they show follows from the others.
CREATE FUNCTION pgdist.row_text(rel oid, alias text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT 'pg_catalog.textin(pg_catalog.record_out(ROW(' ||
           coalesce(string_agg(CASE WHEN attgenerated = 'v' THEN 'NULL' ELSE alias || '.' || quote_ident(attname) ||
               -- xml_out drops the declaration; the text below it has it.
               CASE WHEN pgdist.base_type(atttypid) = 'xml'::regtype THEN '::pg_catalog.xml::pg_catalog.text' ELSE '' END END, ', ' ORDER BY attnum), '') || ')))'
      FROM pg_attribute WHERE attrelid = rel AND attnum > 0 AND NOT attisdropped);
END $$;

CREATE FUNCTION pgdist.type_name(t oid) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT quote_ident(n.nspname) || '.' || quote_ident(y.typname)
      FROM pg_type y JOIN pg_namespace n ON n.oid = y.typnamespace WHERE y.oid = t);
END $$;

-- pins are the settings that the text of values of these types depends on, as clauses of
-- CREATE FUNCTION with the values that every member writes it by; NULL if there may be
-- others: of types that look names up, are users' own, or are made of such. Each clause
-- costs every capture a microsecond. (PostgreSQL docs, "Client Connection Defaults" and
-- "Data Types"; src/backend/utils/adt.)
CREATE FUNCTION pgdist.pins(types oid[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE t oid; y record; need text[] := '{}';
BEGIN
    FOREACH t IN ARRAY types LOOP
        t := pgdist.base_type(t);
        SELECT e.oid INTO y FROM pg_type a JOIN pg_type e ON e.oid = a.typelem AND e.typarray = a.oid WHERE a.oid = t;
        IF FOUND THEN t := pgdist.base_type(y.oid); END IF;
        CASE
            WHEN t = ANY ('{bool,int2,int4,int8,text,varchar,bpchar,name,uuid,numeric,oid,json,jsonb,inet,cidr,macaddr,macaddr8,bit,varbit,xid,xid8,cid,tid,pg_lsn}'::regtype[]::oid[])
              OR t = '"char"'::regtype OR (SELECT x.typtype = 'e' FROM pg_type x WHERE x.oid = t) THEN NULL;
            WHEN t = ANY ('{date,time,timetz,timestamp}'::regtype[]::oid[]) THEN need := need || 'SET DateStyle = ''ISO, YMD'''::text;
            WHEN t = 'timestamptz'::regtype THEN need := need || ARRAY['SET DateStyle = ''ISO, YMD''', 'SET TimeZone = UTC'];
            WHEN t = 'interval'::regtype THEN need := need || 'SET IntervalStyle = postgres'::text;
            WHEN t = ANY ('{float4,float8,point,lseg,path,box,polygon,line,circle}'::regtype[]::oid[]) THEN need := need || 'SET extra_float_digits = 1'::text;
            WHEN t = 'bytea'::regtype THEN need := need || 'SET bytea_output = hex'::text;
            ELSE RETURN NULL;
        END CASE;
    END LOOP;
    RETURN (SELECT coalesce(string_agg(DISTINCT ' ' || n, ''), '') FROM unnest(need) n);
END $$;

-- Types where "equal" is "identical": a key of these needs no delete to change
-- its bytes. Text only under a deterministic collation.
CREATE FUNCTION pgdist.exact_type(t oid, coll oid) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    -- (In an array literal "char" would be char, that is bpchar.)
    IF t = ANY ('{bool,int2,int4,int8,uuid,oid,date,timestamp,timestamptz,bytea}'::regtype[]::oid[]) OR t = '"char"'::regtype THEN RETURN true; END IF;
    RETURN t = ANY ('{text,varchar,name}'::regtype[]::oid[])
       AND NOT EXISTS (SELECT 1 FROM pg_collation c WHERE c.oid = coll AND NOT c.collisdeterministic);
END $$;

-- key_index picks the index whose columns identify a row: the primary key, or
-- the smallest unique one over plain NOT NULL columns, of several the first by name: every
-- member must take the same, and numbers differ where it was copied. NULL: no key. A constraint
-- that is NOT VALID (PostgreSQL 18) may leave NULLs in a column that counts as NOT NULL.
CREATE FUNCTION pgdist.key_index(rel oid) RETURNS oid
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT i.indexrelid FROM pg_index i
     WHERE i.indrelid = rel AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
       AND NOT i.indisexclusion
       AND NOT EXISTS (SELECT 1 FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) k
                         JOIN pg_attribute a ON a.attrelid = rel AND a.attnum = k
                        WHERE NOT a.attnotnull OR a.attgenerated <> ''
                           OR EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conrelid = rel AND c.contype = 'n' AND NOT c.convalidated AND c.conkey = ARRAY[a.attnum]))
     ORDER BY i.indisprimary DESC, i.indnkeyatts, (SELECT c.relname FROM pg_class c WHERE c.oid = i.indexrelid) LIMIT 1);
END $$;

-- key_columns describes the columns of a key in index order. eq is the equality
-- operator of the index, by name and schema.
CREATE FUNCTION pgdist.key_columns(idx oid)
RETURNS TABLE (ord int, col name, typ oid, coll oid, ident "char", eq text)
LANGUAGE plpgsql STABLE ROWS 3 AS $$
BEGIN
    RETURN QUERY SELECT k.ord::int, a.attname, pgdist.base_type(a.atttypid), a.attcollation, a.attidentity,
           (SELECT 'OPERATOR(' || quote_ident(n.nspname) || '.' || o.oprname || ')'
              FROM pg_opclass c JOIN pg_amop m ON m.amopfamily = c.opcfamily
                   AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype
                   AND m.amopstrategy = (CASE WHEN (SELECT amname FROM pg_am WHERE oid = c.opcmethod) = 'btree' THEN 3 ELSE 1 END)
                   JOIN pg_operator o ON o.oid = m.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
             WHERE c.oid = i.indclass[k.ord - 1])
      FROM pg_index i
      CROSS JOIN LATERAL unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY k(att, ord)
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.att
     WHERE i.indexrelid = idx
     ORDER BY k.ord;
END $$;

-- key_column is the expression for a key's column. What is made for all enums, ranges
-- or composite types (enum_out, anyenum = anyenum) takes no domain over one; no cast
-- of a user's applies to a domain.
CREATE FUNCTION pgdist.key_column(idx oid, alias text, col name, base oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT alias || '.' || quote_ident(col) || CASE WHEN a.atttypid = base THEN '' ELSE '::' || pgdist.type_name(base) END
      FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = col WHERE i.indexrelid = idx);
END $$;

-- key_text is the expression for a key's text: a single column as it is, several
-- as a JSON array of their texts.
CREATE FUNCTION pgdist.key_text(idx oid, alias text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (WITH c AS (
        SELECT k.ord, 'pg_catalog.textin(' || quote_ident(n.nspname) || '.' || quote_ident(p.proname) || '(' ||
               pgdist.key_column(idx, alias, k.col, k.typ) || '))' AS txt
          FROM pgdist.key_columns(idx) k JOIN pg_type t ON t.oid = k.typ
          JOIN pg_proc p ON p.oid = t.typoutput JOIN pg_namespace n ON n.oid = p.pronamespace)
    SELECT CASE WHEN count(*) = 1 THEN min(txt)
                ELSE 'pg_catalog.textin(pg_catalog.json_out(pg_catalog.json_build_array(' || string_agg(txt, ', ' ORDER BY ord) || ')))' END
      FROM c);
END $$;

-- key_match is the condition "row alias has the key whose text is val".
CREATE FUNCTION pgdist.key_match(idx oid, alias text, val text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (WITH c AS (SELECT *, count(*) OVER () AS n FROM pgdist.key_columns(idx))
    SELECT string_agg(pgdist.key_column(idx, alias, col, typ) || ' ' || eq || ' ' ||
             CASE WHEN n = 1 THEN '(' || val || ')' ELSE '(' || val || '::pg_catalog.jsonb ->> ' || (ord - 1) || ')' END ||
             '::' || pgdist.type_name(typ), ' AND ' ORDER BY ord)
      FROM c);
END $$;
