//go:build labkernel

package kernel

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/test/lab"
)

// A check by SCTP is up while somebody listens, down when nobody does, and
// comes from where it is to come from.
func TestConnectBySCTP(t *testing.T) {
	l := lab.New(t)
	wire := l.Switch("service")
	director, server := l.Host("director"), l.Host("server")
	director.Attach(wire, "eth0", "10.1.0.1/24", "10.1.0.9/24", "fd01::1/64", "fd01::9/64")
	server.Attach(wire, "eth0", "10.1.0.2/24", "fd01::2/64")
	for _, v := range []struct {
		family         int
		listen         unix.Sockaddr
		server, source string
	}{
		{unix.AF_INET, &unix.SockaddrInet4{Port: 5000}, "10.1.0.2", "10.1.0.9"},
		{unix.AF_INET6, &unix.SockaddrInet6{Port: 5001}, "fd01::2", "fd01::9"},
	} {
		var listener int
		err := server.Do(func() (err error) {
			if listener, err = unix.Socket(v.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP); err != nil {
				return err
			}
			if err := unix.Bind(listener, v.listen); err != nil {
				return err
			}
			return unix.Listen(listener, 5)
		})
		if err != nil {
			t.Fatal(err)
		}
		port := uint16(5000)
		if v.family == unix.AF_INET6 {
			port = 5001
		}
		c := conf.Check{
			Type: conf.Connect, Service: "sctp", Timeout: 10 * time.Second,
			Target: netip.AddrPortFrom(netip.MustParseAddr(v.server), port),
			Source: netip.MustParseAddr(v.source), Interface: "eth0", Mark: 7,
		}
		k, err := checks.NewChecker(c)
		if err != nil {
			t.Fatal(err)
		}
		ask := func() (detail string, err error) {
			ctx, cancel := context.WithTimeout(t.Context(), c.Timeout)
			defer cancel()
			err = director.Do(func() (err error) { detail, err = k.Check(ctx); return err })
			return detail, err
		}
		if detail, err := ask(); err != nil || detail != "connected" {
			t.Errorf("%s: %s %v", v.server, detail, err)
		}
		conn, from, err := unix.Accept(listener)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(conn)
		var source netip.Addr
		switch a := from.(type) {
		case *unix.SockaddrInet4:
			source = netip.AddrFrom4(a.Addr)
		case *unix.SockaddrInet6:
			source = netip.AddrFrom16(a.Addr)
		}
		if source != c.Source {
			t.Errorf("the server saw %v, want %v", source, c.Source)
		}
		unix.Close(listener)
		if _, err := ask(); err == nil || checks.Local(err) || err.Error() != "connect "+c.Target.String()+": connection refused" {
			t.Errorf("nobody listens: %v", err)
		}
	}
}
