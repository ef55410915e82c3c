-- +goose Up
-- +goose StatementBegin
DO $$
DECLARE c record;
BEGIN
    FOR c IN SELECT id FROM customers ORDER BY id LOOP
        INSERT INTO orders (customer, total) VALUES (c.id, 100 + c.id);
    END LOOP;
END $$;
-- +goose StatementEnd
UPDATE orders SET state = 'paid' WHERE total > 100;

-- +goose Down
DELETE FROM orders WHERE total > 100;
