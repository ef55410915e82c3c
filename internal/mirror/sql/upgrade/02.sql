-- Version 2: whoever holds up an apply is cancelled before he is ended (blockers,
-- evict); the journal turns to any slot that is empty, so each knows when it was left.
ALTER TABLE pgdist.slots ADD COLUMN till timestamptz;
UPDATE pgdist.slots SET till = now() WHERE slot <> (SELECT x.last_value FROM pgdist.slot x);
-- Materialized views, UNLOGGED tables.
CREATE TABLE IF NOT EXISTS pgdist.matviews (oid oid PRIMARY KEY, error text);
INSERT INTO pgdist.boot (term) VALUES (-1) ON CONFLICT DO NOTHING;
