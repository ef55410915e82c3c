#!/bin/sh
# Installs what the tests and the demo need, if it is absent: PostgreSQL's server
# programs, a C compiler (pg_query is C) and the program etcd. Needs root or sudo on Debian or
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
# Of etcd the program alone is unpacked: its package would start a service.
etcd=/usr/local/lib/pgdist/etcd
if [ -n "${PGDIST_ETCD:-}" ] || [ -x "$etcd" ] || command -v etcd >/dev/null; then
	etcd=""
fi
[ -n "$missing$etcd" ] || exit 0

sudo=""
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "deps: missing:$missing${etcd:+ etcd-server (its program is enough)}. Run as root: $0" >&2
		exit 1
	fi
	sudo=sudo
fi
if ! command -v apt-get >/dev/null; then
	echo "deps: missing:$missing${etcd:+ etcd-server} (Debian's names). Install them with this system's package manager, or point PGDIST_PGBIN at the directory of initdb and postgres and PGDIST_ETCD at the program etcd." >&2
	exit 1
fi
echo "deps: installing$missing${etcd:+ etcd}"
$sudo apt-get update -q
if [ -n "$etcd" ]; then
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	(cd "$work" && apt-get download -q etcd-server && dpkg-deb -x etcd-server_*.deb unpacked)
	$sudo install -D -m 755 "$work/unpacked/usr/bin/etcd" "$etcd"
fi
[ -n "$missing" ] || exit 0
case $missing in
*postgresql*) # only the programs are wanted, not a server that starts at boot
	$sudo mkdir -p /etc/postgresql-common/createcluster.d
	echo "create_main_cluster = false" | $sudo tee /etc/postgresql-common/createcluster.d/pgdist.conf >/dev/null
	;;
esac
# shellcheck disable=SC2086 # a list of names
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing
