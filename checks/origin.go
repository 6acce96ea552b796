package checks

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// originate gives a socket, before it connects or sends, the source address,
// interface and mark that a check is to come from. What the machine does not
// have or allow is no verdict on the server (Local).
func originate(fd int, c conf.Check) error {
	if c.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(c.Mark)); err != nil {
			return localError{fmt.Errorf("mark %#x: %w", c.Mark, needs(err, "CAP_NET_ADMIN"))}
		}
	}
	if c.Interface != "" {
		if err := unix.BindToDevice(fd, c.Interface); err != nil {
			return localError{fmt.Errorf("interface %s: %w", c.Interface, needs(err, "CAP_NET_RAW"))}
		}
	}
	if !c.Source.IsValid() {
		return nil
	}
	if err := sameFamily(c); err != nil {
		return err
	}
	// The port is chosen when the socket connects, so that checks of different
	// servers can have the same one. A kernel without it has fewer ports.
	_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	_, sa, err := sockaddr(netip.AddrPortFrom(c.Source, 0))
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			err = fmt.Errorf("%w: not an address of this node", err)
		}
		return localError{fmt.Errorf("source %v: %w", c.Source, err)}
	}
	return nil
}

// sameFamily refuses a source address of the other IP version than the server's.
func sameFamily(c conf.Check) error {
	if c.Source.IsValid() && c.Source.Unmap().Is4() != c.Target.Addr().Unmap().Is4() {
		return fmt.Errorf("source %v and server %v are not of the same IP version", c.Source, c.Target.Addr())
	}
	return nil
}

func needs(err error, capability string) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: needs root or %s", err, capability)
	}
	return err
}
