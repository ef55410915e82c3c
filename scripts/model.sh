#!/bin/sh
# Checks the models of the agreement with Spin: every state of the configurations that fit, then
# each model with one rule broken, which must be found. Prints a table.
#
#   scripts/model.sh [NAME …]    names from the tables below; all by default
#
# MODEL_MEMORY bounds what one run may use, in MB (6000), MODEL_TIME how many seconds it may take (3600). For a
# rule that is broken the depth is printed at which that was seen; agreement.pml's are looked for with bitstate hashing (1 GB).
set -u
cd "$(dirname "$0")/.."
models=$PWD/internal/model
memory=${MODEL_MEMORY:-6000}
limit=${MODEL_TIME:-3600}
command -v spin >/dev/null || {
	as=
	[ "$(id -u)" -eq 0 ] || as=sudo
	$as apt-get install -y --no-install-recommends spin gcc libc6-dev >/dev/null || {
		echo "spin is missing, and could not be installed: install the package spin (https://spinroot.com)" >&2
		exit 1
	}
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
bad=0

# run NAME MODEL WANT PAN-OPTIONS GCC-OPTIONS SPIN-OPTIONS…
run() {
	name=$1 model=$2 want=$3 pan=$4 gcc=$5
	shift 5
	rm -rf "$work/run"
	mkdir "$work/run"
	case $gcc in *BITSTATE*) ;; *) gcc="-DCOLLAPSE $gcc" ;; esac
	if ! (cd "$work/run" && cp "$models/$model" . && spin -a "$@" "$model" && gcc -O2 -w -DSAFETY -DMEMLIM="$memory" $gcc -o pan pan.c) >"$work/log" 2>&1; then
		echo "FAIL  $name: the model does not compile" >&2
		tail -5 "$work/log" >&2
		bad=1
		return
	fi
	(cd "$work/run" && timeout "$limit" ./pan -m200000 -E ${pan:--w26}) >"$work/log" 2>&1
	states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$work/log")
	depth=$(sed -n 's/.*(at depth \([0-9]*\)).*/\1/p' "$work/log")
	errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' "$work/log")
	if [ -z "$errors" ] || grep -q 'max search depth too small\|out of memory\|reached -DMEMLIM' "$work/log"; then
		[ "$want" = 0 ] || [ "${errors:-0}" = 0 ] && {
			printf 'FAIL  %-34s not finished within %s s and %s MB\n' "$name" "$limit" "$memory"
			bad=1
			return
		}
	fi
	if [ "$want" = 0 ] && [ "$errors" = 0 ]; then
		printf 'ok    %-34s no error in any of %s states\n' "$name" "$states"
	elif [ "$want" = 1 ] && [ "$errors" != 0 ]; then
		printf 'ok    %-34s found at depth %s after %s states\n' "$name" "$depth" "$states"
	else
		printf 'FAIL  %-34s %s errors after %s states\n' "$name" "$errors" "$states"
		bad=1
	fi
}

wanted() {
	[ $# -gt 1 ] || return 0
	case " $2 " in *" $1 "*) return 0 ;; esac
	return 1
}
names=$*
try() { if [ -z "$names" ] || wanted "$1" "$names"; then run "$@"; fi; }

try leases leases.pml 0 "" ""
try leases_adopter leases.pml 0 "" "" -DADOPTER
for bug in UNKNOWN_CONFIRMED ONE_CONFIRMS LEASE_FROM_ANSWER LEASE_LATE STRUCK_OFF_AT_ONCE WAIT_FROM_PROMISE NO_DRAIN; do
	try "$bug" leases.pml 1 "" "" "-DBUG_$bug"
done
try ONLY_PROPOSERS_WAIT leases.pml 1 "" "" -DADOPTER -DBUG_ONLY_PROPOSERS_WAIT
try agreement_witness agreement.pml 0 "" "" -DNP=2 -DNC=1 -DNOSLOW -DWITNESS
try agreement_two agreement.pml 0 "" "" -DNP=2 -DNC=1 -DTWOM
try agreement_three agreement.pml 0 "" "" -DNP=2 -DNC=1 -DNOSLOW -DNOJOIN
hashed="-w33 -RS1" bits="-DBITSTATE -DRANDOMIZE=1"
for bug in ROLE_BEFORE_CHOSEN RESOLVE_READ_ONLY RESOLVE_ON_UNCHOSEN ROLLED_BACK_NOT_FLUSHED JOIN_OTHER_TERM ACK_OTHER_TERM ACK_WITHOUT_REREAD TAIL_KEPT \
	JOIN_BEFORE_PROMISE ROLLED_BACK_LEADER_ONLY; do
	try "$bug" agreement.pml 1 "$hashed" "$bits" -DNP=2 -DNC=1 -DNOSLOW -DNOJOIN "-DBUG_$bug"
done
# These do harm to a follower that has been brought into the new term: a proposer flushes, too.
for bug in NO_FOLLOWER_FENCE APPLY_NO_LOCK SOFT_FOLLOWER SOFT_IS_HARD PROMISE_NO_LOCK; do
	try "$bug" agreement.pml 1 "$hashed" "$bits" -DNP=2 -DNC=1 -DNOSLOW -DNOJOIN -DEQUALISE "-DBUG_$bug"
done
try CAST_BOTH agreement.pml 1 "$hashed" "$bits" -DNP=2 -DNC=1 -DTWOM -DBUG_CAST_BOTH
exit $bad
