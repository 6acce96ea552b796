#!/bin/bash
# Builds the lab kernel: user-mode Linux from Debian's source with kernel.config,
# kept in the user's cache under the hash of configuration and source version.
#
#   kernel.sh          build it if it is not there, print its path last
#   kernel.sh --path   print the path of the one that is there, or exit 1
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
config=$here/kernel.config
package=linux-source-6.1
tarball=/usr/src/$package.tar.xz
# Raise it when this script makes another kernel of the same configuration.
recipe=1
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/keepbeat

say() { printf 'lab-kernel: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

source_version() { dpkg-query -W -f '${db:Status-Abbrev} ${Version}' "$package" 2>/dev/null | sed -n 's/^ii *//p'; }
kernel_path() {
	local version hash
	version=$(source_version)
	[ -n "$version" ] || return 1
	hash=$({ echo "$version $recipe"; grep '^CONFIG_' "$config"; } | sha256sum | cut -c 1-16)
	echo "$cache/lab-kernel-$hash"
}

if [ "${1:-}" = --path ]; then
	path=$(kernel_path) && [ -x "$path" ] || exit 1
	echo "$path"
	exit 0
fi
[ $# -eq 0 ] || fail "usage: kernel.sh [--path]"

"$here/deps.sh" kernel
path=$(kernel_path) || fail "$package is not installed, although its installation reported success"
mkdir -p "$cache"

# One build at a time; who waited finds the work done.
exec 9>"$cache/lab-kernel.lock"
flock -n 9 || { say "another build is running; waiting for it"; flock -w 1800 9 || fail "another build holds $cache/lab-kernel.lock for more than 30 minutes"; }
if [ -x "$path" ]; then
	echo "$path"
	exit 0
fi

work=$(mktemp -d "${TMPDIR:-/var/tmp}/keepbeat-kernel.XXXXXXXX")
compile=
clean() {
	if [ -n "$compile" ]; then
		kill "$compile" 2>/dev/null || true
		wait "$compile" 2>/dev/null || true
	fi
	rm -rf "$work" "$path.new"
}
trap clean EXIT
trap 'exit 130' INT TERM
began=$SECONDS

say "extracting $tarball"
# Left out: what a user-mode kernel never compiles. Every Kconfig file stays, since one that is missing stops all.
tar -C "$work" -xJf "$tarball" --strip-components=1 \
	--exclude='*/drivers/gpu/*.[ch]' --exclude='*/drivers/media/*.[ch]' --exclude='*/sound/*.[ch]' \
	--exclude='*/Documentation/*.rst' --exclude='*/Documentation/*.yaml' --exclude='*/Documentation/*.txt' \
	--exclude='*.dts' --exclude='*.dtsi' --exclude='*/tools/testing/*' \
	|| fail "cannot extract $tarball into $work (800 MB are needed there; TMPDIR chooses another place)"

cd "$work"
make -s ARCH=um KCONFIG_ALLCONFIG="$config" allnoconfig >make.log 2>&1 || { cat make.log >&2; fail "configuring failed"; }
missing=$(grep '^CONFIG_' "$config" | grep -vxFf .config || true)
[ -z "$missing" ] || fail "kernel.config asks for what $package $(source_version) does not give (unknown, or something it depends on is off):
$missing"

jobs=$(nproc)
# About this many objects: only for the progress shown, never for a decision.
expected=1060
say "compiling $package $(source_version) with $jobs jobs (about three minutes on two cores)"
make -s ARCH=um -j"$jobs" linux >make.log 2>&1 9>&- &
compile=$!
shown=0
while kill -0 "$compile" 2>/dev/null; do
	sleep 2
	[ $((SECONDS - began - shown)) -ge 15 ] || continue
	shown=$((SECONDS - began))
	objects=$(find . -name '*.o' | wc -l)
	say "$((objects * 100 / expected < 99 ? objects * 100 / expected : 99)) % after $shown s"
done
if ! wait "$compile"; then
	tail -n 40 make.log >&2
	fail "compiling failed"
fi
compile=

strip -o "$path.new" linux
chmod 755 "$path.new"
mv "$path.new" "$path"
say "built in $((SECONDS - began)) s: $(du -h "$path" | cut -f 1) $path"
echo "$path"
