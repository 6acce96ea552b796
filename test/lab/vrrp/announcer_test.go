package vrrp

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// clusterScene is a cluster whose group has an announcer, and router9, a machine
// beside it on the same network that may run keepalived for the same address.
type clusterScene struct {
	*scenario.Trio
	t       *testing.T
	vip     string // with its prefix
	router9 *lab.Host
	hears   *observer
	other   *lab.Process  // keepalived on router9
	waits   time.Duration // it, as a backup, for the next advertisement
}

const announcedVRID = 77

// The group's address.
const (
	four = scenario.VIP + "/24"
	six  = scenario.VIP6 + "/64"
)

// prepareCluster makes the machines; more is what else the announcer has.
func prepareCluster(t *testing.T, vip string, o scenario.Options, more string) *clusterScene {
	t.Helper()
	t.Parallel()
	o.Groups = "  web:\n    prefer: [director1, director2]\n    resources:\n      - vip: " + vip + "/eth0\n" +
		fmt.Sprintf("      - vrrp: {virtual_router_id: %d%s}\n", announcedVRID, more)
	return newClusterScene(t, vip, o)
}

func newClusterScene(t *testing.T, vip string, o scenario.Options) *clusterScene {
	t.Helper()
	o.Profile = "calm" // a busy machine is no story of this one
	c := &clusterScene{Trio: scenario.NewTrio(t, o), t: t, vip: vip}
	c.router9 = c.Lab.Host("router9")
	c.router9.Attach(c.Service, "eth0", "192.168.56.99/24", "fd56::99/64")
	c.hears = observe(t, c.Client, "eth0")
	return c
}

// begin starts the cluster.
func (c *clusterScene) begin() {
	c.t.Helper()
	c.StartAll(limit)
	c.announces(c.Director1, time.Time{})
}

// keepalived starts it on router9; the interval is in seconds.
func (c *clusterScene) keepalived(version, priority int, interval string) {
	c.t.Helper()
	every, err := time.ParseDuration(interval + "s")
	if err != nil {
		c.t.Fatal(err)
	}
	c.waits = 3 * every
	c.router9.WriteFile(directory+"keepalived.conf", fmt.Sprintf(`vrrp_instance web {
    interface eth0
    version %d
    state BACKUP
    virtual_router_id %d
    priority %d
    advert_int %s
    virtual_ipaddress {
        %s
    }
}
`, version, announcedVRID, priority, interval, c.vip), 0o644)
	c.other = startRouter(c.router9, keepalived)
}

// sent are the advertisements of a host since an instant.
func (c *clusterScene) sent(h *lab.Host, since time.Time) (all []advert) {
	for _, a := range adverts(c.hears.heard()) {
		if a.vrid() == announcedVRID && a.mac == [6]byte(h.PortOn(c.Service).MAC) && a.at.After(since) {
			all = append(all, a)
		}
	}
	return all
}

// announces waits until a host is heard as master for three advertisements after an instant.
func (c *clusterScene) announces(h *lab.Host, since time.Time) {
	c.t.Helper()
	c.Lab.Eventually(2*limit, h.Name+" to announce the group", func() bool {
		n := 0
		for _, a := range c.sent(h, since) {
			if n++; a.priority() == 0 {
				n = 0
			}
		}
		return n >= 3
	})
}

// silent holds that router9 never was master since an instant, unless the machine
// has left somebody without a processor for half of the time that it waits.
func (c *clusterScene) silent(event string, since time.Time) {
	c.t.Helper()
	all := c.sent(c.router9, since)
	if late := clock.Worst(since); len(all) > 0 && late > c.waits/2 {
		c.Lab.Logf("%s: keepalived took itself for the master; the machine was late by %v", event, late)
	} else if len(all) > 0 {
		c.t.Errorf("%s: keepalived took itself for the master:\n%s", event, c.story(since))
	}
}

func (c *clusterScene) story(since time.Time) (text string) {
	for _, a := range adverts(c.hears.heard()) {
		if a.at.After(since) {
			text += fmt.Sprintf("  %+8.3f s %v\n", a.at.Sub(since).Seconds(), &a)
		}
	}
	return text
}

// status waits until the cluster's status is as wanted, as the witness sees it.
func (c *clusterScene) status(what string, ok func(cluster.Status) bool) cluster.Status {
	c.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		s, answered := c.Status(c.Arbiter)
		if answered && len(s.Groups) > 0 && ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			out, _ := c.Arbiter.Keepbeat("status")
			c.t.Fatalf("waited %v in vain for %s:\n%s\nheard:\n%s", limit, what, out, c.story(time.Now().Add(-30*time.Second)))
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func well(s cluster.Status) bool { return len(s.Trouble) == 0 && s.Groups[0].State == "active" }

func says(s cluster.Status, what string) bool {
	return strings.Contains(strings.Join(s.Trouble, "\n"), what)
}

// owner is who has the group.
func (c *clusterScene) owner() *lab.Host {
	c.t.Helper()
	s := c.status("the group to be active", func(s cluster.Status) bool { return s.Groups[0].State == "active" })
	if s.Groups[0].Owner == c.Director1.Name {
		return c.Director1
	}
	return c.Director2
}

func (c *clusterScene) must(h *lab.Host, args ...string) {
	c.t.Helper()
	if out, err := h.Keepbeat(args...); err != nil {
		c.t.Fatalf("keepbeat %s on %s: %v\n%s", strings.Join(args, " "), h.Name, err, out)
	}
}

func TestABackupOutsideSeesOneMasterWhateverTheClusterDoes(t *testing.T) {
	// A takeover of the cluster takes three seconds, with profile calm; the backup
	// waits for 18 s: three advertisements, and its skew, which version 3 takes of
	// the interval. That is 3 s, and all that a handover has.
	c := prepareCluster(t, four, scenario.Options{}, ", version: 3, advert_int: 5s")
	const quiet = 20 * time.Second
	c.begin()
	began := time.Now()
	c.keepalived(3, 100, "5")
	c.other.WaitLog(limit, "Entering BACKUP STATE")
	time.Sleep(quiet)
	c.silent("the start", began)
	for _, a := range c.sent(c.Director1, time.Time{}) {
		if a.priority() != 254 || a.ttl != 255 || a.dst != netip.MustParseAddr("224.0.0.18") || a.src != netip.MustParseAddr("192.168.56.11") {
			t.Errorf("an advertisement is not that of an ordinary master: %v", &a)
		}
	}

	since := time.Now()
	c.must(c.Director1, "standby")
	c.announces(c.Director2, since)
	c.silent("standby", since)
	leaving, first := c.sent(c.Director1, since), c.sent(c.Director2, since)
	if last := leaving[len(leaving)-1]; last.priority() != 0 || last.at.After(first[0].at) {
		t.Errorf("the old owner does not leave before the new one comes:\n%s", c.story(since))
	}
	t.Logf("standby: %v from the old owner's last word to the new one's first", first[0].at.Sub(leaving[len(leaving)-1].at).Round(time.Millisecond))
	if n := len(c.sent(c.Director1, first[0].at)); n > 0 {
		t.Errorf("two nodes announce:\n%s", c.story(since))
	}

	since = time.Now()
	c.must(c.Director2, "restart")
	c.announces(c.Director2, since)
	c.silent("a planned restart", since)
	if all := c.sent(c.Director2, since); all[0].priority() != 254 {
		t.Errorf("a restart is no leave:\n%s", c.story(since))
	} else {
		t.Logf("restart: the first word of the new daemon after %v", all[0].at.Sub(since).Round(time.Millisecond))
	}
	c.status("all to be well", well)
	if c.owner() != c.Director2 {
		t.Errorf("a planned restart has moved the group")
	}

	// The guard silences a daemon that hangs, and what it says when it wakes up.
	since = time.Now()
	c.Daemons["director2"].Freeze()
	c.announces(c.Director1, since)
	c.silent("a daemon that hangs", since)
	woken := time.Now()
	c.Daemons["director2"].Thaw()
	c.status("all to be well", well)
	if n := len(c.sent(c.Director2, woken)); n > 0 {
		t.Errorf("two nodes announce:\n%s", c.story(since))
	}

	since = time.Now()
	c.Director1.Die()
	c.announces(c.Director2, since)
	c.silent("death of the owner", since)
	t.Logf("death: the new owner's first word after %v", c.sent(c.Director2, since)[0].at.Sub(since).Round(time.Millisecond))

	since = time.Now()
	c.Director2.Die()
	c.announces(c.router9, since)
	if !c.router9.HasAddress(scenario.VIP) {
		t.Error("keepalived is master without the address")
	}
	if took := c.sent(c.router9, since)[0].at.Sub(since); took < 9*time.Second {
		t.Errorf("keepalived took over %v after the cluster's death: it had not believed the cluster", took)
	}
}

func TestABackupOutsideSeesOneMasterOfIPv6(t *testing.T) {
	c := prepareCluster(t, six, scenario.Options{}, ", advert_int: 5s")
	c.begin()
	began := time.Now()
	c.keepalived(3, 100, "5")
	c.other.WaitLog(limit, "Entering BACKUP STATE")
	c.announces(c.Director1, began)
	for _, a := range c.sent(c.Director1, time.Time{}) {
		if a.priority() != 254 || a.ttl != 255 || a.dst != netip.MustParseAddr("ff02::12") || !a.src.IsLinkLocalUnicast() {
			t.Errorf("an advertisement is not that of an ordinary master: %v", &a)
		}
	}
	since := time.Now()
	c.must(c.Director1, "standby")
	c.announces(c.Director2, since)
	c.silent("all the time", began)
	since = time.Now()
	c.Director1.Die()
	c.Director2.Die()
	c.announces(c.router9, since)
}

// The daemon of a node that is cut off goes on, and so do its advertisements, as far as the guard.
func TestANodeWithoutALeaseIsNotHeard(t *testing.T) {
	c := prepareCluster(t, four, scenario.Options{}, "")
	c.begin()
	since := time.Now()
	for _, s := range c.Heartbeat {
		c.Director1.PortOn(s).Block()
	}
	c.announces(c.Director2, since)
	if !c.Director1.HasAddress(scenario.VIP) {
		t.Error("nothing is behind the guard: the node has stopped the group")
	}
	time.Sleep(3 * time.Second)
	for _, s := range c.Heartbeat {
		c.Director1.PortOn(s).Heal()
	}
	c.status("all to be well", well)
	if n := len(c.sent(c.Director1, c.sent(c.Director2, since)[0].at)); n > 0 || c.Director1.HasAddress(scenario.VIP) {
		t.Errorf("two nodes announce:\n%s", c.story(since))
	}
}

// At 100 ms a backup would be master before the next daemon speaks; with version 3 it learns to wait.
func TestARestartIsNoDeathToABackupOutside(t *testing.T) {
	c := prepareCluster(t, four, scenario.Options{}, ", version: 3, advert_int: 100ms")
	c.begin()
	began := time.Now()
	c.keepalived(3, 1, "0.1")
	c.other.WaitLog(limit, "Entering BACKUP STATE")
	for range 3 {
		since := time.Now()
		c.must(c.Director1, "restart")
		c.announces(c.Director1, since)
		c.status("all to be well", well)
	}
	c.silent("three restarts", began)
}

// while is longer than a foreign master is waited for, and than a group that failed is left alone at first.
const while = 15 * time.Second

func TestAGroupYieldsToAForeignMaster(t *testing.T) {
	c := prepareCluster(t, four, scenario.Options{}, ", on_conflict: yield")
	c.begin()
	began := time.Now()
	c.keepalived(2, 255, "1")
	c.announces(c.router9, began)
	s := c.status("the group to run nowhere, and why", func(s cluster.Status) bool {
		return s.Groups[0].State == "down" && says(s, "192.168.56.99")
	})
	epoch := s.Groups[0].Epoch
	if out, err := c.Arbiter.Keepbeat("why", "web"); err != nil || !strings.Contains(out, "on_conflict: yield") {
		t.Errorf("why: %v\n%s", err, out)
	}
	since := time.Now()
	time.Sleep(while)
	for _, h := range c.Both() {
		if n := len(c.sent(h, since)); n > 0 || h.HasAddress(scenario.VIP) {
			t.Errorf("%s announces the group %d times beside the foreign master", h.Name, n)
		}
	}
	if now := c.status("an answer", func(cluster.Status) bool { return true }).Groups[0].Epoch; now != epoch {
		t.Errorf("the group wanders: epoch %d was %d", now, epoch)
	}
	since = time.Now()
	if err := c.other.Terminate(limit); err != nil {
		t.Errorf("keepalived, told to stop: %v", err)
	}
	c.announces(c.owner(), since)
	c.status("all to be well", well)
}

func TestAGroupStaysBesideAForeignMaster(t *testing.T) {
	c := prepareCluster(t, four, scenario.Options{}, ", on_conflict: keep")
	c.begin()
	began := time.Now()
	c.keepalived(2, 255, "1")
	c.announces(c.router9, began)
	c.status("an alarm", func(s cluster.Status) bool {
		return s.Groups[0].State == "active" && says(s, "foreign router 192.168.56.99")
	})
	since := time.Now()
	c.announces(c.Director1, since)
	c.announces(c.router9, since)
	if err := c.other.Terminate(limit); err != nil {
		t.Errorf("keepalived, told to stop: %v", err)
	}
	c.status("all to be well", well)
}

func TestAForeignMasterIsFenced(t *testing.T) {
	fenced := filepath.Join(t.TempDir(), "fenced")
	const script = "/etc/keepbeat/fence.sh"
	o := scenario.Options{Fencing: "  devices:\n    hook: {script: " + script + ", targets: [router9]}\n"}
	c := prepareCluster(t, four, o, ", on_conflict: fence, foreign: router9")
	for _, h := range c.Both() {
		h.WriteFile(script, "#!/bin/sh\n[ \"$1\" = monitor ] || echo \"$1 $2\" >>"+fenced+"\n", 0o755)
	}
	c.begin()
	c.keepalived(2, 255, "1")
	c.Lab.Eventually(limit, "the foreign router to be fenced", func() bool {
		b, err := os.ReadFile(fenced)
		return err == nil && string(b) == "reboot router9\n"
	})
	c.other.Kill()
	since := time.Now()
	c.status("all to be well", well)
	if c.owner() != c.Director1 {
		t.Error("the group has moved")
	}
	c.announces(c.Director1, since)
	// It comes back as what it was, and is not switched off again and again.
	c.keepalived(2, 255, "1")
	c.status("an alarm", func(s cluster.Status) bool { return says(s, "foreign router 192.168.56.99") })
	time.Sleep(while)
	if b, err := os.ReadFile(fenced); err != nil || string(b) != "reboot router9\n" {
		t.Errorf("fenced: %q %v", b, err)
	}
	out, err := c.Arbiter.Keepbeat("fence", "history")
	if err != nil || strings.Count(out, "router9") != 1 {
		t.Errorf("history: %v\n%s", err, out)
	}
}
