//go:build labkernel

// Package kernel holds lab tests that need a kernel with IPVS. `make test-lab`
// runs them in the lab kernel where this machine's has none.
package kernel

import (
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
)

// limit is how long anything is waited for: only what is wrong takes so long,
// also on a machine that has much else to do.
const limit = 3 * time.Minute

// A director, two real servers in gate mode and a client, each a host: the
// network that the pool's tests stand on, here programmed by hand.
func TestIPVSCarriesHTTPFromAClientThroughTheVIPToBothRealServers(t *testing.T) {
	l := lab.New(t)
	service := l.Switch("service")
	director, client := l.Host("director"), l.Host("client")
	director.Attach(service, "eth1", "10.9.0.1/24", "10.9.0.100/32")
	client.Attach(service, "eth1", "10.9.0.50/24")
	director.Sysctl("net.ipv4.ip_forward", "1")
	director.Run("ipvsadm", "-A", "-t", "10.9.0.100:80", "-s", "rr")
	for _, rs := range []struct{ name, address string }{{"rs1", "10.9.0.103"}, {"rs2", "10.9.0.104"}} {
		h := l.Host(rs.name)
		h.Attach(service, "eth1", rs.address+"/24")
		h.AddressOnLo("10.9.0.100")
		h.StartHTTP(rs.name, ":80")
		director.Run("ipvsadm", "-a", "-t", "10.9.0.100:80", "-r", rs.address, "-g")
	}

	browser := client.GetHTTP("http://10.9.0.100/", 20*time.Millisecond, 5*time.Second)
	browser.WaitAnswer("rs1", browser.From, limit)
	browser.WaitAnswer("rs2", browser.From, limit)
	if s := browser.Summary(browser.From); s.Errors > 0 {
		t.Errorf("errors: %+v", s)
	}
}

func TestDelayIsThere(t *testing.T) {
	l := lab.New(t)
	wire := l.Switch("wire")
	one, two := l.Host("one"), l.Host("two")
	one.Attach(wire, "eth0", "10.9.1.1/24")
	two.Attach(wire, "eth0", "10.9.1.2/24")
	two.StartResponder()
	one.Run("tc", "qdisc", "add", "dev", "eth0", "root", "netem", "delay", "200ms")
	client := one.Probe("10.9.1.2", 50*time.Millisecond)
	if s := client.WaitAnswer("two", client.From, limit); s.Received.Sub(s.Sent) < 200*time.Millisecond {
		t.Errorf("answered after %v over a link with 200 ms of delay", s.Received.Sub(s.Sent))
	}
}
