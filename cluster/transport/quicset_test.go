package transport

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/transport/memlink"
)

// Two nodes work on old streams, open new ones, and make new connections, while
// their keys are rotated again and again as an administrator does it.
func TestRotatingKeysFailsNoRequest(t *testing.T) {
	n := memlink.New(memlink.Config{Latency: time.Millisecond}, "a", "b")
	one, two := []byte("the first secret"), []byte("the second secret")
	nodes := map[string]*QUIC{}
	for i, name := range []string{"a", "b"} {
		d := n.Start(name, link.Boot(i+1))
		t.Cleanup(d.Close)
		nodes[name] = quicNode(t, d, name, []string{"a", "b"}, [][]byte{one})
		echo(t, nodes[name], KindCall)
	}
	old := mustDial(t, nodes["a"], "b")
	defer old.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	var requests, connections atomic.Int64
	work.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if err := roundTrip(old, fmt.Sprint("old ", i)); err != nil {
				t.Errorf("stream from before: %v", err)
				return
			}
			requests.Add(1)
		}
	})
	for from, to := range map[string]string{"a": "b", "b": "a"} {
		for range 3 {
			work.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					c, err := dialTimeout(nodes[from], to, KindCall, 20*time.Second)
					if err == nil {
						err = roundTrip(c, fmt.Sprint("new ", i))
						_ = c.Close()
					}
					if err != nil {
						t.Errorf("new stream: %v", err)
						return
					}
					requests.Add(1)
				}
			})
		}
	}
	work.Go(func() { // handshakes, under whatever keys are in force
		for ctx.Err() == nil {
			a := nodes["a"]
			dctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
			conn, err := a.tr.Dial(dctx, Addr("b"), a.id.Load(), a.conf)
			stop()
			if err != nil {
				t.Errorf("handshake: %v", err)
				return
			}
			_ = conn.CloseWithError(codeShutdown, "enough")
			connections.Add(1)
		}
	})
	for range 5 {
		for _, secrets := range [][][]byte{{one, two}, {two, one}, {two}, {two, one}, {one, two}, {one}} {
			for _, q := range nodes {
				if err := q.SetKeys(secrets); err != nil {
					t.Fatal(err)
				}
			}
			// A step begins when the last one is through: the handshake that was under way, and one after it.
			for before := connections.Load(); connections.Load() < before+2 && !t.Failed(); {
				time.Sleep(time.Millisecond)
			}
		}
	}
	cancel()
	work.Wait()
	t.Logf("%d requests, %d connections", requests.Load(), connections.Load())
	if err := nodes["a"].SetKeys(nil); err == nil || err.Error() != "streams need at least one key" {
		t.Errorf("no keys: %v", err)
	}
}

func TestARemovedKeyMakesNoConnection(t *testing.T) {
	n := memlink.New(memlink.Config{}, "a", "b")
	a, _ := start(t, n, "a", 1, "a", "b")
	b, _ := start(t, n, "b", 2, "a", "b")
	echo(t, b, KindCall)
	if err := b.SetKeys([][]byte{[]byte("the second secret")}); err != nil {
		t.Fatal(err)
	}
	if c, err := dialTimeout(a, "b", KindCall, 20*time.Second); err == nil {
		_ = c.Close()
		t.Error("a peer with a key that was taken away got in")
	}
}

func TestNodesOfStreamsChangeAtRunTime(t *testing.T) {
	n := memlink.New(memlink.Config{}, "a", "b", "c")
	a, da := start(t, n, "a", 1, "a", "b")
	b, _ := start(t, n, "b", 2, "a", "b")
	c, _ := start(t, n, "c", 3, "a", "b", "c")
	echo(t, b, KindCall)
	echo(t, c, KindCall)
	if err := da.SetNodes([]string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	stays := mustDial(t, a, "b")
	defer stays.Close()
	set := func(names ...string) {
		t.Helper()
		if err := da.SetNodes(names); err != nil {
			t.Fatal(err)
		}
		if err := a.SetNodes(names); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		set("a", "b", "c")
		s := mustDial(t, a, "c")
		if err := roundTrip(s, "hello, new node"); err != nil {
			t.Error(err)
		}
		set("a", "b")
		if _, err := s.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("stream with a node that was taken away: %v", err)
		}
		_ = s.Close()
		if _, err := dialTimeout(a, "c", KindCall, 20*time.Second); err == nil || err.Error() != "dial c (call): no such node; there are b" {
			t.Errorf("dial: %v", err)
		}
		if err := roundTrip(stays, "as before"); err != nil {
			t.Errorf("stream with a node that stays: %v", err)
		}
	}
	if err := a.SetNodes([]string{""}); err == nil {
		t.Error("a node without a name was taken")
	}
}

func TestMemoryNodesChangeAtRunTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := NewMemoryNetwork(MemoryConfig{Latency: time.Millisecond})
		a, b := net.Node("a"), net.Node("b")
		echo(t, b, KindCall)
		c := mustDial(t, a, "b")
		for _, m := range []*Memory{a, b} { // who takes the other away
			if err := m.SetNodes([]string{"x"}); err != nil {
				t.Fatal(err)
			}
			if err := roundTrip(c, "hi"); err == nil {
				t.Error("the stream goes on")
			}
			if _, err := dialTimeout(a, "b", KindCall, time.Second); err == nil || !strings.Contains(err.Error(), "no ") {
				t.Errorf("dial: %v", err)
			}
			_ = c.Close()
			if err := m.SetNodes([]string{"a", "b"}); err != nil {
				t.Fatal(err)
			}
			c = mustDial(t, a, "b")
			if err := roundTrip(c, "hi"); err != nil {
				t.Error(err)
			}
		}
		_ = c.Close()
		_ = a.Close()
	})
}
