-- Version 2: materialized views, UNLOGGED tables.
CREATE TABLE IF NOT EXISTS pgdist.matviews (oid oid PRIMARY KEY, error text);
INSERT INTO pgdist.boot (term) VALUES (-1) ON CONFLICT DO NOTHING;
