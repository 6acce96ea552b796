package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// history is what `keepbeat fence history` says on a node.
func (d *duo) history(h *lab.Host, words string) {
	d.t.Helper()
	var out string
	d.Lab.Eventually(limit, fmt.Sprintf("%q in the fence history of %s", words, h.Name), func() bool {
		var err error
		out, err = h.Keepbeat("fence", "history")
		return err == nil && strings.Contains(out, words)
	})
}

func TestAPairIsFencedByFenceDummy(t *testing.T) {
	t.Parallel()
	// Its machine is a file: it says that it is off. That it is, is the test's part.
	d := newDuo(t, scenario.Fencing, scenario.Options{Fencing: `  devices:
    one: {agent: fence_dummy, targets: [director1], params: {status_file: /etc/keepbeat/power-director1}, timeout: 30s}
    two: {agent: fence_dummy, targets: [director2], params: {status_file: /etc/keepbeat/power-director2}, timeout: 30s}
`})
	for _, h := range d.Both() {
		h.WriteFile("/etc/keepbeat/power-director1", "on", 0o600)
		h.WriteFile("/etc/keepbeat/power-director2", "on", 0o600)
	}
	d.StartAll(limit)
	d.settle()
	owner, epoch := d.owner(), d.epoch()
	since := owner.Die()
	d.takenOver(d.Other(owner), since, epoch)
	d.history(d.Other(owner), owner.Name+" fenced (reboot) by "+d.Other(owner).Name)
	d.comesBack(owner)
	if out := d.must(owner, "fence", "test"); strings.Count(out, "answers") != 1 {
		t.Errorf("of the two devices a node operates the other one's:\n%s", out)
	}
}

func TestAPairIsFencedByAClusterGluePlugin(t *testing.T) {
	t.Parallel()
	// The plugin is Debian's; virsh, which it calls, works the lab's switch.
	d := newDuo(t, scenario.Fencing, scenario.Options{Fencing: `  devices:
    virt: {external: libvirt, targets: [director1, director2], params: {hostlist: "director1 director2", hypervisor_uri: "test:///"}, timeout: 30s}
`})
	start := func(h *lab.Host) {
		h.WriteFile("/etc/keepbeat/bin/virsh", `#!/bin/sh
case $3 in
version) exec `+scenario.FenceScript+` monitor ;;
destroy) exec `+scenario.FenceScript+` off "$4" ;;
start) exec `+scenario.FenceScript+` on "$4" ;;
dominfo) echo "State: shut off" ;;
*) exit 1 ;;
esac
`, 0o755)
		h.Run("mount", "--bind", "/etc/keepbeat/bin", "/usr/local/sbin")
		d.Start(h)
	}
	for _, h := range d.Both() {
		start(h)
	}
	d.WaitActive(limit)
	d.settle()

	// A daemon that hangs: its machine is alive until the plugin has switched it off.
	owner, epoch := d.owner(), d.epoch()
	since := d.stop(owner)
	d.takenOver(d.Other(owner), since, epoch)
	if u := d.Power.Uses(); len(u) == 0 || u[0].Action != "off" || u[0].Node != owner.Name || u[0].By != d.Other(owner).Name || !owner.Dead() {
		t.Errorf("uses of the switch: %+v", u)
	}
	d.history(d.Other(owner), owner.Name+" fenced (reboot) by "+d.Other(owner).Name)
	logs := d.discarded(owner)
	owner.Revive()
	start(owner)
	d.rejoined(owner, logs)
}

func TestAPairIsFencedByHand(t *testing.T) {
	t.Parallel()
	d := beginDuo(t, scenario.Fencing, scenario.Options{Fencing: "  devices:\n    hands: {manual: yes, targets: [director1, director2]}\n"})
	owner, epoch := d.owner(), d.epoch()
	left := d.Other(owner)
	since := owner.Die()
	d.phase(left, "surviving", "")
	d.see(left, "somebody to be asked for", func(st cluster.Status) bool {
		for _, n := range st.Nodes {
			if n.Here != nil && len(n.Here.Waiting) == 1 && n.Here.Waiting[0].Node == owner.Name {
				return true
			}
		}
		return false
	})
	if out := d.must(left, "status"); !strings.Contains(out, "keepbeat fence confirm "+owner.Name) {
		t.Errorf("status does not say what to do:\n%s", out)
	}
	time.Sleep(aWhile)
	if n := d.answeredFrom(since.Add(lease)); n > 0 {
		t.Errorf("%d answers before anybody said that %s is off", n, owner.Name)
	}
	if out, err := left.Keepbeat("fence", "confirm", left.Name); err == nil {
		t.Errorf("another node was confirmed: %s", out)
	}
	d.must(left, "fence", "confirm", owner.Name)
	d.takenOver(left, since, epoch)
	d.history(left, owner.Name+" fenced (reboot) by "+left.Name)
	d.comesBack(owner)
}

func TestWhatRunsGoesOnWhenThePairsDeviceFails(t *testing.T) {
	t.Parallel()
	d := beginDuo(t, scenario.Fencing, scenario.Options{Fencing: strings.Replace(scenario.PowerDevices, "timeout: 5s", "timeout: 5s, monitor_interval: 5s", 1)})
	owner := d.owner()
	standby := d.Other(owner)
	d.Power.Refuse("the switch is out of order")
	since := standby.Die()
	d.phase(owner, "surviving", "could not be fenced")
	time.Sleep(aWhile)
	if out := d.must(owner, "status"); !strings.Contains(out, "could not be fenced") {
		t.Errorf("status does not say so:\n%s", out)
	}
	d.neverSilent(since, "a standby that cannot be fenced")
	d.Power.Refuse("")
	d.phase(owner, "sole", "")
	d.comesBack(standby)
	d.neverSilent(since, "a standby that was fenced at last")

	// The other way round what ran on the dead one has to wait for the device.
	epoch := d.epoch()
	d.Power.Refuse("the switch is out of order")
	since = owner.Die()
	d.phase(standby, "surviving", "could not be fenced")
	time.Sleep(aWhile)
	if n := d.answeredFrom(since.Add(lease)); n > 0 {
		t.Errorf("%d answers although %s may be alive", n, owner.Name)
	}
	d.Power.Refuse("")
	d.takenOver(standby, since, epoch)
	d.comesBack(owner)
}

func TestAPairInWhichBothFenceAtOnceKeepsOne(t *testing.T) {
	t.Parallel()
	// No delay: both ask at the same moment, and the switch is slow.
	d := beginDuo(t, scenario.Fencing, scenario.Options{})
	d.Power.Delay(500 * time.Millisecond)
	owner, since := d.owner(), probe.Now()
	d.cut()
	d.Lab.Eventually(limit, "one of the two to be off", func() bool { return d.Director1.Dead() || d.Director2.Dead() })
	left := d.Director1
	if left.Dead() {
		left = d.Director2
	}
	d.phase(left, "sole", "")
	d.client.WaitAnswer(left.Name, since, limit)
	time.Sleep(aWhile)
	if left.Dead() {
		t.Fatal("both are off")
	}
	d.Lab.Logf("%s is left; %s owned the group; longest silence %v", left.Name, owner.Name, d.client.Outage(since))
	d.Power.Delay(0)
	d.Lab.Heal()
	d.comesBack(d.Other(left))
}

func TestAnOwnerWithoutANetworkGivesWay(t *testing.T) {
	t.Parallel()
	// It reaches the device all the same, as by a board's own network.
	d := beginDuo(t, scenario.Fencing, options(scenario.Fencing))
	owner, epoch := d.owner(), d.epoch()
	var ports []*lab.Port
	for _, s := range []*lab.Switch{d.Heartbeat[0], d.Heartbeat[1], d.Service} {
		ports = append(ports, owner.PortOn(s))
	}
	since := probe.Now()
	for _, p := range ports {
		p.Down()
	}
	d.takenOver(d.Other(owner), since, epoch)
	if u := d.Power.Uses(); len(u) != 1 || u[0].Node != owner.Name || !owner.Dead() {
		t.Errorf("uses of the switch: %+v", u)
	}
	for _, p := range ports {
		p.Up()
	}
	d.comesBack(owner)
}
