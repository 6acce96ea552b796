package lab

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/uml"
)

// StartResponder makes the host answer probes with its name, on every address it
// has or will have. It comes back with the host after a death.
func (h *Host) StartResponder() {
	h.lab.t.Helper()
	start := func() {
		h.lab.t.Helper()
		p := h.Start("responder", nil, h.lab.tool, "respond", "-name", h.Name)
		p.quiet = true
	}
	start()
	h.afterRevival = append(h.afterRevival, start)
}

// Client is a program on a host that asks again and again and records each answer.
type Client struct {
	*Process
	// From is when it began.
	From probe.Instant

	only string // an observer's director: what others say was forwarded to them

	read chan struct{} // closed when all it has said is recorded

	mu      sync.Mutex // guards samples and bad
	samples []probe.Sample
	bad     error
}

// ProbeInterval is how often to ask without getting into the way of what is
// measured: each millisecond on this machine's kernel, rarely in the lab kernel,
// which has one slow processor. (Daemons keep their leases there with profile calm.)
func ProbeInterval() time.Duration {
	if uml.Inside() {
		return 20 * time.Millisecond
	}
	return time.Millisecond
}

// Probe asks the responder at address every interval, by UDP; see ProbeInterval.
func (h *Host) Probe(address string, interval time.Duration) *Client {
	h.lab.t.Helper()
	to, err := netip.ParseAddr(address)
	if err != nil {
		h.lab.t.Fatalf("lab: probe: %v", err)
	}
	return h.startClient("probe-"+address, "probe", "-to", to.String(), "-interval", interval.String())
}

// GetHTTP fetches url every interval, each time with a new connection; timeout
// is for one request.
func (h *Host) GetHTTP(url string, interval, timeout time.Duration) *Client {
	h.lab.t.Helper()
	return h.startClient("http-client", "http", "-url", url, "-interval", interval.String(), "-timeout", timeout.String())
}

// GetHTTPSerially is GetHTTP with one request at a time: it asks a machine that
// has much else to do less often.
func (h *Host) GetHTTPSerially(url string, interval, timeout time.Duration) *Client {
	h.lab.t.Helper()
	return h.startClient("http-client", "http", "-serial", "-url", url, "-interval", interval.String(), "-timeout", timeout.String())
}

// Observe makes a host that sees, of all that may answer for vip, only director:
// it believes for ever that vip is at the address of director's interface on s.
// source is the observer's own address there (10.0.0.250/24). See Overlap.
func (l *Lab) Observe(s *Switch, vip, source string, director *Host, interval time.Duration) *Client {
	l.t.Helper()
	observer := l.Host("observer-of-" + director.Name)
	observer.Attach(s, "eth0", source)
	observer.Neighbour("eth0", vip, director.PortOn(s).MAC)
	c := observer.Probe(vip, interval)
	c.only = director.Name
	return c
}

// Overlap is for how long both observers got answers, each from its director:
// the time of two owners. It counts answers up to now.
//
// A group may move there and back within some tens of milliseconds; answers of
// one director that are further apart than a move takes are two times of being active.
func Overlap(a, b *Client) time.Duration {
	return probe.Overlap(a.ofDirector(), b.ofDirector(), 10*ProbeInterval())
}

// ofDirector are the answers that an observer got from its director itself: one
// that is a router (masq) forwards the question to the owner, and is none for that.
func (c *Client) ofDirector() []probe.Sample {
	c.Host.lab.t.Helper()
	if c.only == "" {
		return c.recorded()
	}
	return slices.DeleteFunc(slices.Clone(c.recorded()), func(s probe.Sample) bool { return s.Who != c.only })
}

func (h *Host) startClient(name string, args ...string) *Client {
	h.lab.t.Helper()
	c := &Client{Process: h.newProcess(name, append([]string{h.lab.tool}, args...)), From: probe.Now(), read: make(chan struct{})}
	c.quiet = true
	r, w, err := os.Pipe()
	if err != nil {
		h.lab.t.Fatalf("lab: %v", err)
	}
	log, err := os.Create(c.log)
	if err != nil {
		h.lab.t.Fatalf("lab: %v", err)
	}
	defer log.Close()
	c.cmd.Stdout, c.cmd.Stderr = w, log
	c.start()
	w.Close()
	go c.record(r)
	return c
}

func (c *Client) record(r *os.File) {
	defer close(c.read)
	defer r.Close()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if bytes.HasPrefix(lines.Bytes(), []byte(`{"summary"`)) {
			continue
		}
		s, err := probe.ParseSample(lines.Bytes())
		c.mu.Lock()
		if err != nil {
			c.bad = err
		} else {
			c.samples = append(c.samples, s)
		}
		c.mu.Unlock()
	}
}

// Samples are all answers and failures up to now.
func (c *Client) Samples() []probe.Sample {
	c.Host.lab.t.Helper()
	return slices.Clone(c.recorded())
}

// recorded is what there is so far; it only ever grows, behind its end.
func (c *Client) recorded() []probe.Sample {
	c.Host.lab.t.Helper()
	c.mu.Lock()
	samples, bad := c.samples, c.bad
	c.mu.Unlock()
	if bad != nil {
		c.Host.lab.t.Fatalf("lab: %s on %s: %v", c.Name, c.Host.Name, bad)
	}
	return slices.Clip(samples)
}

// Stop ends the client, and returns what it has recorded. With its host dead it has ended already.
func (c *Client) Stop() []probe.Sample {
	c.Host.lab.t.Helper()
	if !c.Ended() {
		// It may end by itself in between.
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
		c.mustEnd(20 * time.Second)
	}
	<-c.read
	return c.Samples()
}

// WaitAnswer waits for an answer from who (a host; for HTTP the first line of
// the page; empty: from anybody) to a request that was sent after the given
// instant, and ends the test when there is none within limit.
func (c *Client) WaitAnswer(who string, after probe.Instant, limit time.Duration) probe.Sample {
	t := c.Host.lab.t
	t.Helper()
	var found probe.Sample
	seen := 0
	ok := eventually(limit, func() bool {
		samples := c.recorded()
		defer func() { seen = len(samples) }()
		for _, s := range samples[seen:] {
			if s.OK() && s.Sent >= after && (who == "" || s.Who == who) {
				found = s
				return true
			}
		}
		return false
	})
	if !ok {
		last := "nobody answered"
		if sum := probe.Summarize(c.recorded(), after, probe.Now()); sum.Answers+sum.Errors > 0 {
			last = fmt.Sprintf("%d answers from %v, %d errors, the last: %q", sum.Answers, sum.Who, sum.Errors, sum.LastError)
		}
		if who == "" {
			who = "anybody"
		}
		t.Fatalf("lab: %s on %s: waited %v in vain for an answer from %s; %s", c.Name, c.Host.Name, limit, who, last)
	}
	return found
}

// Outage is the longest time without an answer from the given instant until now.
func (c *Client) Outage(after probe.Instant) probe.Gap {
	c.Host.lab.t.Helper()
	return probe.LongestGap(c.recorded(), after, probe.Now())
}

// Summary counts what was received from the given instant until now.
func (c *Client) Summary(after probe.Instant) probe.Summary {
	c.Host.lab.t.Helper()
	return probe.Summarize(c.recorded(), after, probe.Now())
}

// RealServer is an HTTP server: `/` answers its name, /.test.html ok.
type RealServer struct{ *Process }

// StartHTTP starts a real server on the host and waits until it listens. Each of
// listen is address:port or address:first-last; without an address (":80") it is all.
func (h *Host) StartHTTP(name string, listen ...string) *RealServer {
	h.lab.t.Helper()
	p := h.Start("httpd-"+name, nil, append([]string{h.lab.tool, "httpd", "-name", name}, listen...)...)
	p.quiet = true
	p.WaitLog(20*time.Second, `^ready$`)
	return &RealServer{p}
}

// SetSick makes the test page fail with 503, or succeed again, and returns when it does.
func (s *RealServer) SetSick(sick bool) {
	t := s.Host.lab.t
	t.Helper()
	signal := syscall.SIGUSR2
	if sick {
		signal = syscall.SIGUSR1
	}
	lines := bytes.Count([]byte(s.Log()), []byte("sick:"))
	s.Signal(signal)
	if !eventually(10*time.Second, func() bool { return bytes.Count([]byte(s.Log()), []byte("sick:")) > lines }) {
		t.Fatalf("lab: %s on %s does not react to %v", s.Name, s.Host.Name, signal)
	}
}
