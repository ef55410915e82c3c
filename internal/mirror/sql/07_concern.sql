-- concern lists the tables that a statement may have changed as mirroring knows them; NULL:
-- it cannot be told, so any. What counts is all that user_tables() and unfit() look at.
-- What CREATE and ALTER change is among their objects, or below these in a tree of
-- inheritance; what goes with a DROP, or by CASCADE, PostgreSQL has locked (a column, an
-- index, a trigger or a rule goes with an exclusive lock on its table). A table's name is
-- also its row type's, which other tables' columns may have. Only that a plain parent lost
-- or gained a child is told nowhere: its triggers show it.
CREATE FUNCTION pgdist.concern(tag text, body text) RETURNS oid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE rels oid[] := '{}'; cascades boolean := body ~* '\mCASCADE\M';
BEGIN
    IF tag IN ('GRANT', 'REVOKE') THEN
        IF tag = 'REVOKE' AND EXISTS (SELECT 1 FROM pg_event_trigger_ddl_commands() c WHERE c.object_type IN ('FUNCTION', 'PROCEDURE', 'ROUTINE')) THEN RETURN pgdist.barred(); END IF;
        RETURN pgdist.powerless();
    END IF;
    IF tag = 'COMMENT' THEN RETURN coalesce(string_to_array(nullif(current_setting('pgdist.here', true), ''), ',')::oid[], '{}'); END IF;
    IF tag = 'ALTER TYPE' AND body ~* '\mADD\s+VALUE\M' AND body !~* '\m(RENAME|OWNER|SCHEMA)\M' THEN RETURN rels; END IF;
    IF tag NOT IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE INDEX', 'CREATE VIEW', 'CREATE MATERIALIZED VIEW', 'CREATE SEQUENCE', 'CREATE FOREIGN TABLE', 'CREATE SCHEMA',
                   'CREATE FUNCTION', 'CREATE PROCEDURE', 'CREATE AGGREGATE', 'CREATE TYPE', 'CREATE DOMAIN', 'CREATE TRIGGER', 'CREATE RULE', 'CREATE POLICY', 'CREATE STATISTICS',
                   'ALTER TABLE', 'ALTER INDEX', 'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER SEQUENCE', 'ALTER FOREIGN TABLE', 'ALTER TRIGGER', 'ALTER RULE', 'ALTER POLICY', 'ALTER DEFAULT PRIVILEGES',
                   'DROP TABLE', 'DROP INDEX', 'DROP VIEW', 'DROP MATERIALIZED VIEW', 'DROP SEQUENCE', 'DROP FOREIGN TABLE', 'DROP SCHEMA', 'DROP FUNCTION', 'DROP PROCEDURE', 'DROP AGGREGATE',
                   'DROP TYPE', 'DROP DOMAIN', 'DROP TRIGGER', 'DROP RULE', 'DROP POLICY', 'DROP STATISTICS') THEN
        RETURN NULL;
    END IF;
    IF tag NOT LIKE 'DROP%' THEN
        SELECT array_agg(r) INTO rels FROM pg_event_trigger_ddl_commands() c, LATERAL (
            SELECT c.objid WHERE c.classid = 'pg_class'::regclass
            UNION ALL SELECT g.tgrelid FROM pg_trigger g WHERE c.classid = 'pg_trigger'::regclass AND g.oid = c.objid
            UNION ALL SELECT w.ev_class FROM pg_rewrite w WHERE c.classid = 'pg_rewrite'::regclass AND w.oid = c.objid
            UNION ALL SELECT k.conrelid FROM pg_constraint k WHERE c.classid = 'pg_constraint'::regclass AND k.oid = c.objid AND k.conrelid <> 0) x(r);
    END IF;
    IF tag LIKE 'DROP%' OR cascades THEN
        rels := rels || ARRAY(SELECT l.relation FROM pg_locks l WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
                                 AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()));
    END IF;
    IF tag LIKE 'ALTER%' THEN rels := rels || pgdist.named_by(rels); END IF;
    IF tag LIKE 'DROP%' OR cascades OR body ~* '\mINHERITS?\M' THEN rels := rels || pgdist.misfits(); END IF;
    RETURN pgdist.roots_of(rels) || string_to_array(nullif(current_setting('pgdist.here', true), ''), ',')::oid[]
        || CASE WHEN tag LIKE 'ALTER%' THEN ARRAY(SELECT u.oid FROM pgdist.user_roots() u WHERE NOT EXISTS (SELECT 1 FROM pgdist.tables t WHERE t.oid = u.oid)) END;
END $$;

-- named_by lists the relations with columns of these relations' row types, arrays of or
-- domains over such.
CREATE FUNCTION pgdist.named_by(rels oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN (WITH RECURSIVE typ(oid) AS (
        SELECT c.reltype FROM pg_class c WHERE c.oid = ANY (rels) AND c.reltype <> 0
        UNION SELECT d.objid FROM typ JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = typ.oid AND d.classid = 'pg_type'::regclass)
    SELECT array_agg(DISTINCT d.objid) FROM typ JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = typ.oid AND d.classid = 'pg_class'::regclass);
END $$;

-- made_of lists the relations with columns of these types, or of what is made of them: arrays,
-- domains, ranges, composite and row types.
CREATE FUNCTION pgdist.made_of(types oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN (WITH RECURSIVE typ(oid) AS (
        SELECT x FROM unnest(types) x
        UNION SELECT CASE d.classid WHEN 'pg_type'::regclass THEN d.objid ELSE (SELECT c.reltype FROM pg_class c WHERE c.oid = d.objid) END
                FROM typ JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = typ.oid AND d.classid IN ('pg_type'::regclass, 'pg_class'::regclass))
    SELECT coalesce(array_agg(DISTINCT d.objid), '{}') FROM typ JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = typ.oid AND d.classid = 'pg_class'::regclass AND d.objsubid > 0);
END $$;

-- misfits lists the tables whose triggers are not of the kind that inheritance wants.
CREATE FUNCTION pgdist.misfits() RETURNS oid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT array_agg(g.tgrelid) FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid
     WHERE g.tgname = 'pgdist_i' AND c.relkind = 'r' AND NOT c.relispartition
       AND (g.tgtype & 1 = 1) <> EXISTS (SELECT 1 FROM pg_inherits h WHERE h.inhparent = c.oid OR h.inhrelid = c.oid));
END $$;

-- roots_of lists the mirrored tables that relations belong to or inherit to: indexes to
-- their tables, partitions to the root of their tree.
CREATE FUNCTION pgdist.roots_of(rels oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN (WITH RECURSIVE below(oid) AS (
        SELECT coalesce(i.indrelid, x.oid) FROM unnest(rels) x(oid) LEFT JOIN pg_index i ON i.indexrelid = x.oid
        UNION SELECT h.inhrelid FROM below JOIN pg_inherits h ON h.inhparent = below.oid),
    up(oid) AS (SELECT CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid ELSE c.oid END FROM below JOIN pg_class c ON c.oid = below.oid)
    SELECT coalesce(array_agg(DISTINCT u.oid), '{}') FROM up JOIN pgdist.user_roots() u ON u.oid = up.oid);
END $$;

-- reworded lists the tables whose rows, or keys, a statement may have given another text: what
-- was journaled of them before is of no use any more. A new label of an enum does no harm.
CREATE FUNCTION pgdist.reworded(tag text, body text) RETURNS oid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT CASE WHEN tag NOT IN ('ALTER TYPE', 'ALTER TABLE') OR tag = 'ALTER TYPE' AND body ~* '\mADD\s+VALUE\M' AND body !~* '\mRENAME\M' THEN '{}'::oid[]
        ELSE pgdist.roots_of(pgdist.made_of(ARRAY(SELECT coalesce(r.reltype, c.objid) FROM pg_event_trigger_ddl_commands() c LEFT JOIN pg_class r ON c.classid = 'pg_class'::regclass AND r.oid = c.objid
                                                   WHERE c.classid IN ('pg_type'::regclass, 'pg_class'::regclass)))) END);
END $$;

-- powerless lists the tables that a relation of theirs keeps from being mirrored for want
-- of the owner's rights, as unfit() has it.
CREATE FUNCTION pgdist.powerless() RETURNS oid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT pgdist.roots_of(coalesce(array_agg(c.oid), '{}')) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgdist')
       AND NOT (has_table_privilege(c.relowner, c.oid, 'SELECT') AND has_table_privilege(c.relowner, c.oid, 'INSERT') AND has_table_privilege(c.relowner, c.oid, 'UPDATE')
            AND has_table_privilege(c.relowner, c.oid, 'DELETE') AND has_schema_privilege(c.relowner, c.relnamespace, 'USAGE')));
END $$;

-- barred lists the tables that a function keeps from being mirrored which their owner may not
-- execute.
CREATE FUNCTION pgdist.barred() RETURNS oid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT pgdist.roots_of(coalesce(array_agg(c.oid), '{}')) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgdist') AND pgdist.forbidden(c.oid) IS NOT NULL);
END $$;
