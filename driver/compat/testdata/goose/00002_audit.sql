-- +goose Up
CREATE TABLE audit (id serial PRIMARY KEY, tab text NOT NULL, old_total numeric, new_total numeric);
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit_order() RETURNS trigger AS $$
BEGIN
    INSERT INTO audit (tab, old_total, new_total) VALUES (TG_TABLE_NAME, OLD.total, NEW.total);
    RETURN NEW;
END;
$$ LANGUAGE plpgsql;
-- +goose StatementEnd
CREATE TRIGGER audit_order BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION audit_order();
UPDATE orders SET total = total + 1 WHERE id % 2 = 1;

-- +goose Down
DROP TRIGGER audit_order ON orders;
DROP FUNCTION audit_order();
DROP TABLE audit;
