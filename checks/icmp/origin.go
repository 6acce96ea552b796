package icmp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Origin is where a request comes from. What is zero is the kernel's choice.
type Origin struct {
	Source    netip.Addr // an address of this machine, of the target's IP version
	Interface string     // that it leaves by
	Mark      uint32     // firewall mark
}

// OriginError says that this machine lacks what an Origin names.
type OriginError struct{ error }

func (e OriginError) Unwrap() error { return e.error }

// control is what tells the kernel of an origin with each packet, so that all
// checks can share one socket.
func (s *icmpSocket) control(o Origin) ([]byte, error) {
	if o == (Origin{}) {
		return nil, nil
	}
	var b []byte
	if o.Mark != 0 {
		b = binary.NativeEndian.AppendUint32(header(unix.SOL_SOCKET, unix.SO_MARK, 4), o.Mark)
		b = append(b, make([]byte, unix.CmsgSpace(4)-len(b))...)
	}
	if !o.Source.IsValid() && o.Interface == "" {
		return b, nil
	}
	index, err := s.index(o.Interface)
	if err != nil {
		return nil, OriginError{fmt.Errorf("interface %s: %w", o.Interface, err)}
	}
	source := o.Source.Unmap()
	switch {
	case source.IsValid() && source.Is6() != s.v6:
		return nil, OriginError{fmt.Errorf("source %v: of the other IP version", o.Source)}
	case s.v6:
		info := unix.Inet6Pktinfo{Ifindex: uint32(index)}
		if source.IsValid() {
			info.Addr = source.As16()
		}
		return append(b, unix.PktInfo6(&info)...), nil
	}
	info := unix.Inet4Pktinfo{Ifindex: int32(index)}
	if source.IsValid() {
		info.Spec_dst = source.As4()
	}
	return append(b, unix.PktInfo4(&info)...), nil
}

// header begins a control message with n bytes of data: cmsg(3).
func header(level, kind int32, n int) []byte {
	b := make([]byte, unix.CmsgLen(0), unix.CmsgSpace(n))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(n))
	return b
}

// index is the number of an interface; 0 without a name.
func (s *icmpSocket) index(name string) (uint32, error) {
	if name == "" {
		return 0, nil
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	rc, err := s.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := rc.Control(func(fd uintptr) { err = unix.IoctlIfreq(int(fd), unix.SIOCGIFINDEX, ifr) }); e != nil {
		return 0, e
	}
	return ifr.Uint32(), err
}

// explain finds out whether it was the origin that the kernel did not like: it
// says so of an address of elsewhere with words of its own in each version.
func (o Origin) explain(err error) error {
	if !o.Source.IsValid() || (!errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENETUNREACH)) {
		return err
	}
	c, bindErr := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(o.Source.Unmap(), 0)))
	if bindErr == nil {
		c.Close()
		return err
	}
	if errors.Is(bindErr, unix.EADDRNOTAVAIL) {
		return OriginError{fmt.Errorf("source %v: not an address of this node: %w", o.Source, err)}
	}
	return err
}
