BEGIN;
--
-- Add field in_print to book
--
ALTER TABLE "library_book" ADD COLUMN "in_print" boolean DEFAULT true NOT NULL;
ALTER TABLE "library_book" ALTER COLUMN "in_print" DROP DEFAULT;
--
-- Add field added to book
--
ALTER TABLE "library_book" ADD COLUMN "added" timestamp with time zone DEFAULT '2024-02-29T12:00:00.123456+00:00'::timestamptz NOT NULL;
ALTER TABLE "library_book" ALTER COLUMN "added" DROP DEFAULT;
--
-- Add field editor to book
--
ALTER TABLE "library_book" ADD COLUMN "editor_id" bigint NULL CONSTRAINT "library_book_editor_id_2f2d5c1e_fk_library_author_id" REFERENCES "library_author"("id") DEFERRABLE INITIALLY DEFERRED; SET CONSTRAINTS "library_book_editor_id_2f2d5c1e_fk_library_author_id" IMMEDIATE;
CREATE INDEX "library_book_editor_id_2f2d5c1e" ON "library_book" ("editor_id");
--
-- Alter field title on book
--
ALTER TABLE "library_book" ALTER COLUMN "title" TYPE varchar(300);
--
-- Alter field pages on book
--
ALTER TABLE "library_book" ALTER COLUMN "pages" TYPE bigint USING "pages"::bigint;
--
-- Alter field price on book
--
ALTER TABLE "library_book" ALTER COLUMN "price" TYPE double precision USING "price"::double precision;
--
-- Alter field born on author
--
UPDATE "library_author" SET "born" = '1970-01-01' WHERE "born" IS NULL; SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE "library_author" ALTER COLUMN "born" SET NOT NULL;
--
-- Alter field id on genre
--
SET CONSTRAINTS "library_book_genres_genre_id_1d9f8a53_fk_library_genre_id" IMMEDIATE; ALTER TABLE "library_book_genres" DROP CONSTRAINT "library_book_genres_genre_id_1d9f8a53_fk_library_genre_id";
ALTER TABLE "library_genre" ALTER COLUMN "id" TYPE bigint USING "id"::bigint;
ALTER SEQUENCE IF EXISTS "library_genre_id_seq" AS bigint;
ALTER TABLE "library_book_genres" ALTER COLUMN "genre_id" TYPE bigint USING "genre_id"::bigint;
ALTER TABLE "library_book_genres" ADD CONSTRAINT "library_book_genres_genre_id_1d9f8a53_fk" FOREIGN KEY ("genre_id") REFERENCES "library_genre" ("id") DEFERRABLE INITIALLY DEFERRED;
--
-- Rename field isbn on book to isbn13
--
ALTER TABLE "library_book" RENAME COLUMN "isbn" TO "isbn13";
--
-- Rename model Genre to Kind
--
ALTER TABLE "library_genre" RENAME TO "library_kind";
ALTER TABLE "library_book_genres" RENAME COLUMN "genre_id" TO "kind_id";
COMMIT;
