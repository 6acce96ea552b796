package checks

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

func pingTo(addr string) conf.Check {
	return conf.Check{Type: conf.Ping, Target: netip.AddrPortFrom(netip.MustParseAddr(addr), 0), Timeout: 5 * time.Second}
}

func TestPing(t *testing.T) {
	expect(t, pingTo("127.0.0.1"), "echo reply")
	expect(t, pingTo("::1"), "echo reply")
	udp := conf.Check{Type: conf.Connect, Service: "udp", Target: netip.MustParseAddrPort("127.0.0.1:9"), Timeout: 5 * time.Second}
	expect(t, udp, "echo reply")
}

func TestPingsShareASocketAndFindTheirReplies(t *testing.T) {
	p := newPinger()
	defer p.close()
	var wg sync.WaitGroup
	for range 200 {
		for _, a := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
			k, err := newPing(pingTo(a), newEnv(p))
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				if _, err := k.Check(ctx); err != nil {
					t.Error(a, err)
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
		"another check":   echo(s, id+1, func([]byte) {}),
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
	p := newPinger()
	p.socks[0] = deaf
	defer p.close()
	c := pingTo("127.0.0.1")
	c.Timeout = 100 * time.Millisecond
	k, err := newPing(c, newEnv(p))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), c.Timeout)
	defer cancel()
	if _, err := k.Check(ctx); err == nil || err.Error() != "ping 127.0.0.1: no answer within 100ms" {
		t.Error(err)
	}
	if len(deaf.waiting) > 0 {
		t.Error("the check was not forgotten")
	}
}
