package vrrp

import (
	"fmt"
	"net/netip"
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
	router9 *lab.Host
	hears   *observer
	other   *lab.Process // keepalived on router9
}

const announcedVRID = 77

// announcing starts the cluster; more is what else the announcer has.
func announcing(t *testing.T, o scenario.Options, more string) *clusterScene {
	t.Helper()
	t.Parallel()
	o.Groups = "  web:\n    prefer: [director1, director2]\n    resources:\n      - vip: " + scenario.VIP + "/24/eth0\n" +
		fmt.Sprintf("      - vrrp: {virtual_router_id: %d%s}\n", announcedVRID, more)
	c := &clusterScene{Trio: scenario.NewTrio(t, o), t: t}
	c.router9 = c.Lab.Host("router9")
	c.router9.Attach(c.Service, "eth0", "192.168.56.99/24")
	c.hears = observe(t, c.Client, "eth0")
	c.StartAll(limit)
	c.announces(c.Director1, time.Time{})
	return c
}

// keepalived starts it on router9.
func (c *clusterScene) keepalived(priority int) {
	c.t.Helper()
	c.router9.WriteFile(directory+"keepalived.conf", fmt.Sprintf(`vrrp_instance web {
    interface eth0
    state BACKUP
    virtual_router_id %d
    priority %d
    advert_int 1
    virtual_ipaddress {
        %s/24
    }
}
`, announcedVRID, priority, scenario.VIP), 0o644)
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
	c.Lab.Eventually(limit, h.Name+" to announce the group", func() bool {
		n := 0
		for _, a := range c.sent(h, since) {
			if n++; a.priority() == 0 {
				n = 0
			}
		}
		return n >= 3
	})
}

// silent holds that router9 never was master since an instant.
func (c *clusterScene) silent(event string, since time.Time) {
	c.t.Helper()
	if all := c.sent(c.router9, since); len(all) > 0 {
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
		if answered && ok(s) {
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

// quieter is longer than any backup of this scene waits for its master.
const quieter = 6 * time.Second

func TestABackupOutsideSeesOneMasterWhateverTheClusterDoes(t *testing.T) {
	c := announcing(t, scenario.Options{}, "")
	began := time.Now()
	c.keepalived(100)
	c.other.WaitLog(limit, "Entering BACKUP STATE")
	time.Sleep(quieter)
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
	if n := len(c.sent(c.Director1, first[0].at)); n > 0 {
		t.Errorf("two nodes announce:\n%s", c.story(since))
	}
	c.must(c.Director1, "takeover", "web")
	c.announces(c.Director1, since)
	c.status("all to be well", well)

	since = time.Now()
	c.must(c.Director1, "restart")
	time.Sleep(quieter)
	c.silent("a planned restart", since)
	if c.owner() != c.Director1 {
		t.Errorf("a planned restart has moved the group")
	}
	c.announces(c.Director1, since)

	// A daemon that hangs is silenced by the guard; what it would send later is no matter.
	since = time.Now()
	c.Daemons["director1"].Freeze()
	c.announces(c.Director2, since)
	c.silent("a daemon that hangs", since)
	c.Daemons["director1"].Thaw()
	c.status("all to be well", well)

	since = time.Now()
	c.Director2.Die()
	c.announces(c.Director1, since)
	c.silent("death of the owner", since)

	since = time.Now()
	c.Director1.Die()
	c.announces(c.router9, since)
	if !c.router9.HasAddress(scenario.VIP) {
		t.Error("keepalived is master without the address")
	}
	if took := c.sent(c.router9, since)[0].at.Sub(since); took < 2*time.Second {
		t.Errorf("keepalived took over %v after the cluster's death: it had not believed the cluster", took)
	}
}

func TestAGroupYieldsToAForeignMaster(t *testing.T) {
	c := announcing(t, scenario.Options{}, ", on_conflict: yield")
	began := time.Now()
	c.keepalived(255)
	c.announces(c.router9, began)
	s := c.status("the group to run nowhere, and why", func(s cluster.Status) bool {
		return s.Groups[0].State == "down" && says(s, "192.168.56.99")
	})
	epoch := s.Groups[0].Epoch
	if out, err := c.Arbiter.Keepbeat("why", "web"); err != nil || !strings.Contains(out, "on_conflict: yield") {
		t.Errorf("why: %v\n%s", err, out)
	}
	since := time.Now()
	time.Sleep(3 * quieter)
	for _, h := range c.Both() {
		if n := len(c.sent(h, since)); n > 0 || h.HasAddress(scenario.VIP) {
			t.Errorf("%s announces the group %d times beside the foreign master", h.Name, n)
		}
	}
	if s, _ := c.Status(c.Arbiter); s.Groups[0].Epoch != epoch {
		t.Errorf("the group wanders: epoch %d was %d", s.Groups[0].Epoch, epoch)
	}
	since = time.Now()
	if err := c.other.Terminate(limit); err != nil {
		t.Errorf("keepalived, told to stop: %v", err)
	}
	c.announces(c.owner(), since)
	c.status("all to be well", well)
}

func TestAGroupStaysBesideAForeignMaster(t *testing.T) {
	c := announcing(t, scenario.Options{}, ", on_conflict: keep")
	began := time.Now()
	c.keepalived(255)
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
