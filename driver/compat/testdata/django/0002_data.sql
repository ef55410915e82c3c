BEGIN;
--
-- Raw SQL operation
--
INSERT INTO "library_author" ("name", "email", "born") SELECT 'Author ' || g, 'a' || g || '@example.org', CASE WHEN g % 3 = 0 THEN NULL ELSE date '1950-01-01' + g END FROM generate_series(1, 40) g;
INSERT INTO "library_genre" ("code") VALUES ('poetry'), ('crime'), ('%s%%');
INSERT INTO "library_book" ("title", "isbn", "price", "tags", "data", "uuid", "published", "pages", "position", "author_id") SELECT 'Book ' || g, CASE WHEN g % 5 = 0 THEN '' ELSE '978' || g END, g + 0.50, ARRAY['a', 'it''s "b"'], jsonb_build_object('n', g), gen_random_uuid(), now(), g, g, g % 40 + 1 FROM generate_series(1, 200) g;
INSERT INTO "library_book_genres" ("book_id", "genre_id") SELECT "id", "id" % 3 + 1 FROM "library_book";
COMMIT;
