// Package scenario builds the clusters that lab tests, the demonstration and
// the benchmarks share: the classic pair of directors with a witness.
package scenario

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
)

// VIP and its IPv6 companion are the addresses that every cluster here owns.
const (
	VIP      = "192.168.56.200"
	VIP6     = "fd56::200"
	Director = "192.168.56.10" // + n: director n's own address
	Client   = "192.168.56.1"
)

// authkeys is every node's.
const authkeys = "auth 1\n1 sha1 a-secret-of-the-lab-only\n"

// Options shape a Trio.
type Options struct {
	Profile  string   // fast, default, calm; empty: default
	Links    []string // lines below `links:`; empty: bcast on both
	Failback bool     // auto_failback
	Groups   string   // haresources.yaml below `groups:`; empty: group web with the VIP
	Pools    map[string]string
	Extra    string // more lines of ha.yaml
}

// Trio is two directors, a witness and a client: two heartbeat switches and the service network.
type Trio struct {
	Lab       *lab.Lab
	Heartbeat [2]*lab.Switch
	Service   *lab.Switch
	Director1 *lab.Host
	Director2 *lab.Host
	Arbiter   *lab.Host
	Client    *lab.Host
	Daemons   map[string]*lab.Process
}

// TB is what a Trio needs of a test.
type TB = lab.TB

// NewTrio makes the machines, writes their files and starts no daemon.
// Interfaces: eth0 service, eth1 and eth2 heartbeat.
func NewTrio(t TB, o Options) *Trio {
	l := lab.New(t)
	c := &Trio{Lab: l, Daemons: map[string]*lab.Process{}}
	c.Heartbeat[0], c.Heartbeat[1], c.Service = l.Switch("heartbeat1"), l.Switch("heartbeat2"), l.Switch("service")
	for i, h := range []**lab.Host{&c.Director1, &c.Director2, &c.Arbiter} {
		name := []string{"director1", "director2", "arbiter"}[i]
		*h = l.Host(name)
		for n, s := range c.Heartbeat {
			(*h).Attach(s, fmt.Sprintf("eth%d", n+1), fmt.Sprintf("10.0.%d.%d/24", n+1, i+1))
		}
		if name != "arbiter" {
			(*h).Attach(c.Service, "eth0", fmt.Sprintf("192.168.56.1%d/24", i+1), fmt.Sprintf("fd56::1%d/64", i+1))
			(*h).StartResponder()
		}
	}
	c.Client = l.Host("client")
	c.Client.Attach(c.Service, "eth0", Client+"/24", "fd56::1/64")
	c.WriteFiles(o)
	return c
}

// Nodes are the three machines that run keepbeat.
func (c *Trio) Nodes() []*lab.Host { return []*lab.Host{c.Director1, c.Director2, c.Arbiter} }

// WriteFiles writes every node's configuration.
func (c *Trio) WriteFiles(o Options) {
	if o.Profile == "" {
		o.Profile = "default"
	}
	if len(o.Links) == 0 {
		o.Links = []string{"- bcast: eth1", "- bcast: eth2"}
	}
	ha := "cluster: lab\nnodes:\n  director1: {}\n  director2: {}\n  arbiter: {role: witness}\nlinks:\n  " +
		strings.Join(o.Links, "\n  ") + "\nprofile: " + o.Profile + "\n" + o.Extra
	for _, h := range c.Nodes() {
		h.WriteFile("/etc/keepbeat/ha.yaml", ha, 0o644)
		h.WriteFile("/etc/keepbeat/authkeys", authkeys, 0o600)
		if h != c.Arbiter {
			c.WriteSpec(h, o)
		}
	}
}

// WriteSpec writes haresources.yaml and the pools of one node.
func (c *Trio) WriteSpec(h *lab.Host, o Options) {
	failback := "off"
	if o.Failback {
		failback = "on"
	}
	groups := o.Groups
	if groups == "" {
		groups = "  web:\n    prefer: [director1, director2]\n    resources:\n      - vip: " + VIP + "/24/eth0\n"
	}
	h.WriteFile("/etc/keepbeat/haresources.yaml", "auto_failback: "+failback+"\ngroups:\n"+groups, 0o644)
	for name, text := range o.Pools {
		h.WriteFile("/etc/keepbeat/"+name, text, 0o644)
	}
}

// Start starts the daemon of a node.
func (c *Trio) Start(h *lab.Host) *lab.Process {
	p := h.StartKeepbeat("run")
	c.Daemons[h.Name] = p
	return p
}

// StartAll starts every daemon and waits until every group is active.
func (c *Trio) StartAll(limit time.Duration) {
	for _, h := range c.Nodes() {
		c.Start(h)
	}
	c.WaitActive(limit)
}

// Status asks a node; ok is false when it does not answer.
func (c *Trio) Status(h *lab.Host) (s cluster.Status, ok bool) {
	out, err := h.Keepbeat("status", "--json")
	if err != nil {
		return s, false
	}
	return s, json.Unmarshal([]byte(out), &s) == nil
}

// Active says whether every group is active, as a node sees it, and where the first one is.
func (c *Trio) Active(h *lab.Host) (owner string, active bool) {
	s, ok := c.Status(h)
	if !ok || len(s.Groups) == 0 {
		return "", false
	}
	for _, g := range s.Groups {
		if g.State != "active" {
			return g.Owner, false
		}
	}
	return s.Groups[0].Owner, true
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
