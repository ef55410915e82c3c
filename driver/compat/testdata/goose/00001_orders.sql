-- +goose Up
CREATE TABLE customers (
    id bigserial PRIMARY KEY,
    name text NOT NULL, -- a comment; with a semicolon
    created timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer bigint NOT NULL REFERENCES customers ON DELETE CASCADE,
    total numeric(12, 2) NOT NULL DEFAULT 0 CHECK (total >= 0)
);
CREATE INDEX orders_customer ON orders (customer);
CREATE TYPE state AS ENUM ('new', 'paid');
ALTER TABLE orders ADD COLUMN state state NOT NULL DEFAULT 'new';
INSERT INTO customers (name) SELECT 'customer ' || i FROM generate_series(1, 5) i;
INSERT INTO orders (customer, total) SELECT id, id * 1.5 FROM customers;

-- +goose Down
DROP TABLE orders;
DROP TYPE state;
DROP TABLE customers;
