package checks

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

func TestWhereAProbeComesFrom(t *testing.T) {
	from := make(chan string, 9)
	listen := func(addr string) netip.AddrPort {
		return netip.MustParseAddrPort(serve(t, "tcp", addr, func(c net.Conn) {
			from <- c.RemoteAddr().(*net.TCPAddr).IP.String()
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}))
	}
	four, six := listen("127.0.0.1:0"), listen("[::1]:0")
	a := netip.MustParseAddr
	for _, tc := range []struct {
		name string
		c    conf.Check
		want string // the detail, "!" and the error; empty: connected
		from string
	}{
		{"the kernel's choice", conf.Check{Target: four}, "", "127.0.0.1"},
		{"an address", conf.Check{Target: four, Source: a("127.0.0.9")}, "", "127.0.0.9"},
		{"an address of IPv6", conf.Check{Target: six, Source: a("::1")}, "", "::1"},
		{"an interface", conf.Check{Target: four, Interface: "lo"}, "", "127.0.0.1"},
		{"everything", conf.Check{Target: four, Source: a("127.0.0.9"), Interface: "lo", Mark: 1<<32 - 1}, "", "127.0.0.9"},
		{"everything by IPv6", conf.Check{Target: six, Source: a("::1"), Interface: "lo", Mark: 7}, "", "::1"},
		{"an address of elsewhere", conf.Check{Target: four, Source: a("192.0.2.1")},
			"!connect " + four.String() + ": source 192.0.2.1: cannot assign requested address: not an address of this node", ""},
		{"no such interface", conf.Check{Target: six, Interface: "nosuchif0"}, "!connect " + six.String() + ": interface nosuchif0: no such device", ""},
	} {
		for _, typ := range []conf.CheckType{conf.Connect, conf.Negotiate} {
			t.Run(tc.name+", "+typ.String(), func(t *testing.T) {
				c, want := tc.c, tc.want
				c.Type, c.Timeout = typ, time.Minute
				if typ == conf.Negotiate {
					c.Service = "http"
				}
				if want == "" {
					if want = "connected"; typ == conf.Negotiate {
						want = "HTTP 200"
					}
				}
				expect(t, c, want)
				if tc.from == "" {
					_, err := try(t, c)
					if !Local(err) {
						t.Error("the server is blamed for what this machine lacks")
					}
				} else if got := <-from; got != tc.from {
					t.Errorf("came from %s, want %s", got, tc.from)
				}
			})
		}
	}
}

// Each connection of a source address to another server can have the same port:
// otherwise 28,000 of them would be all.
func TestASourceAddressLeavesThePortsToTheConnections(t *testing.T) {
	c := conf.Check{Target: netip.MustParseAddrPort("127.0.0.1:9"), Source: netip.MustParseAddr("127.0.0.9")}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := originate(fd, c); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	if got := sa.(*unix.SockaddrInet4); got.Addr != [4]byte{127, 0, 0, 9} || got.Port != 0 {
		t.Errorf("bound to %v:%d before it connects", got.Addr, got.Port)
	}
}

func TestSourceOfTheOtherVersionIsToldAtValidation(t *testing.T) {
	c := conf.Check{Target: netip.MustParseAddrPort("10.0.0.1:80"), Source: netip.MustParseAddr("::1"), Timeout: time.Second}
	for _, k := range []struct {
		typ     conf.CheckType
		service string
	}{{conf.Connect, ""}, {conf.Connect, "sctp"}, {conf.Ping, ""}, {conf.Negotiate, "http"}, {conf.Negotiate, "https"}, {conf.Negotiate, "grpc"}} {
		c.Type, c.Service = k.typ, k.service
		if _, err := NewChecker(c); err == nil || err.Error() != "source ::1 and server 10.0.0.1 are not of the same IP version" {
			t.Errorf("%v %s: %v", k.typ, k.service, err)
		}
	}
}

func TestPingFromSomewhere(t *testing.T) {
	c := pingTo("127.0.0.1")
	c.Source, c.Interface, c.Mark, c.Count = netip.MustParseAddr("127.0.0.9"), "lo", 7, 2
	expect(t, c, "echo reply")
	c.Source = netip.MustParseAddr("192.0.2.1")
	if _, err := try(t, c); !Local(err) {
		t.Errorf("%v: the server is blamed for what this machine lacks", err)
	}
}

// A kernel with SCTP connects by it; one without says so and blames nobody.
func TestConnectBySCTP(t *testing.T) {
	for _, at := range []string{"127.0.0.1", "::1"} {
		c := conf.Check{Type: conf.Connect, Service: "sctp", Target: netip.AddrPortFrom(netip.MustParseAddr(at), 9), Timeout: time.Minute}
		family, sa, err := sockaddr(netip.AddrPortFrom(c.Target.Addr(), 0))
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		if err != nil {
			if _, err := try(t, c); !Local(err) {
				t.Errorf("%v: the server is blamed for a kernel without SCTP", err)
			}
			expect(t, c, "!connect "+c.Target.String()+": this kernel has no SCTP (modprobe sctp): protocol not supported")
			continue
		}
		defer unix.Close(fd)
		expect(t, c, "!connect "+c.Target.String()+": connection refused")
		if err := unix.Bind(fd, sa); err != nil {
			t.Fatal(err)
		}
		if err := unix.Listen(fd, 5); err != nil {
			t.Fatal(err)
		}
		bound, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		port := 0
		switch b := bound.(type) {
		case *unix.SockaddrInet4:
			port = b.Port
		case *unix.SockaddrInet6:
			port = b.Port
		}
		c.Target = netip.AddrPortFrom(c.Target.Addr(), uint16(port))
		expect(t, c, "connected")
	}
}
