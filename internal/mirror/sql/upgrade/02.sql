-- Version 2: materialized views.
CREATE TABLE IF NOT EXISTS pgdist.matviews (oid oid PRIMARY KEY, error text);
