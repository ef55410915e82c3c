#!/bin/sh
# pgx's own tests, from a copy of its module.
[ -d pgx ] || { cp -r "$PGX" pgx && chmod -R u+w pgx; }
cd pgx || exit 1
psql -X -q -f testsetup/postgresql_setup.sql >/dev/null 2>&1
PGX_TEST_DATABASE="host=$PGHOST port=$PGPORT user=postgres database=postgres" go test -count=1 -p 1 -timeout 540s . ./pgconn 2>&1
