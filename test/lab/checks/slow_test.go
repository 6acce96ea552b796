package checks

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// single is how many bytes of a connection come one by one: greetings, headers and
// short answers are cut at each place. After it they come by 16, for most of the rest are
// certificates: thousands of bytes, each of which waits for its turn on a busy machine.
const single = 200

// slowly stands before a server and hands on what it says byte by byte, as single
// says (over UDP: datagram by datagram), with a pause before each piece. What the client
// says it hands on at once. It ends with the test.
func slowly(t *testing.T, network string, server netip.AddrPort, pause time.Duration) netip.AddrPort {
	t.Helper()
	if network == "udp" {
		return slowlyUDP(t, server, pause)
	}
	l, err := net.Listen("tcp", netip.AddrPortFrom(server.Addr(), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended); l.Close(); all.Wait() })
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { relay(client, server, pause, ended) })
		}
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// relay joins one connection; it ends when either side or the test does.
func relay(client net.Conn, to netip.AddrPort, pause time.Duration, ended <-chan struct{}) {
	defer client.Close()
	server, err := net.Dial("tcp", to.String())
	if err != nil {
		return
	}
	defer server.Close()
	over := make(chan struct{})
	var both sync.WaitGroup
	defer both.Wait()
	defer close(over)
	both.Go(func() {
		select {
		case <-ended:
		case <-over:
		}
		client.Close()
		server.Close()
	})
	both.Go(func() {
		io.Copy(server, client)
		server.(*net.TCPConn).CloseWrite()
	})
	buf := make([]byte, 4096)
	said := 0
	for {
		n, err := server.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			piece := rest[:1]
			if said >= single {
				piece = rest[:min(16, len(rest))]
			}
			select {
			case <-time.After(pause):
			case <-ended:
				return
			}
			if _, err := client.Write(piece); err != nil {
				return
			}
			said, rest = said+len(piece), rest[len(piece):]
		}
		if err != nil {
			return
		}
	}
}

func slowlyUDP(t *testing.T, server netip.AddrPort, pause time.Duration) netip.AddrPort {
	t.Helper()
	front, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(server.Addr(), 0)))
	if err != nil {
		t.Fatal(err)
	}
	back, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended); front.Close(); back.Close(); all.Wait() })
	var mu sync.Mutex // guards client
	var client netip.AddrPort
	all.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := front.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			mu.Lock()
			client = from
			mu.Unlock()
			back.Write(buf[:n])
		}
	})
	all.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := back.Read(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // the server refused an earlier one
				continue
			}
			select {
			case <-time.After(pause):
			case <-ended:
				return
			}
			mu.Lock()
			to := client
			mu.Unlock()
			front.WriteToUDPAddrPort(buf[:n], to)
		}
	})
	return front.LocalAddr().(*net.UDPAddr).AddrPort()
}
