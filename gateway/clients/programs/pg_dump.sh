#!/bin/sh
# pg_dump of the whole database, of one schema, in parallel, and back into another server ($TARGET_PORT).
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
psql -X -q <<'SQL' 2>&1
CREATE TYPE du_mood AS ENUM ('sad', 'happy');
CREATE TABLE du (id serial PRIMARY KEY, v text, m du_mood, b bytea);
INSERT INTO du (v, m, b) SELECT repeat('x', g), 'happy', '\x00ff' FROM generate_series(1, 200) g;
CREATE TABLE dv (id int PRIMARY KEY REFERENCES du);
INSERT INTO dv SELECT 1;
SQL
pg_dump > "$dir/all.sql" 2>"$dir/err"; echo "the whole: $?"; cat "$dir/err"
pg_dump -Fd -j 2 -n public -f "$dir/parallel" 2>&1; echo "in parallel: $?"
pg_dump -n public -T p > "$dir/public.sql" 2>&1; echo "public: $?"
db="dumped_$$"
psql -X -q -p "$TARGET_PORT" -d postgres -c "CREATE DATABASE $db" -c "\\c $db" -c "DROP SCHEMA public" 2>&1 | grep -v 'You are'
psql -X -q -p "$TARGET_PORT" -d "$db" -c "DROP SCHEMA public" 2>&1
grep -v 'EXECUTE FUNCTION pgdist\|TRIGGER.*pgdist' "$dir/public.sql" | psql -X -q -v ON_ERROR_STOP=1 -p "$TARGET_PORT" -d "$db" -o /dev/null 2>&1
psql -X -At -p "$TARGET_PORT" -d "$db" -c "SELECT count(*), sum(length(v)), min(b::text) FROM du" -c "SELECT nextval('du_id_seq') > 200" 2>&1
psql -X -q -p "$TARGET_PORT" -d postgres -c "DROP DATABASE $db" 2>&1
psql -X -q -c "DROP TABLE dv; DROP TABLE du; DROP TYPE du_mood" 2>&1
