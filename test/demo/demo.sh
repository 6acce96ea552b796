#!/bin/bash
# `make demo`: says which kernel it will be and why, prepares what is missing, and plays the story.
set -euo pipefail
cd "$(dirname "$0")/../.."
make=${MAKE:-make}

say() { printf '%s\n' "$@"; }
[ "$(id -u)" = 0 ] || { say "demo: it makes network namespaces and needs root; this is user $(id -un)" >&2; exit 1; }

# step WHAT COMMAND...: quiet while it is short, and never silent for long.
step() {
	local what=$1 began=$SECONDS command log
	shift
	say "  $what"
	log=$(mktemp)
	"$@" >"$log" 2>&1 &
	command=$!
	trap 'kill "$command" 2>/dev/null || true; rm -f "$log"; exit 130' INT TERM
	local shown=0
	while kill -0 "$command" 2>/dev/null; do
		sleep 0.2
		if [ $((SECONDS - began - shown)) -ge 10 ]; then
			shown=$((SECONDS - began))
			say "    $shown s: $(tail -n 1 "$log" | cut -c 1-60)"
		fi
	done
	if ! wait "$command"; then
		cat "$log"
		rm -f "$log"
		say "demo: failed: $what" >&2
		exit 1
	fi
	trap - INT TERM
	rm -f "$log"
	say "    done in $((SECONDS - began)) s"
}

say "keepbeat: the demonstration" ""
step "Debian packages (the first time: a minute)" "$make" --no-print-directory deps
[ -e /proc/net/ip_vs ] || modprobe ip_vs 2>/dev/null || true
if [ -e /proc/net/ip_vs ]; then
	say "  Kernel: this machine's own, which has IPVS."
	first=()
else
	say "  Kernel: this machine's own has no IPVS, so the story plays in the lab kernel:" \
		"  user-mode Linux, an ordinary program that is a complete kernel with IPVS."
	# Its clocks go on while it waits for a processor, and its daemons then see each other late.
	first=(nice -n -15)
	step "lab kernel (the first time: about three minutes; afterwards it is there)" "$make" --no-print-directory lab-kernel
fi
step "bin/keepbeat (the first time: a minute or two)" "$make" --no-print-directory build
step "the lab's tools" "$make" --no-print-directory labtool bin/demo
say "" "The story takes one to three minutes."
export KEEPBEAT_BIN=$PWD/bin/keepbeat KEEPBEAT_LABTOOL=$PWD/bin/labtool
exec "${first[@]}" bin/labtool kernel -timeout 20m -- bin/demo
