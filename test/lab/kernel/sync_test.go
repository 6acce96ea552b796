//go:build labkernel

package kernel

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
)

// transfer is one TCP connection from the client through the VIP that goes on
// as long as the test: a page every 100 ms, always on the same connection.
type transfer struct {
	name string
	conn net.Conn

	mu      sync.Mutex // guards what follows
	who     string     // the server of the last page
	pages   int
	longest time.Duration // for one page
	err     error

	quit, done chan struct{}
}

// patient is how long a page may take: a takeover of the slow lab kernel, and
// what TCP waits until it sends again after that.
const patient = 45 * time.Second

func (p *pair) transfer(name, address string) *transfer {
	p.t.Helper()
	var conn net.Conn
	err := p.client.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", address, 5*time.Second)
		return err
	})
	if err != nil {
		p.t.Fatalf("%s: %v", name, err)
	}
	return p.transferOn(name, conn, address)
}

func (p *pair) transferOn(name string, conn net.Conn, address string) *transfer {
	c := &transfer{name: name, conn: conn, quit: make(chan struct{}), done: make(chan struct{})}
	go c.run(address)
	p.t.Cleanup(func() {
		close(c.quit)
		<-c.done
	})
	return c
}

// server is whose the last page was.
func (c *transfer) server() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.who
}

func (c *transfer) run(address string) {
	defer close(c.done)
	defer c.conn.Close()
	r := bufio.NewReader(c.conn)
	for {
		select {
		case <-c.quit:
			return
		case <-time.After(100 * time.Millisecond):
		}
		began := time.Now()
		who, err := page(c.conn, r, address)
		c.mu.Lock()
		c.who, c.pages, c.longest, c.err = who, c.pages+1, max(c.longest, time.Since(began)), err
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// page fetches one on a connection, and tells whose it is.
func page(c net.Conn, r *bufio.Reader, address string) (who string, err error) {
	if err := c.SetDeadline(time.Now().Add(patient)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", address); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<16))
	if err != nil {
		return "", err
	}
	if answer.Close || answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the server says %s, close: %v", answer.Status, answer.Close)
	}
	return strings.TrimSpace(string(body)), answer.Body.Close()
}

// goesOn waits for pages after now, and tells how long the longest took so far.
func (c *transfer) goesOn(p *pair, what string) {
	p.t.Helper()
	c.mu.Lock()
	before := c.pages
	c.mu.Unlock()
	p.lab.Eventually(limit, what+": pages on the connection through "+c.name, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err != nil {
			p.t.Fatalf("%s: the connection through %s ended after %d pages: %v", what, c.name, c.pages, c.err)
		}
		return c.pages >= before+5
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	p.lab.Logf("%s: the connection through %s goes on, %d pages, the longest took %v", what, c.name, c.pages, c.longest.Round(time.Millisecond))
	c.longest = 0
}

// knows waits until the kernel of a host has every transfer's connection in its table.
func (p *pair) knows(h *lab.Host, all ...*transfer) {
	p.t.Helper()
	p.lab.Eventually(limit, "the connections in the table of "+h.Name, func() bool {
		out := h.Run("cat", "/proc/net/ip_vs_conn")
		for _, c := range all {
			port := c.conn.LocalAddr().(*net.TCPAddr).Port
			if !strings.Contains(out, fmt.Sprintf(" C0A83832 %04X ", port)) { // 192.168.56.50
				return false
			}
		}
		return true
	})
}

// syncs waits for the sync daemons of a host, "master" or "backup" or both.
func (p *pair) syncs(h *lab.Host, want string) {
	p.t.Helper()
	p.lab.Eventually(limit, h.Name+" to be "+want, func() bool {
		var states []string
		for line := range strings.Lines(h.Run("ipvsadm", "-L", "--daemon")) {
			states = append(states, strings.Fields(line)[0])
		}
		return strings.Join(states, " ") == want
	})
}

// logged is when a daemon first said something.
func logged(t *testing.T, log, pattern string) time.Time {
	t.Helper()
	m := regexp.MustCompile(`time=(\S+) .*` + pattern).FindStringSubmatch(log)
	if m == nil {
		t.Fatalf("not in the log: %s", pattern)
	}
	at, err := time.Parse(time.RFC3339Nano, m[1])
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// The owner's kernel tells the others of its connections, and a connection
// survives the owner's death, its return, and a planned move.
func TestConnectionsSurviveEveryMove(t *testing.T) {
	p := newPair(t)
	inner := p.lab.Switch("inner")
	for i, h := range p.directors() {
		h.Attach(inner, "eth3", []string{"10.1.0.1/24", "10.1.0.2/24"}[i])
		h.Sysctl("net.ipv4.ip_forward", "1")
	}
	gate := p.host("gate", 103)
	gate.AddressOnLo(vip)
	p.real(gate, ":80")
	masq := p.lab.Host("masq")
	masq.Attach(inner, "eth0", "10.1.0.11/24")
	masq.Run("ip", "route", "add", "default", "via", "10.1.0.254")
	p.real(masq, ":8080")
	p.write(map[string]string{
		"authkeys": exampleFiles(t)["authkeys"], "ha.yaml": ha,
		"haresources.yaml": "ipvs:\n  timeouts: {tcp: 10m}\n  sync: {interface: eth2}\n" +
			strings.Replace(resourcesOf, "prefer:", "auto_failback: yes\n    prefer:", 1) +
			"      - vip: 10.1.0.254/24/eth3\n      - vip: " + vip + "/24/eth1\n      - ldirectord: ldirectord.yaml\n",
		"ldirectord.yaml": "checkinterval: 1s\nchecktimeout: 3s\nvirtual:\n" +
			"  - {address: \"" + vip + ":80\", real: [" + real1 + ":80 gate], service: http, scheduler: rr}\n" +
			"  - {address: \"" + vip + ":8080\", real: [10.1.0.11:8080 masq], service: http, scheduler: rr}\n",
	})
	p.start()
	p.waitOwner(p.director1)
	p.syncs(p.director1, "master")
	p.syncs(p.director2, "backup")
	if out := p.director1.Run("cat", "/proc/sys/net/ipv4/vs/sync_refresh_period"); strings.TrimSpace(out) != "10" {
		t.Errorf("the owner tells of a connection again after %s s", out)
	}
	if d := p.detail(); d.Kernel == nil || len(d.Kernel.Sync) != 1 || !strings.HasPrefix(d.Kernel.Sync[0], "master on eth2, id ") {
		t.Errorf("status says of the kernel: %+v", d.Kernel)
	}

	all := []*transfer{p.transfer("gate", vip+":80"), p.transfer("masq", vip+":8080")}
	goOn := func(what string) {
		t.Helper()
		for _, c := range all {
			c.goesOn(p, what)
		}
	}
	goOn("at first")
	p.knows(p.director2, all...)

	p.director1.Die()
	p.waitOwner(p.director2)
	goOn("after the death of the owner")
	p.syncs(p.director2, "master")

	p.director1.Revive()
	p.director1.Sysctl("net.ipv4.ip_forward", "1")
	p.director1.StartHTTP("fallback", ":80")
	p.run(p.director1)
	p.waitOwner(p.director1)
	log := p.daemons[p.director1].Log()
	received := logged(t, log, `msg="sync daemon stopped".* state=backup`).Sub(logged(t, log, `msg="sync daemon started".* daemon="backup`))
	if received < 15*time.Second {
		t.Errorf("director1 took the group back after %v of receiving connections", received)
	}
	p.lab.Logf("director1 had received connections for %v when it took the group back", received.Round(time.Second))
	goOn("after the return")
	p.syncs(p.director1, "master")
	p.syncs(p.director2, "backup")
	p.knows(p.director2, all...)

	p.must(p.director1, "standby", "--wait=30s")
	p.waitOwner(p.director2)
	goOn("after a standby")
	if out := p.director1.Run("ipvsadm", "-L", "--timeout"); !strings.Contains(out, "900 120 300") {
		t.Errorf("the time-outs were not put back on director1: %s", out)
	}
	for _, h := range p.directors() {
		if err := p.daemons[h].Terminate(limit); err != nil {
			t.Errorf("the daemon on %s ended with %v", h.Name, err)
		}
		p.syncs(h, "")
	}
}
