-- Version 2: whoever holds up an apply is cancelled before he is ended (blockers,
-- evict); the journal turns to any slot that is empty, so each knows when it was left.
ALTER TABLE pgdist.slots ADD COLUMN till timestamptz;
UPDATE pgdist.slots SET till = now() WHERE slot <> (SELECT x.last_value FROM pgdist.slot x);
-- Materialized views, UNLOGGED tables.
CREATE TABLE IF NOT EXISTS pgdist.matviews (oid oid PRIMARY KEY, error text);
INSERT INTO pgdist.boot (term) VALUES (-1) ON CONFLICT DO NOTHING;
-- Renames wait for open DDL; DROP of schema pgdist within functions is refused. The
-- function itself comes below.
CREATE TABLE IF NOT EXISTS pgdist.renames ();
CREATE FUNCTION pgdist.on_start() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE EVENT TRIGGER "!pgdist_start" ON ddl_command_start EXECUTE FUNCTION pgdist.on_start();
-- Several distributors.
ALTER TABLE pgdist.position ADD COLUMN tick bigint NOT NULL DEFAULT 0, ADD COLUMN ddl bigint NOT NULL DEFAULT 0;
CREATE TABLE pgdist.distributors (id text PRIMARY KEY, name text NOT NULL, epoch bigint NOT NULL, lease interval NOT NULL, since timestamptz NOT NULL DEFAULT now()) WITH (fillfactor = 50);
-- Journal entries are numbered by WAL positions now, which lie above what the sequence
-- journal_id gave. It stays for version 3 to drop: a writer that waits for the fence
-- while this runs goes on in the old function.
-- Comparing in the background, and repairing.
CREATE TABLE pgdist.amiss (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, tab int NOT NULL, gen int NOT NULL, keys text[], what text NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE pgdist.checks (one boolean PRIMARY KEY DEFAULT true CHECK (one), began timestamptz, ended timestamptz, tab int, after text, rows bigint NOT NULL DEFAULT 0,
    differences bigint NOT NULL DEFAULT 0) WITH (fillfactor = 50);
INSERT INTO pgdist.checks DEFAULT VALUES;
-- A publication of all tables refuses DELETE from those without a key.
ALTER TABLE pgdist.replayed ADD PRIMARY KEY (term, id);
-- What was made unseen.
CREATE TABLE pgdist.views (oid oid PRIMARY KEY);
-- What was given away unseen.
CREATE TABLE pgdist.owners (class oid NOT NULL, obj oid NOT NULL, owner oid NOT NULL, PRIMARY KEY (class, obj));
-- Why members could not be taken back.
CREATE TABLE pgdist.kept_out (member int PRIMARY KEY, why text NOT NULL, till timestamptz NOT NULL);
-- Roles are known by what they are, not by the term's number of them alone.
-- The leader's ids are those that the others will know.
ALTER TABLE pgdist.roles ADD COLUMN id text, ADD COLUMN oid oid;
UPDATE pgdist.roles k SET id = c.system_identifier || '/' || a.oid, oid = a.oid FROM pg_authid a, pg_control_system() c
 WHERE a.rolname = k.name AND (SELECT f.last_value & 1 = 1 FROM pgdist.fence f);
-- Rows say for which columns they are.
ALTER TABLE pgdist.tables ADD COLUMN layout text;
DROP FUNCTION pgdist.known();
DROP FUNCTION pgdist.inner_text(text, text);
DROP FUNCTION pgdist.generate(oid, int, int, boolean, boolean);
DROP FUNCTION pgdist.user_tables();
DROP FUNCTION pgdist.plain_type(oid);
