// Package scenario builds the clusters that lab tests, the demonstration and
// the benchmarks share: two directors with a witness, or alone.
package scenario

import (
	"fmt"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
)

// VIP and its IPv6 companion are the addresses that every cluster here owns.
const (
	VIP      = "192.168.56.200"
	VIP6     = "fd56::200"
	Director = "192.168.56.10" // + n: director n's own address
	Client   = "192.168.56.1"
)

// Options shape a Trio or a Pair.
type Options struct {
	Profile  string   // fast, default, calm; empty: default
	Links    []string // lines below `links:`; empty: bcast on both
	Failback bool     // auto_failback
	Groups   string   // haresources.yaml below `groups:`; empty: group web with the VIP
	Pools    map[string]string
	Extra    string // more lines of ha.yaml
	Fencing  string // haresources.yaml below `fencing:`; empty: a Pair under rule Fencing has its Power, a Trio none
}

// Trio is two directors, a witness and a client: two heartbeat switches and the service network.
type Trio struct {
	*Directors
	Arbiter *lab.Host
}

// TB is what a scenario needs of a test.
type TB = lab.TB

// NewTrio makes the machines, writes their files and starts no daemon.
// Interfaces: eth0 service, eth1 and eth2 heartbeat.
func NewTrio(t TB, o Options) *Trio {
	c := &Trio{Directors: NewDirectors(t)}
	c.Arbiter = c.Lab.Host("arbiter")
	c.attachHeartbeats(c.Arbiter, 3)
	c.WriteFiles(o)
	return c
}

// Nodes are the three machines that run keepbeat.
func (c *Trio) Nodes() []*lab.Host { return []*lab.Host{c.Director1, c.Director2, c.Arbiter} }

// WriteFiles writes every node's configuration.
func (c *Trio) WriteFiles(o Options) {
	for _, h := range c.Nodes() {
		c.writeLocal(h, "  director1: {}\n  director2: {}\n  arbiter: {role: witness}\n", o)
		if h != c.Arbiter {
			c.WriteSpec(h, o)
		}
	}
}

// StartAll starts every daemon and waits until every group is active.
func (c *Trio) StartAll(limit time.Duration) {
	for _, h := range c.Nodes() {
		c.Start(h)
	}
	c.WaitActive(limit)
}

// Active says whether every group is active, as a node sees it, and where the first one is.
func (c *Trio) Active(h *lab.Host) (owner string, active bool) {
	s, ok := c.Status(h)
	if !ok {
		return "", false
	}
	return activeIn(s)
}

// WaitActive waits until every group is active.
func (c *Trio) WaitActive(limit time.Duration) {
	c.Lab.Eventually(limit, "every group is active", func() bool {
		_, active := c.Active(c.Arbiter)
		return active
	})
}

// WaitOwner waits until every group is active and the first is on a host.
func (c *Trio) WaitOwner(h *lab.Host, limit time.Duration) {
	c.Lab.Eventually(limit, "the first group is active on "+h.Name, func() bool {
		owner, active := c.Active(c.Arbiter)
		return active && owner == h.Name
	})
}

// SecondCluster makes another trio, east1, east2 and eastern-witness, on the same
// wires with the same key: a cluster of that name with its own address, which
// east1 is preferred for. No daemon is started.
func (c *Trio) SecondCluster(name, vip string) []*lab.Host {
	var hosts []*lab.Host
	for i, host := range []string{"east1", "east2", "eastern-witness"} {
		h := c.Lab.Host(host)
		for n, s := range c.Heartbeat {
			h.Attach(s, fmt.Sprintf("eth%d", n+1), fmt.Sprintf("10.0.%d.%d/24", n+1, 101+i))
		}
		h.WriteFile("/etc/keepbeat/ha.yaml", "cluster: "+name+"\nnodes:\n  east1: {}\n  east2: {}\n  eastern-witness: {role: witness}\n"+
			"links:\n  - bcast: eth1\n  - bcast: eth2\n", 0o644)
		h.WriteFile("/etc/keepbeat/authkeys", authkeys, 0o600)
		if i < 2 {
			h.Attach(c.Service, "eth0", fmt.Sprintf("192.168.56.%d/24", 121+i))
			h.StartResponder()
			h.WriteFile("/etc/keepbeat/haresources.yaml", "groups:\n  east:\n    prefer: [east1, east2]\n    resources:\n      - vip: "+vip+"/24/eth0\n", 0o644)
		}
		hosts = append(hosts, h)
	}
	return hosts
}
