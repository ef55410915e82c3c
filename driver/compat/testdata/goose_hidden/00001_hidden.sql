-- +goose Up
-- +goose StatementBegin
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class WHERE relname = 'hidden') THEN
        CREATE TABLE hidden (id int PRIMARY KEY);
    END IF;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP TABLE hidden;
