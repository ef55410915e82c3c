BEGIN;
--
-- Delete model Shelf
--
DROP TABLE "library_shelf" CASCADE;
--
-- Remove constraint place from model book
--
ALTER TABLE "library_book" DROP CONSTRAINT "place";
--
-- Remove field editor from book
--
SET CONSTRAINTS "library_book_editor_id_2f2d5c1e_fk_library_author_id" IMMEDIATE; ALTER TABLE "library_book" DROP CONSTRAINT "library_book_editor_id_2f2d5c1e_fk_library_author_id";
ALTER TABLE "library_book" DROP COLUMN "editor_id" CASCADE;
--
-- Alter index_together, rename index
--
ALTER INDEX "library_book_author_id_8b91747b" RENAME TO "author_of_book";
--
-- Move table to another name
--
ALTER TABLE "library_loan" RENAME TO "lending_loan";
COMMIT;
