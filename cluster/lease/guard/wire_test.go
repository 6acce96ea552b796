package guard

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wire sends and receives frames on an interface: by a raw packet socket, or as the far end of a tun.
type wire struct {
	t   *testing.T
	fd  int
	tun bool
}

func (l *lab) wire(ns, name string) *wire {
	l.t.Helper()
	w := &wire{t: l.t, fd: -1}
	l.in(ns, func() {
		i, err := net.InterfaceByName(name)
		if err != nil {
			l.t.Error(err)
			return
		}
		all := int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)))
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all); err != nil {
			l.t.Error(err)
			return
		}
		if err := unix.Bind(w.fd, &unix.SockaddrLinklayer{Ifindex: i.Index, Protocol: uint16(all)}); err != nil {
			l.t.Error(err)
		}
	})
	l.t.Cleanup(func() { unix.Close(w.fd) })
	return w
}

func (w *wire) send(frame []byte) {
	w.t.Helper()
	if !w.tun && len(frame) < 60 {
		frame = append(bytes.Clone(frame), make([]byte, 60-len(frame))...)
	}
	// A write that the guard drops may be reported as an error.
	if _, err := unix.Write(w.fd, frame); err != nil && err != unix.ENOBUFS {
		w.t.Fatalf("sending: %v", err)
	}
}

// read returns the next frame, nil when none comes in time.
func (w *wire) read(d time.Duration) []byte {
	w.t.Helper()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, int(d.Milliseconds())); err != nil || n == 0 {
		return nil
	}
	b := make([]byte, 2048)
	if w.tun {
		n, err := unix.Read(w.fd, b)
		if err != nil {
			return nil
		}
		return b[:n]
	}
	n, from, err := unix.Recvfrom(w.fd, b, unix.MSG_DONTWAIT)
	if err != nil {
		return nil
	}
	if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
		return []byte{}
	}
	return b[:n]
}

// tun makes an interface without Ethernet headers in the director's namespace and returns its far end.
func (l *lab) tun(name string) *wire {
	l.t.Helper()
	w := &wire{t: l.t, fd: -1, tun: true}
	l.in(l.director, func() {
		var err error
		if w.fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			l.t.Errorf("/dev/net/tun: %v", err)
			return
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			l.t.Error(err)
			return
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(w.fd, unix.TUNSETIFF, req); err != nil {
			l.t.Errorf("making a tun: %v", err)
		}
	})
	l.t.Cleanup(func() { unix.Close(w.fd) })
	return w
}

// probe is a frame and how its effect is known at the other end.
type probe struct {
	name   string
	frame  []byte
	effect func(frame []byte) bool
}

// reaches sends the probe until its effect is seen.
func (l *lab) reaches(from, at *wire, p probe) {
	l.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		from.send(p.frame)
		for f := at.read(200 * time.Millisecond); f != nil; f = at.read(20 * time.Millisecond) {
			if p.effect(f) {
				return
			}
		}
	}
	l.t.Fatalf("%s: never got through", p.name)
}

// stopped sends the probe, then another that must get through, and fails if the
// effect of the first is seen before that of the second: the wire keeps order.
func (l *lab) stopped(from, at *wire, p, open probe) {
	l.t.Helper()
	for range 3 {
		from.send(p.frame)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); {
		from.send(open.frame)
		for f := at.read(200 * time.Millisecond); f != nil; f = at.read(20 * time.Millisecond) {
			if p.effect(f) {
				l.t.Fatalf("%s: got through", p.name)
			}
			if open.effect(f) {
				return
			}
		}
	}
	l.t.Fatalf("%s: never got through, though nothing should stop it", open.name)
}
