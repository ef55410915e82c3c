BEGIN;
--
-- Raw SQL operation
--
UPDATE "library_book" SET "position" = 201 - "position";
INSERT INTO "library_loan" ("period", "returned", "book_id") SELECT tstzrange('2024-01-01', '2024-01-08'), g % 2 = 0, g FROM generate_series(1, 60) g;
SET CONSTRAINTS ALL IMMEDIATE;
SET CONSTRAINTS ALL DEFERRED;
--
-- Add field search to book
--
ALTER TABLE "library_book" ADD COLUMN "search" tsvector NULL;
--
-- Raw SQL operation
--
CREATE FUNCTION library_search() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.search := to_tsvector('english', NEW.title); RETURN NEW; END; $$;
CREATE TRIGGER library_search BEFORE INSERT OR UPDATE ON "library_book" FOR EACH ROW EXECUTE FUNCTION library_search();
UPDATE "library_book" SET "price" = "price" * 1.1 + random();
--
-- Remove field tags from book
--
ALTER TABLE "library_book" DROP COLUMN "tags" CASCADE;
--
-- Raw Python operation
--
-- THIS OPERATION CANNOT BE WRITTEN AS SQL
--
-- Alter field kind on book_genres
--
ALTER TABLE "library_book_genres" DROP CONSTRAINT "library_book_genres_book_id_genre_id_50d2b1a5_uniq";
DELETE FROM "library_book_genres" WHERE "kind_id" = 2;
CREATE TABLE "library_shelf" ("id" uuid NOT NULL PRIMARY KEY, "book_id" bigint NULL UNIQUE REFERENCES "library_book" ("id") DEFERRABLE INITIALLY DEFERRED, "_order" integer NOT NULL);
INSERT INTO "library_shelf" SELECT gen_random_uuid(), "id", row_number() OVER () FROM "library_book" WHERE "id" % 7 = 0;
COMMIT;
