package link_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/link/linktest"
	"github.com/keepbeat/keepbeat/conf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	eth1 = conf.Link{Type: conf.Bcast, Interface: "eth1", Port: 694}
	eth2 = conf.Link{Type: conf.Mcast, Interface: "eth2", Port: 694}
	key1 = link.Key{Index: 1, Secret: []byte("correct horse battery staple")}
	key2 = link.Key{Index: 2, Secret: []byte("another horse battery staple")}
)

const keepalive = 100 * time.Millisecond

// node is a mesh that runs, and what it has received and logged.
type node struct {
	*link.Mesh
	stop func()

	mu  sync.Mutex // guards all below
	got []string   // "from: payload"
	log bytes.Buffer
}

func (n *node) received() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.got)
}

func (n *node) logged() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log.String()
}

func (n *node) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log.Write(b)
}

func config(medium *linktest.Medium, name string) link.Config {
	return link.Config{
		Cluster: "test", Self: name, Nodes: []string{"a", "b", "c"},
		Keys: []link.Key{key1}, Active: 1, Links: []conf.Link{eth1, eth2},
		Keepalive: keepalive, Open: medium.Opener(name),
	}
}

func start(t testing.TB, cfg link.Config) *node {
	t.Helper()
	n := &node{}
	cfg.Logger = slog.New(slog.NewTextHandler(n, nil))
	mesh, err := link.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Mesh = mesh
	mesh.Handle(link.ChannelLease, func(from string, boot link.Boot, payload []byte) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.got = append(n.got, from+": "+string(payload))
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- mesh.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// states is "b up up, c down down": the state of every peer's links.
func (n *node) states() string {
	var out []string
	for _, p := range n.Peers() {
		s := p.Node
		for _, l := range p.Links {
			s += " " + l.State.String()
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func (n *node) peer(t *testing.T, name string) link.Peer {
	t.Helper()
	for _, p := range n.Peers() {
		if p.Node == name {
			return p
		}
	}
	t.Fatalf("no peer %s", name)
	return link.Peer{}
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// story runs f in a bubble with a medium and, when it is asked for, nodes that know each other.
func story(t *testing.T, names string, f func(t *testing.T, m *linktest.Medium, n map[string]*node)) {
	synctest.Test(t, func(t *testing.T) {
		m := linktest.New(1)
		nodes := map[string]*node{}
		for _, name := range strings.Fields(names) {
			cfg := config(m, name)
			cfg.Nodes = strings.Fields(names)
			nodes[name] = start(t, cfg)
		}
		if len(nodes) > 0 {
			pass(5 * keepalive)
		}
		f(t, m, nodes)
	})
}

func TestNodesFindEachOther(t *testing.T) {
	story(t, "a b c", func(t *testing.T, _ *linktest.Medium, n map[string]*node) {
		want(t, "a", n["a"].states(), "b up up, c up up")
		want(t, "b", n["b"].states(), "a up up, c up up")
		want(t, "c", n["c"].states(), "a up up, b up up")
		want(t, "boot", n["a"].peer(t, "b").Boot, n["b"].Boot())
		for to, n := range n {
			_ = to
			for _, p := range n.Peers() {
				if err := n.Send(p.Node, link.ChannelLease, []byte("hi")); err != nil {
					t.Error(err)
				}
			}
		}
		synctest.Wait()
		for name, n := range n {
			got := n.received()
			slices.Sort(got)
			all := strings.Replace("a: hi,b: hi,c: hi,", name+": hi,", "", 1)
			want(t, "received by "+name, strings.Join(got, ",")+",", all)
		}
		for _, l := range n["b"].Stats().Links {
			want(t, "troubles", l.AuthFailed+l.Replayed+l.Malformed+l.Foreign+l.OldBoot+l.SendErrors, 0)
		}
	})
}

func TestBelievingTakesARoundTrip(t *testing.T) {
	story(t, "", func(t *testing.T, m *linktest.Medium, _ map[string]*node) {
		m.Set("", "", "", linktest.Condition{Delay: 5 * time.Millisecond})
		a := start(t, config(m, "a"))
		pass(keepalive / 2)
		b := start(t, config(m, "b"))
		// Its hello, the challenge, the answer.
		pass(15*time.Millisecond + time.Microsecond)
		want(t, "boot", a.peer(t, "b").Boot, b.Boot())
		pass(5 * time.Millisecond)
		want(t, "boot", b.peer(t, "a").Boot, a.Boot())
		pass(4 * keepalive)
		if rtt := a.peer(t, "b").Links[0].RTT; rtt != 10*time.Millisecond {
			t.Errorf("round trip time is %v", rtt)
		}
	})
}

func TestMetaTravelsWithHellosAndWatchTellsChanges(t *testing.T) {
	story(t, "a b", func(t *testing.T, _ *linktest.Medium, n map[string]*node) {
		changed, stop := n["b"].Watch()
		defer stop()
		n["a"].SetMeta([]byte("empty disk"))
		pass(keepalive)
		want(t, "meta", string(n["b"].peer(t, "a").Meta), "empty disk")
		select {
		case <-changed:
		default:
			t.Error("Watch is silent after a change of the meta")
		}
		pass(20 * keepalive)
		select {
		case <-changed:
			t.Error("Watch speaks without a change")
		default:
		}
		n["a"].SetMeta(make([]byte, link.MaxMeta+1))
		pass(keepalive)
		want(t, "meta", string(n["b"].peer(t, "a").Meta), "empty disk")
		if !strings.Contains(n["a"].logged(), "too long") {
			t.Error("nothing is logged of a meta that is too long")
		}
	})
}

// Many nodes: a hello is several datagrams then.
func TestManyNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := linktest.New(1)
		var names []string
		for i := range 60 {
			names = append(names, fmt.Sprintf("node%02d", i))
		}
		var nodes []*node
		for _, name := range []string{names[0], names[31], names[59]} {
			cfg := config(m, name)
			cfg.Nodes = names
			nodes = append(nodes, start(t, cfg))
			nodes[len(nodes)-1].SetMeta(make([]byte, link.MaxMeta))
		}
		// The rest are there too, so that entries are many.
		for _, name := range names {
			if name != names[0] && name != names[31] && name != names[59] {
				cfg := config(m, name)
				cfg.Nodes = names
				start(t, cfg)
			}
		}
		pass(20 * keepalive)
		for _, n := range nodes {
			for _, p := range n.Peers() {
				if p.State != link.Up || len(p.Links) != 2 || p.Links[0].State != link.Up || p.Links[1].State != link.Up || len(p.Meta) != link.MaxMeta && (p.Node == names[0] || p.Node == names[31]) {
					t.Fatalf("%+v", p)
				}
			}
		}
	})
}

func TestLosingEitherLinkLosesNoDatagram(t *testing.T) {
	for _, cut := range []string{eth1.Name(), eth2.Name()} {
		story(t, "a b", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
			var sent []string
			for i := range 300 {
				switch i {
				case 100:
					m.Set(cut, "", "", linktest.Condition{Cut: true})
				case 200:
					m.Clear()
				}
				text := fmt.Sprint(i)
				if err := n["a"].Send("b", link.ChannelLease, []byte(text)); err != nil {
					t.Fatal(err)
				}
				sent = append(sent, "a: "+text)
				pass(10 * time.Millisecond)
				if i == 199 {
					down := n["b"].peer(t, "a")
					want(t, "the peer", down.State, link.Up)
					states := map[string]string{eth1.Name(): "a down up", eth2.Name(): "a up down"}
					want(t, "states", n["b"].states(), states[cut])
				}
			}
			want(t, "received", strings.Join(n["b"].received(), "\n"), strings.Join(sent, "\n"))
			want(t, "boot", n["b"].peer(t, "a").Boot, n["a"].Boot())
			line := "link " + cut + " to a: up -> late: no hello for "
			if strings.Count(n["b"].logged(), line) != 1 {
				t.Errorf("want once %q in\n%s", line, n["b"].logged())
			}
			for _, back := range []string{"to a: late -> down: ", "to a: down -> up"} {
				if !strings.Contains(n["b"].logged(), "link "+cut+" "+back) {
					t.Errorf("want %q in\n%s", back, n["b"].logged())
				}
			}
		})
	}
}

func TestOneWayLinkIsNotUp(t *testing.T) {
	story(t, "a b", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		m.Set(eth1.Name(), "a", "b", linktest.Condition{Cut: true})
		pass(4*keepalive + keepalive/2)
		want(t, "the deaf one", n["b"].states(), "a late up")
		pass(6 * keepalive)
		want(t, "a, which b hears not", n["a"].states(), "b down up")
		want(t, "why", n["a"].peer(t, "b").Links[0].Why, "hears us not")
		want(t, "b", n["b"].states(), "a down up")
		if why := n["b"].peer(t, "a").Links[0].Why; !strings.HasPrefix(why, "no hello for ") {
			t.Errorf("why: %s", why)
		}
		m.Clear()
		pass(4 * keepalive)
		want(t, "a", n["a"].states(), "b up up")
		want(t, "b", n["b"].states(), "a up up")
	})
}

func TestOneWayFromTheStartIsNeverBelieved(t *testing.T) {
	story(t, "", func(t *testing.T, m *linktest.Medium, _ map[string]*node) {
		m.Set("", "a", "b", linktest.Condition{Cut: true})
		a, b := start(t, config(m, "a")), start(t, config(m, "b"))
		pass(20 * keepalive)
		want(t, "a's belief", a.peer(t, "b").Boot, 0)
		want(t, "b's belief", b.peer(t, "a").Boot, 0)
		want(t, "why", a.peer(t, "b").Links[0].Why, "hears us not")
		want(t, "why", b.peer(t, "a").Links[0].Why, "no hello yet")
		// Nothing is delivered before the boot is believed.
		if err := b.Send("a", link.ChannelLease, []byte("x")); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		want(t, "delivered", len(a.received()), 0)
	})
}

func TestFullPartitionHeals(t *testing.T) {
	story(t, "a b", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		m.Cut("", "b", true)
		pass(10 * keepalive)
		want(t, "a", n["a"].states(), "b down down")
		// Send still tries all links: the silence may be on the way to us only.
		if err := n["a"].Send("b", link.ChannelLease, []byte("x")); err != nil {
			t.Error(err)
		}
		m.Cut("", "b", false)
		pass(3 * keepalive)
		want(t, "a", n["a"].states(), "b up up")
		want(t, "b", n["b"].states(), "a up up")
	})
}

func TestDownPeerIsStillSentTo(t *testing.T) {
	story(t, "a b", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		m.Set("", "b", "a", linktest.Condition{Cut: true})
		pass(10 * keepalive)
		want(t, "a", n["a"].states(), "b down down")
		if err := n["a"].Send("b", link.ChannelLease, []byte("x")); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		want(t, "received", strings.Join(n["b"].received(), " "), "a: x")
	})
}

func TestInterfaceThatGoesAndReturns(t *testing.T) {
	story(t, "a b", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		m.Interface(eth1.Name(), "a", errors.New("eth1: no such interface"))
		synctest.Wait()
		want(t, "a", n["a"].states(), "b down up")
		want(t, "why", n["a"].peer(t, "b").Links[0].Why, "eth1: no such interface")
		m.Interface(eth2.Name(), "a", errors.New("eth2: no carrier"))
		synctest.Wait()
		err := n["a"].Send("b", link.ChannelLease, nil)
		if err == nil || err.Error() != "send to b: no link took it: link bcast eth1: eth1: no such interface; link mcast eth2: eth2: no carrier" {
			t.Error(err)
		}
		pass(5 * time.Second)
		m.Interface(eth1.Name(), "a", nil)
		m.Interface(eth2.Name(), "a", nil)
		pass(2*time.Second + 3*keepalive)
		want(t, "a", n["a"].states(), "b up up")
		want(t, "b", n["b"].states(), "a up up")
	})
}

func TestNastyWire(t *testing.T) {
	story(t, "a b", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		m.Set("", "", "", linktest.Condition{
			Loss: 0.2, Duplicate: 0.3, Corrupt: 0.1, Delay: time.Millisecond, Jitter: 40 * time.Millisecond,
		})
		const count = 2000
		for i := range count {
			if err := n["a"].Send("b", link.ChannelLease, fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
			pass(time.Millisecond)
		}
		pass(time.Second)
		seen := map[string]bool{}
		for _, g := range n["b"].received() {
			if seen[g] {
				t.Fatalf("%s was delivered twice", g)
			}
			seen[g] = true
			if !strings.HasPrefix(g, "a: ") {
				t.Fatalf("%q was never sent", g)
			}
		}
		// Two links that lose a quarter each, with some doubled: about 5 % are lost.
		if len(seen) < count*85/100 {
			t.Errorf("only %d of %d arrived", len(seen), count)
		}
		s := n["b"].Stats().Links[0]
		if s.AuthFailed+s.Malformed == 0 || s.Duplicates == 0 || s.Replayed == 0 {
			t.Errorf("not all troubles are counted: %+v", s)
		}
		if loss := n["b"].peer(t, "a").Links[0].Loss; loss < 0.02 || loss > 0.5 {
			t.Errorf("loss is %v", loss)
		}
		m.Clear()
		pass(110 * keepalive)
		want(t, "loss of a clean wire", n["b"].peer(t, "a").Links[0].Loss, 0)
	})
}

func TestTwoClustersOnOneWire(t *testing.T) {
	story(t, "a b", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		cfg := config(m, "other-b")
		cfg.Cluster, cfg.Self = "other", "b"
		cfg.Open = m.Opener("other-b")
		other := start(t, cfg)
		pass(5 * keepalive)
		want(t, "believed by the other cluster", other.peer(t, "a").Boot, 0)
		want(t, "believed by ours", n["a"].peer(t, "b").Boot, n["b"].Boot())
		if n["a"].Stats().Links[0].Foreign == 0 {
			t.Error("datagrams of another cluster are not counted")
		}
		want(t, "lines", strings.Count(n["a"].logged(), "another cluster"), 2) // one a link
	})
}

func TestDatagramsForOthersAreIgnored(t *testing.T) {
	story(t, "a b c", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		var sample linktest.Frame
		m.Tap(func(f linktest.Frame) { sample = f })
		m.Set("", "a", "b", linktest.Condition{Cut: true})
		if err := n["a"].Send("b", link.ChannelLease, []byte("for b")); err != nil {
			t.Fatal(err)
		}
		m.Tap(nil)
		m.Inject(sample.Link, "c", sample.Addr, sample.Data)
		synctest.Wait()
		want(t, "delivered", len(n["c"].received()), 0)
		if n["c"].Stats().Links[1].NotOurs == 0 {
			t.Error("not counted")
		}
	})
}

func TestAMachineWithOurNameIsNoticed(t *testing.T) {
	story(t, "a b", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		cfg := config(m, "a")
		cfg.Open = m.Opener("a's double")
		start(t, cfg)
		pass(5 * keepalive)
		if !strings.Contains(n["a"].logged(), "another machine with this name") {
			t.Error(n["a"].logged())
		}
		r := n["a"].Refused()
		if len(r) == 0 || !strings.Contains(r[0].What, "another machine is called like this one: give it a name of its own, then restart keepbeat here") {
			t.Errorf("refused: %+v", r)
		}
	})
}

func TestSendSaysWhatIsWrong(t *testing.T) {
	story(t, "a b c", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		for _, c := range []struct {
			to   string
			size int
			want string
		}{
			{"x", 1, "send to x: no such node in the configuration; there are b, c"},
			{"a", 1, "send to a: no such node in the configuration; there are b, c"},
			{"b", link.MaxPayload + 1, "send to b: 1401 bytes are too many for a datagram; at most 1400"},
		} {
			if err := n["a"].Send(c.to, link.ChannelLease, make([]byte, c.size)); err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		}
		if err := n["a"].Send("b", link.ChannelHello, nil); err == nil {
			t.Error("a hello from outside is sent")
		}
		if err := n["a"].Run(t.Context()); err == nil {
			t.Error("a second Run works")
		}
	})
}

func TestTimingCanChange(t *testing.T) {
	story(t, "a b", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		before := n["a"].Stats().Links[0].Sent
		for _, n := range n {
			if err := n.SetTiming(link.Timing{Keepalive: 40 * time.Millisecond}); err != nil {
				t.Fatal(err)
			}
		}
		pass(time.Second)
		if sent := n["a"].Stats().Links[0].Sent - before; sent < 24 || sent > 27 {
			t.Errorf("%d hellos in a second at 40 ms", sent)
		}
		want(t, "a", n["a"].states(), "b up up")
		m.Cut("", "b", true)
		pass(250 * time.Millisecond)
		want(t, "a", n["a"].states(), "b down down")
		if n["a"].SetTiming(link.Timing{Keepalive: 1}) == nil {
			t.Error("a keepalive of 1 ns was taken")
		}
	})
}

// One whose file says another profile is heard all the time, and missed when it is silent.
func TestWhoSaysHelloLessOftenIsHeard(t *testing.T) {
	story(t, "a b", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		if err := n["b"].SetTiming(link.Timing{Keepalive: 8 * keepalive}); err != nil {
			t.Fatal(err)
		}
		pass(20 * keepalive) // the hello that says so comes when it was due
		for range 400 {
			pass(keepalive / 5)
			want(t, "a", n["a"].states(), "b up up")
			want(t, "b", n["b"].states(), "a up up")
		}
		m.Cut("", "b", true)
		pass(5*8*keepalive + keepalive)
		want(t, "a", n["a"].states(), "b down down")
		want(t, "b", n["b"].states(), "a down down")
	})
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		mod  func(*link.Config)
		want string
	}{
		{"no cluster", func(c *link.Config) { c.Cluster = "" }, "links: the cluster has no name"},
		{"no name", func(c *link.Config) { c.Self = "" }, "links: this node has no name"},
		{"no links", func(c *link.Config) { c.Links = nil }, "links: none configured; two are wanted"},
		{"too many links", func(c *link.Config) { c.Links = make([]conf.Link, 15) }, "links: 15 configured; at most 14"},
		{"serial", func(c *link.Config) { c.Links[0].Type, c.Links[0].Device = conf.Serial, "" }, "link serial : no device; name one, as /dev/ttyS0"},
		{"serial twice", func(c *link.Config) { c.Links = []conf.Link{tty, tty} }, "link serial /dev/ttyS0 is there twice"},
		{"two on one port", func(c *link.Config) { c.Links[1].Interface = "eth1" },
			"link mcast eth1: bcast eth1 has the same interface and port; give one of them another port"},
		{"ucast without addresses", func(c *link.Config) { c.Links[0].Type = conf.Ucast }, "link ucast eth1: no addresses; name those of the other nodes"},
		{"no key", func(c *link.Config) { c.Keys = nil }, "authkeys: auth 1: there is no such key"},
		{"another key", func(c *link.Config) { c.Active = 257 }, "authkeys: auth 257: there is no such key"},
		{"short key", func(c *link.Config) { c.Keys[0].Secret = c.Keys[0].Secret[:15] }, "authkeys: key 1 has 15 characters; at least 16 are needed"},
		{"key out of range", func(c *link.Config) { c.Keys[0].Index = 256 }, "authkeys: key 256: the number of a key is 1 to 255"},
		{"key twice", func(c *link.Config) { c.Keys = append(c.Keys, c.Keys[0]) }, "authkeys: key 1 is there twice"},
		{"node twice", func(c *link.Config) { c.Nodes = []string{"b", "b"} }, "links: node b is there twice"},
		{"node without name", func(c *link.Config) { c.Nodes = []string{"b", ""} }, "links: a node has no name"},
		{"timing", func(c *link.Config) { c.WarnTime = time.Millisecond }, "warntime 1ms: at least two keepalives, 200ms"},
	} {
		cfg := config(linktest.New(1), "a")
		cfg.Keys = []link.Key{{Index: 1, Secret: bytes.Clone(key1.Secret)}}
		c.mod(&cfg)
		if _, err := link.New(cfg); err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
}

// The same seed gives the same wire.
func TestMediumIsDeterministic(t *testing.T) {
	run := func(seed uint64) (got string) {
		synctest.Test(t, func(t *testing.T) {
			m := linktest.New(seed)
			m.Set("", "", "", linktest.Condition{Loss: 0.3, Duplicate: 0.2, Corrupt: 0.1, Delay: time.Millisecond, Jitter: time.Second})
			a, _ := m.Open("a", eth1)
			b, _ := m.Open("b", eth1)
			for i := range 100 {
				if err := a.Broadcast([]byte{byte(i)}); err != nil {
					t.Fatal(err)
				}
			}
			go func() {
				time.Sleep(time.Minute)
				b.Close()
			}()
			begun, buf := time.Now(), make([]byte, 10)
			for {
				n, from, err := b.Receive(buf)
				if err != nil {
					break
				}
				got += fmt.Sprint(time.Since(begun), from, buf[:n], "\n")
			}
		})
		return got
	}
	if one, two := run(7), run(7); one != two || one == "" {
		t.Error("two runs of one seed differ")
	}
	if run(7) == run(8) {
		t.Error("two seeds are the same")
	}
}
