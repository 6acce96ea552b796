//go:build labkernel

package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// visitor is a client with an address of its own.
type visitor struct {
	p    *pair
	from netip.Addr
	port uint16 // of the last connection: none is used twice, for the kernel remembers where they went
}

// visitor gives the client's machine another address.
func (p *pair) visitor(last int) *visitor {
	p.t.Helper()
	v := &visitor{p: p, from: netip.AddrFrom4([4]byte{192, 168, 56, byte(last)}), port: 20000}
	p.client.Run("ip", "addr", "add", v.from.String()+"/24", "dev", "eth1")
	return v
}

func (v *visitor) dial(address string) (net.Conn, error) {
	v.port++
	d := net.Dialer{Timeout: patient, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(v.from, v.port))}
	var c net.Conn
	err := v.p.client.Do(func() (err error) {
		c, err = d.Dial("tcp", address)
		return err
	})
	return c, err
}

// visits fetches so many pages, each with a new connection, and tells how many
// were whose. No request may fail.
func (v *visitor) visits(n int, address string) map[string]int {
	v.p.t.Helper()
	who := map[string]int{}
	for range n {
		c, err := v.dial(address)
		if err != nil {
			v.p.t.Fatalf("visitor %s: %v", v.from, err)
		}
		name, err := page(c, bufio.NewReader(c), address)
		c.Close()
		if err != nil {
			v.p.t.Fatalf("visitor %s: %v", v.from, err)
		}
		who[name]++
	}
	return who
}

// only wants every page to be from one server.
func (v *visitor) only(name, address, what string) {
	v.p.t.Helper()
	if who := v.visits(8, address); who[name] != 8 {
		v.p.t.Errorf("%s: the pages of %s are from %v, want %s alone", what, v.from, who, name)
	}
}

// stream is one long transfer: numbered lines on one connection, without a
// request in between, for as long as the test.
type stream struct {
	name string
	conn net.Conn
	done chan struct{}

	mu   sync.Mutex // guards what follows
	last int        // number of the last line
	err  error
}

func (v *visitor) stream(name, address string) *stream {
	v.p.t.Helper()
	c, err := v.dial(address)
	if err == nil {
		_, err = fmt.Fprintf(c, "GET /numbers HTTP/1.0\r\n\r\n")
	}
	if err != nil {
		v.p.t.Fatalf("%s: %v", name, err)
	}
	s := &stream{name: name, conn: c, done: make(chan struct{})}
	go s.read()
	v.p.t.Cleanup(func() {
		c.Close()
		<-s.done
	})
	return s
}

func (s *stream) read() {
	defer close(s.done)
	lines := bufio.NewScanner(s.conn)
	for head := true; lines.Scan(); {
		switch {
		case lines.Text() == "":
			head = false
			continue
		case head:
			continue
		}
		s.mu.Lock()
		if want := fmt.Sprint(s.last + 1); lines.Text() != want {
			s.err = fmt.Errorf("line %q came where %q was due", lines.Text(), want)
		}
		s.last++
		bad := s.err != nil
		s.mu.Unlock()
		if bad {
			return
		}
	}
	s.mu.Lock()
	s.err = errors.Join(lines.Err(), errors.New("it ended"))
	s.mu.Unlock()
}

// goesOn waits for more lines than there are now.
func (s *stream) goesOn(t *testing.T, what string) {
	t.Helper()
	began := s.count(t, what)
	if !eventually(func() bool { return s.count(t, what) > began+10 }) {
		t.Fatalf("%s: the transfer through %s stands still after %d lines", what, s.name, began)
	}
}

// count is how many lines have come; the test ends when the transfer has.
func (s *stream) count(t *testing.T, what string) int {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		t.Fatalf("%s: the transfer through %s ended after %d lines: %v", what, s.name, s.last, s.err)
	}
	return s.last
}
