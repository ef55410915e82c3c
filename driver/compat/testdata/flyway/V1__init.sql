-- Flyway runs this file as one transaction.
SET lock_timeout = '5s';
SET LOCAL client_min_messages TO warning;

CREATE SCHEMA billing;
COMMENT ON SCHEMA billing IS 'Invoices; and what belongs to them';

CREATE TYPE billing.state AS ENUM ('draft', 'sent', 'paid');
CREATE DOMAIN billing.amount AS numeric(12,2) CHECK (VALUE >= 0);

CREATE TABLE billing.invoice (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    no      text NOT NULL UNIQUE, -- a comment; with a semicolon
    state   billing.state NOT NULL DEFAULT 'draft',
    net     billing.amount NOT NULL,
    gross   numeric(12,2) GENERATED ALWAYS AS (net * 1.19) STORED,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    note    text DEFAULT 'it''s; "quoted"'
);

/* A block comment; /* nested; */ still one. */
CREATE TABLE billing.audit (
    id  bigserial PRIMARY KEY,
    tag text NOT NULL,
    old jsonb,
    new jsonb,
    by  text DEFAULT current_user
);

CREATE OR REPLACE FUNCTION billing.audited() RETURNS trigger
LANGUAGE plpgsql
AS $function$
BEGIN
    INSERT INTO billing.audit (tag, old, new) VALUES (TG_OP || $tag$;$tag$, to_jsonb(OLD), to_jsonb(NEW));
    RETURN coalesce(NEW, OLD);
END;
$function$;

CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON billing.invoice
    FOR EACH ROW EXECUTE FUNCTION billing.audited();

DO $$
DECLARE
    m int;
BEGIN
    FOR m IN 1..3 LOOP
        EXECUTE format('CREATE TABLE billing.%I (k int PRIMARY KEY, r float8 DEFAULT random())', 'month ' || m);
        EXECUTE format('INSERT INTO billing.%I SELECT g FROM generate_series(1, %s) g', 'month ' || m, m * 3);
    END LOOP;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'flyway_reader') THEN
        CREATE ROLE flyway_reader;
    END IF;
END
$$;

GRANT USAGE ON SCHEMA billing TO flyway_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA billing TO flyway_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA billing GRANT SELECT ON TABLES TO flyway_reader;

INSERT INTO billing.invoice (no, net) SELECT 'R-' || to_char(g, 'FM000'), g FROM generate_series(1, 50) g;
