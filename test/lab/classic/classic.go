// Package classic builds in the lab the network that most lab tests stand on:
// two directors and a witness that own a virtual address, a client, and real
// servers. Its addresses are those of the heartbeat pair whose configuration is
// conf/examples/heartbeat-2.
package classic

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
)

// Addresses of the service network. A node's last byte is the same on all networks.
const (
	VIP  = "192.168.56.200"
	VIP6 = "fd00:56::200"
)

// Config says how the cluster differs from the usual one; the zero value is usual.
type Config struct {
	// Links are the entries of `links:`. None is `bcast: eth2` and `bcast: eth3`.
	Links []string
	// Profile is `profile:`; empty is default.
	Profile string
	// HA has more lines for ha.yaml.
	HA string
	// Haresources is the whole of haresources.yaml; empty is one group, web, of the
	// IPv4 VIP, which prefers director1 and goes back to it (auto_failback).
	Haresources string
	// Pools are the files of IPVS pools that haresources names, by name. They need
	// a kernel with IPVS.
	Pools map[string]string
	// RealServers is how many there are: rs1, rs2 ..., with the VIP on lo and an
	// HTTP server on port 80.
	RealServers int
}

// Cluster is the network and what runs on it. Every host has eth1 on the service
// network; directors and witness have eth2 and eth3 for links as well.
type Cluster struct {
	*lab.Lab
	Service, Link1, Link2         *lab.Switch
	Director1, Director2, Arbiter *lab.Host
	Client                        *lab.Host
	Reals                         []*lab.RealServer

	t       lab.TB
	daemons map[*lab.Host]*lab.Process
}

// New makes the network with its files written and its responders and real
// servers running. No keepbeat runs yet: Start.
func New(t lab.TB, cfg Config) *Cluster {
	t.Helper()
	c := &Cluster{Lab: lab.New(t), t: t, daemons: map[*lab.Host]*lab.Process{}}
	c.Service, c.Link1, c.Link2 = c.Switch("service"), c.Switch("link1"), c.Switch("link2")
	c.Director1, c.Director2, c.Arbiter = c.node("director1", 101), c.node("director2", 102), c.node("arbiter", 110)
	c.Client = c.host("client", 50)

	for _, h := range c.Nodes() {
		h.WriteFile("/etc/keepbeat/ha.yaml", haYAML(cfg), 0o644)
		h.WriteFile("/etc/keepbeat/authkeys", "auth 1\n1 sha1 a-key-for-the-lab-and-nothing-else\n", 0o600)
	}
	haresources := cfg.Haresources
	if haresources == "" {
		haresources = "auto_failback: on\ngroups:\n  web:\n    prefer: [director1, director2]\n    resources:\n      - vip: " + VIP + "/32/eth1\n"
	}
	for _, h := range []*lab.Host{c.Director1, c.Director2} {
		h.WriteFile("/etc/keepbeat/haresources.yaml", haresources, 0o644)
		for name, pool := range cfg.Pools {
			h.WriteFile("/etc/keepbeat/"+name, pool, 0o644)
		}
		h.StartResponder()
	}
	for i := range cfg.RealServers {
		name := fmt.Sprintf("rs%d", i+1)
		h := c.host(name, 103+i)
		h.AddressOnLo(VIP)
		c.Reals = append(c.Reals, h.StartHTTP(name, ":80"))
	}
	return c
}

func haYAML(cfg Config) string {
	var b strings.Builder
	b.WriteString("cluster: web-directors\nnodes:\n  director1: {}\n  director2: {}\n  arbiter: {role: witness}\nlinks:\n")
	links := cfg.Links
	if links == nil {
		links = []string{"bcast: eth2", "bcast: eth3"}
	}
	for _, l := range links {
		fmt.Fprintf(&b, "  - %s\n", l)
	}
	profile := cfg.Profile
	if profile == "" {
		profile = "default"
	}
	fmt.Fprintf(&b, "authkeys: /etc/keepbeat/authkeys\nprofile: %s\n%s", profile, cfg.HA)
	return b.String()
}

// host is one on the service network alone.
func (c *Cluster) host(name string, last int) *lab.Host {
	c.t.Helper()
	h := c.Host(name)
	h.Attach(c.Service, "eth1", fmt.Sprintf("192.168.56.%d/24", last), fmt.Sprintf("fd00:56::%d/64", last))
	return h
}

func (c *Cluster) node(name string, last int) *lab.Host {
	c.t.Helper()
	h := c.host(name, last)
	h.Attach(c.Link1, "eth2", fmt.Sprintf("10.56.1.%d/24", last), fmt.Sprintf("fd00:56:1::%d/64", last))
	h.Attach(c.Link2, "eth3", fmt.Sprintf("10.56.2.%d/24", last), fmt.Sprintf("fd00:56:2::%d/64", last))
	return h
}

// Nodes are both directors and the witness.
func (c *Cluster) Nodes() []*lab.Host { return []*lab.Host{c.Director1, c.Director2, c.Arbiter} }

// Start starts the daemon on the given hosts, on all nodes if none is given.
func (c *Cluster) Start(hosts ...*lab.Host) {
	c.t.Helper()
	if len(hosts) == 0 {
		hosts = c.Nodes()
	}
	for _, h := range hosts {
		c.daemons[h] = h.StartKeepbeat("run")
	}
}

// Daemon is the one that was started last on the host.
func (c *Cluster) Daemon(h *lab.Host) *lab.Process {
	c.t.Helper()
	p := c.daemons[h]
	if p == nil {
		c.t.Fatalf("classic: no daemon was started on %s", h.Name)
	}
	return p
}

// Revive switches a dead node on; its daemon starts as it would at boot.
func (c *Cluster) Revive(h *lab.Host) {
	c.t.Helper()
	h.Revive()
	c.Start(h)
}

// Status asks the daemon on the host.
func (c *Cluster) Status(h *lab.Host) (cluster.Status, error) {
	c.t.Helper()
	var s cluster.Status
	out, err := h.TryFor(10*time.Second, c.Keepbeat(), "status", "--json")
	if err != nil {
		return s, fmt.Errorf("keepbeat status on %s: %w: %s", h.Name, err, out)
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return s, fmt.Errorf("keepbeat status on %s: %w in %s", h.Name, err, out)
	}
	return s, nil
}

// WaitStatus waits until the daemon on the host reports what ok accepts, and ends
// the test with the last report when that takes longer than limit. what completes
// "waited in vain for".
func (c *Cluster) WaitStatus(h *lab.Host, limit time.Duration, what string, ok func(cluster.Status) bool) cluster.Status {
	c.t.Helper()
	var (
		last cluster.Status
		err  error
	)
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		if last, err = c.Status(h); err == nil && ok(last) {
			return last
		}
		if time.Now().After(deadline) {
			out, _ := h.Try(c.Keepbeat(), "status")
			c.t.Fatalf("classic: waited %v in vain for %s (%v); status on %s:\n%s", limit, what, err, h.Name, out)
		}
	}
}

// WaitOwner waits until the group is active on owner, as the daemon on asked sees it.
func (c *Cluster) WaitOwner(asked *lab.Host, group string, owner *lab.Host, limit time.Duration) {
	c.t.Helper()
	c.WaitStatus(asked, limit, fmt.Sprintf("group %s to be active on %s", group, owner.Name), func(s cluster.Status) bool {
		return slices.ContainsFunc(s.Groups, func(g cluster.GroupStatus) bool {
			return g.Name == group && g.Owner == owner.Name && g.State == "active"
		})
	})
}

// Epoch is the group's epoch, which grows with each move.
func (c *Cluster) Epoch(asked *lab.Host, group string) uint64 {
	c.t.Helper()
	s, err := c.Status(asked)
	if err != nil {
		c.t.Fatalf("classic: %v", err)
	}
	for _, g := range s.Groups {
		if g.Name == group {
			return g.Epoch
		}
	}
	c.t.Fatalf("classic: %s knows no group %s", asked.Name, group)
	return 0
}

// Observe watches from now on whether both directors answer for the VIP.
func (c *Cluster) Observe(interval time.Duration) (of1, of2 *lab.Client) {
	c.t.Helper()
	return c.Lab.Observe(c.Service, VIP, "192.168.56.251/24", c.Director1, interval),
		c.Lab.Observe(c.Service, VIP, "192.168.56.252/24", c.Director2, interval)
}
