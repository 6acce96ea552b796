#!/bin/bash
# Installs the Debian packages that a target needs, quietly and only those missing.
#
#   deps.sh lab kernel
set -euo pipefail

declare -A sets=(
	# ip, nft, unshare and friends; systemd for systemd-analyze verify.
	[lab]="iproute2 nftables ipvsadm iputils-ping util-linux procps curl systemd ca-certificates git"
	[kernel]="make gcc libc6-dev flex bison bc libelf-dev libssl-dev binutils xz-utils perl linux-source-6.1"
	# Devices for the tests of package fencing: fence_dummy and its library, the external/* plugins.
	[fencing]="fence-agents cluster-glue"
	# -race needs a C compiler.
	[race]="gcc libc6-dev"
	# Disks that are slow or fail, in the lab kernel.
	# The model checker compiles what it searches.
	[model]="spin gcc libc6-dev"
	[fault]="dmsetup e2fsprogs mount"
	# Servers that the checks are tested against.
	[checks]="nginx-light tinyproxy-bin postfix dovecot-imapd dovecot-pop3d vsftpd bind9 slapd mariadb-server-core mariadb-client-core postgresql freeradius"
	# What bench-failover and bench-checks measure beside keepbeat with PEERS=1. heartbeat brings its resource scripts and plugins with it.
	[peers]="keepalived heartbeat ldirectord"
	# What test/lab/vrrp speaks VRRP with, dissects packets with, and balances with.
	[vrrp]="keepalived tshark haproxy psmisc ipvsadm"
)

wanted=()
for name in "$@"; do
	[ -n "${sets[$name]:-}" ] || { echo "deps: no set called $name; there are: ${!sets[*]}" >&2; exit 2; }
	read -ra packages <<<"${sets[$name]}"
	wanted+=("${packages[@]}")
done

missing=()
for package in "${wanted[@]}"; do
	[ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null)" = "ii " ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "deps: not installed: ${missing[*]}. Install them as root: apt-get install ${missing[*]}" >&2
	exit 1
fi
echo "deps: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)

# Tests start what they need themselves: nothing that is installed here is to
# start by itself. policy-rc.d is how Debian is told so; one that is there comes
# back afterwards, also one that a run which was killed had put aside.
policy=/usr/sbin/policy-rc.d
mkdir -p /run/lock
exec 9>/run/lock/keepbeat-deps
flock 9
restore() {
	rm -f "$log"
	if [ -e "$policy.keepbeat" ]; then mv "$policy.keepbeat" "$policy"; elif grep -qs keepbeat "$policy"; then rm "$policy"; fi
}
trap restore EXIT
if [ -e "$policy" ] && [ ! -e "$policy.keepbeat" ] && ! grep -q keepbeat "$policy"; then mv "$policy" "$policy.keepbeat"; fi
printf '#!/bin/sh\n# keepbeat, test/lab/deps.sh: no daemon starts by being installed\nexit 101\n' >"$policy"
chmod 755 "$policy"

install() { apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "${missing[@]}"; }
if ! { apt-get -o DPkg::Lock::Timeout=300 update -qq && install; } >"$log" 2>&1; then
	cat "$log" >&2
	echo "deps: installing ${missing[*]} failed; apt's words are above" >&2
	exit 1
fi
