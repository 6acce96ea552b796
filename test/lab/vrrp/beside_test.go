package vrrp

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// A director that is a router of VRRP as well: the two worlds do not meet.
func TestARouterOnANodeOfAClusterHasAKeepalivedForABackup(t *testing.T) {
	t.Parallel()
	const address = "192.168.56.210"
	web := "  web:\n    prefer: [director1, director2]\n    resources:\n      - vip: " + four + "/eth0\n"
	more := web + "  more:\n    prefer: [director2, director1]\n    resources:\n      - vip: " + address + "/24/eth0\n"
	c := newClusterScene(t, address+"/24", scenario.Options{Groups: web})
	routers := fmt.Sprintf(`vrrp_instance:
  site:
    interface: eth0
    state: MASTER
    priority: 150
    virtual_router_id: %d
    virtual_ipaddress: %s/24
`, announcedVRID, address)
	c.Director1.WriteFile(directory+"vrrp.yaml", routers, 0o600)
	c.begin()
	began := time.Now()
	c.keepalived(2, 100, "1")
	c.other.WaitLog(limit, "Entering BACKUP STATE")
	c.announces(c.Director1, time.Now())
	c.silent("the start", began)

	// One into a daemon that would not start is refused before anything stops.
	c.Director1.WriteFile(directory+"vrrp.yaml", strings.Replace(routers, "150", "300", 1), 0o600)
	since := time.Now()
	if out, err := c.Director1.Keepbeat("restart"); err == nil || !strings.Contains(out, "300 is out of range") {
		t.Errorf("a restart with a faulty vrrp.yaml: %v\n%s", err, out)
	}
	c.silent("a restart that was refused", since)
	c.Director1.WriteFile(directory+"vrrp.yaml", routers, 0o600)

	// A restart is no handover of the cluster's group, and one of the router.
	since = time.Now()
	c.must(c.Director1, "restart")
	c.announces(c.Director1, since)
	c.gives("a restart", since)
	if c.status("all to be well", well); c.owner() != c.Director1 {
		t.Error("a restart has moved the group")
	}
	c.Lab.Eventually(limit, address+" to be director1's alone", func() bool {
		return c.Director1.HasAddress(address) && !c.router9.HasAddress(address)
	})

	c.Director1.WriteFile(directory+"haresources.yaml", "groups:\n"+more, 0o644)
	if out, err := c.Director1.Keepbeat("apply"); err == nil || !strings.Contains(out, address) {
		t.Errorf("what vrrp.yaml has here is applied to the cluster: %v\n%s", err, out)
	}
	since = time.Now()
	if err := c.other.Terminate(limit); err != nil {
		t.Errorf("keepalived, told to stop: %v", err)
	}
	// The other node does not know of it: the cluster's rules win.
	c.WriteSpec(c.Director2, scenario.Options{Groups: more})
	c.must(c.Director2, "apply")
	c.Daemons[c.Director1.Name].WaitLog(limit, "ALARM: vrrp.yaml has what is the cluster's now.*"+address)
	c.Lab.Eventually(limit, address+" to be director2's alone", func() bool {
		return c.Director2.HasAddress(address) && !c.Director1.HasAddress(address)
	})
	if all := c.sent(c.Director1, since); all[len(all)-1].priority() != 0 {
		t.Errorf("the router does not leave when the cluster takes its address:\n%s", c.story(since))
	}

	since = time.Now()
	c.WriteSpec(c.Director2, scenario.Options{Groups: web})
	c.must(c.Director2, "apply")
	c.announces(c.Director1, since)
	c.Lab.Eventually(limit, address+" to be director1's alone again", func() bool {
		return c.Director1.HasAddress(address) && !c.Director2.HasAddress(address)
	})
	c.status("all to be well", well)
}

// gives holds that director1 has left by an advertisement of priority 0, router9
// has taken over after it, and director1 has taken it back.
func (c *clusterScene) gives(event string, since time.Time) {
	c.t.Helper()
	own, others := c.sent(c.Director1, since), c.sent(c.router9, since)
	left := -1
	for n, a := range own {
		if a.priority() == 0 {
			left = n
			break
		}
	}
	if left < 0 || left == len(own)-1 || len(others) == 0 ||
		!others[0].at.After(own[left].at) || !own[left+1].at.After(others[0].at) {
		c.t.Errorf("%s: director1 does not give to router9 and take back:\n%s", event, c.story(since))
	}
}
