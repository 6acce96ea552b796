package vrrp

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
)

const (
	vip1, vip2 = "172.16.100.1", "172.16.100.2"
	notifySh   = "#!/bin/sh\necho $1 >>" + directory + "states\n"
	haproxyCfg = `global
	maxconn 100
defaults
	mode http
	timeout connect 1s
	timeout client 5s
	timeout server 5s
frontend web
	bind *:80
	http-request return status 200 content-type text/plain string "%s"
`
)

// balancers are two hosts with haproxy, whose pages are their names, and a client.
type balancers struct {
	*lab.Lab
	t        *testing.T
	lb1, lb2 *lab.Host
	client   *lab.Host
	haproxy  map[*lab.Host]*lab.Process
	router   map[*lab.Host]*lab.Process
	wants    []string // of the states that lb1's notify program was told
	lb1Port  *lab.Port
}

func newBalancers(t *testing.T) *balancers {
	t.Helper()
	b := &balancers{Lab: lab.New(t), t: t, haproxy: map[*lab.Host]*lab.Process{}, router: map[*lab.Host]*lab.Process{}}
	wire := b.Switch("wire")
	host := func(name string, last int) *lab.Host {
		h := b.Host(name)
		h.Attach(wire, "eth0", fmt.Sprintf("172.16.0.%d/16", last))
		return h
	}
	b.lb1, b.lb2, b.client = host("lb1", 1), host("lb2", 2), host("client", 50)
	b.lb1Port = b.lb1.PortOn(wire)
	for _, h := range []*lab.Host{b.lb1, b.lb2} {
		h.WriteFile(directory+"notify.sh", notifySh, 0o755)
		h.WriteFile(directory+"haproxy.cfg", fmt.Sprintf(haproxyCfg, h.Name), 0o644)
		b.balance(h)
	}
	return b
}

// balance starts haproxy and waits until it serves.
func (b *balancers) balance(h *lab.Host) {
	b.t.Helper()
	b.haproxy[h] = h.Start("haproxy", nil, "/usr/sbin/haproxy", "-db", "-f", directory+"haproxy.cfg")
	b.Eventually(limit, "haproxy of "+h.Name, func() bool {
		out, err := h.Try("curl", "-sf", "http://127.0.0.1/")
		return err == nil && out == h.Name
	})
}

// example is a file of conf/examples with paths that a host of the lab has for itself.
func example(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../../conf/examples", name))
	if err != nil {
		t.Fatal(err)
	}
	return inLab(string(text))
}

func inLab(text string) string { return strings.ReplaceAll(text, "/etc/keepalived/", directory) }

// asSecond makes the file of the first balancer that of the second.
var asSecond = strings.NewReplacer(
	"state: MASTER", "state: BACKUP", "state: BACKUP", "state: MASTER",
	"state MASTER", "state BACKUP", "state BACKUP", "state MASTER",
	"priority: 101", "priority: 100", "priority: 100", "priority: 101",
	"priority 101", "priority 100", "priority 100", "priority 101",
)

func (b *balancers) start(h *lab.Host, p program, file string) {
	b.t.Helper()
	name := map[program]string{keepbeat: "vrrp.yaml", keepalived: "keepalived.conf"}[p]
	h.WriteFile(directory+name, file, 0o600)
	b.router[h] = startRouter(h, p)
}

// told waits until lb1's notify program was told these states besides those before, in this order.
func (b *balancers) told(states ...string) {
	b.t.Helper()
	b.wants = append(b.wants, states...)
	var got []string
	read := func() bool {
		text, err := os.ReadFile(b.lb1.Path(directory + "states"))
		if err != nil && !os.IsNotExist(err) {
			b.t.Fatal(err)
		}
		got = strings.Fields(string(text))
		return len(got) >= len(b.wants)
	}
	b.Eventually(limit, fmt.Sprintf("notify of lb1 to be called with %v", states), read)
	if !slices.Equal(got, b.wants) {
		b.t.Fatalf("notify of lb1 was called with %v, want %v", got, b.wants)
	}
}

func TestTheHaproxyPairOfKeepalived(t *testing.T) {
	t.Parallel()
	legacy, err := os.ReadFile("testdata/keepalived-haproxy.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, second := range []program{keepbeat, keepalived} {
		t.Run("the second is "+string(second), func(t *testing.T) {
			t.Parallel()
			b := newBalancers(t)
			file := example(t, "vrrp-haproxy/vrrp.yaml")
			other := file
			if second == keepalived {
				// Its second script is for a shell, which keepalived 2 does not run: it ignores it.
				other = inLab(string(legacy))
			}
			b.start(b.lb1, keepbeat, file)
			b.start(b.lb2, second, asSecond.Replace(other))
			browser := b.client.GetHTTP("http://"+vip1+"/", 100*time.Millisecond, 2*time.Second)
			answers := func(h *lab.Host, since probe.Instant) { t.Helper(); browser.WaitAnswer(h.Name, since, limit) }

			answers(b.lb1, browser.From)
			b.told("backup", "master")
			b.Eventually(limit, "eth0:0 to have "+vip1, func() bool {
				return strings.Contains(b.lb1.Run("ip", "-o", "address", "show", "label", "eth0:0"), vip1+"/16")
			})

			at := b.haproxy[b.lb1].Kill()
			answers(b.lb2, at)
			b.told("backup")
			at = probe.Now()
			b.balance(b.lb1)
			answers(b.lb1, at)
			b.told("master")

			at = probe.Now()
			b.lb1.WriteFile(downFile, "", 0o644)
			answers(b.lb2, at)
			b.told("backup")
			at = probe.Now()
			b.lb1.Run("rm", downFile)
			answers(b.lb1, at)
			b.told("master")

			at = probe.Now()
			b.lb1Port.Down()
			answers(b.lb2, at)
			b.told("fault")
			at = probe.Now()
			b.lb1Port.Up()
			answers(b.lb1, at)
			b.told("backup", "master")

			at = probe.Now()
			b.lb1.WriteFile(directory+"vrrp.yaml", strings.Replace(file, "priority: 101", "priority: 90", 1), 0o600)
			b.router[b.lb1].Signal(syscall.SIGHUP)
			answers(b.lb2, at)
			b.told("backup")
			at = probe.Now()
			b.lb1.WriteFile(directory+"vrrp.yaml", file, 0o600)
			b.router[b.lb1].Signal(syscall.SIGHUP)
			answers(b.lb1, at)
			b.told("master")

			at = probe.Now()
			if err := b.router[b.lb1].Terminate(limit); err != nil {
				t.Errorf("told to stop: %v", err)
			}
			answers(b.lb2, at)
			if b.lb1.HasAddress(vip1) || !b.lb2.HasAddress(vip1) {
				t.Errorf("%s: lb1 has it: %v, lb2: %v", vip1, b.lb1.HasAddress(vip1), b.lb2.HasAddress(vip1))
			}
		})
	}
}

func TestTwoBalancersThatBothWork(t *testing.T) {
	t.Parallel()
	// A file of keepalived whose second script is for a shell, which is named as keepalived 2 wants it.
	legacy, err := os.ReadFile("testdata/keepalived-dual-master.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, second := range []program{keepbeat, keepalived} {
		t.Run("the second is "+string(second), func(t *testing.T) {
			t.Parallel()
			file := example(t, "vrrp-dual-master/vrrp.yaml")
			other := file
			if second == keepalived {
				other = inLab(string(legacy))
			}
			bothWork(t, file, second, asSecond.Replace(other))
		})
	}
}

func bothWork(t *testing.T, file string, second program, other string) {
	b := newBalancers(t)
	const operator = "ops@example.com"
	mails := employ(t, b.lb2, "127.0.0.1", "LVS_DEVEL", operator, operator)
	b.start(b.lb1, keepbeat, file)
	b.start(b.lb2, second, other)
	one := b.client.GetHTTP("http://"+vip1+"/", 100*time.Millisecond, 2*time.Second)
	two := b.client.GetHTTP("http://"+vip2+"/", 100*time.Millisecond, 2*time.Second)
	answer := func(h1, h2 *lab.Host, since probe.Instant) {
		t.Helper()
		one.WaitAnswer(h1.Name, since, limit)
		two.WaitAnswer(h2.Name, since, limit)
	}
	answer(b.lb1, b.lb2, one.From)

	at := b.lb1.Die()
	answer(b.lb2, b.lb2, at.Add(2*time.Second)) // requests under way end within that time
	at = probe.Now()
	b.lb1.Revive()
	b.balance(b.lb1)
	b.start(b.lb1, keepbeat, file)
	answer(b.lb1, b.lb2, at)

	at = b.haproxy[b.lb2].Kill()
	answer(b.lb1, b.lb1, at)
	at = probe.Now()
	b.balance(b.lb2)
	answer(b.lb1, b.lb2, at)
	for _, h := range []*lab.Host{b.lb1, b.lb2} {
		if has := []bool{h.HasAddress(vip1), h.HasAddress(vip2)}; !slices.Equal(has, []bool{h == b.lb1, h == b.lb2}) {
			t.Errorf("%s has %s and %s: %v", h.Name, vip1, vip2, has)
		}
	}
	if second == keepalived {
		return // it mails when its file says smtp_alert, which its old one does not
	}
	happened := map[string][]string{"VI_1": {"BACKUP", "MASTER", "BACKUP"}, "VI_2": {"BACKUP", "MASTER", "BACKUP", "MASTER"}}
	b.Eventually(limit, fmt.Sprintf("mails of lb2 to tell of %v", happened), func() bool {
		told := mails.changes()
		for name, states := range happened {
			all := entered(b.router[b.lb2].Log(), name)
			// A state that is over at once is in the log, and not told.
			if !inOrder(told["Instance "+name], all) || !inOrder(entering(states), told["Instance "+name]) {
				return false
			}
		}
		return true
	})
}

// entered are the changes of an instance that the log of keepbeat has, in the words of mails.
func entered(log, instance string) []string {
	var states []string
	for _, m := range regexp.MustCompile(`msg=(backup|master|fault) instance=`+instance+` `).FindAllStringSubmatch(log, -1) {
		states = append(states, strings.ToUpper(m[1]))
	}
	return entering(states)
}

func entering(states []string) (words []string) {
	for _, s := range states {
		words = append(words, "Entering "+s+" state")
	}
	return words
}

// inOrder tells whether some are among all in the same order.
func inOrder(some, all []string) bool {
	for _, s := range all {
		if len(some) > 0 && some[0] == s {
			some = some[1:]
		}
	}
	return len(some) == 0
}

// What a process that is killed leaves behind, the next one takes away.
func TestADaemonThatIsKilledLeavesNothingForLong(t *testing.T) {
	t.Parallel()
	quarter := time.Second / 4
	for _, other := range []program{keepbeat, keepalived} {
		t.Run("beside "+string(other), func(t *testing.T) {
			t.Parallel()
			s := newScene(t, [2]program{keepbeat, other}, []instance{
				{name: "four", vrid: 91, version: 3, fixed: true, interval: [2]time.Duration{quarter, quarter}, priority: [2]int{150, 100}},
				{name: "six", vrid: 92, version: 3, six: true, fixed: true, interval: [2]time.Duration{quarter, quarter}, priority: [2]int{150, 100}},
			})
			at := time.Now()
			s.start(0)
			s.takesOver("the first starts", 0, at, false, s.named())
			at = time.Now()
			s.start(1)
			s.becomes("the second starts", 0, at, false, s.named())
			at = time.Now()
			s.processes[0].Kill()
			for _, i := range s.named() {
				s.Eventually(limit, "the second to advertise "+i.name, func() bool {
					by, _ := s.sent(i)
					return len(within(spans(by[1], quarter), at)) > 0
				})
				if !s.routers[0].HasAddress(i.addresses()[0].String()) {
					t.Errorf("nobody was there to remove %s from router0, and it is gone", i.addresses()[0])
				}
			}
			s.start(0)
			s.becomes("the first starts again, as a backup", 1, at, false, s.named())
			dissect(s)
		})
	}
}
