package link_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/link/linktest"
)

// Keys are changed on one node after the other while datagrams pass, as an
// administrator does it: add everywhere, use everywhere, remove everywhere.
func TestRotatingKeysLosesNoDatagram(t *testing.T) {
	story(t, "a b", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		m.Set("", "", "", linktest.Condition{Delay: 2 * time.Millisecond})
		boot := n["a"].peer(t, "b").Boot
		sent := 0
		stream := func(d time.Duration) {
			for range d / time.Millisecond {
				for from, to := range map[string]string{"a": "b", "b": "a"} {
					if err := n[from].Send(to, link.ChannelLease, fmt.Append(nil, sent)); err != nil {
						t.Fatal(err)
					}
				}
				sent++
				time.Sleep(time.Millisecond)
			}
		}
		both := []link.Key{key1, key2}
		for _, step := range []struct {
			keys   []link.Key
			active int
		}{{both, 1}, {both, 2}, {[]link.Key{key2}, 2}, {both, 2}, {both, 1}, {[]link.Key{key1}, 1}} {
			for _, name := range []string{"a", "b"} {
				if err := n[name].SetKeys(step.keys, step.active); err != nil {
					t.Fatal(err)
				}
				stream(150 * time.Millisecond)
			}
		}
		pass(5 * time.Millisecond)
		for name, n := range n {
			want(t, "received by "+name, len(n.received()), sent)
			for _, l := range n.Stats().Links {
				want(t, "refused by "+name, l.AuthFailed+l.Replayed+l.OldBoot+l.Unbelieved, 0)
			}
		}
		want(t, "states", n["a"].states(), "b up up")
		want(t, "boot", n["a"].peer(t, "b").Boot, boot)
	})
}

// A sequence is a nonce: it goes on over every change of keys, so that a key
// that returns has never sealed two datagrams with the same one.
func TestNoSequenceComesTwiceForAKey(t *testing.T) {
	story(t, "a b", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		seen := map[string]string{} // key, boot and sequence -> frame
		m.Tap(func(f linktest.Frame) {
			if f.From != "a" {
				return
			}
			nonce := string(f.Data[3:4]) + string(f.Data[16:32])
			if old, ok := seen[nonce]; ok && old != string(f.Data) {
				t.Errorf("sequence %x seals two datagrams with key %d", f.Data[24:32], f.Data[3])
			}
			seen[nonce] = string(f.Data)
		})
		both := []link.Key{key1, key2}
		for i := range 20 {
			for _, node := range n {
				if err := node.SetKeys(both, 1+i%2); err != nil {
					t.Fatal(err)
				}
			}
			for range 50 {
				if err := n["a"].Send("b", link.ChannelLease, []byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			pass(keepalive / 3)
		}
		if len(seen) < 1000 {
			t.Errorf("%d datagrams were looked at", len(seen))
		}
	})
}

func TestARemovedKeyOpensNothingAnyMore(t *testing.T) {
	story(t, "a b", func(t *testing.T, _ *linktest.Medium, n map[string]*node) {
		if err := n["a"].SetKeys([]link.Key{key2}, 2); err != nil {
			t.Fatal(err)
		}
		if err := n["b"].Send("a", link.ChannelLease, []byte("old")); err != nil {
			t.Fatal(err)
		}
		pass(10 * keepalive)
		want(t, "received", strings.Join(n["a"].received(), ","), "")
		want(t, "states", n["a"].states(), "b down down")
		if n["a"].Stats().Links[0].AuthFailed == 0 {
			t.Error("nothing was refused")
		}
	})
}

func TestBadKeysChangeNothing(t *testing.T) {
	story(t, "a b", func(t *testing.T, _ *linktest.Medium, n map[string]*node) {
		for _, c := range []struct {
			keys   []link.Key
			active int
			want   string
		}{
			{nil, 1, "authkeys: auth 1: there is no such key"},
			{[]link.Key{key1}, 2, "authkeys: auth 2: there is no such key"},
			{[]link.Key{key1, key1}, 1, "authkeys: key 1 is there twice"},
			{[]link.Key{{Index: 256, Secret: key1.Secret}}, 256, "authkeys: key 256: the number of a key is 1 to 255"},
			{[]link.Key{{Index: 3, Secret: []byte("short")}}, 3, "authkeys: key 3 has 5 characters; at least 16 are needed"},
		} {
			if err := n["a"].SetKeys(c.keys, c.active); err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		}
		pass(10 * keepalive)
		want(t, "states", n["a"].states(), "b up up")
	})
}

func TestANodeIsAddedWhileTheOthersRun(t *testing.T) {
	story(t, "a b", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		before := n["a"].peer(t, "b")
		c := start(t, config(m, "c"))
		pass(5 * keepalive)
		want(t, "c", c.states(), "a down down, b down down")
		changed, stop := n["a"].Watch()
		defer stop()
		for _, name := range []string{"a", "b"} {
			if err := n[name].SetNodes([]string{"c", "b", "a"}); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-changed:
		default:
			t.Error("Watch does not tell of a node that was added")
		}
		pass(3 * keepalive)
		want(t, "a", n["a"].states(), "b up up, c up up")
		want(t, "b", n["b"].states(), "a up up, c up up")
		want(t, "c", c.states(), "a up up, b up up")
		want(t, "state of b", n["a"].peer(t, "b").Links[0].Since, before.Links[0].Since)
		if err := n["a"].Send("c", link.ChannelLease, []byte("hi")); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		want(t, "received", strings.Join(c.received(), ","), "a: hi")
	})
}

func TestARemovedNodeIsAStranger(t *testing.T) {
	story(t, "a b c", func(t *testing.T, m *linktest.Medium, n map[string]*node) {
		if err := n["a"].SetNodes([]string{"a", "b"}); err != nil {
			t.Fatal(err)
		}
		unknown := n["a"].Stats().Links[0].UnknownNode
		if err := n["c"].Send("a", link.ChannelLease, []byte("still here")); err != nil {
			t.Fatal(err)
		}
		pass(10 * keepalive)
		want(t, "a", n["a"].states(), "b up up")
		want(t, "received", strings.Join(n["a"].received(), ","), "")
		if n["a"].Stats().Links[0].UnknownNode == unknown {
			t.Error("its datagrams are not counted as a stranger's")
		}
		if err := n["a"].Send("c", link.ChannelLease, nil); err == nil || !strings.Contains(err.Error(), "no such node") {
			t.Errorf("Send to it: %v", err)
		}

		// It returns under its old boot: it proves itself anew, and what was sent before is not taken.
		var old [][]byte
		m.Tap(func(f linktest.Frame) {
			if f.From == "c" && f.To == "a" {
				old = append(old, f.Data)
			}
		})
		if err := n["c"].Send("a", link.ChannelLease, []byte("again")); err != nil {
			t.Fatal(err)
		}
		pass(keepalive)
		m.Tap(nil)
		if err := n["a"].SetNodes([]string{"a", "b", "c"}); err != nil {
			t.Fatal(err)
		}
		pass(5 * keepalive)
		want(t, "a", n["a"].states(), "b up up, c up up")
		for _, f := range old {
			m.Inject(eth1.Name(), "a", m.Address("c", eth1), slices.Clone(f))
		}
		synctest.Wait()
		want(t, "received", strings.Join(n["a"].received(), ","), "")
		if err := n["c"].Send("a", link.ChannelLease, []byte("back")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want(t, "received", strings.Join(n["a"].received(), ","), "c: back")
	})
}

func TestNamesThatCollideChangeNothing(t *testing.T) {
	story(t, "a b", func(t *testing.T, _ *linktest.Medium, n map[string]*node) {
		for _, c := range []struct{ names, want string }{
			{"a b b", "links: node b is there twice"},
			{"a b node20559 node29838", "links: the names node29838 and node20559 have the same hash; rename one"},
		} {
			if err := n["a"].SetNodes(strings.Fields(c.names)); err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		}
		want(t, "a", n["a"].states(), "b up up")
	})
}
