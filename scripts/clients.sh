#!/bin/sh
# Runs real clients on a plain server and through the gateway and compares what they say; what
# Debian has of them is installed first if it is absent (root or sudo). Arguments go to the program.
set -eu

want="postgresql-client postgresql-contrib python3-psycopg2 python3-psycopg python3-asyncpg python3-sqlalchemy python3-django
libdbd-pg-perl php-cli php-pgsql ruby ruby-pg libpostgresql-jdbc-java default-jdk-headless npm"
have() {
	case $1 in
	default-jdk-headless) command -v javac >/dev/null ;;
	npm) command -v npm >/dev/null ;;
	postgresql-client) command -v psql >/dev/null ;;
	postgresql-contrib) command -v pgbench >/dev/null ;;
	*) [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ] ;;
	esac
}
missing=""
for p in $want; do
	have "$p" || missing="$missing $p"
done
if [ -n "$missing" ] && command -v apt-get >/dev/null; then
	sudo=""
	[ "$(id -u)" -eq 0 ] || sudo=sudo
	echo "clients: installing$missing"
	# shellcheck disable=SC2086 # a list of names
	{ $sudo apt-get update -q && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing; } >/dev/null ||
		echo "clients: not all could be installed: the others are run"
fi
exec go run ./gateway/clients "$@"
