-- +goose NO TRANSACTION
-- +goose Up
ALTER TYPE state ADD VALUE 'sent';
UPDATE orders SET state = 'sent' WHERE id = 1;
CREATE INDEX orders_state ON orders (state);
VACUUM ANALYZE orders;

-- +goose Down
UPDATE orders SET state = 'paid' WHERE state = 'sent';
DROP INDEX orders_state;
ALTER TABLE orders ALTER COLUMN state DROP DEFAULT;
ALTER TABLE orders ALTER COLUMN state TYPE text;
DROP TYPE state;
CREATE TYPE state AS ENUM ('new', 'paid');
ALTER TABLE orders ALTER COLUMN state TYPE state USING state::state;
ALTER TABLE orders ALTER COLUMN state SET DEFAULT 'new';
