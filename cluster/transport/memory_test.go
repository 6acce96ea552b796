package transport

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/cluster/transport/memlink"
)

// bubble runs a story of two nodes a and b in virtual time.
func bubble(t *testing.T, cfg MemoryConfig, story func(t *testing.T, n *MemoryNetwork, a, b *Memory)) {
	synctest.Test(t, func(t *testing.T) {
		n := NewMemoryNetwork(cfg)
		a, b := n.Node("a"), n.Node("b")
		story(t, n, a, b)
		_ = a.Close()
		_ = b.Close()
	})
}

// connect gives both ends of a stream from a to b.
func connect(t *testing.T, a, b *Memory) (net.Conn, net.Conn) {
	t.Helper()
	l := b.Listen(KindCall)
	c, err := a.Dial(t.Context(), "b", KindCall)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func TestMemoryBytesTakeTheLatency(t *testing.T) {
	bubble(t, MemoryConfig{Latency: 5 * time.Millisecond}, func(t *testing.T, n *MemoryNetwork, a, b *Memory) {
		began := time.Now()
		c, s := connect(t, a, b)
		if took := time.Since(began); took != 10*time.Millisecond {
			t.Errorf("a dial took %v, want one round trip", took)
		}
		began = time.Now()
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(s, got); err != nil || string(got) != "hello" {
			t.Errorf("%q, %v", got, err)
		}
		if took := time.Since(began); took != 5*time.Millisecond {
			t.Errorf("a byte took %v", took)
		}
		_ = c.Close()
		if _, err := s.Read(got); err != io.EOF {
			t.Errorf("after the peer's Close: %v, want EOF", err)
		}
	})
}

func TestMemoryCutStallsOneDirectionUntilItHeals(t *testing.T) {
	bubble(t, MemoryConfig{}, func(t *testing.T, n *MemoryNetwork, a, b *Memory) {
		c, s := connect(t, a, b)
		n.Cut("a", "b")
		_, _ = io.WriteString(c, "x")
		_, _ = io.WriteString(s, "y")
		one := make([]byte, 1)
		if _, err := c.Read(one); err != nil || one[0] != 'y' {
			t.Errorf("the other direction: %q, %v", one, err)
		}
		_ = s.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := s.Read(one); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("through the cut: %v, want a timeout", err)
		}
		_ = s.SetReadDeadline(time.Time{})
		n.Heal("a", "b")
		if _, err := s.Read(one); err != nil || one[0] != 'x' {
			t.Errorf("after the healing: %q, %v", one, err)
		}
	})
}

func TestMemoryCutFailsConnectionsAndDialsAfterTheLimit(t *testing.T) {
	bubble(t, MemoryConfig{FailAfter: 2 * time.Second}, func(t *testing.T, n *MemoryNetwork, a, b *Memory) {
		c, s := connect(t, a, b)
		n.Isolate("b")
		began := time.Now()
		for _, end := range []net.Conn{c, s} {
			if _, err := end.Read(make([]byte, 1)); !errors.Is(err, errMemLost) {
				t.Errorf("read: %v", err)
			}
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("failed after %v", took)
		}
		if _, err := a.Dial(t.Context(), "b", KindCall); !errors.Is(err, errMemLost) {
			t.Errorf("dial: %v", err)
		}
		if took := time.Since(began); took != 4*time.Second {
			t.Errorf("the dial failed after %v", took-2*time.Second)
		}
	})
}

func TestMemoryKillResetsConnections(t *testing.T) {
	bubble(t, MemoryConfig{}, func(t *testing.T, n *MemoryNetwork, a, b *Memory) {
		c, s := connect(t, a, b)
		n.Kill("b")
		if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("the survivor reads %v, want a reset", err)
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the dead reads %v", err)
		}
		again := n.Node("b")
		_ = c.Close()
		c, s = connect(t, a, again)
		if err := errors.Join(c.Close(), s.Close()); err != nil {
			t.Error(err)
		}
		_ = again.Close()
	})
}

func TestMemoryKillOfACutNodeIsNotSeen(t *testing.T) {
	bubble(t, MemoryConfig{}, func(t *testing.T, n *MemoryNetwork, a, b *Memory) {
		c, _ := connect(t, a, b)
		n.Cut("b", "a")
		n.Kill("b")
		_ = c.SetDeadline(time.Now().Add(time.Hour))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the survivor reads %v through the cut", err)
		}
		n.Fail("a", "b")
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, errMemFail) {
			t.Errorf("after Fail: %v", err)
		}
	})
}

func TestMemoryWriteBlocksWhenNobodyReads(t *testing.T) {
	bubble(t, MemoryConfig{}, func(t *testing.T, n *MemoryNetwork, a, b *Memory) {
		c, s := connect(t, a, b)
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		sent, err := c.Write(make([]byte, 1<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) || sent != memWindow {
			t.Errorf("%d bytes went, %v", sent, err)
		}
		_ = c.SetWriteDeadline(time.Time{})
		done := make(chan error)
		go func() {
			_, err := c.Write(make([]byte, 1<<20))
			_ = c.Close()
			done <- err
		}()
		got, err := io.Copy(io.Discard, s)
		if err != nil || got != memWindow+1<<20 {
			t.Errorf("%d bytes came, %v", got, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestMemoryFollowsTheLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		links := memlink.New(memlink.Config{DeadTime: time.Second}, "a", "b")
		n := NewMemoryNetwork(MemoryConfig{})
		da, db := links.Start("a", 1), links.Start("b", 2)
		a, b := n.NodeOver("a", da), n.NodeOver("b", db)
		c, s := connect(t, a, b)
		began := time.Now()
		links.Isolate("b")
		n.Isolate("b")
		for _, end := range []net.Conn{c, s} {
			if _, err := end.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "node is down: mem: no hello for 1s") {
				t.Errorf("read: %v", err)
			}
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("the streams ended after %v", took)
		}
		if _, err := a.Dial(t.Context(), "b", KindCall); err == nil || time.Since(began) != time.Second {
			t.Errorf("a dial of a node that is down gave %v after %v, want an error at once", err, time.Since(began)-time.Second)
		}
		_ = a.Close()
		_ = b.Close()
		da.Close()
		db.Close()
	})
}
