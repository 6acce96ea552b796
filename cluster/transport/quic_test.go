package transport

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/transport/memlink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testKeys = [][]byte{[]byte("a secret of the cluster")}

func quicNode(t *testing.T, d link.Datagrams, self string, nodes []string, keys [][]byte) *QUIC {
	t.Helper()
	q, err := NewQUIC(QUICConfig{Self: self, Nodes: nodes, Datagrams: d, Keys: keys, Cluster: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Errorf("close of %s: %v", self, err)
		}
	})
	return q
}

// start puts a node with its streams on a network.
func start(t *testing.T, n *memlink.Network, self string, boot link.Boot, nodes ...string) (*QUIC, *memlink.Node) {
	t.Helper()
	d := n.Start(self, boot)
	t.Cleanup(d.Close)
	return quicNode(t, d, self, nodes, testKeys), d
}

// echo answers every stream of a kind with what comes in.
func echo(t *testing.T, s Streams, kind Kind) {
	l := s.Listen(kind)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		_ = s.Close()
		wg.Wait()
	})
}

func dialTimeout(s Streams, node string, kind Kind, d time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return s.Dial(ctx, node, kind)
}

func mustDial(t *testing.T, s Streams, node string) net.Conn {
	t.Helper()
	c, err := dialTimeout(s, node, KindCall, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func roundTrip(c net.Conn, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != text {
		return fmt.Errorf("got %.40q, want %.40q", b, text)
	}
	return nil
}

func TestStreamsCarryDataDespiteLostDatagrams(t *testing.T) {
	n := memlink.New(memlink.Config{Loss: 0.05, Seed: 7}, "a", "b")
	a, _ := start(t, n, "a", 1, "a", "b")
	b, _ := start(t, n, "b", 2, "a", "b")
	echo(t, b, KindCall)
	c := mustDial(t, a, "b")
	defer c.Close()
	if got := c.RemoteAddr(); got != Addr("b") {
		t.Errorf("remote address is %v (%T), want b", got, got)
	}
	var wg sync.WaitGroup
	text := strings.Repeat("keepbeat ", 30_000)
	wg.Go(func() { _, _ = io.WriteString(c, text) })
	b2 := make([]byte, len(text))
	if _, err := io.ReadFull(c, b2); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if string(b2) != text {
		t.Error("the data changed on the way")
	}
}

func TestAcceptedStreamNamesThePeerAndItsKind(t *testing.T) {
	n := memlink.New(memlink.Config{}, "a", "b")
	a, _ := start(t, n, "a", 1, "a", "b")
	b, _ := start(t, n, "b", 2, "a", "b")
	raftL, callL := b.Listen(KindRaft), b.Listen(KindCall)
	if b.Listen(KindRaft) != raftL {
		t.Error("Listen gave another listener for the same kind")
	}
	for kind, l := range map[Kind]net.Listener{KindRaft: raftL, KindCall: callL} {
		c, err := dialTimeout(a, "b", kind, 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if s.RemoteAddr() != Addr("a") || s.LocalAddr() != Addr("b") {
			t.Errorf("%v: %v -> %v, want a -> b", kind, s.RemoteAddr(), s.LocalAddr())
		}
		_ = c.Close()
		if _, err := s.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%v: after the dialler's Close the read gives %v, want EOF", kind, err)
		}
		_ = s.Close()
	}
	if got := sessions(a, "b"); got != 1 {
		t.Errorf("%d connections carry the two streams, want 1", got)
	}
}

func sessions(q *QUIC, node string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.peers[node].sessions)
}

func TestDialNamesWhatIsWrong(t *testing.T) {
	n := memlink.New(memlink.Config{}, "a", "b", "c")
	nodes := []string{"a", "b", "c"}
	a, _ := start(t, n, "a", 1, nodes...)
	start(t, n, "b", 2, nodes...)
	for _, c := range []struct{ node, want string }{
		{"c", "dial c (call): node is down: mem: no hello yet"},
		{"d", "dial d (call): no such node; there are b, c"},
		{"b", `dial b (call): refused the stream: "it does not serve call yet"`},
	} {
		_, err := dialTimeout(a, c.node, KindCall, 20*time.Second)
		if err == nil || err.Error() != c.want {
			t.Errorf("error is %q\nwant       %q", err, c.want)
		}
	}
}

func TestAnotherStreamProtocolIsRefusedInWords(t *testing.T) {
	n := memlink.New(memlink.Config{}, "a", "b")
	a, _ := start(t, n, "a", 1, "a", "b")
	b, _ := start(t, n, "b", 2, "a", "b")
	echo(t, b, KindCall)
	ctx := t.Context()
	s, err := a.session(ctx, "b")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		h    header
		want string
	}{
		{header{9, KindCall}, `refused the stream: "it speaks stream protocol 1, you speak 9: upgrade the older node"`},
		{header{streamVersion, 77}, `refused the stream: "it knows no streams of kind 77"`},
	} {
		st, err := s.conn.OpenStreamSync(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Write(appendHeader(nil, c.h)); err != nil {
			t.Fatal(err)
		}
		if err := readReply(st); err == nil || err.Error() != c.want {
			t.Errorf("error is %v\nwant     %s", err, c.want)
		}
		_ = st.Close()
	}
}

func TestPeerWithoutTheKeyIsRefused(t *testing.T) {
	for _, side := range []string{"a", "b"} { // who has the wrong key
		n := memlink.New(memlink.Config{}, "a", "b")
		streams := map[string]*QUIC{}
		for i, name := range []string{"a", "b"} {
			d := n.Start(name, link.Boot(i+1))
			t.Cleanup(d.Close)
			keys := testKeys
			if name == side {
				keys = [][]byte{[]byte("another secret altogether")}
			}
			streams[name] = quicNode(t, d, name, []string{"a", "b"}, keys)
		}
		echo(t, streams["b"], KindCall)
		c, err := dialTimeout(streams["a"], "b", KindCall, 20*time.Second)
		if err == nil {
			_ = c.Close()
			t.Fatalf("wrong key at %s: the dial succeeded", side)
		}
		t.Logf("wrong key at %s: %v", side, err)
	}
}

func TestKeysAreAcceptedWhileTheyRotate(t *testing.T) {
	n := memlink.New(memlink.Config{}, "a", "b")
	one, two := []byte("the first secret"), []byte("the second secret")
	da, db := n.Start("a", 1), n.Start("b", 2)
	t.Cleanup(da.Close)
	t.Cleanup(db.Close)
	a := quicNode(t, da, "a", []string{"a", "b"}, [][]byte{one, two})
	b := quicNode(t, db, "b", []string{"a", "b"}, [][]byte{two, one})
	echo(t, b, KindCall)
	c := mustDial(t, a, "b")
	defer c.Close()
	if err := roundTrip(c, "hello"); err != nil {
		t.Error(err)
	}
}

func TestPartitionEndsStreamsAndTheFirstDialAfterItWorks(t *testing.T) {
	n := memlink.New(memlink.Config{DeadTime: 50 * time.Millisecond}, "a", "b")
	a, da := start(t, n, "a", 1, "a", "b")
	b, db := start(t, n, "b", 2, "a", "b")
	echo(t, b, KindCall)
	for range 3 {
		c := mustDial(t, a, "b")
		if err := roundTrip(c, "before"); err != nil {
			t.Fatal(err)
		}
		n.Isolate("b")
		if _, err := io.WriteString(c, "lost"); err != nil {
			t.Logf("write into the cut: %v", err)
		}
		if _, err := io.ReadAll(c); err != nil { // ends without our doing
			t.Logf("read across the cut: %v", err)
		}
		_ = c.Close()
		waitState(t, da, "b", link.Down)
		if _, err := dialTimeout(a, "b", KindCall, time.Hour); err == nil || !strings.Contains(err.Error(), "dial b (call): node is down: mem: no hello for 50ms") {
			t.Fatalf("dial across the cut: %v", err)
		}
		waitState(t, db, "a", link.Down)
		n.Rejoin("b")
	}
	c := mustDial(t, a, "b")
	defer c.Close()
	if err := roundTrip(c, "after"); err != nil {
		t.Error(err)
	}
}

func waitState(t *testing.T, d link.Datagrams, node string, s link.State) {
	t.Helper()
	changed, stop := d.Watch()
	defer stop()
	for {
		for _, p := range d.Peers() {
			if p.Node == node && p.State == s {
				return
			}
		}
		<-changed
	}
}

// One side may have called the other down while the other noticed nothing and
// still uses the connection.
func TestConnectionThatThePeerForgotIsReplaced(t *testing.T) {
	n := memlink.New(memlink.Config{DeadTime: time.Hour}, "a", "b")
	a, _ := start(t, n, "a", 1, "a", "b")
	b, _ := start(t, n, "b", 2, "a", "b")
	echo(t, b, KindCall)
	c := mustDial(t, a, "b")
	defer c.Close()
	n.Isolate("b")
	b.drop(loss{node: "a", why: "node is down"}) // what it sends of this is lost
	for sessions(b, "a") != 0 {
		time.Sleep(time.Millisecond)
	}
	n.Rejoin("b")
	for attempt := 1; ; attempt++ {
		c2, err := dialTimeout(a, "b", KindCall, 2*time.Second)
		if err == nil {
			defer c2.Close()
			// b may have taken this stream on the old connection just before it closed that.
			if err = roundTrip(c2, "again"); err == nil {
				return
			}
		}
		if attempt == 5 {
			t.Fatalf("attempt %d: %v", attempt, err)
		}
	}
}

func TestNewBootOfThePeerEndsTheStreamsOfTheOld(t *testing.T) {
	n := memlink.New(memlink.Config{DeadTime: time.Hour}, "a", "b")
	a, _ := start(t, n, "a", 1, "a", "b")
	b, db := start(t, n, "b", 2, "a", "b")
	echo(t, b, KindCall)
	c := mustDial(t, a, "b")
	db.Close() // a crash: nothing is said
	again, _ := start(t, n, "b", 3, "a", "b")
	echo(t, again, KindCall)
	if _, err := io.ReadAll(c); err != nil {
		t.Logf("read from the dead boot: %v", err)
	}
	_ = c.Close()
	c = mustDial(t, a, "b")
	defer c.Close()
	if err := roundTrip(c, "hello, new one"); err != nil {
		t.Error(err)
	}
}

func TestBothSidesMayDialAtOnce(t *testing.T) {
	n := memlink.New(memlink.Config{Latency: time.Millisecond}, "a", "b")
	a, _ := start(t, n, "a", 1, "a", "b")
	b, _ := start(t, n, "b", 2, "a", "b")
	echo(t, a, KindCall)
	echo(t, b, KindCall)
	var wg sync.WaitGroup
	for i := range 20 {
		from, to := Streams(a), "b"
		if i%2 == 0 {
			from, to = b, "a"
		}
		wg.Go(func() {
			c, err := dialTimeout(from, to, KindCall, 20*time.Second)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if err := roundTrip(c, fmt.Sprint("stream ", i)); err != nil {
				t.Errorf("stream %d to %s: %v", i, to, err)
			}
		})
	}
	wg.Wait()
	if na, nb := sessions(a, "b"), sessions(b, "a"); na > 2 || nb > 2 {
		t.Errorf("%d and %d connections between two nodes, want at most 2", na, nb)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	n := memlink.New(memlink.Config{DeadTime: time.Hour}, "a", "b")
	a, _ := start(t, n, "a", 1, "a", "b")
	start(t, n, "b", 2, "a", "b")
	n.Isolate("b") // not noticed yet
	_, err := dialTimeout(a, "b", KindCall, 50*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "dial b (call)") || !strings.Contains(err.Error(), "deadline exceeded") {
		t.Errorf("error is %v", err)
	}
}

func TestCloseEndsWhatWaits(t *testing.T) {
	n := memlink.New(memlink.Config{}, "a", "b")
	a, _ := start(t, n, "a", 1, "a", "b")
	b, _ := start(t, n, "b", 2, "a", "b")
	echo(t, b, KindCall)
	c := mustDial(t, a, "b")
	l := a.Listen(KindCall)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := l.Accept(); err == nil {
			t.Error("Accept gave a stream on closed streams")
		}
	})
	wg.Go(func() { _, _ = c.Read(make([]byte, 1)) })
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if _, err := dialTimeout(a, "b", KindCall, time.Second); err == nil {
		t.Error("dial on closed streams succeeded")
	}
}

func TestPacketsStaySmall(t *testing.T) {
	n := memlink.New(memlink.Config{}, "a", "b")
	d := &sizes{Datagrams: n.Start("a", 1)}
	t.Cleanup(d.Datagrams.(*memlink.Node).Close)
	a := quicNode(t, d, "a", []string{"a", "b"}, testKeys)
	b, _ := start(t, n, "b", 2, "a", "b")
	echo(t, b, KindCall)
	c := mustDial(t, a, "b")
	defer c.Close()
	if err := roundTrip(c, strings.Repeat("x", 100_000)); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.max > 1252 {
		t.Errorf("a packet of %d bytes was sent", d.max)
	}
}

type sizes struct {
	link.Datagrams
	mu  sync.Mutex
	max int
}

func (s *sizes) Send(to string, ch link.Channel, b []byte) error {
	s.mu.Lock()
	s.max = max(s.max, len(b))
	s.mu.Unlock()
	return s.Datagrams.Send(to, ch, b)
}
