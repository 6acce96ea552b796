package checks

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/checks/icmp"
	"github.com/keepbeat/keepbeat/conf"
)

func pingTo(addr string) conf.Check {
	return conf.Check{Type: conf.Ping, Target: netip.AddrPortFrom(netip.MustParseAddr(addr), 0), Timeout: time.Minute}
}

func TestPing(t *testing.T) {
	expect(t, pingTo("127.0.0.1"), "echo reply")
	expect(t, pingTo("::1"), "echo reply")
	udp := conf.Check{Type: conf.Connect, Service: "udp", Target: netip.MustParseAddrPort("127.0.0.1:9"), Timeout: time.Minute}
	expect(t, udp, "echo reply")
}

func TestPingsShareTheSocketThatTheyAreGiven(t *testing.T) {
	p := icmp.NewPinger()
	k, err := newPing(pingTo("127.0.0.1"), newEnv(p))
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := k.Check(ctx); err == nil {
		t.Error("an answer through a socket that is closed")
	}
}

func TestPingWithoutAnswer(t *testing.T) {
	c := pingTo("127.0.0.1")
	c.Timeout = 100 * time.Millisecond
	k, err := newPing(c, newEnv(nil))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if _, err := k.Check(ctx); err == nil || err.Error() != "ping 127.0.0.1: no answer within 100ms" {
		t.Error(err)
	}
}
