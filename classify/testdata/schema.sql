-- What the golden statements are about. The oracle test runs them here.
CREATE SCHEMA app;
CREATE TABLE t (id int PRIMARY KEY, a int, b text, c timestamptz DEFAULT now(), d numeric, j jsonb, v tsvector, arr int[]);
INSERT INTO t VALUES (1, 2, 'three', now(), 4.5, '{"k": [1, 2]}', 'fat cat', '{1,2,3}');
CREATE TABLE u (id serial PRIMARY KEY, t_id int REFERENCES t, x text);
CREATE TABLE app.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, placed date, total numeric);
CREATE TABLE parts (k int, v text) PARTITION BY RANGE (k);
CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE "Odd ""Name" ("select" int, "a;b" text);
CREATE SEQUENCE s;
CREATE VIEW vw AS SELECT id, a FROM t;
CREATE MATERIALIZED VIEW mv AS SELECT count(*) AS n FROM t;
CREATE TYPE app.mood AS ENUM ('sad', 'ok');
CREATE FUNCTION app.stable_fn(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT a FROM t WHERE id = $1';
CREATE FUNCTION app.pure(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
CREATE FUNCTION pure2(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 2';
CREATE FUNCTION app.writes(int) RETURNS int LANGUAGE sql VOLATILE AS 'UPDATE t SET a = $1 RETURNING a';
