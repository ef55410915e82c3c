CREATE TABLE stock (id serial PRIMARY KEY, item text NOT NULL, n int NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX stock_item ON stock (lower(item));
INSERT INTO stock (item, n) VALUES ('Nail', 1000), ('Hammer', 3);
