package vrrp

import (
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
)

// Scenes wait for timers of VRRP nearly all the time: many of them fit on two cores.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "20"); err != nil {
		panic(err)
	}
	status, err := clock.Around(m.Run)
	if err != nil {
		panic(err)
	}
	os.Exit(status)
}

// clock measures how late processes of this machine get a processor, for as long as tests run.
var clock lab.Lateness

// limit is for what takes some seconds on an idle machine.
const limit = time.Minute

// program is what runs on a router.
type program string

const (
	keepbeat   program = "keepbeat"
	keepalived program = "keepalived"
)

// scene is two routers on a hub, with an observer and a client. (A second
// network, eth1, is there where an instance needs it.)
type scene struct {
	*lab.Lab
	t         *testing.T
	began     time.Time
	cast      [2]program
	all       []instance
	routers   [2]*lab.Host
	processes [2]*lab.Process
	client    *lab.Host
	hears     map[bool]*observer // by instance.eth1
	asks      *net.UDPConn
	results   []result
}

// result is what an event did to an instance.
type result struct {
	event        string
	instance     *instance
	both, nobody time.Duration
	took         time.Duration // until a router was master that had to wait; 0: it had not
}

// casts are who plays the two routers; the measure is the first. The last has
// keepbeat alone, for what keepalived has no part in.
var casts = [][2]program{{keepalived, keepalived}, {keepbeat, keepalived}, {keepalived, keepbeat}, {keepbeat, keepbeat}}

func (s *scene) String() string { return fmt.Sprintf("%s and %s", s.cast[0], s.cast[1]) }

// stage has the same befall instances with some casts side by side, holds each
// against the first, and returns the scenes; nil if -run has chosen some of them.
func stage(t *testing.T, casts [][2]program, instances func(cast [2]program) []instance, play func(*scene)) []*scene {
	t.Helper()
	began := time.Now()
	scenes := make([]*scene, len(casts))
	t.Run("casts", func(t *testing.T) {
		for n, cast := range casts {
			t.Run(fmt.Sprintf("%s-%s", cast[0], cast[1]), func(t *testing.T) {
				t.Parallel()
				s := newScene(t, cast, instances(cast))
				play(s)
				scenes[n] = s
			})
		}
	})
	if t.Failed() || slices.Contains(scenes, nil) {
		return nil
	}
	compare(t, scenes, clock.Worst(began))
	return scenes
}

func newScene(t *testing.T, cast [2]program, all []instance) *scene {
	t.Helper()
	s := &scene{Lab: lab.New(t), t: t, began: time.Now(), cast: cast, all: all, hears: map[bool]*observer{}}
	for r := range s.routers {
		s.routers[r] = s.Host(fmt.Sprintf("router%d", r))
	}
	s.client = s.Host("client")
	for n, name := range []string{"eth0", "eth1"} {
		eth1 := n == 1
		if eth1 && !slices.ContainsFunc(all, func(i instance) bool { return i.eth1 || i.port || i.mailed }) {
			continue
		}
		hub := s.Hub(name)
		for r, h := range s.routers {
			h.Attach(hub, name, fmt.Sprintf("%s%d/24", lans[eth1].four, r+1), fmt.Sprintf("%s%d/64", lans[eth1].six, r+1))
		}
		s.client.Attach(hub, name, lans[eth1].four+"250/24", lans[eth1].six+"250/64")
		s.hears[eth1] = observe(t, s.client, name)
	}
	for r, h := range s.routers {
		h.StartResponder()
		h.WriteFile(numberFile, "0\n", 0o644)
		s.configure(r)
	}
	err := s.client.Do(func() (err error) {
		s.asks, err = net.ListenUDP("udp", nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.asks.Close() })
	return s
}

// configure writes the files of a router, as its instances are now.
func (s *scene) configure(router int) {
	s.t.Helper()
	s.routers[router].WriteFile(directory+"vrrp.yaml", keepbeatConf(s.all, router), 0o600)
	s.routers[router].WriteFile(directory+"keepalived.conf", keepalivedConf(s.all, router), 0o644)
}

// start starts the router's program. The router knows the other's MAC address for
// ever: unicast goes out also when nobody would answer for it any more, and is heard.
func (s *scene) start(router int) {
	s.t.Helper()
	for _, family := range []string{lans[false].four, lans[false].six} {
		s.routers[router].Neighbour("eth0", fmt.Sprintf("%s%d", family, 2-router), s.port(1-router, false).MAC)
	}
	s.processes[router] = startRouter(s.routers[router], s.cast[router])
}

func startRouter(h *lab.Host, p program) *lab.Process {
	if p == keepbeat {
		return h.StartKeepbeat("run", "--config", directory+"ha.yaml")
	}
	return h.Start("keepalived", nil, "/usr/sbin/keepalived", "--dont-fork", "--log-console", "--vrrp",
		"--use-file", directory+"keepalived.conf", "--pid", "/run/keepalived.pid", "--vrrp_pid", "/run/keepalived-vrrp.pid")
}

// stop ends it in good order.
func (s *scene) stop(router int) {
	s.t.Helper()
	p := s.processes[router]
	if err := p.Terminate(limit); err != nil {
		s.t.Errorf("%s, told to stop: %v", s.cast[router], err)
	}
	if s.cast[router] == keepalived && strings.Contains(p.Log(), "failed to die - forcing termination") {
		// It kills its child that does not end within 2 s, and what that one had stays.
		s.Logf("the machine left router%d's keepalived no time to stop", router)
		for _, i := range s.all {
			for _, ip := range i.addresses() {
				s.routers[router].Run("sh", "-c", "ip -o addr show to "+ip.String()+" | while read -r _ dev _ address _; do ip addr del $address dev $dev; done")
			}
		}
	}
}

func (s *scene) port(router int, eth1 bool) *lab.Port {
	port := s.routers[router].Ports()[0]
	for _, p := range s.routers[router].Ports() {
		if p.Interface == "eth1" == eth1 {
			port = p
		}
	}
	return port
}

// named are the instances of these names; without names all.
func (s *scene) named(names ...string) (some []*instance) {
	for n := range s.all {
		if len(names) == 0 || slices.Contains(names, s.all[n].name) {
			some = append(some, &s.all[n])
		}
	}
	if len(names) > 0 && len(some) != len(names) {
		s.t.Fatalf("not all of %v are instances of the scene", names)
	}
	return some
}

// sent are the advertisements of an instance, by router.
func (s *scene) sent(i *instance) (by [2][]advert, all []advert) {
	for _, a := range adverts(s.hears[i.eth1].heard()) {
		if a.vrid() != i.vrid || a.six != i.six {
			continue
		}
		for r := range by {
			if !i.vmac && [6]byte(s.port(r, i.eth1).MAC) == a.mac || i.vmac && s.source(i, r) == a.src {
				by[r] = append(by[r], a)
			}
		}
		all = append(all, a)
	}
	return by, all
}

// source is the address that a router sends multicast from, of which the link-local one is made of its MAC address.
func (s *scene) source(i *instance, router int) netip.Addr {
	if !i.six {
		return netip.MustParseAddr(i.own(router))
	}
	m := s.port(router, i.eth1).MAC
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// mac is the MAC address that the addresses of an instance have on a router.
func (s *scene) mac(i *instance, router int) net.HardwareAddr {
	if i.vmac {
		family := byte(1) // RFC 9568, 7.3
		if i.six {
			family = 2
		}
		return net.HardwareAddr{0, 0, 0x5e, 0, family, i.vrid}
	}
	return s.port(router, i.eth1).MAC
}

// rules says whether a router alone is master of an instance: nobody else was
// heard for two intervals, and nobody else has the addresses. A router that is cut
// off may have them.
func (s *scene) rules(i *instance, router int, since time.Time, cut bool) bool {
	by, all := s.sent(i)
	const enough = 3
	if len(all) < enough || len(by[router]) < enough || by[router][len(by[router])-enough].at.Before(since) {
		return false
	}
	for n, a := range all[len(all)-enough:] {
		if a.at != by[router][len(by[router])-enough+n].at || a.priority() == 0 {
			return false
		}
	}
	for _, ip := range i.addresses() {
		for r, h := range s.routers {
			if h.HasAddress(ip.String()) != (r == router) && (r == router || !cut) {
				return false
			}
		}
	}
	return true
}

// shaken says whether a machine that left somebody without a processor for so
// long may have given an instance another master: for half of the time that a backup waits.
func (i *instance) shaken(late time.Duration) bool {
	return late > 3*min(i.interval[0], i.interval[1])/2
}

// starved says whether the machine may have given an instance another master, and
// by what lateness. It has it for a while, with preempt_delay for that much longer,
// and for good where neither router preempts.
func (s *scene) starved(i *instance, since time.Time) (time.Duration, bool) {
	since = since.Add(-i.delay - 4*max(i.interval[0], i.interval[1]))
	if i.fixed || i.priority[0] == i.priority[1] {
		since = s.began
	}
	late := clock.Worst(since)
	return late, i.shaken(late)
}

// becomes waits until a router alone is master of the instances and the client
// reaches it there, and notes for how long since the event two or nobody were
// master. Where neither router preempts the other one may be it on a machine that was late.
func (s *scene) becomes(event string, router int, since time.Time, cut bool, some []*instance) {
	s.t.Helper()
	deadline := time.Now().Add(limit)
	for _, i := range some {
		right := router
		for !s.rules(i, router, since, cut) {
			if s.staysWrong(i, 1-router, since, cut) {
				right = 1 - router
				late, _ := s.starved(i, since)
				s.Logf("%s: router%d is the master of %s; the machine was late by %v", event, right, i.name, late)
				break
			}
			if p := s.processes[router]; time.Now().After(deadline) || p.Ended() {
				s.t.Fatalf("%s: waited %v in vain for router%d (%s, ended: %v) alone to be master of %s; heard:\n%s",
					event, limit, router, s.cast[router], p.Ended(), i.name, s.story(i, since))
			}
			time.Sleep(50 * time.Millisecond)
		}
		for _, ip := range i.addresses() {
			s.answers(event, ip, s.routers[right])
		}
	}
	for _, i := range some {
		by, _ := s.sent(i)
		interval := max(i.interval[0], i.interval[1])
		// The last advertisement before the event was within an interval of it.
		a, b := within(spans(by[0], interval), since.Add(-2*interval)), within(spans(by[1], interval), since.Add(-2*interval))
		s.results = append(s.results, result{event: event, instance: i, both: both(a, b), nobody: nobody(a, b)})
	}
}

// staysWrong says whether a machine that was late has made the other router the
// master of an instance that it is not taken from.
func (s *scene) staysWrong(i *instance, router int, since time.Time, cut bool) bool {
	_, starved := s.starved(i, since)
	return starved && (i.fixed || i.priority[0] == i.priority[1] || i.delay > limit) && s.rules(i, router, since, cut)
}

// staysQuiet waits until the other router has advertised for longer than any
// backup waits, and holds that this one has never since an instant, unless the
// machine was late.
func (s *scene) staysQuiet(event string, router int, since time.Time, some []*instance) {
	s.t.Helper()
	for _, i := range some {
		after := func() (n [2]int) {
			by, _ := s.sent(i)
			for r := range by {
				for _, a := range by[r] {
					if a.at.After(since) {
						n[r]++
					}
				}
			}
			return n
		}
		starved := func() bool {
			_, starved := s.starved(i, since)
			return starved && after()[router] > 0
		}
		s.Eventually(limit, fmt.Sprintf("%s: six advertisements of %s", event, i.name), func() bool { return after()[1-router] >= 6 || starved() })
		if n := after()[router]; n > 0 && starved() {
			late, _ := s.starved(i, since)
			s.Logf("%s: router%d took itself for the master of %s; the machine was late by %v", event, router, i.name, late)
		} else if n > 0 {
			s.t.Errorf("%s: router%d (%s) advertised %d times as master of %s; heard:\n%s", event, router, s.cast[router], n, i.name, s.story(i, since))
		}
	}
}

// takesOver is becomes of a router that was not master before: it has to tell the
// network. On a machine that was late it may have been master already.
func (s *scene) takesOver(event string, router int, since time.Time, cut bool, some []*instance) {
	s.t.Helper()
	s.becomes(event, router, since, cut, some)
	const rounds = 5 // garp_master_repeat
	for _, i := range some {
		announces := func() bool {
			times := announced(s.hears[i.eth1].heard(), s.mac(i, router), since)
			return !slices.ContainsFunc(i.addresses(), func(ip netip.Addr) bool { return times[ip] < rounds })
		}
		needless := func() bool { // it was the master before, or is it no more
			by, _ := s.sent(i)
			before := slices.ContainsFunc(spans(by[router], i.interval[router]), func(m span) bool { return m.from.Before(since) && m.to.After(since) })
			_, starved := s.starved(i, since)
			return starved && (before || !s.rules(i, router, since, cut))
		}
		s.Eventually(limit, fmt.Sprintf("%s: router%d (%s) to announce the addresses of %s", event, router, s.cast[router], i.name), func() bool {
			return announces() || needless()
		})
		if late, _ := s.starved(i, since); !announces() {
			s.Logf("%s: router%d does not announce the addresses of %s; the machine was late by %v", event, router, i.name, late)
		}
	}
}

// answers waits until the client has an answer from a host, as its neighbour table has it.
func (s *scene) answers(event string, ip netip.Addr, from *lab.Host) {
	s.t.Helper()
	deadline := time.Now().Add(limit)
	who := "nobody"
	for time.Now().Before(deadline) {
		ask := probe.Request{Sent: probe.Now()}
		// No route and no buffer are silence as well.
		_, _ = s.asks.WriteToUDPAddrPort(ask.AppendTo(nil), netip.AddrPortFrom(ip, probe.Port))
		s.asks.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		for b := make([]byte, 256); ; {
			n, src, err := s.asks.ReadFromUDPAddrPort(b)
			if err != nil {
				break
			}
			a, err := probe.ParseAnswer(b[:n])
			if err != nil || src.Addr().Unmap() != ip || a.Sent != ask.Sent {
				continue
			}
			if who = a.Who; who == from.Name {
				return
			}
			break
		}
	}
	s.t.Fatalf("%s: %s is asked, and %s answers; want %s", event, ip, who, from.Name)
}

// story is what was heard of an instance.
func (s *scene) story(i *instance, since time.Time) (text string) {
	by, all := s.sent(i)
	for n := range all {
		if a := &all[n]; a.at.After(since) {
			text += fmt.Sprintf("  %+8.3f s %s\n", a.at.Sub(since).Seconds(), a)
		}
	}
	return fmt.Sprintf("%s  (%d of router0 and %d of router1 since the beginning)\n", text, len(by[0]), len(by[1]))
}

// keep writes what was heard to a file for tshark, and returns its name.
func (s *scene) keep(eth1 bool) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "heard.pcap")
	save(s.t, path, s.hears[eth1].heard())
	return path
}
