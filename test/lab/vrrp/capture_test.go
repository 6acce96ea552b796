package vrrp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"golang.org/x/sys/unix"
)

const vrrpProtocol = 112

// frame is what the observer heard, with the kernel's time of it.
type frame struct {
	at   time.Time
	data []byte
}

// advert is an advertisement in a frame. It is read here anew, by offsets, so
// that an error of the decoder under test is not made twice.
type advert struct {
	at       time.Time
	mac      [6]byte
	src, dst netip.Addr
	ttl, tos uint8
	six      bool
	message  []byte
}

func (a *advert) vrid() uint8     { return a.message[1] }
func (a *advert) priority() uint8 { return a.message[2] }

// adverts are the advertisements among frames, in the order they were heard.
func adverts(frames []frame) (all []advert) {
	for _, f := range frames {
		a := advert{at: f.at, mac: [6]byte(f.data[6:12])}
		switch p := f.data[14:]; binary.BigEndian.Uint16(f.data[12:]) {
		case unix.ETH_P_IP:
			if len(p) < 20 || p[9] != vrrpProtocol {
				continue
			}
			header, total := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
			if header < 20 || header > total || total > len(p) {
				continue
			}
			a.src, a.dst, a.tos, a.ttl = netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:])), p[1], p[8]
			a.message = p[header:total]
		case unix.ETH_P_IPV6:
			if len(p) < 40 || p[6] != vrrpProtocol {
				continue
			}
			a.src, a.dst, a.ttl, a.six = netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:])), p[7], true
			a.tos = uint8(binary.BigEndian.Uint16(p) >> 4)
			a.message = p[40:]
		default:
			continue
		}
		if len(a.message) >= 8 {
			all = append(all, a)
		}
	}
	return all
}

// announced are the addresses that a station has told everybody to have, by
// gratuitous ARP and unsolicited neighbour advertisements, since an instant.
func announced(frames []frame, mac net.HardwareAddr, since time.Time) map[netip.Addr]int {
	times := map[netip.Addr]int{}
	for _, f := range frames {
		if f.at.Before(since) || !bytes.Equal(f.data[6:12], mac) {
			continue
		}
		switch p := f.data[14:]; binary.BigEndian.Uint16(f.data[12:]) {
		case unix.ETH_P_ARP:
			if len(p) >= 28 && bytes.Equal(p[14:18], p[24:28]) && bytes.Equal(p[8:14], mac) {
				times[netip.AddrFrom4([4]byte(p[14:]))]++
			}
		case unix.ETH_P_IPV6:
			// To all nodes, with the override flag and the target's link-layer address: RFC 4861, 4.4.
			const advertisement, override = 136, 0x20
			if len(p) >= 40+32 && p[6] == unix.IPPROTO_ICMPV6 && p[40] == advertisement && p[44]&override != 0 &&
				p[24] == 0xff && bytes.Equal(p[66:72], mac) {
				times[netip.AddrFrom16([16]byte(p[48:]))]++
			}
		}
	}
	return times
}

// observer hears everything on a hub.
type observer struct {
	t    testing.TB
	file *os.File
	done chan struct{}

	mu     sync.Mutex // guards frames
	frames []frame
}

// observe records what goes over an interface of a host: VRRP, ARP, and ICMPv6.
func observe(t testing.TB, h *lab.Host, ifname string) *observer {
	t.Helper()
	o := &observer{t: t, done: make(chan struct{})}
	err := h.Do(func() error {
		i, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		all := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
		if err != nil {
			return err
		}
		o.file = os.NewFile(uintptr(fd), "observer")
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			// A busy machine reads late: 8 MiB are minutes of what is sent here.
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}))
	})
	if err != nil {
		t.Fatalf("observing %s of %s: %v", ifname, h.Name, err)
	}
	go o.listen()
	t.Cleanup(func() { o.file.Close(); <-o.done })
	return o
}

func (o *observer) listen() {
	defer close(o.done)
	raw, err := o.file.SyscallConn()
	if err != nil {
		return
	}
	data, control := make([]byte, 9<<10), make([]byte, 256)
	for {
		var n, c int
		var from unix.Sockaddr
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, c, _, from, failed = unix.Recvmsg(int(fd), data, control, 0)
			return failed != unix.EAGAIN
		})
		if err != nil || failed != nil {
			return // closed, or its host has ended
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); n >= 14 && ok && ll.Pkttype != unix.PACKET_OUTGOING && wanted(data[:n]) {
			o.mu.Lock()
			o.frames = append(o.frames, frame{stamp(control[:c]), slices.Clone(data[:n])})
			o.mu.Unlock()
		}
	}
}

func wanted(b []byte) bool {
	switch binary.BigEndian.Uint16(b[12:]) {
	case unix.ETH_P_IP:
		return len(b) > 23 && b[23] == vrrpProtocol
	case unix.ETH_P_IPV6:
		return len(b) > 20 && (b[20] == vrrpProtocol || b[20] == unix.IPPROTO_ICMPV6)
	}
	return binary.BigEndian.Uint16(b[12:]) == unix.ETH_P_ARP
}

// stamp is the time at which the kernel had the frame.
func stamp(control []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(control)
	if err == nil {
		for _, m := range messages {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
				return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
			}
		}
	}
	return time.Now()
}

// heard is everything up to now.
func (o *observer) heard() []frame {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clip(o.frames)
}

// save writes frames as a capture file (libpcap's format, times in nanoseconds).
func save(t testing.TB, path string, frames []frame) {
	t.Helper()
	const ethernet = 1
	b := binary.LittleEndian.AppendUint32(nil, 0xa1b23c4d)
	b = binary.LittleEndian.AppendUint16(b, 2)
	b = binary.LittleEndian.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)
	b = binary.LittleEndian.AppendUint32(b, 64<<10)
	b = binary.LittleEndian.AppendUint32(b, ethernet)
	for _, f := range frames {
		for _, x := range []int{int(f.at.Unix()), f.at.Nanosecond(), len(f.data), len(f.data)} {
			b = binary.LittleEndian.AppendUint32(b, uint32(x))
		}
		b = append(b, f.data...)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (a *advert) String() string {
	return fmt.Sprintf("%s > %s ttl %d tos %#x: % x", a.src, a.dst, a.ttl, a.tos, a.message)
}
