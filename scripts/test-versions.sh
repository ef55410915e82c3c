#!/bin/sh
# Runs tests on servers of each major version, and those of sets of several versions.
#
#   scripts/test-versions.sh [all-tests] [major …]    13 to 18 by default; all-tests: every test on each
set -eu
cd "$(dirname "$0")/.."

# What depends on the version of the server most: capture and apply of every type and
# kind of DDL, definitions, copies, refusals.
mirror='Attack(DDL|EqualKeys|Types|Names|Rights|Rows|Trees|Found)|Rule|Verify|Resync|Upgrade|Switchover|Memberships|Misread|Unlogged'
driver='MirroredDefinitions|Refusals|Same'
gateway='Compare|Startup|Session'
if [ "${1:-}" = all-tests ]; then
	mirror=. driver=. gateway=.
	shift
fi
[ $# -gt 0 ] || set -- 13 14 15 16 17 18
scripts/postgres-versions.sh 13 14 15 16 17 18 >/dev/null
cache=$(dirname "$(dirname "$(scripts/postgres-versions.sh 13 | cut -d' ' -f2)")")
failed=""
for major in "$@"; do
	bin=$cache/$major/bin
	echo "== PostgreSQL $major"
	for group in "./classify ." "./internal/pgtest ." "./internal/mirror $mirror" "./internal/engine ." "./driver $driver" "./gateway $gateway"; do
		PGDIST_PGBIN=$bin PATH=$bin:$PATH go test -count=1 -timeout 40m -run "${group#* }" "${group%% *}" || failed="$failed $major:${group%% *}"
	done
done
echo "== several versions in one set"
PGDIST_VERSIONS=$cache go test -tags versions -count=1 -timeout 40m -run 'Mixed|NewerLeader|NewKinds' ./internal/mirror || failed="$failed sets"
PGDIST_VERSIONS=$cache go test -tags versions -count=1 -timeout 20m -run NewerDefinitions ./driver || failed="$failed definitions"
PGDIST_VERSIONS=$cache go test -tags versions -count=1 -timeout 20m -run UpgradePostgreSQL ./gateway || failed="$failed upgrade"
if [ -n "$failed" ]; then
	echo "failed:$failed" >&2
	exit 1
fi
