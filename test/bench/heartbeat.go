package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// heartbeat is Debian's 3.0.6 with haresources: two bcast links, the address by
// IPaddr2, auto_failback on, no STONITH.
type heartbeat struct {
	*scenario.Directors
	keepalive time.Duration
}

const heartbeatProgram = "/usr/libexec/heartbeat/heartbeat"

func newHeartbeat(t lab.TB, keepalive, deadtime time.Duration) contender {
	b := &heartbeat{scenario.NewDirectors(t), keepalive}
	for _, h := range b.Both() {
		// The package's scripts with our three files, and an empty state directory, as one of each host's own.
		for from, to := range heartbeatDirs {
			to = h.Path(to)
			if err := os.CopyFS(to, os.DirFS(from)); err != nil {
				t.Fatalf("heartbeat: a copy of %s: %v", from, err)
			}
		}
		h.WriteFile(heartbeatDirs["/etc/ha.d"]+"/ha.cf", fmt.Sprintf(`logfile /dev/stderr
keepalive %dms
deadtime %dms
warntime %dms
initdead 12000ms
bcast eth1 eth2
auto_failback on
node director1 director2
`, keepalive.Milliseconds(), deadtime.Milliseconds(), deadtime.Milliseconds()/2), 0o644)
		h.WriteFile(heartbeatDirs["/etc/ha.d"]+"/haresources", "director1 IPaddr2::"+scenario.VIP+"/24/eth0\n", 0o644)
		h.WriteFile(heartbeatDirs["/etc/ha.d"]+"/authkeys", "auth 1\n1 sha1 a-secret-of-the-lab-only\n", 0o600)
	}
	return b
}

// heartbeatDirs are directories of the package, and where each host has its own.
var heartbeatDirs = map[string]string{"/etc/ha.d": "/etc/keepbeat/ha.d", "/var/lib/heartbeat": "/var/lib/keepbeat/heartbeat"}

func (b *heartbeat) machines() *scenario.Directors { return b.Directors }

func (b *heartbeat) step() time.Duration { return b.keepalive }

// heartbeatMounts gives a host its own directories; /run is its own already. With
// sysrq out of reach, heartbeat's ways to reboot a machine end with the host.
const heartbeatMounts = `set -e
mountpoint -q /etc/ha.d || mount --bind /etc/keepbeat/ha.d /etc/ha.d
mountpoint -q /var/lib/heartbeat || mount --bind /var/lib/keepbeat/heartbeat /var/lib/heartbeat
if [ -e /proc/sysrq-trigger ]; then mountpoint -q /proc/sysrq-trigger || mount --bind /dev/null /proc/sysrq-trigger; fi
install -d -m 750 -o hacluster -g haclient /run/heartbeat /run/heartbeat/ccm /run/heartbeat/crm /run/heartbeat/dopd
cd /var/lib/heartbeat
chown -R hacluster:haclient ccm crm pengine cores/hacluster
`

func (b *heartbeat) start(h *lab.Host) {
	h.WriteFile("/etc/keepbeat/mounts.sh", heartbeatMounts, 0o644)
	h.Run("sh", "/etc/keepbeat/mounts.sh")
	b.Daemons[h.Name] = h.Start("heartbeat", nil, heartbeatProgram, "-f")
}

func (b *heartbeat) settle() *lab.Host {
	switchOn(b.Directors, b.start)
	// Each has what it is preferred for: director1 the address, director2 nothing.
	// After a standby the address stays away until it is fetched; an order that comes
	// during a transition is ignored without a word.
	var ordered time.Time
	b.Lab.Eventually(2*patience, "heartbeat to hold local resources, and no others, on both nodes", func() bool {
		one, two := b.holds(b.Director1), b.holds(b.Director2)
		if one == "none" && two == "all" && time.Since(ordered) > 5*time.Second {
			ordered = time.Now()
			b.Director1.Run("/usr/share/heartbeat/hb_takeover", "local")
		}
		return one == "local" && two == "local"
	})
	waitOnlyOn(b.Directors, b.Director1, 2*b.keepalive)
	return b.Director1
}

// holds is local, foreign, all, none or transition; empty when it does not answer.
func (b *heartbeat) holds(h *lab.Host) string {
	out, err := h.Try("cl_status", "rscstatus")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(out)
}

func (b *heartbeat) stop(h *lab.Host) {
	h.Run(heartbeatProgram, "-k")
}

func (b *heartbeat) standby(h *lab.Host) { h.Run("/usr/share/heartbeat/hb_standby", "all") }

// heartbeatSystems are the configurations that are measured: one that is made
// for speed, and the one of its manual that people copy.
func heartbeatSystems() []system {
	var all []system
	for _, c := range []struct {
		name                string
		keepalive, deadtime time.Duration
	}{{"keepalive 200ms deadtime 1s", 200 * time.Millisecond, time.Second}, {"keepalive 1s deadtime 10s", time.Second, 10 * time.Second}} {
		all = append(all, system{
			name: "heartbeat", config: c.name, needs: heartbeatProgram,
			coarse: c.deadtime > 5*time.Second,
			build:  func(t lab.TB) contender { return newHeartbeat(t, c.keepalive, c.deadtime) },
		})
	}
	return all
}
