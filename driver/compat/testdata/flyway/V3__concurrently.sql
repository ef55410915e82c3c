-- executeInTransaction=false
CREATE INDEX CONCURRENTLY IF NOT EXISTS invoice_at ON billing.invoice (at DESC NULLS LAST) INCLUDE (no);
CREATE UNIQUE INDEX CONCURRENTLY invoice_lower ON billing.invoice (lower(no));
ALTER TABLE billing.invoice ADD CONSTRAINT invoice_checked CHECK (net < 100000) NOT VALID;
ALTER TABLE billing.invoice VALIDATE CONSTRAINT invoice_checked;
REINDEX INDEX CONCURRENTLY billing.invoice_lower;
DROP INDEX CONCURRENTLY billing.invoice_at;
ALTER TYPE billing.state ADD VALUE IF NOT EXISTS 'void' AFTER 'sent';
VACUUM (ANALYZE) billing.invoice;
