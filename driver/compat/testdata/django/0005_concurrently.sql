--
-- Concurrently create index title_idx on field(s) title of model book
--
CREATE INDEX CONCURRENTLY "title_idx" ON "library_book" ("title");
--
-- Concurrently create index data_gin on field(s) data of model book
--
CREATE INDEX CONCURRENTLY "data_gin" ON "library_book" USING gin ("data" jsonb_path_ops) WITH (fastupdate = off);
--
-- Concurrently create index upper_name on Upper(F(name)) on model author
--
CREATE INDEX CONCURRENTLY "upper_name" ON "library_author" ((UPPER("name")) DESC) WHERE "born" > '1960-01-01'::date;
--
-- Concurrently remove index title_idx from book
--
DROP INDEX CONCURRENTLY IF EXISTS "title_idx";
