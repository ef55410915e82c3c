#!/bin/sh
# pgbench in every mode, and with pipelines: no transaction may fail.
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cat > "$dir/pipe.sql" <<'SQL'
\set a random(1, 1000)
\startpipeline
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :a;
SELECT abalance FROM pgbench_accounts WHERE aid = :a;
END;
\endpipeline
SQL
pgbench -i -q -s 1 >/dev/null 2>&1; echo "made: $?"
for mode in simple extended prepared; do
	pgbench -n -M $mode -c 4 -j 2 -t 10 2>&1 | grep -E 'mode|processed|failed|error|abort'
	pgbench -n -S -M $mode -c 4 -j 2 -t 20 2>&1 | grep -E 'mode|processed|failed|error|abort'
done
for mode in extended prepared; do
	pgbench -n -f "$dir/pipe.sql" -M $mode -c 2 -t 10 2>&1 | grep -E 'mode|processed|failed|error|abort'
done
psql -X -At -c "SELECT sum(abalance) = sum(tbalance) + 40 FROM (SELECT sum(abalance) AS abalance FROM pgbench_accounts) a, (SELECT sum(tbalance) AS tbalance FROM pgbench_tellers) t"
psql -X -q -c "DROP TABLE pgbench_accounts, pgbench_branches, pgbench_history, pgbench_tellers"
