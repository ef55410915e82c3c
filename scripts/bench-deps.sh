#!/bin/sh
# Installs pgpool-II, which make bench compares with, if it is absent. Debian
# starts a pgpool of its own on installation: this one stays off, now and at boot.
set -eu

find_pgpool() {
	[ -n "${PGDIST_PGPOOL:-}" ] && [ -x "$PGDIST_PGPOOL" ] && return 0
	[ -x /usr/sbin/pgpool ] || command -v pgpool >/dev/null
}
find_pgpool && exit 0

sudo=""
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "bench-deps: pgpool is missing. Run as root: scripts/bench-deps.sh" >&2
		exit 1
	fi
	sudo=sudo
fi
if ! command -v apt-get >/dev/null; then
	echo "bench-deps: pgpool-II is missing. Install it with this system's package manager, or point PGDIST_PGPOOL at the program." >&2
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

echo "bench-deps: installing pgpool2"
$sudo apt-get update -q
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends pgpool2
$sudo update-rc.d pgpool2 disable
