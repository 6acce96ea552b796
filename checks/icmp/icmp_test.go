package icmp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

func TestPing(t *testing.T) {
	p := NewPinger()
	defer p.Close()
	for _, a := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if err := p.Ping(ctx, netip.MustParseAddr(a), time.Second); err != nil {
			t.Error(err)
		}
		cancel()
	}
	p.Close()
	if err := p.Ping(t.Context(), netip.MustParseAddr("127.0.0.1"), time.Second); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestPingsShareASocketAndFindTheirReplies(t *testing.T) {
	p := NewPinger()
	defer p.Close()
	var wg sync.WaitGroup
	for range 200 {
		for _, a := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := p.Ping(ctx, netip.MustParseAddr(a), time.Second); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for _, s := range p.socks {
		if len(s.waiting) > 0 {
			t.Errorf("%d left over", len(s.waiting))
		}
	}
}

// What comes while the daemon is busy is not lost.
func TestTheRepliesOfAThousandPingsAreKept(t *testing.T) {
	const pings = 1000
	for network, to := range map[string]netip.Addr{"ip4:icmp": netip.MustParseAddr("127.0.0.1"), "ip6:ipv6-icmp": netip.IPv6Loopback()} {
		conn, err := net.ListenIP(network, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		s := &icmpSocket{conn: conn, v6: to.Is6()}
		s.tune()
		for id := range uint64(pings) {
			if err := s.send(to, id, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		kept, b := 0, make([]byte, 1500)
		for kept < pings {
			if _, _, err := conn.ReadFrom(b); err != nil {
				break
			}
			kept++
		}
		if kept < pings {
			t.Errorf("%v: %d replies of %d", to, kept, pings)
		}
	}
}

// echo makes the reply to a request of s.
func echo(s *icmpSocket, id uint64, change func(b []byte)) []byte {
	b := make([]byte, echoSize)
	b[4], b[5] = byte(s.ident>>8), byte(s.ident)
	b[7] = byte(id)
	copy(b[8:], s.secret[:])
	b[23] = byte(id)
	change(b)
	return b
}

func TestOnlyTheServersOwnReplyCounts(t *testing.T) {
	s := &icmpSocket{ident: 7, secret: [8]byte{1, 2, 3}, waiting: map[uint64]echoWait{}}
	server := netip.MustParseAddr("10.0.0.1")
	id, answered := s.expect(server)
	for name, b := range map[string][]byte{
		"empty":           {},
		"short":           make([]byte, 8),
		"a request":       echo(s, id, func(b []byte) { b[0] = echo4Request }),
		"another process": echo(s, id, func(b []byte) { b[5] = 8 }),
		"a forged secret": echo(s, id, func(b []byte) { b[8]++ }),
		"another call":    echo(s, id+1, func([]byte) {}),
		"too long":        append(echo(s, id, func([]byte) {}), 0),
	} {
		if s.reply(b, server); len(answered) > 0 {
			t.Fatalf("%s was taken for an answer", name)
		}
	}
	good := echo(s, id, func([]byte) {})
	if s.reply(good, netip.MustParseAddr("10.0.0.2")); len(answered) > 0 {
		t.Fatal("an answer from elsewhere was taken")
	}
	s.reply(good, server)
	s.reply(good, server) // doubled
	if len(answered) != 1 {
		t.Fatal("the answer was not taken")
	}
	s.forget(id)
	s.reply(good, server)
}

func TestPingWithoutAnswer(t *testing.T) {
	conn, err := net.ListenIP("ip4:icmp", nil)
	if err != nil {
		t.Fatal(err)
	}
	deaf := &icmpSocket{conn: conn, done: make(chan struct{}), waiting: map[uint64]echoWait{}} // nobody reads
	close(deaf.done)
	p := NewPinger()
	p.socks[0] = deaf
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Ping(ctx, netip.MustParseAddr("127.0.0.1"), 10*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if len(deaf.waiting) > 0 {
		t.Error("the call was not forgotten")
	}
}

func FuzzReply(f *testing.F) {
	server := netip.MustParseAddr("10.0.0.1")
	fresh := func() (*icmpSocket, uint64, <-chan struct{}) {
		s := &icmpSocket{ident: 7, secret: [8]byte{1, 2, 3}, waiting: map[uint64]echoWait{}}
		id, answered := s.expect(server)
		return s, id, answered
	}
	s, id, _ := fresh()
	good := echo(s, id, func([]byte) {})
	f.Add(good)
	f.Add(good[:echoSize-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, id, answered := fresh()
		s.reply(b, server)
		// The sequence number and the checksum are not looked at: the kernel checks the one, the payload says the other.
		if len(answered) > 0 && (len(b) != echoSize || b[0] != echo4Reply || [8]byte(b[8:16]) != s.secret || uint64(b[23]) != id) {
			t.Errorf("% x was taken for an answer", b)
		}
	})
}
