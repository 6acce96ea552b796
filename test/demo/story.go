package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/uml"
)

const (
	// limit is for anything that is waited for. It is no measurement: far more than
	// it takes on a busy machine.
	limit = time.Minute
	// pageTimeout is for one request of the client: a person's patience.
	pageTimeout = 10 * time.Second
)

// figures is the last line.
type figures struct {
	Takeover    float64 `json:"takeover_ms"`
	Standby     float64 `json:"standby_ms"`
	Failback    float64 `json:"failback_ms"`
	ServerOut   float64 `json:"server_out_ms"`
	LinkCut     uint64  `json:"link_cut_moves"`
	HangSilent  float64 `json:"hang_silent_ms"`
	DoubleOwner float64 `json:"double_owner_ms"`
	Errors      int     `json:"client_errors"`
}

// story is what is played and who watches.
type story struct {
	*narrator
	*network
	t lab.TB

	// profile and pace are what the kernel carries.
	profile   string
	pageEvery time.Duration // between two requests of the client

	pages, asks *lab.Client
	// observers see one director each; they begin before the cluster and never end.
	observers map[*lab.Host]*lab.Client
	windows   []window
	figures   figures
}

func play(t lab.TB, n *narrator, profile string) figures {
	s := &story{narrator: n, t: t, profile: profile, pageEvery: 20 * time.Millisecond}
	if uml.Inside() {
		s.pageEvery = 100 * time.Millisecond
	}
	s.prologue()
	s.forms()
	s.bothServersAnswer()
	s.ownerDies()
	s.ownerReturns()
	s.standby()
	s.oneServerStops()
	s.bothServersStop()
	s.serversReturn()
	s.linkIsCut()
	s.daemonHangs()
	s.reckon()
	return s.figures
}

// wait waits for an event and says so when that takes long. Asking every so often
// is for what costs little; a command costs more.
func (s *story) wait(what string, every time.Duration, ok func() bool) {
	for began := time.Now(); !ok(); time.Sleep(every) {
		if time.Since(began) > limit {
			s.t.Fatalf("waited %v in vain for %s", limit, what)
		}
		if s.silent() > 5*time.Second {
			s.labelled("...", "%.0f s: waiting for %s", time.Since(began).Seconds(), what)
		}
	}
}

const (
	cheap = 10 * time.Millisecond
	// A command of the operator is a process, and the lab kernel is slow at those.
	command = 500 * time.Millisecond
)

// check ends the story unless ok.
func (s *story) check(ok bool, format string, args ...any) {
	if !ok {
		s.t.Fatalf(format, args...)
	}
}

// watch lets the client go on for a while, in which nothing may happen.
func (s *story) watch(d time.Duration) {
	before := probe.Now()
	time.Sleep(d)
	s.wait("the client's next page", cheap, func() bool {
		_, ok := firstPage(s.pages.Samples(), before.Add(d), func(string) bool { return true })
		return ok
	})
}

// show shows the status as the operator on the host sees it.
func (s *story) show(h *lab.Host) {
	out, err := h.Keepbeat("status")
	s.check(err == nil, "keepbeat status on %s: %v\n%s", h.Name, err, out)
	s.command(h.Name, "keepbeat status", out)
}

// waitStatus waits until the daemon on the host reports what ok accepts.
func (s *story) waitStatus(h *lab.Host, what string, ok func(cluster.Status) bool) cluster.Status {
	var last cluster.Status
	s.wait(what, command, func() bool {
		var err error
		last, err = s.status(h)
		return err == nil && ok(last)
	})
	return last
}

// open begins an announced window, and shut ends it.
func (s *story) open(name string, from probe.Instant, onlyFallback bool) (shut func(probe.Instant)) {
	i := len(s.windows)
	s.windows = append(s.windows, window{name: name, from: from, onlyFallback: onlyFallback})
	return func(to probe.Instant) { s.windows[i].to = to }
}

// page waits for the first page that was asked for after the instant.
func (s *story) page(after probe.Instant, from string, accept func(string) bool) probe.Sample {
	var found probe.Sample
	s.wait("a page from "+from+" through the VIP", cheap, func() (ok bool) {
		found, ok = firstPage(s.pages.Samples(), after, accept)
		return ok
	})
	return found
}

// moved waits until the client is answered by the new owner, and returns the last
// answer of the old one and the first of the new.
func (s *story) moved(from, to *lab.Host, since probe.Instant) (last, first probe.Sample) {
	s.wait("an answer for the VIP from "+to.Name, cheap, func() bool {
		for _, a := range s.asks.Samples() {
			switch {
			case !a.OK():
			case a.Who == from.Name:
				last = a
			case a.Who == to.Name && a.Sent >= since:
				first = a
				return true
			}
		}
		return false
	})
	return last, first
}

// handover is a planned move: the window of it, for how long the VIP was silent,
// and how long after the new owner's first answer the first page came.
func (s *story) handover(name string, from, to *lab.Host, since probe.Instant) (silent, page time.Duration) {
	last, first := s.moved(from, to, since)
	// The old owner takes the table of IPVS back before the address; a page asked
	// for in between is lost.
	shut := s.open(name, max(since, last.At.Add(-250*time.Millisecond)), false)
	next := s.page(first.At, "a real server", isReal)
	shut(next.Received)
	return first.Received.Sub(last.Received), next.Received.Sub(first.At)
}

// served counts who answered the client's requests since the instant.
func (s *story) served(since probe.Instant) string {
	who := s.pages.Summary(since).Who
	var parts []string
	for name := range who {
		parts = append(parts, fmt.Sprintf("%s %d", name, who[name]))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// alone checks that up to now no two directors answered for the VIP.
func (s *story) alone() {
	d := lab.Overlap(s.observers[s.director1], s.observers[s.director2])
	s.figures.DoubleOwner = milliseconds(d)
	s.check(d == 0, "both directors answered for the VIP for %v in all; never is right", d)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.0f ms", milliseconds(d)) }

func (s *story) prologue() {
	s.say("The network: director1, director2 and a witness, arbiter, on two switches (eth1: service and heartbeat; eth2: the second heartbeat link), " +
		"real servers rs1 and rs2 with the VIP on lo (gate), and a client. The configuration is " + example + ".")
	switch {
	case s.profile == "":
		s.say("Profile: the files' own.")
	case uml.Inside():
		s.say("Profile: %s (lease %v) in place of the files' default (%v): the lab kernel has one slow processor for all these machines. "+
			"Count on it for what happens, not for how fast: `make bench-failover` measures that on this machine's own kernel.",
			s.profile, leaseOf(s.profile), conf.ProfileDefault.Lease)
	default:
		s.say("Profile: %s (lease %v), as asked for, in place of the files'.", s.profile, leaseOf(s.profile))
	}
	s.network = newNetwork(s.t, s.profile)
	s.pages = s.client.GetHTTP("http://"+vip+"/", s.pageEvery, pageTimeout)
	every := lab.ProbeInterval()
	s.asks = s.client.Probe(vip, every)
	s.observers = map[*lab.Host]*lab.Client{
		s.director1: s.lab.Observe(s.service, vip, "192.168.56.251/24", s.director1, 2*every),
		s.director2: s.lab.Observe(s.service, vip, "192.168.56.252/24", s.director2, 2*every),
	}
	s.say("The client asks http://%s/ every %v, each time with a new connection, until the end. It also sends a datagram to the VIP every %v, "+
		"and the answer tells who owns it. Two observers, each able to see only one director, do so every %v: two owners at once would not escape them.",
		vip, s.pageEvery, every, 2*every)
}
