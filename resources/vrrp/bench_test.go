package vrrp

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// idleHost is a host on which everything is done at once.
type idleHost struct {
	mu      sync.Mutex
	receive []func(Packet)
}

func (h *idleHost) Now() time.Time                                     { return time.Now() }
func (h *idleHost) Announce(context.Context, *conf.VRRPInstance) error { return nil }
func (h *idleHost) Release(*conf.VRRPInstance) error                   { return nil }
func (h *idleHost) Strangers() []Stranger                              { return nil }
func (h *idleHost) Links(changed func(string, bool)) (func(), error) {
	changed("eth0", true)
	return func() {}, nil
}
func (h *idleHost) Local() netip.Addr                { return local }
func (h *idleHost) Close() error                     { return nil }
func (h *idleHost) Send([]byte, netip.Addr) error    { return nil }
func (h *idleHost) Acquire(*conf.VRRPInstance) error { return nil }

func (h *idleHost) Open(_ *conf.VRRPInstance, receive func(Packet)) (Endpoint, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.receive = append(h.receive, receive)
	return h, nil
}

func many(n int, priority uint8, interval time.Duration, addresses int) (v conf.VRRP) {
	for k := range n {
		v.Instances = append(v.Instances, *virtual(3, func(i *conf.VRRPInstance) {
			i.Name, i.VRID, i.Interval, i.Priority = fmt.Sprint("VI_", k), uint8(1+k%255), interval, priority
			i.Addresses = nil
			for a := range addresses {
				i.Addresses = append(i.Addresses, conf.VRRPAddress{Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(k), byte(a >> 8), byte(a)}), 32)})
			}
		}))
	}
	return v
}

func (h *idleHost) run(tb testing.TB, v conf.VRRP) (*Router, func()) {
	r := NewRouter(Config{Host: h, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	r.Update(v)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	return r, func() { cancel(); <-done }
}

func TestSendingAllocatesNothing(t *testing.T) {
	h := &idleHost{}
	r, stop := h.run(t, many(1, 255, time.Hour, 20))
	defer stop()
	for {
		r.mu.Lock()
		i := r.instances["VI_0"]
		ready := i.sent > 0
		n := -1.0
		if ready {
			n = testing.AllocsPerRun(100, func() { i.tick(i.machine.Deadline()); i.send(0) })
		}
		r.mu.Unlock()
		if ready {
			if n != 0 {
				t.Errorf("%v allocations", n)
			}
			return
		}
	}
}

// An advertisement that comes to one of 200 backups. How punctual masters are, and
// what 1,000 take of a core, is measured on the wire: make bench-vrrp.
func BenchmarkReceive(b *testing.B) {
	h := &idleHost{}
	v := many(200, 100, time.Second, 25)
	r, stop := h.run(b, v)
	defer stop()
	for r.Status().Instances[199].Local != local || r.Status().Instances[199].State != Backup {
		time.Sleep(time.Millisecond)
	}
	p := packet(&v.Instances[0], 200)
	b.ReportAllocs()
	for b.Loop() {
		h.receive[0](p)
	}
}
