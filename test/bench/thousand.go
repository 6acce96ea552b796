package main

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
)

const (
	crowdRouters  = 1000
	crowdLinks    = 4 // an interface has 255 VRIDs
	crowdInterval = time.Second
	// crowdCalm is how long everything is left alone before it is measured:
	// the second burst of gratuitous ARP is over.
	crowdCalm = 10 * time.Second
)

// Crowd is what a program takes that has 1,000 instances and nothing to do but the protocol.
type Crowd struct {
	Program string  `json:"program"`
	Role    string  `json:"role"`
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_percent"` // of one core
	RSS     float64 `json:"rss_mib"`
	PSS     float64 `json:"pss_mib"`
	Budget  Budget  `json:"budget"`
	Met     bool    `json:"met"`
}

func crowd(priority int) (all []vrouter) {
	for n := range crowdRouters {
		link := n % crowdLinks
		vrid := n/crowdLinks + 1
		all = append(all, vrouter{
			vrid: vrid, ifname: fmt.Sprintf("eth%d", link), priority: priority, interval: crowdInterval,
			addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 100, byte(link), byte(vrid)})},
		})
	}
	return all
}

// thousand measures masters alone, and then masters and backups beside each other.
func (r *vrrpReport) thousand(t lab.TB, p vrrpProgram, length time.Duration) {
	l := lab.New(t)
	one, two := l.Host("router1"), l.Host("router2")
	for link := range crowdLinks {
		wire := l.Switch(fmt.Sprintf("wire%d", link))
		for n, h := range []*lab.Host{one, two} {
			h.Attach(wire, fmt.Sprintf("eth%d", link), fmt.Sprintf("10.0.%d.%d/24", link, n+1))
		}
	}
	one.WriteFile(p.file, p.write(crowd(200)), 0o644)
	two.WriteFile(p.file, p.write(crowd(100)), 0o644)
	master := p.start(one)
	l.Eventually(2*patience, "1,000 masters", func() bool { return virtualAddresses(t, one) == crowdRouters })
	time.Sleep(crowdCalm)
	r.Thousand = append(r.Thousand, crowdUsage(t, p.name, length, []string{"1,000 masters, nobody else"}, master)...)

	backup := p.start(two)
	time.Sleep(crowdCalm)
	r.Thousand = append(r.Thousand, crowdUsage(t, p.name, length, []string{"1,000 masters, beside backups", "1,000 backups"}, master, backup)...)
	if n, m := virtualAddresses(t, one), virtualAddresses(t, two); n != crowdRouters || m != 0 {
		t.Fatalf("the masters have %d addresses and the backups %d; want %d and none", n, m, crowdRouters)
	}
}

// virtualAddresses counts the addresses of a host that are virtual.
func virtualAddresses(t lab.TB, h *lab.Host) (n int) {
	if err := h.Do(func() error {
		all, err := net.InterfaceAddrs()
		for _, a := range all {
			if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.To4()[1] == 100 {
				n++
			}
		}
		return err
	}); err != nil {
		t.Fatalf("%v", err)
	}
	return n
}

// crowdUsage measures programs for a while.
func crowdUsage(t lab.TB, program string, length time.Duration, roles []string, processes ...*lab.Process) (all []Crowd) {
	look := func() (now []treeUsage) {
		for _, p := range processes {
			u, err := usageOfTree(p.PID())
			if err != nil {
				t.Fatalf("%s: %v", program, err)
			}
			now = append(now, u)
		}
		return now
	}
	before, began := look(), time.Now()
	time.Sleep(length)
	after, took := look(), time.Since(began)
	mib := func(b int64) float64 { return round(float64(b) / (1 << 20)) }
	for i, role := range roles {
		c := Crowd{
			Program: program, Role: role, Seconds: round(took.Seconds()), Budget: Budget{CPU: limit(2.0)},
			CPU: round(100 * (after[i].cpu - before[i].cpu).Seconds() / took.Seconds()), RSS: mib(after[i].rss), PSS: mib(after[i].pss),
		}
		c.Met = c.CPU <= *c.Budget.CPU
		say("%s, %s: %.2f %% of a core, %.1f MiB (%.1f MiB with its part of what is shared)", program, role, c.CPU, c.RSS, c.PSS)
		all = append(all, c)
	}
	return all
}
