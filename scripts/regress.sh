#!/bin/sh
# Runs PostgreSQL's own regression tests on a plain server and through the gateway, over three
# servers, and tells where the answers differ (the lines about pgdist's own triggers left out);
# then compares the three. Differences are there to be read: some things are refused
# (internal/mirror/REFUSALS.md), and what follows from that differs, too.
# After each test through the gateway it is told who is not in sync, and what happened to the set
# meanwhile: no test may cost a follower its place.
# Needs Debian's postgresql-15 and its source, which is fetched unless REGRESS_SOURCE is where it
# lies unpacked; root, for servers of their own user. Arguments are names of tests; without any
# all run, which takes an hour or so.
set -eu
cd "$(dirname "$0")/.."

bin=${PGDIST_PG_BIN:-/usr/lib/postgresql/15/bin}
base=${REGRESS_PORT:-15600}
[ "$(id -u)" -eq 0 ] || { echo "regress: run it as root: it starts servers as user postgres" >&2; exit 1; }
[ -x "$bin/initdb" ] || { echo "regress: $bin/initdb is not there: apt-get install postgresql-15, or set PGDIST_PG_BIN" >&2; exit 1; }

dir=$(mktemp -d /tmp/pgdist-regress-XXXXXX)
chmod 755 "$dir"
gateway=""
cleanup() {
	[ -z "$gateway" ] || kill "$gateway" 2>/dev/null || true
	for i in 0 1 2 3; do
		[ ! -f "$dir/data/$i/postmaster.pid" ] || su postgres -c "$bin/pg_ctl -D $dir/data/$i -m immediate -w stop" >/dev/null || true
	done
	rm -rf "$dir/data" "$dir/source"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

echo "regress: results go to $dir"
mkdir -p "$dir/source/lists/partial" "$dir/source/parts" "$dir/data" "$dir/results"
version=$(dpkg-query -W -f '${Version}' postgresql-15)
cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed 's/^Types: .*/Types: deb-src/' >"$dir/source/parts/src.sources"
sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$dir/source/parts/src.list" 2>/dev/null || true
apt() { apt-get -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$dir/source/parts" -o Dir::State::lists="$dir/source/lists" -o APT::Sandbox::User=root "$@"; }
if [ -n "${REGRESS_SOURCE:-}" ]; then
	cp -R "$REGRESS_SOURCE" "$dir/source/postgresql-15"
else
	(cd "$dir/source" && apt update >/dev/null && apt source --download-only "postgresql-15=$version" >/dev/null && tar xjf postgresql-15_*.orig.tar.bz2)
fi
tests=$(echo "$dir"/source/postgresql-15*/src/test/regress)
[ -d "$tests/sql" ] || { echo "regress: the source of $version could not be had" >&2; exit 1; }
mkdir -p "$dir/results/results"
chmod -R a+rX "$dir/source"
chmod -R 777 "$dir/results"

go build -o "$dir/pgdist" ./cmd/pgdist
chown postgres "$dir/data"
for i in 0 1 2 3; do
	su postgres -c "$bin/initdb -D $dir/data/$i --no-locale -E UTF8 -A trust -U postgres" >/dev/null
	cat >>"$dir/data/$i/postgresql.conf" <<-EOF
		port=$((base + i))
		listen_addresses='127.0.0.1'
		unix_socket_directories=''
		max_prepared_transactions=2
	EOF
	su postgres -c "$bin/pg_ctl -D $dir/data/$i -l $dir/data/$i.log -w start" >/dev/null
	"$bin/psql" -qX -h 127.0.0.1 -p $((base + i)) -U postgres postgres -c "CREATE DATABASE regression TEMPLATE template0" \
		-c "ALTER DATABASE regression SET lc_messages TO 'C'" -c "ALTER DATABASE regression SET timezone_abbreviations TO 'Default'"
done
set_dsn="pgdist://postgres@127.0.0.1:$((base + 1)),127.0.0.1:$((base + 2)),127.0.0.1:$((base + 3))/regression?sslmode=disable"
"$dir/pgdist" init "$set_dsn"
"$dir/pgdist" gateway "$set_dsn" --listen "127.0.0.1:$((base + 10))" --auth trust >"$dir/gateway.log" 2>&1 &
gateway=$!
sleep 2

# run NAME PORT TEST… runs tests one after the other, as pg_regress would.
run() {
	name=$1 port=$2
	shift 2
	mkdir -p "$dir/$name"
	for t in "$@"; do
		PG_ABS_SRCDIR=$tests PG_LIBDIR=$("$bin/pg_config" --pkglibdir) PG_DLSUFFIX=.so PG_ABS_BUILDDIR=$dir/results PGTZ=PST8PDT PGDATESTYLE='Postgres, MDY' \
			timeout 600 "$bin/psql" -X -a -q -h 127.0.0.1 -p "$port" -U postgres -d regression -v HIDE_TABLEAM=on -v HIDE_TOAST_COMPRESSION=on \
			<"$tests/sql/$t.sql" >"$dir/$name/$t.out" 2>&1 || echo "regress: $t, $name: psql ended with $?"
		[ "$name" = plain ] || together "$t"
	done
}

# console asks the gateway about itself.
console() {
	"$bin/psql" -qXAt -F ' ' -h 127.0.0.1 -p $((base + 10)) -U postgres pgdist -c "$1"
}

# together tells what happened to the set in a test, and waits until all are in sync again.
together() {
	touch "$dir/events"
	console "SHOW EVENTS" >"$dir/events.new"
	diff "$dir/events" "$dir/events.new" >"$dir/events.diff" || { echo "regress: $1: what happened to the set:" && sed -n 's/^> /    /p' "$dir/events.diff"; }
	mv "$dir/events.new" "$dir/events"
	for i in $(seq 60); do
		[ "$(console "SHOW MEMBERS" | awk '$5 == "yes"' | wc -l)" -eq 3 ] && return
		sleep 1
	done
	echo "regress: $1: not all members are in sync:" && console "SHOW MEMBERS"
}
[ $# -gt 0 ] || set -- $(sed -n 's/^test: //p' "$tests/parallel_schedule" | tr ' ' '\n' | grep -vx 'tablespace\|infinite_recurse\|largeobject')
case " $* " in *" test_setup "*) ;; *) set -- test_setup "$@" ;; esac
run plain "$base" "$@"
run gateway $((base + 10)) "$@"

same=0
for t in "$@"; do
	for name in plain gateway; do
		grep -v '^    pgdist_[idut] AFTER \|^Triggers:$' "$dir/$name/$t.out" >"$dir/results/$name" || true
	done
	if diff "$dir/results/plain" "$dir/results/gateway" >"$dir/$t.diff"; then
		same=$((same + 1))
		rm "$dir/$t.diff"
	else
		echo "$t: $(grep -c '^[<>]' "$dir/$t.diff") lines differ: $dir/$t.diff"
	fi
done
echo "regress: $same of $# tests answer alike"
"$dir/pgdist" status "$set_dsn" || true
"$dir/pgdist" verify "$set_dsn"
