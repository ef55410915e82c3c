CREATE TABLE billing.never (i int);
INSERT INTO billing.invoice (no, net, customer) VALUES ('R-never', 1, 1);
ALTER TABLE billing.invoice ADD COLUMN never int;
SELECT 1 / 0;
