-- +goose Up
ALTER TABLE customers RENAME COLUMN name TO full_name;
ALTER TABLE customers ADD COLUMN score int NOT NULL DEFAULT 3;
CREATE VIEW totals AS SELECT c.full_name, sum(o.total) AS total FROM customers c JOIN orders o ON o.customer = c.id GROUP BY 1;
CREATE SCHEMA archive;
CREATE TABLE archive.orders (LIKE orders INCLUDING ALL);
INSERT INTO archive.orders OVERRIDING SYSTEM VALUE SELECT * FROM orders WHERE id <= 3;
COMMENT ON TABLE archive.orders IS 'it''s old';

-- +goose Down
DROP SCHEMA archive CASCADE;
DROP VIEW totals;
ALTER TABLE customers DROP COLUMN score;
ALTER TABLE customers RENAME COLUMN full_name TO name;
