package checks

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/test/lab"
)

// The director reaches the server, whose addresses are on its loopback, by two
// ways: red is the usual one; blue has addresses of its own and is the way of
// packets with mark 7. So the server sees whether source, interface and mark of
// a probe are what they are to be.
func TestTheServerSeesWhereAProbeComesFrom(t *testing.T) {
	l := lab.New(t)
	red, blue := l.Switch("red"), l.Switch("blue")
	director, server := l.Host("director"), l.Host("server")
	for _, h := range []*lab.Host{director, server} { // answers come back by the other way
		h.Sysctl("net.ipv4.conf.all.rp_filter", "0")
		h.Sysctl("net.ipv4.conf.default.rp_filter", "0")
	}
	director.Attach(red, "eth0", "10.1.0.1/24", "10.1.0.9/24", "fd01::1/64", "fd01::9/64")
	director.Attach(blue, "eth1", "10.2.0.1/24", "fd02::1/64")
	server.Attach(red, "eth0", "10.1.0.2/24", "fd01::2/64")
	server.Attach(blue, "eth1", "10.2.0.2/24", "fd02::2/64")
	for _, args := range [][]string{
		{"addr", "add", "10.9.0.1/32", "dev", "lo"},
		{"-6", "addr", "add", "fd09::1/128", "dev", "lo"},
	} {
		server.Run(append([]string{"ip"}, args...)...)
	}
	for _, args := range [][]string{
		{"route", "add", "10.9.0.1", "via", "10.1.0.2", "src", "10.1.0.1", "metric", "1"},
		{"route", "add", "10.9.0.1", "via", "10.2.0.2", "metric", "2"},
		{"route", "add", "10.9.0.1", "via", "10.2.0.2", "table", "100"},
		{"rule", "add", "fwmark", "7", "table", "100"},
		{"-6", "route", "add", "fd09::1", "via", "fd01::2", "src", "fd01::1", "metric", "1"},
		{"-6", "route", "add", "fd09::1", "via", "fd02::2", "src", "fd02::1", "metric", "2"},
		{"-6", "route", "add", "fd09::1", "via", "fd02::2", "src", "fd02::1", "table", "100"},
		{"-6", "rule", "add", "fwmark", "7", "table", "100"},
	} {
		director.Run(append([]string{"ip"}, args...)...)
	}
	seen := witness(t, server)
	for _, v := range []struct {
		server           string
		usual, own, blue string
	}{{"10.9.0.1", "10.1.0.1", "10.1.0.9", "10.2.0.1"}, {"fd09::1", "fd01::1", "fd01::9", "fd02::1"}} {
		target := netip.AddrPortFrom(netip.MustParseAddr(v.server), 80)
		for _, what := range []struct {
			name, from string
			origin     conf.Check
		}{
			{"the kernel's choice", v.usual, conf.Check{}},
			{"source", v.own, conf.Check{Source: netip.MustParseAddr(v.own)}},
			{"source of the other way", v.blue, conf.Check{Source: netip.MustParseAddr(v.blue)}},
			{"interface", v.blue, conf.Check{Interface: "eth1"}},
			{"mark", v.blue, conf.Check{Mark: 7}},
			{"another mark", v.usual, conf.Check{Mark: 8}},
			{"mark and source", v.own, conf.Check{Mark: 7, Source: netip.MustParseAddr(v.own)}},
		} {
			for _, kind := range []conf.Check{
				{Type: conf.Connect}, {Type: conf.Ping}, {Type: conf.Negotiate, Service: "http", Request: "/"},
			} {
				t.Run(v.server+", "+what.name+", "+kind.Type.String(), func(t *testing.T) {
					c := what.origin
					c.Type, c.Service, c.Request, c.Timeout = kind.Type, kind.Service, kind.Request, patience
					if c.Target = target; c.Type == conf.Ping {
						c.Target = netip.AddrPortFrom(target.Addr(), 0)
					}
					k, err := checks.NewChecker(c)
					if err != nil {
						t.Fatal(err)
					}
					ctx, cancel := context.WithTimeout(t.Context(), c.Timeout)
					defer cancel()
					err = director.Do(func() error {
						_, err := k.Check(ctx)
						return err
					})
					if err != nil {
						t.Fatal(err)
					}
					if from := <-seen; from != netip.MustParseAddr(what.from) {
						t.Errorf("the server saw %v, want %s", from, what.from)
					}
				})
			}
		}
	}
}

// witness answers HTTP on the host's port 80 and tells from where each
// connection and each echo request came.
func witness(t *testing.T, h *lab.Host) <-chan netip.Addr {
	t.Helper()
	seen := make(chan netip.Addr, 16)
	var open []io.Closer
	err := h.Do(func() error {
		l, err := net.Listen("tcp", "[::]:80")
		if err != nil {
			return err
		}
		open = append(open, l)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					seen <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
					if n, _ := c.Read(make([]byte, 4096)); n > 0 {
						io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
					}
				}()
			}
		}()
		for network, request := range map[string]byte{"ip4:icmp": 8, "ip6:ipv6-icmp": 128} {
			p, err := net.ListenPacket(network, "")
			if err != nil {
				return err
			}
			open = append(open, p)
			go func() {
				buf := make([]byte, 1500)
				for {
					n, from, err := p.ReadFrom(buf)
					if err != nil {
						return
					}
					if a, ok := netip.AddrFromSlice(from.(*net.IPAddr).IP); ok && n > 0 && buf[0] == request {
						seen <- a.Unmap()
					}
				}
			}()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range open {
			c.Close()
		}
	})
	return seen
}
