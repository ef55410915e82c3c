SET search_path = billing, public;
ALTER TABLE invoice ADD COLUMN token uuid NOT NULL DEFAULT gen_random_uuid(), ADD COLUMN seen timestamptz DEFAULT now();
UPDATE invoice SET state = 'void' WHERE id = 4;
ALTER TABLE invoice ADD COLUMN customer int;
CREATE TABLE customer (id int PRIMARY KEY, name text UNIQUE NOT NULL);
INSERT INTO customer SELECT g, 'C' || g FROM generate_series(1, 5) g;
UPDATE invoice SET customer = id % 5 + 1;
ALTER TABLE invoice ALTER COLUMN customer SET NOT NULL, ADD FOREIGN KEY (customer) REFERENCES customer ON DELETE CASCADE;
ALTER TABLE invoice DROP COLUMN note;
ALTER TABLE invoice RENAME COLUMN at TO made_at;
DELETE FROM customer WHERE id = 3;
CREATE PROCEDURE settle(upto int) LANGUAGE plpgsql AS $$
BEGIN
    UPDATE billing.invoice SET state = 'paid' WHERE id <= upto AND state = 'sent';
END $$;
CALL settle(20);
REVOKE ALL ON FUNCTION audited() FROM PUBLIC;
RESET search_path;
