//go:build labkernel

package guard

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"
)

const real4 = "10.79.0.2"

// realServer adds a namespace behind the director, which is its gateway.
func (l *lab) realServer() (ns string) {
	l.t.Helper()
	ns = fmt.Sprintf("kbguard-%d-r", os.Getpid())
	run(l.t, "ip", "netns", "add", ns)
	l.t.Cleanup(func() { run(l.t, "ip", "netns", "del", ns) })
	l.ip(l.director, "link add kbgdr type veth peer name kbgr netns "+ns)
	l.ip(l.director, "addr add 10.79.0.1/24 dev kbgdr")
	l.ip(l.director, "link set kbgdr up")
	l.ip(ns, "link set lo up")
	l.ip(ns, "addr add "+real4+"/24 dev kbgr")
	l.ip(ns, "link set kbgr up")
	l.ip(ns, "route add default via 10.79.0.1")
	run(l.t, "ip", "netns", "exec", l.director, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
	return ns
}

func (l *lab) ipvsadm(args ...string) {
	l.t.Helper()
	run(l.t, "ip", append([]string{"netns", "exec", l.director, "ipvsadm"}, args...)...)
}

func TestGuardStandsInFrontOfIPVS(t *testing.T) {
	l := newLab(t)
	ns := l.realServer()
	l.serveIn(t, ns, "udp", real4)
	l.ipvsadm("-A", "-u", vip4+":7777", "-s", "rr")
	l.ipvsadm("-a", "-u", vip4+":7777", "-r", real4+":7777", "-m")
	g, _ := l.open()
	live := func() error { return g.SetDeadline(BootNow() + 5*time.Minute) }
	if err := errors.Join(g.Hold(vips()...), live()); err != nil {
		t.Fatal(err)
	}
	c := l.dial(t, "udp", vip4)
	for range 3 {
		if !c.answers(patience) {
			t.Fatal("no answer by IPVS with a live lease")
		}
		if err := g.SetDeadline(0); err != nil {
			t.Fatal(err)
		}
		if c.answers(300 * time.Millisecond) {
			t.Fatal("an answer by IPVS without a lease")
		}
		if err := live(); err != nil {
			t.Fatal(err)
		}
	}
}

// A server that goes on talking is forwarded by connections that IPVS has, though nothing comes in.
func TestForwardedRepliesStop(t *testing.T) {
	l := newLab(t)
	ns := l.realServer()
	var (
		ln  net.Listener
		err error
	)
	l.in(ns, func() { ln, err = net.Listen("tcp", real4+":7777") })
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for {
			if _, err := c.Write([]byte("on and on")); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	l.ipvsadm("-A", "-t", vip4+":7777", "-s", "rr")
	l.ipvsadm("-a", "-t", vip4+":7777", "-r", real4+":7777", "-m")
	g, _ := l.open()
	if err := errors.Join(g.Hold(vips()...), g.SetDeadline(BootNow()+5*time.Minute)); err != nil {
		t.Fatal(err)
	}
	var c net.Conn
	l.in(l.client, func() { c, err = net.DialTimeout("tcp", vip4+":7777", patience) })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	hears := func(d time.Duration) bool {
		if err := c.SetReadDeadline(time.Now().Add(d)); err != nil {
			t.Fatal(err)
		}
		_, err := c.Read(make([]byte, 4096))
		return err == nil
	}
	if !hears(patience) {
		t.Fatal("nothing by IPVS with a live lease")
	}
	if err := g.SetDeadline(0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "silence", func() bool { return !hears(500 * time.Millisecond) })
	if err := g.SetDeadline(BootNow() + 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	if !hears(patience) {
		t.Error("nothing after the renewal")
	}
}

// An ipip tunnel: the outer address decides on the wire, the inner one on the tunnel's interface.
func TestTunnelInterface(t *testing.T) {
	l := newLab(t)
	for _, x := range []struct{ ns, own, peer, inner string }{
		{l.director, dir4, cli4, "10.80.0.1"}, {l.client, cli4, dir4, "10.80.0.2"},
	} {
		l.ip(x.ns, "link add kbgipip type ipip local "+x.own+" remote "+x.peer)
		l.ip(x.ns, "addr add "+x.inner+"/24 dev kbgipip")
		l.ip(x.ns, "link set kbgipip up")
	}
	l.ip(l.client, "route add "+vip4+"/32 dev kbgipip")
	l.serve(t, "udp", vip4)
	g, _ := l.open()
	if err := errors.Join(g.Hold(vips()...), g.SetDeadline(BootNow()+5*time.Minute)); err != nil {
		t.Fatal(err)
	}
	c := l.dial(t, "udp", vip4)
	if !c.answers(patience) {
		t.Fatal("no answer by the tunnel with a live lease")
	}
	if err := g.SetDeadline(0); err != nil {
		t.Fatal(err)
	}
	if c.answers(300 * time.Millisecond) {
		t.Error("an answer by the tunnel without a lease")
	}
}
