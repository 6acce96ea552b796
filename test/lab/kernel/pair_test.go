//go:build labkernel

package kernel

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/resources/ipvs"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/uml"
)

const (
	vip     = "192.168.56.200"
	real1   = "192.168.56.103"
	real2   = "192.168.56.104"
	real3   = "192.168.56.105"
	example = "../../../conf/examples/heartbeat-2"
	pool    = "/etc/keepbeat/ldirectord.yaml"
)

// patience is for the lab kernel, whose one slow processor everybody shares:
// daemons do not always get it in time for shorter leases.
const patience = "keepalive: 250ms\ndeadtime: 5s"

// haCalm is ha.yaml where nobody has to take over soon, and clients must not
// notice how busy the machine is.
const haCalm = `cluster: lab
nodes: {director1: {}, director2: {}, arbiter: {role: witness}}
links: [{bcast: eth1}, {bcast: eth2}]
keepalive: 1s
deadtime: 30s`

// pair is heartbeat's classic: two directors and a witness on two wires, of which
// eth1 is the service network too, three web servers and a client.
type pair struct {
	t   *testing.T
	lab *lab.Lab

	service, second               *lab.Switch
	director1, director2, arbiter *lab.Host
	reals                         []*lab.Host
	httpd                         []*lab.RealServer
	client                        *lab.Host
	daemons                       map[*lab.Host]*lab.Process
	observers                     [2]*lab.Client
}

// newPair makes the machines; both directors answer probes and serve the fallback's page.
func newPair(t *testing.T) *pair {
	t.Helper()
	l := lab.New(t)
	p := &pair{t: t, lab: l, service: l.Switch("service"), second: l.Switch("second"), daemons: map[*lab.Host]*lab.Process{}}
	node := func(name string, last int) *lab.Host {
		h := p.host(name, last)
		h.Attach(p.second, "eth2", fmt.Sprintf("10.56.2.%d/24", last))
		return h
	}
	p.director1, p.director2, p.arbiter = node("director1", 101), node("director2", 102), node("arbiter", 110)
	p.client = p.host("client", 50)
	for _, d := range p.directors() {
		d.StartResponder()
		d.StartHTTP("fallback", ":80")
	}
	return p
}

// scene is a subtest, whose name then stands beside what fails in it. Where it
// was ended half way, what follows has nothing to begin from.
func (p *pair) scene(name string, f func(t *testing.T)) {
	p.t.Helper()
	whole, halfWay := p.t, false
	whole.Run(name, func(t *testing.T) {
		defer func() { p.t = whole }()
		p.t, halfWay = t, true
		p.lab.Within(t, func() { f(t) })
		halfWay = false
	})
	if halfWay {
		whole.FailNow()
	}
}

func (p *pair) host(name string, last int) *lab.Host {
	h := p.lab.Host(name)
	h.Attach(p.service, "eth1", fmt.Sprintf("192.168.56.%d/24", last))
	return h
}

func (p *pair) nodes() []*lab.Host     { return []*lab.Host{p.director1, p.director2, p.arbiter} }
func (p *pair) directors() []*lab.Host { return []*lab.Host{p.director1, p.director2} }

// real adds a web server; it is rs1, rs2, ... and starts when it is ready.
func (p *pair) real(h *lab.Host, listen string) {
	p.reals = append(p.reals, h)
	p.httpd = append(p.httpd, h.StartHTTP(h.Name, listen))
}

// write puts files into /etc/keepbeat of every node: ha.yaml and authkeys of all, the others of directors.
func (p *pair) write(files map[string]string) {
	for name, text := range files {
		mode := os.FileMode(0o644)
		if name == "authkeys" {
			mode = 0o600
		}
		for _, h := range p.nodes() {
			if h != p.arbiter || name == "authkeys" || name == "ha.yaml" {
				h.WriteFile("/etc/keepbeat/"+name, text, mode)
			}
		}
	}
}

// exampleFiles are those of conf/examples/heartbeat-2; in the lab kernel with patience.
func exampleFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, name := range []string{"authkeys", "ha.yaml", "haresources.yaml", "ldirectord.yaml"} {
		b, err := os.ReadFile(filepath.Join(example, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(b)
	}
	if uml.Inside() {
		files["ha.yaml"] = strings.Replace(files["ha.yaml"], "profile: default", patience, 1)
	}
	return files
}

// start starts every daemon, with two observers, and waits until all is well.
func (p *pair) start() {
	p.t.Helper()
	for i, h := range p.directors() {
		p.observers[i] = p.lab.Observe(p.service, vip, fmt.Sprintf("192.168.56.%d/24", 251+i), h, 2*lab.ProbeInterval())
	}
	p.t.Cleanup(func() {
		if d := lab.Overlap(p.observers[0], p.observers[1]); d != 0 {
			p.t.Errorf("both directors answered for the VIP, for %v in all", d)
		}
	})
	for _, h := range p.nodes() {
		p.run(h)
	}
	p.wait("the group to be active", func(st cluster.Status) bool { return st.Groups[0].State == "active" && len(st.Trouble) == 0 })
}

func (p *pair) run(h *lab.Host) { p.t.Helper(); p.daemons[h] = h.StartKeepbeat("run") }

// status asks director1, or director2 when that is dead.
func (p *pair) status() (st cluster.Status, ok bool) {
	h := p.director1
	if h.Dead() {
		h = p.director2
	}
	out, err := h.Keepbeat("status", "--json")
	return st, err == nil && json.Unmarshal([]byte(out), &st) == nil && len(st.Groups) > 0
}

func (p *pair) wait(what string, ok func(cluster.Status) bool) cluster.Status {
	p.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		st, answered := p.status()
		if answered && ok(st) {
			return st
		}
		if time.Now().After(deadline) {
			out, _ := json.Marshal(st)
			p.t.Fatalf("waited %v in vain for %s; the last status is\n%s", limit, what, out)
		}
		time.Sleep(time.Second)
	}
}

func (p *pair) waitOwner(h *lab.Host) {
	p.t.Helper()
	p.wait("the group to be active on "+h.Name, func(st cluster.Status) bool {
		return st.Groups[0].State == "active" && st.Groups[0].Owner == h.Name
	})
}

// detail is what the owner says of its pool.
func (p *pair) detail() ipvs.Detail {
	p.t.Helper()
	var d ipvs.Detail
	p.wait("the owner's word on its pool", func(st cluster.Status) bool {
		for _, r := range st.Groups[0].Resource {
			b, err := json.Marshal(r.Detail)
			if err == nil && json.Unmarshal(b, &d) == nil && d.Pool != "" && len(d.Services) > 0 {
				return true
			}
		}
		return false
	})
	return d
}

// server is what the owner says of a real server.
func (p *pair) server(address string) ipvs.RealDetail {
	p.t.Helper()
	for _, r := range p.detail().Services[0].Reals {
		if strings.HasPrefix(r.Address, address+":") {
			return r
		}
	}
	return ipvs.RealDetail{}
}

// try types a command, again while the cluster cannot decide: on a busy machine
// voters do not always hear each other in time.
func (p *pair) try(h *lab.Host, args ...string) (out string, err error) {
	p.t.Helper()
	eventually(func() bool {
		out, err = h.TryFor(limit, append([]string{p.lab.Keepbeat()}, args...)...)
		code := lab.ExitCode(err) // negative: it did not end in time
		return code == 0 || code > 0 && !undecided.MatchString(out)
	})
	return out, err
}

var undecided = regexp.MustCompile(`no quorum: this node|no leader|does not answer in time`)

func (p *pair) must(h *lab.Host, args ...string) string {
	p.t.Helper()
	out, err := p.try(h, args...)
	if err != nil {
		p.t.Fatalf("keepbeat %s on %s: %v\n%s", strings.Join(args, " "), h.Name, err, out)
	}
	return out
}

// weights is the kernel's table on a host: the weight of each server of the
// VIP's services, empty where there is none.
func weights(h *lab.Host) map[string]int { return weightsOf(h, vip) }

func weightsOf(h *lab.Host, vip string) map[string]int {
	table := map[string]int{}
	out, err := h.Try("ipvsadm", "-Sn")
	if err != nil {
		return table
	}
	for line := range strings.Lines(out) {
		f := strings.Fields(line) // -a -t 192.168.56.200:80 -r 192.168.56.103:80 -g -w 1
		if len(f) < 8 || f[0] != "-a" || !strings.HasPrefix(f[2], vip+":") {
			continue
		}
		address, _, _ := strings.Cut(f[4], ":")
		for i := range f[:len(f)-1] {
			if f[i] == "-w" {
				table[address], _ = strconv.Atoi(f[i+1])
			}
		}
	}
	return table
}

func (p *pair) waitWeights(h *lab.Host, want map[string]int) {
	p.t.Helper()
	var got map[string]int
	deadline := time.Now().Add(limit)
	for {
		got = weights(h)
		if fmt.Sprint(got) == fmt.Sprint(want) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the table on %s is %v, want %v", h.Name, got, want)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// browse fetches a page through the VIP every 50 ms with a new connection.
func (p *pair) browse() *lab.Client {
	p.t.Helper()
	c := p.client.GetHTTP("http://"+vip+"/", 50*time.Millisecond, 5*time.Second)
	c.WaitAnswer("", c.From, limit)
	return c
}

// browseCalmly is browse for who waits longer than a busy machine can stand still.
func (p *pair) browseCalmly() *lab.Client {
	p.t.Helper()
	c := p.client.GetHTTPSerially("http://"+vip+"/", 50*time.Millisecond, patient)
	c.WaitAnswer("", c.From, limit)
	return c
}

// faultless checks that no request sent since an instant has failed, and waits for those under way.
func (p *pair) faultless(c *lab.Client, since probe.Instant, what string) {
	p.t.Helper()
	now := probe.Now()
	p.lab.Eventually(limit, what+": an end of each request", func() bool { return probe.Complete(c.Samples(), now) })
	if s := c.Summary(since); s.Errors > 0 || s.Answers == 0 {
		p.t.Errorf("%s: %d pages and %d errors, the last: %s", what, s.Answers, s.Errors, s.LastError)
	} else {
		p.lab.Logf("%s: %d pages, %v", what, s.Answers, s.Who)
	}
}
