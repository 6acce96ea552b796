package link_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/link/linktest"
)

func TestEverythingReplayedIsRefused(t *testing.T) {
	story(t, "", func(t *testing.T, m *linktest.Medium, _ map[string]*node) {
		var tape []linktest.Frame
		m.Tap(func(f linktest.Frame) { tape = append(tape, f) })
		replay := func(to *node, name string) {
			for _, f := range tape {
				if f.To == name {
					m.Inject(f.Link, name, f.Addr, f.Data)
					m.Inject(eth2.Name(), name, f.Addr, f.Data)
					synctest.Wait()
				}
			}
		}
		a, b := start(t, config(m, "a")), start(t, config(m, "b"))
		pass(3 * keepalive)
		if err := a.Send("b", link.ChannelLease, []byte("renew 1")); err != nil {
			t.Fatal(err)
		}
		pass(3 * keepalive)
		m.Tap(nil)
		want(t, "received", strings.Join(b.received(), " "), "a: renew 1")

		replay(b, "b")
		want(t, "received after a replay", strings.Join(b.received(), " "), "a: renew 1")
		if b.Stats().Links[0].Replayed == 0 {
			t.Error("replays are not counted")
		}

		// The sender is gone, the receiver starts anew: it knows nothing of the old session.
		a.stop()
		b.stop()
		b = start(t, config(m, "b"))
		pass(keepalive)
		replay(b, "b")
		pass(keepalive)
		want(t, "received by the new receiver", len(b.received()), 0)
		want(t, "believed by the new receiver", b.peer(t, "a").Boot, 0)
		want(t, "states", b.states(), "a down down, c down down")

		// The sender starts anew: it is believed, and its former boot is not, for good.
		old := a.Boot()
		a = start(t, config(m, "a"))
		pass(5 * keepalive)
		want(t, "believed", b.peer(t, "a").Boot, a.Boot())
		replay(b, "b")
		pass(5 * keepalive)
		want(t, "believed after a replay", b.peer(t, "a").Boot, a.Boot())
		if a.Boot() == old {
			t.Error("two boots are the same")
		}
		want(t, "received", len(b.received()), 0)
	})
}

func TestANewBootReplacesTheOldForGood(t *testing.T) {
	story(t, "a b", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		var tape []linktest.Frame
		m.Tap(func(f linktest.Frame) {
			if f.From == "a" && f.To == "b" {
				tape = append(tape, f)
			}
		})
		// The last words of the old boot are held back on the way: b gets them after the new one's.
		m.Set("", "a", "b", linktest.Condition{Cut: true})
		for i := range 3 {
			if err := n["a"].Send("b", link.ChannelLease, fmt.Append(nil, "old ", i)); err != nil {
				t.Fatal(err)
			}
		}
		pass(2 * keepalive)
		m.Tap(nil)
		n["a"].stop()
		m.Clear()
		a := start(t, config(m, "a"))
		pass(5 * keepalive)
		want(t, "believed", n["b"].peer(t, "a").Boot, a.Boot())
		for _, f := range tape {
			m.Inject(f.Link, "b", f.Addr, f.Data)
		}
		pass(keepalive)
		want(t, "believed", n["b"].peer(t, "a").Boot, a.Boot())
		want(t, "received", len(n["b"].received()), 0)
		if n["b"].Stats().Links[0].OldBoot == 0 {
			t.Error("datagrams of the former boot are not counted")
		}
		if err := a.Send("b", link.ChannelLease, []byte("new")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want(t, "received", strings.Join(n["b"].received(), " "), "a: new")
		if !strings.Contains(n["b"].logged(), "node a has started anew") {
			t.Error(n["b"].logged())
		}
	})
}

// A proof that was held back must not bring a dead boot back: the nonces of the
// time before are void once another boot is believed.
func TestAHeldBackProofIsWorthNothing(t *testing.T) {
	story(t, "", func(t *testing.T, m *linktest.Medium, _ map[string]*node) {
		var tape []linktest.Frame
		m.Tap(func(f linktest.Frame) {
			if f.From == "a" && f.To == "b" {
				tape = append(tape, f)
			}
		})
		// The first hello passes and is challenged; the answers do not pass.
		m.Set("", "b", "a", linktest.Condition{Delay: 5 * time.Millisecond})
		b := start(t, config(m, "b"))
		pass(keepalive / 2)
		a := start(t, config(m, "a"))
		pass(time.Millisecond)
		m.Set("", "a", "b", linktest.Condition{Cut: true})
		pass(3 * keepalive)
		dead := a.Boot()
		want(t, "believed", b.peer(t, "a").Boot, 0)
		a.stop()
		m.Tap(nil)
		m.Clear()
		a = start(t, config(m, "a"))
		pass(5 * keepalive)
		want(t, "believed", b.peer(t, "a").Boot, a.Boot())
		if len(tape) < 6 {
			t.Fatalf("only %d answers were held back", len(tape))
		}
		for range 3 {
			for _, f := range tape {
				m.Inject(f.Link, "b", f.Addr, f.Data)
				synctest.Wait()
			}
			pass(keepalive)
		}
		if got := b.peer(t, "a").Boot; got == dead || got != a.Boot() {
			t.Errorf("believed is %v, alive is %v, dead is %v", got, a.Boot(), dead)
		}
	})
}

func TestGarbageMakesNoStorm(t *testing.T) {
	story(t, "", func(t *testing.T, m *linktest.Medium, _ map[string]*node) {
		var tape []linktest.Frame
		// Hellos of many boots, recorded.
		for range 30 {
			m.Tap(func(f linktest.Frame) {
				if f.From == "a" {
					tape = append(tape, f)
				}
			})
			m.Open("b", eth1)
			m.Open("b", eth2)
			a := start(t, config(m, "a"))
			pass(keepalive)
			a.stop()
		}
		m.Tap(nil)
		b := start(t, config(m, "b"))
		pass(keepalive)
		before := b.Stats().Links[0].Sent + b.Stats().Links[1].Sent
		for range 100 {
			for _, f := range tape {
				m.Inject(f.Link, "b", f.Addr, f.Data)
			}
			pass(keepalive / 10)
		}
		// 10 keepalives: a hello on each link each, and a burst and a drip of prompt ones.
		sent := b.Stats().Links[0].Sent + b.Stats().Links[1].Sent - before
		if sent > 2*11+8+11 {
			t.Errorf("%d datagrams were provoked by replays", sent)
		}
		// And the true node gets in while that goes on.
		a := start(t, config(m, "a"))
		for range 100 {
			for _, f := range tape {
				m.Inject(f.Link, "b", f.Addr, f.Data)
			}
			pass(keepalive / 10)
		}
		pass(5 * keepalive)
		want(t, "believed", b.peer(t, "a").Boot, a.Boot())
	})
}

func TestWrongKey(t *testing.T) {
	story(t, "a b c", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		n["c"].stop()
		pass(10 * keepalive)
		was := n["c"].Boot()
		for _, k := range []link.Key{{Index: 1, Secret: key2.Secret}, key2} {
			cfg := config(m, "c")
			cfg.Keys, cfg.Active = []link.Key{k}, k.Index
			c := start(t, cfg)
			pass(5 * keepalive)
			want(t, "believed by c", c.peer(t, "a").Boot, 0)
			want(t, "believed by a", n["a"].peer(t, "c").Boot, was)
			c.stop()
		}
		s := n["a"].Stats().Links[0]
		if s.AuthFailed == 0 {
			t.Error("failures are not counted")
		}
		log := n["a"].logged()
		want(t, "lines about it", strings.Count(log, "authentication failed"), 2) // one a link
		if from := m.Address("c", eth1).String(); !strings.Contains(log, from) {
			t.Errorf("%s is not named in\n%s", from, log)
		}
		pass(2 * time.Minute)
		want(t, "a", n["a"].states(), "b up up, c down down")
	})
}

func TestKeysAreRotatedWithoutSilence(t *testing.T) {
	story(t, "", func(t *testing.T, m *linktest.Medium, _ map[string]*node) {
		with := func(name string, active int, keys ...link.Key) *node {
			cfg := config(m, name)
			cfg.Nodes, cfg.Keys, cfg.Active = []string{"a", "b"}, keys, active
			return start(t, cfg)
		}
		a, b := with("a", 1, key1), with("b", 1, key1)
		for i, step := range []func(){
			func() {},
			func() { a.stop(); a = with("a", 1, key1, key2) },
			func() { b.stop(); b = with("b", 1, key1, key2) },
			func() { a.stop(); a = with("a", 2, key1, key2) },
			func() { b.stop(); b = with("b", 2, key2) },
			func() { a.stop(); a = with("a", 2, key2) },
		} {
			step()
			pass(8 * keepalive)
			want(t, fmt.Sprint("a after step ", i), a.states(), "b up up")
			want(t, fmt.Sprint("b after step ", i), b.states(), "a up up")
		}
	})
}

// Every bit of a datagram is protected: flip each and nothing is delivered.
func TestAFlippedBitIsNotDelivered(t *testing.T) {
	story(t, "a b", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		var sample linktest.Frame
		m.Tap(func(f linktest.Frame) { sample = f })
		m.Set("", "a", "b", linktest.Condition{Cut: true})
		if err := n["a"].Send("b", link.ChannelLease, []byte("hello world")); err != nil {
			t.Fatal(err)
		}
		m.Tap(nil)
		for bit := range 8 * len(sample.Data) {
			bad := bytes.Clone(sample.Data)
			bad[bit/8] ^= 1 << (bit % 8)
			m.Inject(sample.Link, "b", sample.Addr, bad)
		}
		// Forged sequence numbers must not have moved the window either.
		far := bytes.Clone(sample.Data)
		binary.BigEndian.PutUint64(far[24:], 1<<60)
		m.Inject(sample.Link, "b", sample.Addr, far)
		synctest.Wait()
		want(t, "delivered", len(n["b"].received()), 0)
		m.Inject(sample.Link, "b", sample.Addr, sample.Data)
		synctest.Wait()
		want(t, "delivered", strings.Join(n["b"].received(), " "), "a: hello world")
	})
}

func TestWhatIsRefusedOfLateIsTold(t *testing.T) {
	story(t, "a b c", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		n["c"].stop()
		pass(10 * keepalive)
		want(t, "refused in peace", len(n["b"].Refused()), 0)
		bad := config(m, "c")
		bad.Keys = []link.Key{{Index: 1, Secret: []byte("another secret, long enough")}}
		bad.Active = 1
		c := start(t, bad)
		pass(5 * keepalive)
		c.stop()
		r := n["b"].Refused()
		want(t, "kinds refused", len(r), 2) // on each link
		want(t, "refused", r[0].Link+": "+r[0].What, eth1.Name()+": authentication failed: another key, or not from this cluster")
		if r[0].From != m.Address("c", eth1).String() || r[0].Count < 3 {
			t.Errorf("refused: %+v", r[0])
		}
		pass(2 * time.Minute)
		want(t, "refused long ago", len(n["b"].Refused()), 0)
	})
}
