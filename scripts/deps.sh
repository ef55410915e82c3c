#!/bin/sh
# Installs what the tests and the demo need, if it is absent: PostgreSQL's server
# programs and a C compiler (pg_query is C). Needs root or sudo on Debian or
# Ubuntu only when something is missing.
set -eu

missing=""
have_server() {
	[ -n "${PGDIST_PGBIN:-}" ] && [ -x "$PGDIST_PGBIN/initdb" ] && return 0
	for dir in /usr/lib/postgresql/*/bin; do
		[ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] && return 0
	done
	command -v initdb >/dev/null && command -v postgres >/dev/null
}
have_server || missing="$missing postgresql"
command -v "${CC:-gcc}" >/dev/null || missing="$missing gcc libc6-dev"
command -v make >/dev/null || missing="$missing make"

if ! command -v go >/dev/null; then
	echo "deps: Go is missing: install it from https://go.dev/dl/ (go.mod names the version)" >&2
	exit 1
fi
[ -n "$missing" ] || exit 0

sudo=""
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "deps: missing:$missing. Run as root: apt-get install -y$missing" >&2
		exit 1
	fi
	sudo=sudo
fi
if ! command -v apt-get >/dev/null; then
	echo "deps: missing:$missing (Debian's names). Install them with this system's package manager, or point PGDIST_PGBIN at the directory of initdb and postgres." >&2
	exit 1
fi
echo "deps: installing$missing"
$sudo apt-get update -q
case $missing in
*postgresql*) # only the programs are wanted, not a server that starts at boot
	$sudo mkdir -p /etc/postgresql-common/createcluster.d
	echo "create_main_cluster = false" | $sudo tee /etc/postgresql-common/createcluster.d/pgdist.conf >/dev/null
	;;
esac
# shellcheck disable=SC2086 # a list of names
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing
