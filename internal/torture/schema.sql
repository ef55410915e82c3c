CREATE SCHEMA torture
--;
-- One row for every operation that took effect: what is accounted for.
CREATE TABLE torture.ledger (
  op bigint PRIMARY KEY, kind text NOT NULL, key text NOT NULL DEFAULT '', amount bigint NOT NULL DEFAULT 0, note text NOT NULL DEFAULT '',
  at timestamptz NOT NULL DEFAULT clock_timestamp(), rnd float8 NOT NULL DEFAULT random(), token uuid NOT NULL DEFAULT gen_random_uuid(), nr bigserial)
--;
-- Without a key, filled by a trigger: exactly one row per row of the ledger.
CREATE TABLE torture.audit (op bigint, at timestamptz DEFAULT clock_timestamp(), rnd int DEFAULT (random() * 3)::int)
--;
CREATE FUNCTION torture.audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO torture.audit (op) VALUES (NEW.op);
  RETURN NULL;
END $$
--;
CREATE TRIGGER audit AFTER INSERT ON torture.ledger FOR EACH ROW EXECUTE FUNCTION torture.audit()
--;
CREATE TABLE torture.accounts (id int PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0))
--;
INSERT INTO torture.accounts SELECT g, 1000 FROM generate_series(0, 19) AS g
--;
-- Locks in the order of the ids: two transfers never wait for each other in a circle.
CREATE FUNCTION torture.transfer(the_op bigint, source int, target int, amount bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM torture.accounts WHERE id IN (source, target) ORDER BY id FOR UPDATE;
  UPDATE torture.accounts SET balance = balance - amount WHERE id = source;
  UPDATE torture.accounts SET balance = balance + amount WHERE id = target;
  INSERT INTO torture.ledger (op, kind, amount) VALUES (the_op, 'transfer', amount);
END $$
--;
-- Values that the server makes up; serials with gaps from inserts that fail.
CREATE TABLE torture.items (
  id bigserial PRIMARY KEY, op bigint NOT NULL UNIQUE, rnd float8 NOT NULL DEFAULT random(), at timestamptz NOT NULL DEFAULT clock_timestamp(),
  tx timestamptz NOT NULL DEFAULT now(), u uuid NOT NULL DEFAULT gen_random_uuid(), code text UNIQUE DEFAULT md5(random()::text), backend int DEFAULT pg_backend_pid(), alt text)
--;
CREATE FUNCTION torture.item_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO torture.ledger (op, kind, key) VALUES (NEW.op, 'item', NEW.id::text);
  IF NEW.alt = 'bad' THEN
    RAISE EXCEPTION 'refused after it was written';
  END IF;
  RETURN NULL;
END $$
--;
CREATE TRIGGER inserted AFTER INSERT ON torture.items FOR EACH ROW EXECUTE FUNCTION torture.item_inserted()
--;
CREATE TABLE torture.counters (id int PRIMARY KEY, n bigint NOT NULL)
--;
INSERT INTO torture.counters SELECT g, 0 FROM generate_series(0, 7) AS g
--;
-- Locked in random order by transactions: deadlocks happen.
CREATE TABLE torture.grid (id int PRIMARY KEY, n bigint NOT NULL)
--;
INSERT INTO torture.grid SELECT g, 0 FROM generate_series(0, 5) AS g
--;
-- AFTER triggers that update the same row again: touches = v = echo.
CREATE TABLE torture.nested (lane bigint, id int, touches bigint NOT NULL DEFAULT 0, v bigint NOT NULL DEFAULT 0, echo bigint NOT NULL DEFAULT 0, stamp timestamptz, PRIMARY KEY (lane, id))
--;
CREATE FUNCTION torture.nested_touched() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE torture.nested SET v = v + 1 WHERE (lane, id) = (NEW.lane, NEW.id);
  RETURN NULL;
END $$
--;
CREATE FUNCTION torture.nested_echo() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE torture.nested SET echo = echo + 1, stamp = clock_timestamp() WHERE (lane, id) = (NEW.lane, NEW.id);
  RETURN NULL;
END $$
--;
CREATE TRIGGER touched AFTER UPDATE OF touches ON torture.nested FOR EACH ROW EXECUTE FUNCTION torture.nested_touched()
--;
CREATE TRIGGER echo AFTER UPDATE OF v ON torture.nested FOR EACH ROW EXECUTE FUNCTION torture.nested_echo()
--;
-- Replaced by a delete in a BEFORE trigger.
CREATE TABLE torture.latest (lane bigint, key text, op bigint NOT NULL, rnd float8 DEFAULT random(), PRIMARY KEY (lane, key))
--;
CREATE FUNCTION torture.latest_replaces() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM torture.latest WHERE (lane, key) = (NEW.lane, NEW.key);
  INSERT INTO torture.ledger (op, kind, key) VALUES (NEW.op, 'latest', NEW.lane || '/' || NEW.key);
  RETURN NEW;
END $$
--;
CREATE TRIGGER replaces BEFORE INSERT ON torture.latest FOR EACH ROW EXECUTE FUNCTION torture.latest_replaces()
--;
CREATE TABLE torture.slots (lane bigint, item int, pos int NOT NULL, PRIMARY KEY (lane, item), UNIQUE (lane, pos) DEFERRABLE INITIALLY DEFERRED)
--;
CREATE TABLE torture.ranks (lane bigint, item int, rank int NOT NULL, PRIMARY KEY (lane, item), UNIQUE (lane, rank))
--;
CREATE FUNCTION torture.swap_ranks(the_lane bigint, one int, two int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE first int; second int;
BEGIN
  SELECT rank INTO first FROM torture.ranks WHERE (lane, item) = (the_lane, one);
  SELECT rank INTO second FROM torture.ranks WHERE (lane, item) = (the_lane, two);
  UPDATE torture.ranks SET rank = -1 WHERE (lane, item) = (the_lane, one);
  UPDATE torture.ranks SET rank = first WHERE (lane, item) = (the_lane, two);
  UPDATE torture.ranks SET rank = second WHERE (lane, item) = (the_lane, one);
END $$
--;
-- Keys that are equal without being identical: 1.0 and 1.00, 'a' and 'a  ', 0 and -0, 1 mon and 30 days.
CREATE TABLE torture.alike (lane bigint, n numeric, b bpchar, f float8, i interval, j jsonb, ns numeric[], op bigint NOT NULL, PRIMARY KEY (lane, n, b, f, i, j, ns))
--;
CREATE TABLE torture.moving (id bigint PRIMARY KEY, lane bigint NOT NULL UNIQUE, op bigint NOT NULL)
--;
CREATE TABLE torture.tally (key int PRIMARY KEY, n bigint NOT NULL, last_op bigint NOT NULL)
--;
CREATE TABLE torture.stock (lane bigint, key text COLLATE "C", qty bigint NOT NULL, PRIMARY KEY (lane, key))
--;
CREATE TABLE torture.stock_log (lane bigint, key text COLLATE "C", delta bigint)
--;
CREATE FUNCTION torture.stock_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP IN ('UPDATE', 'DELETE') THEN
    INSERT INTO torture.stock_log VALUES (OLD.lane, OLD.key, -OLD.qty);
  END IF;
  IF TG_OP IN ('UPDATE', 'INSERT') THEN
    INSERT INTO torture.stock_log VALUES (NEW.lane, NEW.key, NEW.qty);
  END IF;
  RETURN NULL;
END $$
--;
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON torture.stock FOR EACH ROW EXECUTE FUNCTION torture.stock_changed()
--;
CREATE TABLE torture.parents (id bigint PRIMARY KEY, lane bigint NOT NULL, rnd float8 NOT NULL DEFAULT random())
--;
CREATE TABLE torture.children (id bigserial PRIMARY KEY, parent bigint NOT NULL REFERENCES torture.parents ON UPDATE CASCADE ON DELETE CASCADE, rnd float8 NOT NULL DEFAULT random())
--;
CREATE TABLE torture.grandchildren (child bigint REFERENCES torture.children ON DELETE CASCADE, n int, PRIMARY KEY (child, n))
--;
CREATE TABLE torture.adopted (id bigserial PRIMARY KEY, parent bigint REFERENCES torture.parents ON UPDATE CASCADE ON DELETE SET NULL)
--;
CREATE FUNCTION torture.child_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO torture.grandchildren VALUES (NEW.id, 1), (NEW.id, 2);
  RETURN NULL;
END $$
--;
CREATE TRIGGER inserted AFTER INSERT ON torture.children FOR EACH ROW EXECUTE FUNCTION torture.child_inserted()
--;
CREATE TABLE torture.jobs (id bigserial PRIMARY KEY, op bigint NOT NULL UNIQUE, taken bigint UNIQUE)
--;
CREATE FUNCTION torture.job_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO torture.ledger (op, kind, key) VALUES (NEW.op, 'enqueue', NEW.id::text);
  ELSE
    INSERT INTO torture.ledger (op, kind, key) VALUES (NEW.taken, 'take', NEW.id::text);
  END IF;
  RETURN NULL;
END $$
--;
CREATE TRIGGER changed AFTER INSERT OR UPDATE OF taken ON torture.jobs FOR EACH ROW EXECUTE FUNCTION torture.job_changed()
--;
-- Without a key and full of duplicates: as many rows per op as the ledger's amount.
CREATE TABLE torture.events (op bigint, n int, payload text)
--;
CREATE TABLE torture.copied (op bigint, line int, v float8 DEFAULT random(), note text, PRIMARY KEY (op, line))
--;
CREATE FUNCTION torture.copied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO torture.ledger (op, kind, amount) SELECT op, 'copy', count(*) FROM fresh GROUP BY op;
  RETURN NULL;
END $$
--;
CREATE TRIGGER copied AFTER INSERT ON torture.copied REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION torture.copied()
--;
CREATE TABLE torture.regions (id bigint, region text, op bigint NOT NULL, rnd float8 DEFAULT random(), PRIMARY KEY (id, region)) PARTITION BY LIST (region)
--;
CREATE TABLE torture.regions_eu PARTITION OF torture.regions FOR VALUES IN ('eu')
--;
CREATE TABLE torture.regions_us PARTITION OF torture.regions FOR VALUES IN ('us') PARTITION BY HASH (id)
--;
CREATE TABLE torture.regions_us_0 PARTITION OF torture.regions_us FOR VALUES WITH (MODULUS 2, REMAINDER 0)
--;
CREATE TABLE torture.regions_us_1 PARTITION OF torture.regions_us FOR VALUES WITH (MODULUS 2, REMAINDER 1)
--;
CREATE TABLE torture.regions_other PARTITION OF torture.regions DEFAULT
--;
CREATE TABLE torture.bookings (id bigserial PRIMARY KEY, op bigint NOT NULL, during int8range NOT NULL, EXCLUDE USING gist (during WITH &&))
--;
-- Emptied and filled again in one transaction: always five rows of one op.
CREATE TABLE torture.scratch (n int PRIMARY KEY, op bigint NOT NULL, rnd float8 DEFAULT random())
--;
CREATE TABLE torture.lefts (op bigint PRIMARY KEY)
--;
CREATE TABLE torture.rights (op bigint PRIMARY KEY)
--;
CREATE SCHEMA "Torture ""Zoo"""
--;
CREATE TYPE "Torture ""Zoo"""."Mood" AS ENUM ('sad', 'so ''so''', 'Happy, "very"', '')
--;
CREATE DOMAIN "Torture ""Zoo""".positive AS numeric CHECK (VALUE > 0 OR VALUE = 'NaN')
--;
CREATE TYPE "Torture ""Zoo""".pair AS (a int, "b.c" text)
--;
CREATE TYPE "Torture ""Zoo""".floats AS RANGE (subtype = float8)
--;
CREATE TABLE "Torture ""Zoo"""."Wéird ""Täble"" 'x'" (
  "select" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, gone text, "Op.Id" bigint NOT NULL UNIQUE,
  "m m" "Torture ""Zoo"""."Mood", p "Torture ""Zoo""".positive, c "Torture ""Zoo""".pair, cs "Torture ""Zoo""".pair[],
  a int[], a2 text[], ms "Torture ""Zoo"""."Mood"[], r int4range, fr "Torture ""Zoo""".floats, j jsonb, js json, b bytea, iv interval, ts timestamptz, t timestamp, d date, tz timetz,
  f8 float8, f4 real, n numeric, vb varbit, ip inet, u uuid, v tsvector, ch "char", nm name, pt point, bp bpchar, c4 char(4), lsn pg_lsn,
  "the_row" text GENERATED ALWAYS AS (upper(coalesce(js ->> 'k', 'none'))) STORED, seq serial)
--;
ALTER TABLE "Torture ""Zoo"""."Wéird ""Täble"" 'x'" DROP COLUMN gone
--;
CREATE FUNCTION torture.zoo_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO torture.ledger (op, kind, key) VALUES (NEW."Op.Id", 'zoo', NEW."select"::text);
  RETURN NULL;
END $$
--;
CREATE TRIGGER "Ins.erted" AFTER INSERT ON "Torture ""Zoo"""."Wéird ""Täble"" 'x'" FOR EACH ROW EXECUTE FUNCTION torture.zoo_inserted()
--;
-- Rows that only one client touches, and only until an outcome is unknown to it.
CREATE FUNCTION torture.open_lane(l bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO torture.nested (lane, id) SELECT l, g FROM generate_series(1, 3) AS g ON CONFLICT DO NOTHING;
  INSERT INTO torture.ranks SELECT l, g, g FROM generate_series(1, 4) AS g ON CONFLICT DO NOTHING;
  INSERT INTO torture.slots SELECT l, g, g FROM generate_series(1, 4) AS g WHERE NOT EXISTS (SELECT FROM torture.slots WHERE lane = l);
  INSERT INTO torture.alike SELECT l, 1.0, 'a', 0, '1 mon', '1', '{1}', 0 WHERE NOT EXISTS (SELECT FROM torture.alike WHERE lane = l);
  INSERT INTO torture.moving VALUES (-l, l, 0) ON CONFLICT DO NOTHING;
  INSERT INTO torture.regions SELECT l, 'eu', 0 WHERE NOT EXISTS (SELECT FROM torture.regions WHERE id = l);
END $$
--;
-- Three transactions in one call: the first commits, the second is rolled back, the third commits.
CREATE PROCEDURE torture.committing(first bigint, second bigint, third bigint) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO torture.ledger (op, kind) VALUES (first, 'procedure');
  COMMIT;
  INSERT INTO torture.ledger (op, kind) VALUES (second, 'procedure');
  ROLLBACK;
  INSERT INTO torture.ledger (op, kind) VALUES (third, 'procedure');
END $$
