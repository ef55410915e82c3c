#!/bin/sh
# Breaks the mirror's rules one by one, in a copy, and demands that the test named
# in each patch notices. A rule whose patch no longer applies, or whose mutant does
# not compile, fails as well: its test may have become blind.
#
#   scripts/mutants.sh [name …]    names of patches in internal/mirror/testdata/mutants, without .patch; all by default
set -u
cd "$(dirname "$0")/.."
root=$PWD
patches=$root/internal/mirror/testdata/mutants
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
trap 'exit 130' INT TERM
bad=0 done=0

# Once, so that whoever goes on editing meanwhile disturbs nothing.
mkdir "$copy/clean"
tar -C "$root" --exclude=./.git --exclude=./bin -cf - . | tar -C "$copy/clean" -xf -

names=${*:-$(cd "$patches" && ls ./*.patch | sed 's|^\./||; s|\.patch$||')}
for name in $names; do
	patch=$patches/$name.patch
	test=$(sed -n 's/^Test: //p' "$patch")
	package=$(sed -n 's/^Package: //p' "$patch")
	flags=$(sed -n 's/^Flags: //p' "$patch") # of the test's own; no spaces within one
	if [ -z "$test" ] || [ -z "$package" ]; then
		echo "$name: the patch does not say which test, of which package, must fail" >&2
		bad=1
		continue
	fi
	rm -rf "$copy/tree"
	cp -R "$copy/clean" "$copy/tree"
	if ! (cd "$copy/tree" && GIT_CEILING_DIRECTORIES=$copy git apply --recount "$patch") 2>"$copy/log"; then
		echo "FAIL  $name: the patch does not apply: the code of its rule has changed, so make it anew" >&2
		sed 's/^/      /' "$copy/log" >&2
		bad=1
		continue
	fi
	if ! (cd "$copy/tree" && go vet "./$package") >"$copy/log" 2>&1; then
		echo "FAIL  $name: the mutant does not compile" >&2
		sed 's/^/      /' "$copy/log" >&2
		bad=1
		continue
	fi
	# The first part that fails is enough: each that waits in vain takes minutes.
	if (cd "$copy/tree" && go test -count=1 -failfast -timeout 8m -run "^($test)\$" "./$package" $flags) >"$copy/log" 2>&1; then
		echo "FAIL  $name: $test passes although its rule is broken" >&2
		bad=1
	elif ! grep -q -- "^ *--- FAIL: ${test%%[/|]*}" "$copy/log"; then
		echo "FAIL  $name: $test did not get as far as failing" >&2
		tail -20 "$copy/log" | sed 's/^/      /' >&2
		bad=1
	else
		done=$((done + 1))
		echo "ok    $name: $test fails"
	fi
done
echo "$done mutants were found by their tests"
exit $bad
