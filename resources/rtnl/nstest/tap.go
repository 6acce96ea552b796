package nstest

import (
	"bytes"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/resources/rtnl"
)

// Tap receives every frame that arrives at an interface.
type Tap struct {
	T  testing.TB
	fd int
}

// Tap opens one.
func (n NS) Tap(dev string) Tap {
	n.T.Helper()
	p := Tap{n.T, -1}
	n.Inside(func() error {
		i, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: rtnl.NetworkOrder(unix.ETH_P_ALL), Ifindex: i.Index})
	})
	n.T.Cleanup(func() { _ = unix.Close(p.fd) })
	return p
}

// Until reads frames until match takes one.
func (p Tap) Until(what string, match func(frame []byte) bool) []byte {
	p.T.Helper()
	buf := make([]byte, 4096)
	for end := time.Now().Add(Patience); time.Now().Before(end); {
		tv := unix.NsecToTimeval(int64(time.Until(end)) + 1000)
		_ = unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
		n, _, err := unix.Recvfrom(p.fd, buf, 0)
		if err == nil && match(buf[:n]) {
			return bytes.Clone(buf[:n])
		}
	}
	p.T.Fatalf("%s: not seen on the wire", what)
	return nil
}
