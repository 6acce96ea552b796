package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/test/lab"
)

// observer sees, on an interface of a host, when advertisements of VRRP over
// IPv4 came, and which addresses were announced by gratuitous ARP. The times are
// the kernel's; what is seen is in a ring that the kernel writes to, and is read
// now and then: an observer that were woken by each of 20,000 packets a second
// would take the time from those that it observes.
type observer struct {
	fd   int
	ring []byte
	next int // frame
	quit chan struct{}
	done chan struct{}

	mu     sync.Mutex // guards the rest
	seen   [256][]time.Duration
	told   map[netip.Addr]time.Duration // first announcement since forget
	others int                          // frames that are neither
}

// The ring holds three seconds of what 200 routers say every 10 ms.
const (
	ringFrame  = 256
	ringBlock  = 256 << 10
	ringFrames = 64 << 10
	ringRead   = 20 * time.Millisecond
)

// wanted lets the beginning of VRRP and of ARP through.
var wanted = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_ARP, Jt: 3},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IP, Jf: 3},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 23},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 112, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 64},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

func observe(h *lab.Host, ifname string) (*observer, error) {
	o := &observer{fd: -1, told: map[netip.Addr]time.Duration{}, quit: make(chan struct{}), done: make(chan struct{})}
	if err := h.Do(func() error { return o.open(ifname) }); err != nil {
		o.close()
		return nil, fmt.Errorf("observing %s of %s: %w", ifname, h.Name, err)
	}
	go func() {
		defer close(o.done)
		for {
			select {
			case <-o.quit:
				return
			case <-time.After(ringRead):
				o.read()
			}
		}
	}()
	return o, nil
}

func (o *observer) open(ifname string) (err error) {
	i, err := net.InterfaceByName(ifname)
	if err != nil {
		return err
	}
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network order
	if o.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	err = errors.Join(
		unix.SetsockoptSockFprog(o.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(wanted)), Filter: &wanted[0]}),
		unix.SetsockoptInt(o.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2),
		unix.SetsockoptTpacketReq(o.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq{
			Block_size: ringBlock, Block_nr: ringFrames * ringFrame / ringBlock, Frame_size: ringFrame, Frame_nr: ringFrames}))
	if err != nil {
		return err
	}
	if o.ring, err = unix.Mmap(o.fd, 0, ringFrames*ringFrame, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return err
	}
	return unix.Bind(o.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index})
}

// close ends observing. The error says that not all was seen.
func (o *observer) close() error {
	if o.ring != nil && o.quit != nil {
		close(o.quit)
		<-o.done
	}
	if o.fd < 0 {
		return nil
	}
	s, err := unix.GetsockoptTpacketStats(o.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err == nil && s.Drops > 0 {
		err = fmt.Errorf("the observer has missed %d of %d packets", s.Drops, s.Packets)
	}
	if o.ring != nil {
		err = errors.Join(err, unix.Munmap(o.ring))
	}
	return errors.Join(err, unix.Close(o.fd))
}

// read takes what the kernel has written.
func (o *observer) read() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		frame := o.ring[o.next*ringFrame : (o.next+1)*ringFrame]
		head := (*unix.Tpacket2Hdr)(unsafe.Pointer(&frame[0]))
		if atomic.LoadUint32(&head.Status)&unix.TP_STATUS_USER == 0 {
			return
		}
		at := time.Duration(head.Sec)*time.Second + time.Duration(head.Nsec)
		o.take(at, frame[head.Mac:][:head.Snaplen])
		atomic.StoreUint32(&head.Status, unix.TP_STATUS_KERNEL)
		o.next = (o.next + 1) % ringFrames
	}
}

// take notes a frame.
func (o *observer) take(at time.Duration, b []byte) {
	switch {
	case len(b) >= 37 && b[12] == 8 && b[13] == 0 && b[14] == 0x45: // without options
		if vrid, priority := b[35], b[36]; priority > 0 { // who leaves says so when he leaves
			o.seen[vrid] = append(o.seen[vrid], at)
		}
	case len(b) >= 42 && b[12] == 8 && b[13] == 6 && string(b[28:32]) == string(b[38:42]):
		a := netip.AddrFrom4([4]byte(b[28:32]))
		if _, known := o.told[a]; !known {
			o.told[a] = at
		}
	default:
		o.others++
	}
}

// announced is how many of the addresses have been announced, and when the last of them first was.
func (o *observer) announced(all []netip.Addr) (n int, last time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range all {
		if at, told := o.told[a]; told {
			n, last = n+1, max(last, at)
		}
	}
	return n, last
}

// adverts are the times of all advertisements, by VRID.
func (o *observer) adverts() (all [256][]time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for vrid := range all {
		all[vrid] = append(all[vrid], o.seen[vrid]...)
	}
	return all
}

// wallClock is now as the observer's times have it.
func wallClock() time.Duration { return time.Duration(time.Now().UnixNano()) }
