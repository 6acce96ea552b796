package fault

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/test/lab/probe"
)

// packetSocket is a raw socket on one interface, for frames of a kind; reads end after timeout.
func packetSocket(ifname string, protocol uint16, timeout time.Duration) (fd int, mac net.HardwareAddr, err error) {
	i, err := net.InterfaceByName(ifname)
	if err != nil {
		return 0, nil, err
	}
	kind := protocol<<8 | protocol>>8
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(kind)); err != nil {
		return 0, nil, err
	}
	if err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: kind, Ifindex: i.Index}); err != nil {
		return 0, nil, err
	}
	// Replies go to an address of our invention.
	if err = unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(i.Index), Type: unix.PACKET_MR_PROMISC}); err != nil {
		return 0, nil, err
	}
	tv := unix.NsecToTimeval(timeout.Nanoseconds())
	return fd, i.HardwareAddr, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

// An ARP frame on Ethernet (RFC 826): 14 bytes of header, 28 of ARP.
const (
	arpFrame  = 42
	arpOp     = 20
	arpSender = 22 // hardware address, and the address at 28
	arpTarget = 32 // and at 38
)

// watchARP asks who has an address, every interval, and reports who answers and each
// request that two hardware addresses answered: INTERFACE ADDRESS INTERVAL. Every request has a
// hardware address of its own as its sender, to which the answers come, so that
// it is certain which request an answer belongs to.
func watchARP(args []string) error {
	vip, err := netip.ParseAddr(args[1])
	if err != nil {
		return err
	}
	fd, mac, err := packetSocket(args[0], unix.ETH_P_ARP, 100*time.Millisecond)
	if err != nil {
		return err
	}
	var mu sync.Mutex // guards answered
	answered := map[uint32]string{}
	go func() {
		b := make([]byte, 1514)
		var last arpAnswer
		for {
			n, err := unix.Read(fd, b)
			at := probe.Now()
			if err != nil || n < arpFrame || binary.BigEndian.Uint16(b[arpOp:]) != 2 || [4]byte(b[arpSender+6:arpSender+10]) != vip.As4() {
				continue
			}
			if b[arpTarget] != invented[0] || b[arpTarget+1] != invented[1] {
				continue // the client's, or gratuitous
			}
			request, who := binary.BigEndian.Uint32(b[arpTarget+2:]), net.HardwareAddr(b[arpSender:arpSender+6]).String()
			mu.Lock()
			before, again := answered[request]
			answered[request] = who
			mu.Unlock()
			if again && before != who {
				fmt.Printf("conflict %d %s %s\n", at, before, who)
			}
			if who != last.who || at.Sub(last.at) >= answerEvery {
				last = arpAnswer{at, who}
				fmt.Printf("answer %d %s\n", at, who)
			}
		}
	}()
	for request := uint32(1); ; request++ {
		mu.Lock()
		delete(answered, request-2000) // older ones are not answered any more
		mu.Unlock()
		if _, err := unix.Write(fd, arpRequest(mac, request, vip)); err != nil {
			return err
		}
		time.Sleep(duration(args[2]))
	}
}

// invented begins the hardware addresses of the watcher's requests; the request's number follows.
var invented = [2]byte{0x06, 0x6b}

func arpRequest(mac net.HardwareAddr, number uint32, vip netip.Addr) []byte {
	b := make([]byte, arpFrame)
	copy(b, "\xff\xff\xff\xff\xff\xff")
	copy(b[6:], mac)
	copy(b[12:], "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01")
	b[arpSender], b[arpSender+1] = invented[0], invented[1]
	binary.BigEndian.PutUint32(b[arpSender+2:], number)
	// The sender's address stays 0.0.0.0: nobody learns anything from this (RFC 5227, 2.1.1).
	to := vip.As4()
	copy(b[arpTarget+6:], to[:])
	return b
}

// answerEvery is how often the watcher says that the same one still answers.
const answerEvery = 250 * time.Millisecond

type arpAnswer struct {
	at  probe.Instant
	who string
}

// arpAnswers reads what the watcher has printed of who answers.
func arpAnswers(log string) []arpAnswer {
	var all []arpAnswer
	for line := range strings.Lines(log) {
		var w arpAnswer
		if n, err := fmt.Sscanf(line, "answer %d %s", &w.at, &w.who); n == 2 && err == nil {
			all = append(all, w)
		}
	}
	return all
}

type arpConflict struct {
	at   probe.Instant
	a, b string
}

// arpConflicts reads what the watcher has printed.
func arpConflicts(log string) []arpConflict {
	var found []arpConflict
	for line := range strings.Lines(log) {
		var c arpConflict
		if n, err := fmt.Sscanf(line, "conflict %d %s %s", &c.at, &c.a, &c.b); n == 3 && err == nil {
			found = append(found, c)
		}
	}
	return found
}

// record writes the heartbeat frames that a host sends and receives to a file, in
// hexadecimal, one a line: FILE DURATION.
func record(args []string) error {
	f, err := os.Create(args[0])
	if err != nil {
		return err
	}
	var mu sync.Mutex // guards f and n
	n := 0
	var wg sync.WaitGroup
	end := time.Now().Add(duration(args[1]))
	// A machine that stood still for all that time has recorded nothing: then until the first frame.
	going := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Before(end) || n == 0 && time.Now().Before(end.Add(10*time.Second))
	}
	for _, ifname := range []string{"eth1", "eth2"} {
		fd, _, err := packetSocket(ifname, unix.ETH_P_ALL, 50*time.Millisecond)
		if err != nil {
			return err
		}
		wg.Go(func() {
			b := make([]byte, 1514)
			for going() {
				size, err := unix.Read(fd, b)
				// Without IP options: 14 bytes of Ethernet, 20 of IPv4, 8 of UDP.
				if err != nil || size < 42 || b[12] != 8 || b[13] != 0 || b[14] != 0x45 || b[23] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(b[36:]) != heartbeatPort {
					continue
				}
				mu.Lock()
				n++
				_, err = io.WriteString(f, hex.EncodeToString(b[:size])+"\n")
				mu.Unlock()
				if err != nil {
					fmt.Println(err)
					return
				}
			}
		})
	}
	wg.Wait()
	fmt.Println(n, "frames recorded")
	return f.Close()
}

// replay sends recorded frames on both links again and again, byte for byte but for the
// hardware address of the sender, which would upset the switch, and the checksum, which
// a virtual device leaves to the hardware that it has not: FILE PER-SECOND DURATION.
func replay(args []string) error {
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var frames [][]byte
	for line := range strings.Lines(string(text)) {
		b, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			return err
		}
		b[40], b[41] = 0, 0 // RFC 768: none was computed. With what was recorded the kernel throws it away.
		frames = append(frames, b)
	}
	if len(frames) == 0 {
		return fmt.Errorf("%s: nothing was recorded", args[0])
	}
	var fds [2]int
	var macs [2]net.HardwareAddr
	for i, ifname := range []string{"eth1", "eth2"} {
		if fds[i], macs[i], err = packetSocket(ifname, 0, time.Second); err != nil {
			return err
		}
	}
	fmt.Printf("%d frames recorded; ", len(frames))
	return paced(number(args[1]), duration(args[2]), func(n int) error {
		b := frames[(n/2)%len(frames)]
		copy(b[6:12], macs[n%2])
		_, err := unix.Write(fds[n%2], b)
		return err
	})
}
