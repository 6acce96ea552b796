package vrrp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// segment is an Ethernet in memory: what one host sends the others receive, a
// tenth of a millisecond later. It knows at any time who has an address.
type segment struct {
	t *testing.T

	mu      sync.Mutex
	hosts   []*fakeHost
	running []*runner // what was run, and may have been stopped
	story   []string
	began   time.Time
	double  map[string]time.Time     // since when an instance has two masters
	longest map[string]time.Duration // and for how long it had at most
}

func newSegment(t *testing.T) *segment {
	return &segment{t: t, began: time.Now(), double: map[string]time.Time{}, longest: map[string]time.Duration{}}
}

func (s *segment) tell(format string, a ...any) {
	s.story = append(s.story, fmt.Sprintf("%v %s", time.Since(s.began).Round(time.Millisecond), fmt.Sprintf(format, a...)))
}

// told returns the story since it was asked for last.
func (s *segment) told() string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	story := strings.Join(s.story, "\n")
	s.story = nil
	return story
}

// masters counts who has an instance's addresses, and how long two had them.
func (s *segment) masters(name string) {
	n := 0
	for _, h := range s.hosts {
		if h.held[name] {
			n++
		}
	}
	since, twice := s.double[name]
	switch {
	case n > 1 && !twice:
		s.double[name] = time.Now()
	case n < 2 && twice:
		s.longest[name] = max(s.longest[name], time.Since(since))
		delete(s.double, name)
	}
}

// neverTwice says for how long an instance may have had two masters.
func (s *segment) neverTwice(name string, most time.Duration) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if since, twice := s.double[name]; twice {
		s.longest[name] = max(s.longest[name], time.Since(since))
	}
	if got := s.longest[name]; got > most {
		s.t.Errorf("%s had two masters for %v, at most %v are inevitable", name, got, most)
	}
}

// fakeHost is a machine on a segment.
type fakeHost struct {
	s    *segment
	name string
	addr netip.Addr

	// guarded by segment.mu
	links     map[string]bool
	changed   func(string, bool)
	held      map[string]bool            // instances that have something
	took      map[string]map[string]bool // by instance: its addresses, with their interfaces
	stands    map[string]bool            // of these, what the kernel has
	ends      []*fakeEndpoint
	cut       bool
	slow      time.Duration // what Acquire takes
	opening   time.Duration // what Open takes
	refuse    error         // by Acquire
	keeps     error         // by Release
	mute      error         // of Announce
	announced map[string]int
	stopped   chan struct{} // the process is, until it is closed
}

func (s *segment) host(name, addr string) *fakeHost {
	h := &fakeHost{
		s: s, name: name, addr: netip.MustParseAddr(addr), links: map[string]bool{"eth0": true, "eth1": true},
		held: map[string]bool{}, took: map[string]map[string]bool{}, stands: map[string]bool{}, announced: map[string]int{},
	}
	s.mu.Lock()
	s.hosts = append(s.hosts, h)
	s.mu.Unlock()
	return h
}

func (h *fakeHost) Now() time.Time {
	h.running()
	return time.Now()
}

// running returns when the process is not stopped. It is asked wherever a
// goroutine comes back to the router: one that waited for a lock of a stopped
// router would keep the time of the bubble from going on.
func (h *fakeHost) running() {
	var stopped chan struct{}
	h.set(func() { stopped = h.stopped })
	if stopped != nil {
		<-stopped
	}
}

// freeze stops the process, as SIGSTOP does: its kernel goes on.
func (h *fakeHost) freeze(d time.Duration) {
	synctest.Wait()
	stopped := make(chan struct{})
	h.set(func() { h.stopped = stopped })
	time.Sleep(d)
	h.set(func() { h.stopped = nil })
	close(stopped)
}

func (h *fakeHost) Strangers() []Stranger { return nil }

func (h *fakeHost) Links(changed func(string, bool)) (func(), error) {
	h.s.mu.Lock()
	h.changed = changed
	links := map[string]bool{"eth0": h.links["eth0"], "eth1": h.links["eth1"]}
	h.s.mu.Unlock()
	for name, up := range links {
		changed(name, up)
	}
	return func() {}, nil
}

// link cuts a link, or puts it together again.
func (h *fakeHost) link(name string, up bool) {
	h.s.mu.Lock()
	h.links[name] = up
	changed := h.changed
	h.s.mu.Unlock()
	if changed != nil {
		changed(name, up)
	}
}

func (h *fakeHost) set(f func()) {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	f()
}

func (h *fakeHost) Acquire(i *conf.VRRPInstance) error {
	var slow time.Duration
	h.set(func() { slow = h.slow })
	time.Sleep(slow)
	defer h.running()
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	if h.refuse != nil {
		return h.refuse
	}
	if !h.held[i.Name] {
		h.s.tell("%s has %s", h.name, i.Name)
	}
	h.held[i.Name] = true
	if h.took[i.Name] == nil {
		h.took[i.Name] = map[string]bool{}
	}
	for _, a := range standing(i) {
		h.took[i.Name][a], h.stands[a] = true, true
	}
	h.s.masters(i.Name)
	return nil
}

func (h *fakeHost) Release(i *conf.VRRPInstance) error {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	if h.keeps != nil {
		return h.keeps
	}
	for _, a := range standing(i) {
		if h.took[i.Name][a] {
			delete(h.took[i.Name], a)
			delete(h.stands, a)
		}
	}
	if h.held[i.Name] && len(h.took[i.Name]) == 0 {
		h.s.tell("%s gives back %s", h.name, i.Name)
		h.held[i.Name] = false
	}
	h.s.masters(i.Name)
	return nil
}

func (h *fakeHost) Announce(ctx context.Context, i *conf.VRRPInstance) error {
	defer h.running()
	for range i.Addresses {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(i.GARP.Interval):
		}
	}
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	if !h.held[i.Name] && h.refuse == nil {
		h.s.t.Errorf("%s announces %s, which it has not", h.name, i.Name)
	}
	h.announced[i.Name]++
	return h.mute
}

func (h *fakeHost) Open(i *conf.VRRPInstance, receive func(Packet)) (Endpoint, error) {
	var opening time.Duration
	h.set(func() { opening = h.opening })
	time.Sleep(opening)
	defer h.running()
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	if !h.links[i.Interface] {
		return nil, errors.New("interface " + i.Interface + " has no address")
	}
	e := &fakeEndpoint{h: h, i: i, in: make(chan Packet, 1000), done: make(chan struct{})}
	h.ends = append(h.ends, e)
	e.ended.Go(func() {
		for {
			select {
			case p := <-e.in:
				time.Sleep(100 * time.Microsecond)
				h.running()
				receive(p)
			case <-e.done:
				return
			}
		}
	})
	return e, nil
}

type fakeEndpoint struct {
	h    *fakeHost
	i    *conf.VRRPInstance
	in   chan Packet
	done chan struct{}

	ended sync.WaitGroup
}

func (e *fakeEndpoint) Local() (a netip.Addr) {
	e.h.set(func() { a = e.h.addr })
	return a
}

func (e *fakeEndpoint) Close() error {
	e.h.set(func() {
		e.h.ends = slices.DeleteFunc(e.h.ends, func(x *fakeEndpoint) bool { return x == e })
	})
	close(e.done)
	e.ended.Wait()
	return nil
}

func (e *fakeEndpoint) Send(message []byte, to netip.Addr) error {
	s := e.h.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.h.cut || !e.h.links[e.i.Interface] {
		return errors.New("network is down")
	}
	if to != e.i.Group && !slices.ContainsFunc(e.i.Peers, func(p conf.VRRPPeer) bool { return p.Address == to }) {
		return errors.New("neither the group nor a peer")
	}
	if message[2] == 0 {
		s.tell("%s leaves %s", e.h.name, e.i.Name)
	}
	p := Packet{Payload: slices.Clone(message), From: e.h.addr, To: to, TTL: 255}
	for _, h := range s.hosts {
		if h == e.h || h.cut || !h.links[e.i.Interface] {
			continue
		}
		for _, other := range h.ends {
			if other.i.Interface == e.i.Interface && other.i.VRID == message[1] && (to.IsMulticast() || h.addr == to) {
				other.in <- p
			}
		}
	}
	return nil
}

// runner is a Router that runs on a host.
type runner struct {
	*Router
	h    *fakeHost
	stop func() // as an administrator does
}

// run starts a router; events are part of the story.
func (h *fakeHost) run(v conf.VRRP) *runner {
	r := NewRouter(Config{Host: h, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Event: func(e Event) {
		h.s.mu.Lock()
		defer h.s.mu.Unlock()
		what := "instance"
		if e.Group {
			what = "group"
		}
		h.s.tell("%s: %s %s is %s", h.name, what, e.Name, e.State)
	}})
	r.Update(v)
	ctx, cancel := context.WithCancel(h.s.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			h.s.t.Error(err)
		}
	}()
	running := &runner{r, h, func() { cancel(); <-done }}
	h.set(func() { h.s.running = append(h.s.running, running) })
	return running
}

// die is a host that loses power: nothing is said any more, and nothing held.
func (r *runner) die() {
	r.h.set(func() {
		r.h.cut = true
		for name := range r.h.held {
			delete(r.h.held, name)
			r.h.s.masters(name)
		}
		r.h.s.tell("%s dies", r.h.name)
	})
}

// file returns a configuration of one instance.
func file(priority uint8, change func(*conf.VRRPInstance)) conf.VRRP {
	i := virtual(3, func(i *conf.VRRPInstance) {
		i.Priority = priority
		i.GARP = conf.VRRPAnnounce{Repeat: 5, Delay: 5 * time.Second, LowerRepeat: 5, LowerDelay: 5 * time.Second}
		if change != nil {
			change(i)
		}
	})
	return conf.VRRP{Instances: []conf.VRRPInstance{*i}}
}

func (s *segment) expect(story string) {
	s.t.Helper()
	if got := s.told(); !slices.Equal(ordered(got), ordered(story)) {
		s.t.Errorf("it went otherwise:\n%s\n\nwant\n%s", got, strings.TrimSpace(story))
	}
}

// line is something that happened.
type line struct{ at, said string }

func lines(story string) (all []line) {
	for l := range strings.Lines(story) {
		at, said, _ := strings.Cut(strings.TrimSpace(l), " ")
		all = append(all, line{at, said})
	}
	return all
}

// ordered brings what happens to several hosts within a millisecond into the
// order of their names: it is none in time.
func ordered(story string) []line {
	all := lines(strings.TrimSpace(story))
	for first := 0; first < len(all); {
		last := first + 1
		for last < len(all) && all[last].at == all[first].at {
			last++
		}
		slices.SortStableFunc(all[first:last], func(a, b line) int { return int(a.said[0]) - int(b.said[0]) })
		first = last
	}
	return all
}

func (h *fakeHost) rounds(name string) (n int) {
	h.set(func() { n = h.announced[name] })
	return n
}

// standing are the addresses of an instance, with the interface of each.
func standing(i *conf.VRRPInstance) (all []string) {
	for _, a := range slices.Concat(placed(i, i.Addresses), placed(i, i.Excluded)) {
		all = append(all, a.Address.String()+" dev "+a.Interface)
	}
	return all
}

// has tells whether an address stands on some interface of the host.
func (h *fakeHost) has(address string) (is bool) {
	h.set(func() {
		for a := range h.stands {
			is = is || strings.HasPrefix(a, address+" ")
		}
	})
	return is
}

// holds tells whether the host has an instance's addresses.
func (h *fakeHost) holds(name string) (held bool) {
	h.set(func() { held = h.held[name] })
	return held
}
