BEGIN;
CREATE TABLE moves (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), stock int NOT NULL REFERENCES stock, d int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE FUNCTION moved() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    UPDATE stock SET n = n + NEW.d WHERE id = NEW.stock;
    RETURN NULL;
END $body$;
CREATE TRIGGER moved AFTER INSERT ON moves FOR EACH ROW EXECUTE FUNCTION moved();
INSERT INTO moves (stock, d) VALUES (1, -10), (2, 4);
COMMIT;
