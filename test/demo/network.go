package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
)

const (
	// example holds the configuration that is shown, used as it is.
	example = "conf/examples/heartbeat-2"

	vip   = "192.168.56.200"
	group = vip // heartbeat's lines have no names: the first resource gives it
	real1 = "192.168.56.103"
	real2 = "192.168.56.104"
	local = "127.0.0.1" // where the fallback is
)

// network is the pair's: eth1 is the service network, over which heartbeats go
// too, and eth2 the second link.
type network struct {
	t   lab.TB
	lab *lab.Lab

	service, second               *lab.Switch
	director1, director2, arbiter *lab.Host
	reals                         [2]*lab.Host
	client                        *lab.Host

	daemons map[*lab.Host]*lab.Process
	httpd   [2]*lab.RealServer
}

// withProfile is ha.yaml with another profile than its own, if one is named.
func withProfile(ha, profile string) string {
	if profile == "" {
		return ha
	}
	lines := slices.Collect(strings.Lines(ha))
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "profile:") })
	return strings.Join(lines, "") + "profile: " + profile + "\n"
}

// newNetwork makes the machines and starts everything but keepbeat. An empty
// profile is that of the files.
func newNetwork(t lab.TB, profile string) *network {
	n := &network{t: t, lab: lab.New(t), daemons: map[*lab.Host]*lab.Process{}}
	n.service, n.second = n.lab.Switch("service"), n.lab.Switch("second link")
	n.director1, n.director2, n.arbiter = n.node("director1", 101), n.node("director2", 102), n.node("arbiter", 110)
	for i := range n.reals {
		n.reals[i] = n.host(fmt.Sprintf("rs%d", i+1), 103+i)
		n.reals[i].AddressOnLo(vip)
		n.startHTTP(i)
	}
	n.client = n.host("client", 50)
	files, err := os.ReadDir(example)
	if err != nil {
		t.Fatalf("%v: run this in the directory of the keepbeat module, as make demo does", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(example, f.Name()))
		if err != nil {
			t.Fatalf("%v", err)
		}
		for _, h := range n.nodes() {
			switch f.Name() {
			case "authkeys":
				h.WriteFile("/etc/keepbeat/authkeys", string(b), 0o600)
			case "ha.yaml":
				h.WriteFile("/etc/keepbeat/ha.yaml", withProfile(string(b), profile), 0o644)
			default: // the cluster's own: a witness needs none of them
				if h != n.arbiter {
					h.WriteFile("/etc/keepbeat/"+f.Name(), string(b), 0o644)
				}
			}
		}
	}
	for _, h := range n.directors() {
		h.StartResponder()
		n.startFallback(h)
	}
	return n
}

func (n *network) host(name string, last int) *lab.Host {
	h := n.lab.Host(name)
	h.Attach(n.service, "eth1", fmt.Sprintf("192.168.56.%d/24", last))
	return h
}

func (n *network) node(name string, last int) *lab.Host {
	h := n.host(name, last)
	h.Attach(n.second, "eth2", fmt.Sprintf("10.56.2.%d/24", last))
	return h
}

func (n *network) nodes() []*lab.Host     { return []*lab.Host{n.director1, n.director2, n.arbiter} }
func (n *network) directors() []*lab.Host { return []*lab.Host{n.director1, n.director2} }

func (n *network) start(h *lab.Host) { n.daemons[h] = h.StartKeepbeat("run") }

// startHTTP starts the web server of real server i.
func (n *network) startHTTP(i int) { n.httpd[i] = n.reals[i].StartHTTP(n.reals[i].Name, ":80") }

// stopHTTP ends it as its init script would.
func (n *network) stopHTTP(i int) {
	if err := n.httpd[i].Terminate(30 * time.Second); err != nil {
		n.t.Fatalf("stopping httpd on %s: %v", n.reals[i].Name, err)
	}
}

// startFallback starts the web server that a director itself has, for the day
// when no real server is left.
func (n *network) startFallback(h *lab.Host) { h.StartHTTP(fallbackPage+"-"+h.Name, ":80") }

// status asks the daemon on the host.
func (n *network) status(h *lab.Host) (cluster.Status, error) {
	var s cluster.Status
	out, err := h.Keepbeat("status", "--json")
	if err != nil {
		return s, fmt.Errorf("keepbeat status on %s: %w: %s", h.Name, err, strings.TrimSpace(out))
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return s, fmt.Errorf("keepbeat status on %s: %w", h.Name, err)
	}
	return s, nil
}

// groupOf is the group of this story as the status has it; a zero one before there is any.
func groupOf(s cluster.Status) cluster.GroupStatus {
	if i := slices.IndexFunc(s.Groups, func(g cluster.GroupStatus) bool { return g.Name == group }); i >= 0 {
		return s.Groups[i]
	}
	return cluster.GroupStatus{}
}

// activeOn says whether the status has the group active on the host.
func activeOn(s cluster.Status, h *lab.Host) bool {
	g := groupOf(s)
	return g.State == "active" && g.Owner == h.Name
}

// links is how many links the asked node has up towards its peers, and how many there are.
func links(s cluster.Status) (up, all int) {
	for _, node := range s.Nodes {
		for _, l := range node.Links {
			all++
			if l.State == "up" {
				up++
			}
		}
	}
	return up, all
}

// weightsOn is the kernel's table of the virtual service on a director: each
// server's weight. It is empty where the service is not. It starts no process.
func (n *network) weightsOn(h *lab.Host) map[string]int {
	path := fmt.Sprintf("/proc/%d/net/ip_vs", n.daemons[h].PID())
	b, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatalf("the table of IPVS on %s: %v", h.Name, err)
	}
	return weights(string(b))
}

// weights reads a table as the kernel shows it:
//
//	TCP  C0A838C8:0050 wlc
//	  -> C0A83867:0050      Route   1      0          0
func weights(shown string) map[string]int {
	table := map[string]int{}
	ours := false
	for line := range strings.Lines(shown) {
		f := strings.Fields(line)
		switch {
		case len(f) < 2:
		case f[0] == "TCP":
			ours = f[1] == hexEndpoint(vip)
		case f[0] != "->":
			ours = false
		case ours && len(f) >= 4:
			w, err := strconv.Atoi(f[3])
			for _, address := range []string{real1, real2, local} {
				if err == nil && f[1] == hexEndpoint(address) {
					table[address] = w
				}
			}
		}
	}
	return table
}

// hexEndpoint is port 80 of an IPv4 address as the kernel's tables write it.
func hexEndpoint(address string) string {
	a := netip.MustParseAddr(address).As4()
	return fmt.Sprintf("%X:0050", a[:])
}

// hbStandby runs heartbeat's old command, the same program by another name.
func (n *network) hbStandby(h *lab.Host) (string, error) {
	old := filepath.Join(filepath.Dir(n.lab.Keepbeat()), "hb_standby")
	if _, err := os.Stat(old); errors.Is(err, os.ErrNotExist) {
		n.t.Fatalf("%s is missing: make build makes it, a link to keepbeat", old)
	}
	return h.Try(old)
}
