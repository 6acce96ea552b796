package membership

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/transport"
	"github.com/keepbeat/keepbeat/cluster/transport/memlink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type node struct {
	*Membership
	links   *memlink.Node
	streams *transport.Memory
	meta    Meta
}

type world struct {
	t     *testing.T
	links *memlink.Network
	mem   *transport.MemoryNetwork
	nodes map[string]*node
	names []string
}

func newWorld(t *testing.T, names ...string) *world {
	return &world{
		t: t, names: names, nodes: map[string]*node{},
		links: memlink.New(memlink.Config{Latency: time.Millisecond, DeadTime: time.Second, Loss: 0.01, Seed: 9}, names...),
		mem:   transport.NewMemoryNetwork(transport.MemoryConfig{Latency: time.Millisecond}),
	}
}

func (w *world) start(name string, boot link.Boot) *node {
	w.t.Helper()
	n := &node{meta: Meta{Version: "1.0", SpecVersion: 4, UUID: "uuid-of-" + name}}
	n.links = w.links.Start(name, boot)
	n.streams = w.mem.NodeOver(name, n.links)
	m, err := New(Config{
		Self: name, Nodes: w.names, Streams: n.streams, Datagrams: n.links, Boot: boot,
		Meta: func() Meta { return n.meta },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	n.Membership = m
	w.nodes[name] = n
	return n
}

// crash stops a node without a word.
func (w *world) crash(name string) {
	w.t.Helper()
	n := w.nodes[name]
	delete(w.nodes, name)
	n.links.Close()
	_ = n.streams.Close()
	if err := n.Close(); err != nil {
		w.t.Error(err)
	}
}

func (w *world) stop() {
	for _, name := range w.names {
		if w.nodes[name] != nil {
			w.crash(name)
		}
	}
	// memberlist's own goroutines end on their tickers.
	time.Sleep(2 * time.Minute)
}

// until waits, in virtual time, for the members that an observer sees.
func (w *world) until(observer, want string, limit time.Duration) {
	w.t.Helper()
	end := time.Now().Add(limit)
	for {
		var words []string
		for _, m := range w.nodes[observer].Members() {
			words = append(words, m.Name+" "+m.State.String())
		}
		got := strings.Join(words, ", ")
		if got == want {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("%s sees\n%s\nwant after %v\n%s", observer, got, limit, want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (w *world) member(observer, name string) Member {
	for _, m := range w.nodes[observer].Members() {
		if m.Name == name {
			return m
		}
	}
	w.t.Fatalf("%s knows no %s", observer, name)
	return Member{}
}

func TestNodesFindEachOtherInAnyOrderAndNoticeDeathAndReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		w.start("c", 3)
		w.until("c", "a absent, b absent, c alive", 0)
		time.Sleep(time.Minute)
		w.start("a", 1)
		w.start("b", 2)
		for _, n := range w.names {
			w.until(n, "a alive, b alive, c alive", 10*time.Second)
		}
		if got, want := w.member("a", "b").Meta, (Meta{Boot: 2, Version: "1.0", SpecVersion: 4, UUID: "uuid-of-b"}); got != want {
			t.Errorf("metadata of b at a is %+v, want %+v", got, want)
		}

		w.crash("b")
		w.until("a", "a alive, b dead, c alive", 15*time.Second)
		w.until("c", "a alive, b dead, c alive", 15*time.Second)

		w.start("b", 22)
		for _, n := range w.names {
			w.until(n, "a alive, b alive, c alive", 10*time.Second)
		}
		if m := w.member("c", "b"); m.Boot != 22 || m.Joins != 2 {
			t.Errorf("the returned b is %+v at c, want boot 22, joined twice", m)
		}
		w.stop()
	})
}

func TestRestartThatNobodyMissedIsAJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		for i, n := range w.names {
			w.start(n, link.Boot(i+1))
		}
		w.until("a", "a alive, b alive, c alive", 10*time.Second)
		w.until("c", "a alive, b alive, c alive", 10*time.Second)
		changed, stop := w.nodes["a"].Watch()
		defer stop()
		w.crash("b")
		w.start("b", 22)
		for w.member("a", "b").Boot != 22 {
			select {
			case <-changed:
			case <-time.After(10 * time.Second):
				t.Fatalf("a did not learn of the new boot of b: %+v", w.member("a", "b"))
			}
		}
		if m := w.member("a", "b"); m.State != Alive || m.Joins != 2 {
			t.Errorf("b is %+v at a, want alive and joined twice", m)
		}
		w.stop()
	})
}

func TestNewMetadataSpreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		w.start("a", 1)
		w.start("b", 2)
		w.until("b", "a alive, b alive", 10*time.Second)
		w.until("a", "a alive, b alive", 10*time.Second)
		w.nodes["a"].meta.SpecVersion = 5
		if err := w.nodes["a"].Update(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(5 * time.Second); w.member("b", "a").Meta.SpecVersion != 5; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("b has %+v of a", w.member("b", "a"))
			}
		}
		if m := w.member("b", "a"); m.Joins != 1 {
			t.Errorf("new metadata counted as a join: %+v", m)
		}
		w.nodes["a"].meta.Version = strings.Repeat("x", 65)
		if err := w.nodes["a"].Update(); err == nil {
			t.Error("metadata that is too long was taken")
		}
		w.stop()
	})
}

func TestPartitionHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		for i, n := range w.names {
			w.start(n, link.Boot(i+1))
		}
		w.until("a", "a alive, b alive, c alive", 10*time.Second)
		for range 3 {
			w.links.Isolate("c")
			w.mem.Isolate("c")
			w.until("a", "a alive, b alive, c dead", 20*time.Second)
			w.until("c", "a dead, b dead, c alive", 30*time.Second)
			w.links.Rejoin("c")
			w.mem.Rejoin("c")
			for _, n := range w.names {
				w.until(n, "a alive, b alive, c alive", 10*time.Second)
			}
		}
		w.stop()
	})
}

func TestNodeThatLeavesIsLeftNotDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		w.start("a", 1)
		w.start("b", 2)
		w.until("a", "a alive, b alive", 10*time.Second)
		w.until("b", "a alive, b alive", 10*time.Second)
		if err := w.nodes["b"].Leave(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		w.crash("b")
		w.until("a", "a alive, b left", 10*time.Second)
		w.stop()
	})
}

func TestSelfMustBeConfigured(t *testing.T) {
	if _, err := New(Config{Self: "x", Nodes: []string{"a", "b"}}); err == nil || err.Error() != "membership: this node, x, is none of a, b" {
		t.Errorf("error is %v", err)
	}
}

func TestLinesOfMemberlistAreLowered(t *testing.T) {
	for line, want := range map[string]struct {
		level slog.Level
		msg   string
	}{
		"[DEBUG] memberlist: Stream connection from=x": {slog.LevelDebug, "Stream connection from=x"},
		"[WARN] memberlist: Refuting":                  {slog.LevelDebug, "Refuting"},
		"[ERR] memberlist: Failed":                     {slog.LevelInfo, "Failed"},
		"plain":                                        {slog.LevelInfo, "plain"},
	} {
		if level, msg := parseLine(line); level != want.level || msg != want.msg {
			t.Errorf("%q gives %v %q", line, level, msg)
		}
	}
}

func FuzzMeta(f *testing.F) {
	for _, m := range []Meta{{}, {Boot: 1 << 63, Version: "1.2.3", SpecVersion: 900, UUID: "0f5a"}} {
		b, err := m.encode(m.Boot == 0)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, leaving, err := decodeMeta(b)
		if err != nil {
			return
		}
		b2, err := m.encode(leaving)
		if err != nil || len(b2) > 512 {
			t.Fatalf("%+v does not encode: %v, %d bytes", m, err, len(b2))
		}
		if m2, leaving2, err := decodeMeta(b2); err != nil || m2 != m || leaving2 != leaving {
			t.Fatalf("%+v became %+v, %v", m, m2, err)
		}
	})
}

func TestNodesAreAddedAndTakenAwayAtRunTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		for i, n := range w.names {
			w.start(n, link.Boot(i+1))
		}
		set := func(names ...string) {
			t.Helper()
			for _, n := range []string{"a", "b"} {
				x := w.nodes[n]
				for _, s := range []interface{ SetNodes([]string) error }{x.links, x.streams, x} {
					if err := s.SetNodes(names); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		w.until("a", "a alive, b alive, c alive", 10*time.Second)
		w.until("b", "a alive, b alive, c alive", 10*time.Second)
		set("a", "b")
		w.until("a", "a alive, b alive", 0)
		set("a", "b", "c") // before anybody has missed it
		w.until("a", "a alive, b alive, c alive", 10*time.Second)
		set("a", "b")
		time.Sleep(time.Minute)
		w.until("a", "a alive, b alive", 0)
		set("a", "b", "c")
		w.until("a", "a alive, b alive, c alive", 20*time.Second)
		w.until("c", "a alive, b alive, c alive", 20*time.Second)
		if err := w.nodes["a"].SetNodes([]string{"b"}); err == nil || err.Error() != "membership: this node, a, is none of b" {
			t.Errorf("error is %v", err)
		}
		w.stop()
	})
}
