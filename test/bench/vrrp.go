package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/keepbeat/keepbeat/resources/vrrp"
	"github.com/keepbeat/keepbeat/test/lab"
)

// vrrpReport is what `bench vrrp` prints.
type vrrpReport struct {
	Method   string        `json:"method"`
	Lateness []Punctuality `json:"lateness,omitempty"`
	// Own is what keepbeat itself has counted since it began.
	Own      *ownLateness `json:"own_status,omitempty"`
	Thousand []Crowd      `json:"thousand,omitempty"`
}

type ownLateness struct {
	Max    float64       `json:"max_ms"`
	Counts []countedLate `json:"counts"`
}

// countedLate counts advertisements that were late by up to so many milliseconds; 0: by more than all others.
type countedLate struct {
	UpTo  float64 `json:"up_to_ms"`
	Count uint64  `json:"n"`
}

const (
	swiftRouters   = 200
	swiftAddresses = 25 // of each
	swiftInterval  = 10 * time.Millisecond
)

func routers(ctx context.Context, args []string) (any, error) {
	flags := flag.NewFlagSet("vrrp", flag.ContinueOnError)
	length := flags.Duration("for", 10*time.Second, "how long is watched what has no end of its own")
	partList := flags.String("part", "all", "lateness: advertisements every 10 ms; thousand: what 1,000 instances take; with a comma between")
	peers := flags.Bool("peers", false, "measure keepalived, too")
	if err := parse(flags, args); err != nil {
		return nil, err
	}
	if *length < time.Second {
		return nil, fmt.Errorf("-for %v: want at least 1s", *length)
	}
	parts, err := choose("part", *partList, []string{"lateness", "thousand"})
	if err != nil {
		return nil, err
	}
	programs := []vrrpProgram{{name: "keepbeat", file: "/etc/keepbeat/vrrp.yaml", write: keepbeatRouters, start: startKeepbeatRouters, lateness: onGrid}}
	if *peers {
		if _, err := os.Stat(keepalivedProgram); err != nil {
			return nil, fmt.Errorf("%w; test/lab/deps.sh peers installs it", err)
		}
		programs = append(programs, vrrpProgram{name: "keepalived", file: keepalivedConf, write: keepalivedRouters, start: startKeepalivedRouters, lateness: sinceLast})
	}
	r := &vrrpReport{Method: fmt.Sprintf("a router, and an observer that has the kernel's time of every frame, as namespaces of this kernel on a bridge. "+
		"lateness: %d instances of version 3, one advertisement every %v each, %d addresses together, programmed when the router becomes master and again when a reload replaces all but one of each; "+
		"of keepbeat counted from when it was due, of keepalived, which counts from the last one, from an interval after that. "+
		"thousand: %d instances of version 2 on %d interfaces, one advertisement a second each; processor time of all threads and processes", swiftRouters, swiftInterval, swiftRouters*swiftAddresses, crowdRouters, crowdLinks)}
	for _, part := range parts {
		for _, p := range programs {
			if err := lab.Standalone(ctx, "bench-vrrp", say, func(t lab.TB) {
				switch part {
				case "lateness":
					r.lateness(t, p, *length)
				case "thousand":
					r.thousand(t, p, *length)
				}
			}); err != nil {
				return r, fmt.Errorf("%s, %s: %w", p.name, part, err)
			}
		}
	}
	return r, nil
}

// vrrpProgram is a program that runs virtual routers.
type vrrpProgram struct {
	name, file string
	write      func([]vrouter) string
	start      func(*lab.Host) *lab.Process
	lateness   func(seen []time.Duration, interval time.Duration) []advert
}

// vrouter is a virtual router as both programs can have it.
type vrouter struct {
	vrid      int
	ifname    string
	priority  int
	interval  time.Duration
	addresses []netip.Addr
}

func keepbeatRouters(all []vrouter) string {
	var b strings.Builder
	b.WriteString("vrrp_instance:\n")
	for _, r := range all {
		fmt.Fprintf(&b, "  VI_%s_%d: {state: MASTER, interface: %[1]s, virtual_router_id: %[2]d, version: %d, priority: %d, advert_int: %v, virtual_ipaddress: [%s]}\n",
			r.ifname, r.vrid, versionFor(r.interval), r.priority, r.interval, joined(r.addresses, ", "))
	}
	return b.String()
}

func keepalivedRouters(all []vrouter) string {
	var b strings.Builder
	b.WriteString("global_defs {\n router_id router\n}\n")
	for _, r := range all {
		fmt.Fprintf(&b, "vrrp_instance VI_%s_%d {\n state MASTER\n interface %[1]s\n virtual_router_id %[2]d\n version %d\n priority %d\n advert_int %g\n virtual_ipaddress {\n  %s\n }\n}\n",
			r.ifname, r.vrid, versionFor(r.interval), r.priority, r.interval.Seconds(), joined(r.addresses, "\n  "))
	}
	return b.String()
}

func joined(all []netip.Addr, between string) string {
	var words []string
	for _, a := range all {
		words = append(words, a.String()+"/32")
	}
	return strings.Join(words, between)
}

func startKeepbeatRouters(h *lab.Host) *lab.Process { return h.StartKeepbeat("run") }

func startKeepalivedRouters(h *lab.Host) *lab.Process {
	return h.Start("keepalived", nil, keepalivedProgram, "--dont-fork", "--log-console", "--vrrp",
		"--use-file", keepalivedConf, "--pid", "/run/keepalived.pid", "--vrrp_pid", "/run/keepalived-vrrp.pid")
}

// swift is the routers of the lateness, with the n-th set of addresses, of which the first is always the same.
func swift(n int) (all []vrouter, addresses []netip.Addr) {
	for i := range swiftRouters {
		r := vrouter{vrid: i + 1, ifname: "eth0", priority: 200, interval: swiftInterval}
		for a := range swiftAddresses {
			second := byte(100 + n)
			if a == 0 {
				second = 100
			}
			r.addresses = append(r.addresses, netip.AddrFrom4([4]byte{10, second, byte(i), byte(a + 1)}))
		}
		addresses = append(addresses, r.addresses...)
		all = append(all, r)
	}
	return all, addresses
}

// lateness watches a program from its start, over a reload.
func (r *vrrpReport) lateness(t lab.TB, p vrrpProgram, length time.Duration) {
	must := func(err error) {
		if err != nil {
			t.Fatalf("%v", err)
		}
	}
	l := lab.New(t)
	wire := l.Switch("wire")
	router, watcher := l.Host("router"), l.Host("watcher")
	router.Attach(wire, "eth0", "10.0.0.1/8")
	watcher.Attach(wire, "eth0", "10.0.0.2/8")
	o, err := observe(watcher, "eth0")
	must(err)
	closed := false
	defer func() {
		if !closed {
			o.close()
		}
	}()
	// until all have been announced; how long that took is read from the frames.
	announced := func(while string, from time.Duration, machine processors, all []netip.Addr) window {
		l.Eventually(patience, "all addresses to be announced", func() bool { n, _ := o.announced(all); return n == len(all) })
		_, to := o.announced(all)
		return window{while, from, to, lookAtProcessors().since(machine)}
	}
	routers, addresses := swift(0)
	router.WriteFile(p.file, p.write(routers), 0o644)
	from, machine := wallClock(), lookAtProcessors()
	d := p.start(router)
	windows := []window{announced("all become master, and the addresses are programmed", from, machine, addresses)}
	from, machine = wallClock(), lookAtProcessors()
	time.Sleep(length)
	windows = append(windows, window{"nothing else; addresses are announced again after 5 s", from, wallClock(), lookAtProcessors().since(machine)})
	routers, addresses = swift(1)
	router.WriteFile(p.file, p.write(routers), 0o644)
	from, machine = wallClock(), lookAtProcessors()
	d.Signal(syscall.SIGHUP)
	windows = append(windows, announced("a reload replaces the addresses", from, machine, addresses))
	if p.name == "keepbeat" {
		r.Own = ownStatus(t, router)
	}
	time.Sleep(time.Second) // what was due in the last window and is late
	must(d.Terminate(patience))
	o.read()
	must(o.close())
	closed = true
	seen := o.adverts()
	for _, w := range windows {
		one := punctuality(p.name, w, seen, swiftInterval, p.lateness)
		one.Budget = Budget{Max: limit(ms(swiftInterval / 2))}
		one.Met = one.Budget.met(one.Distribution)
		say("%s, %s: %d advertisements in %.2f s, late by median %.2f, p99 %.2f, max %.2f ms, %d by more than half an interval; longest gap %.1f ms; the machine was busy by %.0f %%, %.1f %% stolen",
			p.name, w.while, one.Count, one.Seconds, one.Median, one.P99, one.Max, one.OverHalf, one.Longest, one.Machine.Busy, one.Machine.Stolen)
		r.Lateness = append(r.Lateness, one)
	}
}

// ownStatus is the lateness that keepbeat shows.
func ownStatus(t lab.TB, h *lab.Host) *ownLateness {
	out, err := h.Keepbeat("vrrp", "--json")
	if err != nil {
		t.Fatalf("keepbeat vrrp --json: %v: %s", err, out)
	}
	var s vrrp.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("keepbeat vrrp --json: %v", err)
	}
	own := &ownLateness{Max: ms(s.Lateness.Max)}
	bounds := append(slices.Clone(vrrp.LateBounds()), 0)
	for i, n := range s.Lateness.Counts {
		own.Counts = append(own.Counts, countedLate{ms(bounds[i]), n})
	}
	return own
}
