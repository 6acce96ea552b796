package guard

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// serve echoes on port 7777 of an address of the director.
func (l *lab) serve(t *testing.T, network, vip string) {
	t.Helper()
	l.serveIn(t, l.director, network, vip)
}

func (l *lab) serveIn(t *testing.T, ns, network, address string) {
	t.Helper()
	at := net.JoinHostPort(address, "7777")
	var (
		ln  net.Listener
		pc  net.PacketConn
		err error
	)
	l.in(ns, func() {
		if network == "tcp" {
			ln, err = net.Listen(network, at)
		} else {
			pc, err = net.ListenPacket(network, at)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if pc != nil {
		t.Cleanup(func() { pc.Close() })
		go func() {
			b := make([]byte, 100)
			for {
				n, from, err := pc.ReadFrom(b)
				if err != nil {
					return
				}
				pc.WriteTo(b[:n], from) // refused by the guard at times
			}
		}()
		return
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 100)
				for {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					if _, err := c.Write(b[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// conversation asks and waits for the answer to this very question.
type conversation struct {
	t    *testing.T
	conn net.Conn
	n    int
}

func (l *lab) dial(t *testing.T, network, vip string) *conversation {
	t.Helper()
	var (
		c   net.Conn
		err error
	)
	l.in(l.client, func() { c, err = net.DialTimeout(network, net.JoinHostPort(vip, "7777"), patience) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &conversation{t: t, conn: c}
}

// answers tells whether an answer to a new question comes in time.
func (c *conversation) answers(d time.Duration) bool {
	c.t.Helper()
	c.n++
	question := fmt.Sprintf("%08d", c.n)
	seen := ""
	buf := make([]byte, 100)
	for end := time.Now().Add(d); time.Now().Before(end); {
		if seen == "" || c.conn.LocalAddr().Network() == "udp" {
			if _, err := c.conn.Write([]byte(question)); err != nil {
				c.t.Logf("asking: %v", err)
			}
		}
		if err := c.conn.SetReadDeadline(time.Now().Add(min(d, 100*time.Millisecond))); err != nil {
			c.t.Fatal(err)
		}
		n, err := c.conn.Read(buf)
		if err != nil {
			seen += "-" // asked; for TCP the kernel repeats it
			continue
		}
		seen += string(buf[:n])
		if strings.Contains(seen, question) {
			return true
		}
	}
	return false
}
