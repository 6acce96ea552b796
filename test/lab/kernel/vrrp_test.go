//go:build labkernel

package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
)

// The addresses of the examples: the directors' are the lab's.
const (
	routedVIP          = "172.16.100.1"
	routed1, routed2   = "172.16.100.11", "172.16.100.12"
	routerFile         = "/etc/keepbeat/vrrp.yaml"
	routerDown         = "/etc/keepbeat/down"
	routedPage         = "http://" + routedVIP + "/"
	routedCheckEach    = "checkinterval: 2s"
	exampleCheckEach   = "checkinterval: 6s"
	exampleCheckIfDown = "checkinterval_down: 3s"
)

// routed are two directors that VRRP alone decides about, two servers in gate mode and a client.
type routed struct {
	*lab.Lab
	t             *testing.T
	lb1, lb2      *lab.Host
	rs            [2]*lab.Host
	httpd         [2]*lab.RealServer
	client        *lab.Host
	daemon        map[*lab.Host]*lab.Process
	vrrp, servers string // files of the example
}

func newRouted(t *testing.T, example string) *routed {
	t.Helper()
	r := &routed{Lab: lab.New(t), t: t, daemon: map[*lab.Host]*lab.Process{}}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join("../../../conf/examples", example, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(b), "/etc/keepalived/", "/etc/keepbeat/")
	}
	r.vrrp = read("vrrp.yaml")
	// What the servers do is seen earlier; the rest is as it stands.
	r.servers = strings.NewReplacer(exampleCheckEach, routedCheckEach, exampleCheckIfDown, "checkinterval_down: 1s").Replace(read("ldirectord.yaml"))
	wire := r.Switch("wire")
	host := func(name, address string) *lab.Host {
		h := r.Host(name)
		h.Attach(wire, "eth0", address+"/16")
		return h
	}
	r.lb1, r.lb2, r.client = host("lb1", "172.16.0.1"), host("lb2", "172.16.0.2"), host("client", "172.16.0.50")
	for n, address := range []string{routed1, routed2} {
		r.rs[n] = host(fmt.Sprintf("rs%d", n+1), address)
		r.rs[n].AddressOnLo(routedVIP)
		r.serve(n)
	}
	for _, h := range []*lab.Host{r.lb1, r.lb2} {
		h.StartHTTP("sorry", ":80")
		r.start(h)
	}
	return r
}

func (r *routed) serve(n int) { r.httpd[n] = r.rs[n].StartHTTP(r.rs[n].Name, ":80") }

// start starts the daemon; lb2 has the second router's part.
func (r *routed) start(h *lab.Host) {
	r.t.Helper()
	text := r.vrrp
	if h == r.lb2 {
		text = strings.NewReplacer("state: MASTER", "state: BACKUP", "priority: 101", "priority: 100").Replace(text)
	}
	h.WriteFile(routerFile, text, 0o600)
	h.WriteFile(pool, r.servers, 0o644)
	r.daemon[h] = h.StartKeepbeat("run")
}

// has waits until the kernel's table of a host has these servers with weight 1, and no others.
func (r *routed) has(h *lab.Host, want ...string) {
	r.t.Helper()
	table := map[string]int{}
	for _, address := range want {
		table[address] = 1
	}
	var got map[string]int
	deadline := time.Now().Add(limit)
	for {
		if got = weightsOf(h, routedVIP); fmt.Sprint(got) == fmt.Sprint(table) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("the table on %s is %v, want %v", h.Name, got, table)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// only waits until one director has the address and the other does not.
func (r *routed) only(h *lab.Host) {
	r.t.Helper()
	other := map[*lab.Host]*lab.Host{r.lb1: r.lb2, r.lb2: r.lb1}[h]
	r.Eventually(limit, h.Name+" alone to have the address", func() bool {
		return h.HasAddress(routedVIP) && !other.HasAddress(routedVIP)
	})
}

func (r *routed) browse() *lab.Client {
	return r.client.GetHTTP(routedPage, 100*time.Millisecond, 3*time.Second)
}

func TestDirectorsOfKeepalivedWithHTTPChecks(t *testing.T) {
	r := newRouted(t, "vrrp-lvs-http")
	browser := r.browse()
	r.only(r.lb1)
	for _, h := range []*lab.Host{r.lb1, r.lb2} { // the pool belongs to no instance
		r.has(h, routed1, routed2)
	}
	who := browser.WaitAnswer("", probe.Now(), limit).Who
	stuck := 0 // the client stays with one server: persistence
	if who == "rs2" {
		stuck = 1
	}
	other := 1 - stuck
	addresses := []string{routed1, routed2}

	died := r.httpd[stuck].Kill()
	browser.WaitAnswer(r.rs[other].Name, died, limit)
	for _, h := range []*lab.Host{r.lb1, r.lb2} {
		r.has(h, addresses[other])
	}
	r.serve(stuck)
	for _, h := range []*lab.Host{r.lb1, r.lb2} {
		r.has(h, routed1, routed2)
	}

	r.lb1.WriteFile(routerDown, "", 0o644)
	r.only(r.lb2)
	browser.WaitAnswer("", probe.Now(), limit)
	r.lb1.Run("rm", routerDown)
	r.only(r.lb1)
	browser.WaitAnswer("", probe.Now(), limit)

	r.lb1.Die()
	r.only(r.lb2)
	browser.WaitAnswer("", probe.Now(), limit)
	r.has(r.lb2, routed1, routed2)
}

func TestDirectorsOfKeepalivedWithTCPChecksAndASorryServer(t *testing.T) {
	r := newRouted(t, "vrrp-lvs-tcp-sorry")
	browser := r.browse()
	r.only(r.lb1)
	r.has(r.lb1, routed1, routed2)
	r.has(r.lb2) // the pool belongs to the instance
	browser.WaitAnswer("", probe.Now(), limit)

	for n := range r.httpd {
		r.httpd[n].Kill()
	}
	r.has(r.lb1, "127.0.0.1")
	browser.WaitAnswer("sorry", probe.Now(), limit)
	r.serve(0)
	r.has(r.lb1, routed1)
	browser.WaitAnswer("rs1", probe.Now(), limit)
	r.serve(1)
	r.has(r.lb1, routed1, routed2)

	if err := r.daemon[r.lb1].Terminate(limit); err != nil {
		t.Errorf("told to stop: %v", err)
	}
	r.only(r.lb2)
	r.has(r.lb2, routed1, routed2)
	r.has(r.lb1)
	browser.WaitAnswer("", probe.Now(), limit)
	r.start(r.lb1)
	r.only(r.lb1)
	r.has(r.lb1, routed1, routed2)
	r.has(r.lb2)
	browser.WaitAnswer("", probe.Now(), limit)
}
