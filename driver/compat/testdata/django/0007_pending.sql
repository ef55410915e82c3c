BEGIN;
--
-- Raw SQL operation
--
INSERT INTO "library_loan" ("period", "returned", "book_id") VALUES (tstzrange('2025-01-01', '2025-01-08'), false, 1);
--
-- Alter field returned on loan: PostgreSQL has trigger events pending
--
ALTER TABLE "library_loan" ALTER COLUMN "returned" TYPE integer USING "returned"::integer;
COMMIT;
