package link_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/link/linktest"
	"github.com/keepbeat/keepbeat/conf"
)

var tty = conf.Link{Type: conf.Serial, Device: "/dev/ttyS0", Baud: 19200}

// onLine is config with a serial link on an end of a cable.
func onLine(m *linktest.Medium, name string, nodes []string, c *linktest.Cable, end int, baud int) link.Config {
	cfg := config(m, name)
	l := tty
	l.Baud = baud
	cfg.Nodes, cfg.Links = nodes, []conf.Link{eth1, eth2, l}
	cfg.Open = func(l conf.Link) (link.Port, error) {
		if l.Type == conf.Serial {
			return link.NewLine(c.Open(end), baud), nil
		}
		return m.Open(name, l)
	}
	return cfg
}

// pairStory is story for two nodes with a null-modem cable, that know each other.
func pairStory(t *testing.T, baud int, f func(t *testing.T, m *linktest.Medium, c *linktest.Cable, n map[string]*node)) {
	synctest.Test(t, func(t *testing.T) {
		m, c := linktest.New(1), linktest.NewCable(baud, 1)
		n := map[string]*node{}
		for i, name := range []string{"a", "b"} {
			n[name] = start(t, onLine(m, name, []string{"a", "b"}, c, i, baud))
		}
		pass(2 * time.Second)
		f(t, m, c, n)
	})
}

// cutNetwork cuts all but the serial line.
func cutNetwork(m *linktest.Medium, cut bool) {
	for _, l := range []conf.Link{eth1, eth2} {
		m.Cut(l.Name(), "a", cut)
	}
}

func TestTheSerialLineIsALinkLikeOthers(t *testing.T) {
	pairStory(t, 19200, func(t *testing.T, m *linktest.Medium, _ *linktest.Cable, n map[string]*node) {
		want(t, "a", n["a"].states(), "b up up up")
		want(t, "b", n["b"].states(), "a up up up")
		pass(time.Minute)
		p := n["a"].peer(t, "b").Links[2]
		want(t, "link", p.Link, "serial /dev/ttyS0")
		want(t, "loss", p.Loss, 0)
		if p.RTT < 50*time.Millisecond || p.RTT > 200*time.Millisecond {
			t.Errorf("round trip time is %v", p.RTT)
		}
		for _, l := range n["a"].Stats().Links {
			want(t, "troubles of "+l.Link, l.AuthFailed+l.Replayed+l.Malformed+l.Foreign+l.OldBoot+l.SendErrors+l.Dropped, 0)
		}
	})
}

func TestPeersStayUpByTheSerialLineAlone(t *testing.T) {
	pairStory(t, 19200, func(t *testing.T, m *linktest.Medium, c *linktest.Cable, n map[string]*node) {
		want(t, "only serial", n["a"].peer(t, "b").OnlySerial, false)
		cutNetwork(m, true)
		changed, stop := n["a"].Watch()
		defer stop()
		pass(20 * keepalive)
		select {
		case <-changed:
		default:
			t.Error("Watch is silent after the network links were cut")
		}
		for range 100 {
			pass(keepalive)
			for name, other := range map[string]string{"a": "b", "b": "a"} {
				want(t, name, n[name].states(), other+" down down up")
			}
		}
		p := n["a"].peer(t, "b")
		want(t, "state", p.State, link.Up)
		want(t, "only serial", p.OnlySerial, true)

		if err := n["a"].Send("b", link.ChannelLease, []byte{1, 1, 'x'}); err != nil {
			t.Error(err)
		}
		pass(100 * time.Millisecond)
		want(t, "received", strings.Join(n["b"].received(), ","), "a: \x01\x01x")
		for _, ch := range []link.Channel{link.ChannelQUIC, link.ChannelGossip, link.ChannelRaft} {
			err := n["a"].Send("b", ch, []byte("x"))
			if err == nil || err.Error() != "send to b: only the link serial /dev/ttyS0 is left, and a serial line carries no streams" {
				t.Errorf("channel %d: %v", ch, err)
			}
		}

		c.Noise(0, linktest.LineNoise{Cut: true}) // what a would hear
		pass(10 * time.Second)
		want(t, "a", n["a"].states(), "b down down down")
		want(t, "b", n["b"].states(), "a down down down")
		want(t, "only serial", n["a"].peer(t, "b").OnlySerial, false)
		want(t, "why at a", n["a"].peer(t, "b").Links[2].Why, "no hello for 10s")
		want(t, "why at b", n["b"].peer(t, "a").Links[2].Why, "hears us not")
		c.Noise(0, linktest.LineNoise{})
		pass(time.Second)
		want(t, "a", n["a"].states(), "b down down up")
		cutNetwork(m, false)
		pass(5 * keepalive)
		want(t, "a", n["a"].states(), "b up up up")
		want(t, "only serial", n["a"].peer(t, "b").OnlySerial, false)
	})
}

// A pair that starts with no network at all.
func TestNodesFindEachOtherByTheSerialLineAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, c := linktest.New(1), linktest.NewCable(19200, 1)
		cutNetwork(m, true)
		meta := strings.Repeat("meta of b, ", 20)
		a := start(t, onLine(m, "a", []string{"a", "b"}, c, 0, 19200))
		pass(10 * time.Second)
		b := start(t, onLine(m, "b", []string{"a", "b"}, c, 1, 19200))
		b.SetMeta([]byte(meta))
		pass(time.Second)
		want(t, "a", a.states(), "b down down up")
		want(t, "b", b.states(), "a down down up")
		pass(5 * time.Second)
		want(t, "meta", string(a.peer(t, "b").Meta), meta)
		b.SetMeta([]byte("short"))
		pass(time.Second)
		want(t, "meta", string(a.peer(t, "b").Meta), "short")

		old := a.peer(t, "b").Boot
		b.stop()
		pass(5 * time.Second)
		want(t, "a", a.states(), "b down down down")
		b = start(t, onLine(m, "b", []string{"a", "b"}, c, 1, 19200))
		b.SetMeta(make([]byte, link.MaxMeta))
		pass(time.Second)
		want(t, "a", a.states(), "b down down up")
		if boot := a.peer(t, "b").Boot; boot == old || boot != b.Boot() {
			t.Errorf("boot is %v", boot)
		}
		pass(15 * time.Second)
		want(t, "length of the meta", len(a.peer(t, "b").Meta), link.MaxMeta)
	})
}

// leases plays the lease protocol of two directors: a renewal and the answer to
// the other's each quarter of a lease, in the sizes that they have. It returns
// the longest time from sending a renewal to the next answer after the one
// before: what a lease must outlast.
func leases(t *testing.T, n map[string]*node, length, span time.Duration) (worst time.Duration) {
	const renew, ack = 20, 58 // with names like director1 and a UUID
	message := func(kind, size int, k uint64) []byte {
		return append(fmt.Appendf([]byte{1, byte(kind)}, "%020d", k), make([]byte, size)...)[:max(size, 22)]
	}
	var mu sync.Mutex
	sent := map[string]map[uint64]time.Time{"a": {}, "b": {}}
	last := map[string]time.Time{} // when the latest round that was answered was sent
	begin := time.Now()
	for name := range n {
		last[name] = begin
		n[name].Handle(link.ChannelLease, func(from string, _ link.Boot, b []byte) {
			var k uint64
			if _, err := fmt.Sscanf(string(b[2:22]), "%d", &k); err != nil {
				t.Error(err)
			}
			if b[1] == 1 {
				_ = n[name].Send(from, link.ChannelLease, message(2, ack, k))
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if at := sent[name][k]; at.After(last[name]) {
				if time.Since(begin) > 2*length {
					worst = max(worst, time.Since(last[name]))
				}
				last[name] = at
			}
		})
	}
	for k := uint64(1); time.Since(begin) < span; k++ {
		for name, other := range map[string]string{"a": "b", "b": "a"} {
			mu.Lock()
			sent[name][k] = time.Now()
			mu.Unlock()
			_ = n[name].Send(other, link.ChannelLease, message(1, renew, k))
			time.Sleep(length / 8) // they are not in step
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, at := range last {
		worst = max(worst, time.Since(at))
	}
	return worst
}

// What a line carries when nothing else is left: docs/protocol.md has this table.
func TestLeasesHoldOnTheSerialLineAlone(t *testing.T) {
	for _, c := range []struct {
		profile conf.Profile
		baud    int
	}{
		{conf.ProfileCalm, 9600}, {conf.ProfileDefault, 19200}, {conf.ProfileDefault, 38400},
		{conf.ProfileFast, 57600}, {conf.ProfileFast, 115200},
	} {
		t.Run(fmt.Sprint(c.profile.Name, c.baud), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, cable := linktest.New(1), linktest.NewCable(c.baud, 1)
				n := map[string]*node{}
				for i, name := range []string{"a", "b"} {
					cfg := onLine(m, name, []string{"a", "b"}, cable, i, c.baud)
					cfg.Keepalive = c.profile.Keepalive
					n[name] = start(t, cfg)
				}
				pass(3 * time.Second)
				cutNetwork(m, true)
				pass(3 * time.Second)
				before, span := cable.Sent(0), 5*time.Minute
				worst := leases(t, n, c.profile.Lease, span)
				load := float64(cable.Sent(0)-before) * 10 / float64(c.baud) / span.Seconds()
				t.Logf("a lease of %v is renewed at the latest after %v; the line is busy for %.0f %%", c.profile.Lease, worst, 100*load)
				if worst > c.profile.Lease {
					t.Errorf("a lease of %v would have ended: %v", c.profile.Lease, worst)
				}
				want(t, "a", n["a"].states(), "b down down up")
				want(t, "b", n["b"].states(), "a down down up")
			})
		})
	}
}

// A line that cannot carry all carries the newest, and of everything something.
func TestALineThatIsTooSlowCarriesTheNewest(t *testing.T) {
	pairStory(t, 9600, func(t *testing.T, m *linktest.Medium, _ *linktest.Cable, n map[string]*node) {
		cutNetwork(m, true)
		pass(3 * time.Second)
		var mu sync.Mutex
		got, oldest := map[byte]int{}, time.Duration(0)
		begin := time.Now()
		n["b"].Handle(link.ChannelLease, func(_ string, _ link.Boot, b []byte) {
			at, err := time.ParseDuration(strings.TrimRight(string(b[2:]), "\x00"))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			got[b[1]]++
			oldest = max(oldest, time.Since(begin)-at)
		})
		for range 4000 { // four kinds, ten times what the line can
			for kind := range byte(4) {
				b := append([]byte{1, kind}, time.Since(begin).String()...)
				if err := n["a"].Send("b", link.ChannelLease, append(b, make([]byte, 60-len(b))...)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
		mu.Lock()
		defer mu.Unlock()
		for kind := range byte(4) {
			if got[kind] < 80 {
				t.Errorf("of kind %d %d arrived, of all %v", kind, got[kind], got)
			}
		}
		if oldest > 600*time.Millisecond {
			t.Errorf("what arrived was up to %v old", oldest)
		}
		want(t, "a", n["a"].states(), "b down down up")
		if n["a"].Stats().Links[2].Dropped == 0 {
			t.Error("nothing is counted as dropped")
		}
	})
}

func TestNoiseOnTheLineIsSurvived(t *testing.T) {
	pairStory(t, 19200, func(t *testing.T, m *linktest.Medium, c *linktest.Cable, n map[string]*node) {
		cutNetwork(m, true)
		pass(3 * time.Second)
		for end := range 2 {
			c.Noise(end, linktest.LineNoise{Loss: 0.001, Flip: 0.001, Add: 0.001})
		}
		up := 0
		for range 600 {
			pass(keepalive)
			if n["a"].peer(t, "b").State != link.Down {
				up++
			}
		}
		if up < 590 {
			t.Errorf("the peer was there for %d of 600 keepalives", up)
		}
		s := n["a"].Stats().Links[2]
		if s.Malformed < 10 || s.AuthFailed+s.Replayed+s.OldBoot > 0 {
			t.Errorf("noise counts as %+v", s)
		}
		refused := n["a"].Refused()
		if len(refused) != 1 || refused[0].From != "the line" || !strings.HasPrefix(refused[0].What, "noise: damaged frames") {
			t.Errorf("Refused: %+v", refused)
		}
		for end := range 2 {
			c.Noise(end, linktest.LineNoise{})
		}
		pass(time.Second)
		want(t, "a", n["a"].states(), "b down down up")
	})
}

// Three nodes, and a line between two of them.
func TestTheLineIsOnlyForItsOtherEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, c := linktest.New(1), linktest.NewCable(19200, 1)
		names := []string{"a", "b", "c"}
		a := start(t, onLine(m, "a", names, c, 0, 19200))
		start(t, onLine(m, "b", names, c, 1, 19200))
		start(t, config(m, "c"))
		pass(3 * time.Second)
		want(t, "a", a.states(), "b up up up, c up up down")
		want(t, "why", a.peer(t, "c").Links[2].Why, "the line goes to b")
		for _, l := range []conf.Link{eth1, eth2} {
			m.Cut(l.Name(), "c", true)
		}
		pass(3 * time.Second)
		before := c.Sent(0)
		for range 100 {
			_ = a.Send("c", link.ChannelLease, make([]byte, 500))
		}
		synctest.Wait()
		if now := c.Sent(0); now > before+200 {
			t.Errorf("%d bytes for another node went on the line", now-before)
		}
	})
}

func TestADeviceThatWasGoneIsOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, c := linktest.New(1), linktest.NewCable(19200, 1)
		gone := errors.New("/dev/ttyUSB0: no such device")
		var mu sync.Mutex
		var problem error
		var open *linktest.CableEnd
		cfg := onLine(m, "a", []string{"a", "b"}, c, 0, 19200)
		cfg.Open = func(l conf.Link) (link.Port, error) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case l.Type != conf.Serial:
				return m.Open("a", l)
			case problem != nil:
				return nil, problem
			}
			open = c.Open(0)
			return link.NewLine(open, 19200), nil
		}
		a := start(t, cfg)
		start(t, onLine(m, "b", []string{"a", "b"}, c, 1, 19200))
		pass(2 * time.Second)
		want(t, "a", a.states(), "b up up up")
		mu.Lock()
		problem = gone
		open.Close()
		mu.Unlock()
		pass(time.Second)
		want(t, "a", a.states(), "b up up down")
		want(t, "why", a.peer(t, "b").Links[2].Why, gone.Error())
		mu.Lock()
		problem = nil
		mu.Unlock()
		pass(4 * time.Second)
		want(t, "a", a.states(), "b up up up")
	})
}

// opaque hides what a Port is, as the simulation's does.
type opaque struct{ link.Port }

func TestLeasesHoldBehindAPortThatIsWrapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, c := linktest.New(1), linktest.NewCable(19200, 1)
		n := map[string]*node{}
		for i, name := range []string{"a", "b"} {
			cfg := onLine(m, name, []string{"a", "b"}, c, i, 19200)
			open := cfg.Open
			cfg.Open = func(l conf.Link) (link.Port, error) {
				p, err := open(l)
				return opaque{p}, err
			}
			n[name] = start(t, cfg)
		}
		cutNetwork(m, true)
		pass(3 * time.Second)
		if worst := leases(t, n, conf.ProfileDefault.Lease, time.Minute); worst > conf.ProfileDefault.Lease {
			t.Errorf("a lease would have ended: %v", worst)
		}
		want(t, "a", n["a"].states(), "b down down up")
	})
}
