CREATE SCHEMA shop
--;
-- One row for every write that took effect: what is accounted for in the end.
CREATE TABLE shop.ledger (
  op bigint PRIMARY KEY, kind text NOT NULL, nr bigserial, luck float8 NOT NULL DEFAULT random(),
  token uuid NOT NULL DEFAULT gen_random_uuid(), began timestamptz NOT NULL DEFAULT now(), written timestamptz NOT NULL DEFAULT clock_timestamp())
--;
CREATE TABLE shop.customers (id serial PRIMARY KEY, lane int NOT NULL, spent numeric NOT NULL DEFAULT 0, touched int NOT NULL DEFAULT 0, since timestamptz NOT NULL DEFAULT now())
--;
CREATE TABLE shop.orders (
  id bigserial PRIMARY KEY, customer int NOT NULL REFERENCES shop.customers ON UPDATE CASCADE ON DELETE CASCADE,
  total numeric NOT NULL DEFAULT 0, placed timestamptz NOT NULL DEFAULT clock_timestamp())
--;
CREATE INDEX ON shop.orders (customer)
--;
CREATE TABLE shop.lines (
  "order" bigint REFERENCES shop.orders ON DELETE CASCADE, n int, price numeric NOT NULL DEFAULT (1 + random() * 99)::numeric(10, 2), PRIMARY KEY ("order", n))
--;
-- Nested triggers: a line changes its order, and that its customer.
CREATE FUNCTION shop.line_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE shop.orders SET total = total + NEW.price WHERE id = NEW."order";
  RETURN NULL;
END $$
--;
CREATE TRIGGER added AFTER INSERT ON shop.lines FOR EACH ROW EXECUTE FUNCTION shop.line_added()
--;
CREATE FUNCTION shop.total_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE shop.customers SET spent = spent + NEW.total - OLD.total, touched = touched + 1 WHERE id = NEW.customer;
  RETURN NULL;
END $$
--;
CREATE TRIGGER changed AFTER UPDATE OF total ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.total_changed()
--;
CREATE TABLE shop.jobs (id bigserial PRIMARY KEY, luck int NOT NULL DEFAULT (random() * 100)::int, taken bigint UNIQUE)
--;
CREATE INDEX ON shop.jobs (id) WHERE taken IS NULL
--;
-- Inserts that fail spend a number all the same.
CREATE TABLE shop.coupons (id serial PRIMARY KEY, code text NOT NULL UNIQUE)
--;
CREATE TABLE shop.seats (lane int, guest int, seat int NOT NULL, PRIMARY KEY (lane, guest), UNIQUE (lane, seat) DEFERRABLE INITIALLY DEFERRED)
--;
CREATE TABLE shop.accounts (id int PRIMARY KEY, balance bigint NOT NULL)
--;
INSERT INTO shop.accounts SELECT g, 1000 FROM generate_series(1, 20) AS g
--;
-- A SELECT that writes. Locks in the order of the ids: no deadlock.
CREATE FUNCTION shop.transfer(the_op bigint, source int, target int, amount bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM shop.accounts WHERE id IN (source, target) ORDER BY id FOR UPDATE;
  UPDATE shop.accounts SET balance = balance - amount WHERE id = source;
  UPDATE shop.accounts SET balance = balance + amount WHERE id = target;
  INSERT INTO shop.ledger (op, kind) VALUES (the_op, 'transfer');
END $$
