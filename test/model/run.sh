#!/bin/bash
# Checks the models with spin and prints a table.
#
#   run.sh short   what `make test` runs: small bounds, and every broken variant is found
#   run.sh deep    larger bounds (`make model`): minutes, up to 8 GB
#
# Every search is complete within its bounds, except where "bitstate" stands: there
# states are hashed to a few bits, so that some may be left out.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
jobs=1 # searches at a time
number=0

# search NAME MODEL "spin options" "compiler options" "pan options"
search() {
	cd "$(mktemp -d -p "$work")"
	# shellcheck disable=SC2086
	spin -a $3 "$here/$2.pml" >spin.out 2>&1 || { cat spin.out >&2; exit 1; }
	# shellcheck disable=SC2086
	gcc -O1 -w -DSAFETY -DNOFAIR -DMEMLIM=8000 $4 -o pan pan.c
	# shellcheck disable=SC2086
	./pan $5 >out 2>&1 || true
	complete=yes
	grep -qE 'not completed|too small|MEMLIM|out of memory|resource limit' out && complete=no
	errors=$(grep -oE 'errors: [0-9]+' out | grep -oE '[0-9]+' || echo '?')
	# An index out of range or a state without a way on is a mistake in the model, no finding.
	grep -E '^pan:[0-9]+: ' out | grep -qv 'assertion violated' && errors='?'
	printf '%-6s %-55s %10s %7s %8s %8s  ' "$2" "$1" \
		"$(grep -oE '[0-9.e+]+ states, stored' out | cut -d' ' -f1)" \
		"$(grep -oE 'depth reached [0-9]+' out | tail -1 | grep -oE '[0-9]+')" \
		"$(grep -oE '[0-9.]+.total actual' out | grep -oE '^[0-9]+')" \
		"$(grep -oE 'elapsed time [0-9.e+-]+' out | cut -d' ' -f3)"
}

# search's line is printed in turn, whichever search ends first.
queue() {
	number=$((number + 1))
	while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
	("$@" || echo FAILED) >"$work/$number.line" &
}

# holds NAME MODEL "spin options" ["compiler options" ["pan options"]]
holds() { queue judge_holds "$@"; }

judge_holds() {
	search "$1" "$2" "$3" "${4:-}" "${5:--m1000000 -w23}"
	if [ "$errors" = 0 ] && [ $complete = yes ]; then
		echo holds
		return
	fi
	if [ "$errors" = 0 ] && [[ "${5:-}" == *-Q* ]]; then
		echo 'no violation in the time it had'
		return
	fi
	echo "VIOLATED, or not searched to the end"
	cat out >&2
	# shellcheck disable=SC2086
	[ ! -f "$2.pml.trail" ] || spin -t -p -k ./*.trail $3 "$here/$2.pml" | grep 'proc ' | tail -100 >&2
	return 1
}

# broken NAME MODEL "spin options": breadth first, which finds the shortest way to the violation
broken() { queue judge_broken "$@"; }

judge_broken() {
	search "without: $1" "$2" "$3" -DBFS -w22
	if [ "$errors" = 1 ]; then
		echo found
		return
	fi
	echo 'NOT FOUND'
	return 1
}

header() {
	printf '%-6s %-55s %10s %7s %8s %8s\n' model 'what is in it' states depth MB seconds
}

short() {
	local s='-DINCARNATIONS=2 -DEPOCHS=2'
	holds 'restarts of directors, handover' lease "$s -DRESTARTS_OF_DIRECTORS -DHANDOVER"
	holds 'restarts of voters' lease "$s -DRESTARTS_OF_VOTERS"
	holds 'fencing as an entry' lease "$s -DFENCING"
	holds 'late acknowledgements and proposals' lease "$s -DLATE_ACKS -DLATE_PROPOSALS"
	broken 'a wait before revoking (rule 5)' lease "$s -DNO_WAIT"
	broken 'the longest promise after a restart (rule 3)' lease "$s -DPROMISE_FORGOTTEN -DRESTARTS_OF_VOTERS"
	broken 'the time before sending (rule 2)' lease "$s -DSEND_TIME_LATE -DLATE_ACKS"
	broken 'refusing revoked incarnations (rule 5)' lease "$s -DINCARNATION_IGNORED"
	broken 'stopping what an earlier daemon left' lease "$s -DLEFTOVER -DRESTARTS_OF_DIRECTORS"
	broken 'revocations on disk (rule 5)' lease "$s -DREVOCATION_NOT_DURABLE -DRESTARTS_OF_VOTERS"
	broken 'the 3 % (rule 3)' lease "$s -DMARGIN_100"
	broken 'comparing what the proposer saw (rule 6)' lease "$s -DNO_COMPARE"
	broken 'stopping before saying so (rule 7)' lease "$s -DSTOPPED_BEFORE_STOP -DHANDOVER"
	broken 'ending the incarnation by fencing (rule 6)' lease "$s -DFENCING -DFENCING_KEEPS_INCARNATION"

	local f='-DEPOCHS=2 -DGENERATIONS=2' p='-DPING -DL=2 -DEPOCHS=2 -DGENERATIONS=2'
	holds 'rule fencing' pairs "$f"
	broken 'the result of fencing' pairs "$f -DFENCING_IGNORED"
	broken 'whose order was answered (P4)' pairs '-DEPOCHS=3 -DGENERATIONS=3 -DLATE_ANSWER'
	broken 'wait_for_all (P6)' pairs "$f -DALONE_AFTER_RESTART"
	broken 'knowing what the hello says (P6)' pairs "$f -DHELLO_IS_ENOUGH"
	broken 'generations (P8)' pairs "$f -DGENERATION_IGNORED"
	broken 'refusing promises during the intent (P3)' pairs "$f -DPROMISES_DURING_INTENT"
	broken '"cold" said after the intent (P9)' pairs "$f -DCOLD_BEFORE_INTENT"
	broken '"cold" with nothing left up (P9)' pairs "$f -DCOLD_WITH_LEFTOVERS"
	holds 'rule ping' pairs "$p"
	broken 'a probe (P5)' pairs "$p -DNO_PROBE"
	broken 'a probe of two leases (P5)' pairs "$p -DPROBE=P"
	broken "seeing the other's probe (P5)" pairs "$p -DPROBES_UNSEEN"
	broken 'the tie-breaker during the probe (P5)' pairs "$p -DTIE_BREAKER_AT_THE_END"
	broken 'staying down after a lapse (P2)' pairs "$p -DRESUMES"
	broken 'a probe before a start alone (P4)' pairs "$p -DSTARTS_ALONE"
	broken 'the rule for an only voter (P1)' pairs "$p -DSOLE_NEEDS_NO_RULE"
	broken 'wait_for_all (P6)' pairs "$p -DALONE_AFTER_RESTART"
	broken '"cold" with nothing left up (P9)' pairs "$p -DCOLD_WITH_LEFTOVERS"
	broken 'generations (P8)' pairs "$p -DGENERATION_IGNORED"
}

deep() {
	local s='-DINCARNATIONS=2 -DEPOCHS=2' c='-DCOLLAPSE' w='-m1000000 -w26'
	holds 'changes of voters: two, one by one' voters '' "$c" "$w"
	broken 'the wait between changes (rule 4)' voters -DCHANGES_DO_NOT_WAIT
	broken 'newer configurations (rule 4)' voters -DNEWER_IGNORED
	broken 'the end of the lease with its incarnation (rule 8)' voters -DEND_IGNORED
	broken 'changing one voter at a time (rule 4)' voters -DTWO_AT_ONCE
	broken 'comparing the configuration (rule 5)' voters -DCONFIGURATION_NOT_COMPARED
	broken 'what Stopped names (rule 7)' lease "$s -DHANDOVER -DRESTARTS_OF_DIRECTORS -DSTOPPED_NAMES_NOTHING"
	holds 'restarts of all, handover' lease "$s -DRESTARTS_OF_VOTERS -DRESTARTS_OF_DIRECTORS -DHANDOVER" '' "$w"
	holds 'a lease of 2 ticks, late messages' lease "$s -DL=2 -DLATE_ACKS -DLATE_PROPOSALS" "$c" "$w"
	holds 'fencing, restarts, the witness leads too' lease "$s -DFENCING -DWITNESS_LEADS -DRESTARTS_OF_DIRECTORS" "$c" "$w"
	holds 'bitstate, 2 minutes: three owners and incarnations' lease '-DRESTARTS_OF_VOTERS -DRESTARTS_OF_DIRECTORS -DHANDOVER -DFENCING' -DBITSTATE '-m200000 -w32 -k3 -Q2'
	holds 'rule fencing, three generations' pairs '-DEPOCHS=4 -DGENERATIONS=3' "$c" "$w"
	holds 'rule fencing, a lease of 2 ticks' pairs '-DL=2 -DEPOCHS=3 -DGENERATIONS=3' "$c" "$w"
	holds 'rule ping, three generations' pairs '-DPING -DL=2 -DEPOCHS=3 -DGENERATIONS=3' "$c" "$w"
}

case "${1:-}" in
short | deep) ;;
*)
	echo "usage: run.sh short|deep" >&2
	exit 2
	;;
esac
start=$SECONDS
[ "$1" = deep ] || jobs=2
header
"$1"
wait
for ((i = 1; i <= number; i++)); do cat "$work/$i.line"; done
echo "$1: $((SECONDS - start)) s"
! grep -q FAILED "$work"/*.line
