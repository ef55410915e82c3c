#!/bin/sh
# Installs pgpool-II and PgBouncer, which make bench compares with, if they are
# absent. Debian starts them on installation: here they stay off, now and at boot.
set -eu

find_pgpool() {
	[ -n "${PGDIST_PGPOOL:-}" ] && [ -x "$PGDIST_PGPOOL" ] && return 0
	[ -x /usr/sbin/pgpool ] || command -v pgpool >/dev/null
}
find_pgbouncer() {
	[ -n "${PGDIST_PGBOUNCER:-}" ] && [ -x "$PGDIST_PGBOUNCER" ] && return 0
	[ -x /usr/sbin/pgbouncer ] || command -v pgbouncer >/dev/null
}
find_pgpool && find_pgbouncer && exit 0

sudo=""
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "bench-deps: pgpool or pgbouncer is missing. Run as root: scripts/bench-deps.sh" >&2
		exit 1
	fi
	sudo=sudo
fi
if ! command -v apt-get >/dev/null; then
	echo "bench-deps: pgpool-II or PgBouncer is missing. Install them with this system's package manager, or point PGDIST_PGPOOL and PGDIST_PGBOUNCER at the programs." >&2
	exit 1
fi

# policy-rc.d is Debian's own way to say "start nothing while packages are
# configured" (invoke-rc.d(8)); one that is there already is not ours to replace.
policy=/usr/sbin/policy-rc.d
ours=""
cleanup() { [ -z "$ours" ] || $sudo rm -f "$policy"; }
trap cleanup EXIT
trap 'exit 1' HUP INT TERM
if [ ! -e "$policy" ]; then
	ours=yes
	printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
	$sudo chmod 755 "$policy"
fi

echo "bench-deps: installing pgpool2 and pgbouncer"
$sudo apt-get update -q
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends pgpool2 pgbouncer
$sudo update-rc.d pgpool2 disable
$sudo update-rc.d pgbouncer disable
