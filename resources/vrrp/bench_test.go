package vrrp

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// busyHost is a host whose kernel costs what one costs: a system call for each
// advertisement and each address.
type busyHost struct {
	mu      sync.Mutex
	receive []func(Packet)
	fd      int
}

func (h *busyHost) Now() time.Time                                     { return time.Now() }
func (h *busyHost) Announce(context.Context, *conf.VRRPInstance) error { return nil }
func (h *busyHost) Release(i *conf.VRRPInstance) error                 { return h.Acquire(i) }
func (h *busyHost) Links(changed func(string, bool)) (func(), error) {
	changed("eth0", true)
	return func() {}, nil
}
func (h *busyHost) Local() netip.Addr { return local }
func (h *busyHost) Close() error      { return nil }
func (h *busyHost) Send(message []byte, to netip.Addr) error {
	_, err := syscall.Write(h.fd, message)
	return err
}

func (h *busyHost) Acquire(i *conf.VRRPInstance) error {
	for range i.Addresses {
		syscall.Write(h.fd, make([]byte, 64))
		for end := time.Now().Add(50 * time.Microsecond); time.Now().Before(end); {
		}
	}
	return nil
}

func (h *busyHost) Open(_ *conf.VRRPInstance, receive func(Packet)) (Endpoint, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.receive = append(h.receive, receive)
	return h, nil
}

func newBusyHost(tb testing.TB) *busyHost {
	fd, err := syscall.Open("/dev/null", syscall.O_WRONLY, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { syscall.Close(fd) })
	return &busyHost{fd: fd}
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

func (h *busyHost) run(tb testing.TB, v conf.VRRP) (*Router, func()) {
	r := NewRouter(Config{Host: h, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	r.Update(v)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	return r, func() { cancel(); <-done }
}

// 200 masters at 10 ms while 5,000 addresses are programmed: the distribution of
// how late advertisements are.
func BenchmarkLateness(b *testing.B) {
	for b.Loop() {
		h := newBusyHost(b)
		r, stop := h.run(b, many(200, 255, 10*time.Millisecond, 25))
		time.Sleep(5 * time.Second)
		l := r.Status().Lateness
		stop()
		total, within := uint64(0), uint64(0)
		for n, c := range l.Counts {
			total += c
			if n < len(lateBounds) {
				b.Logf("up to %8v: %d", lateBounds[n], c)
			}
			if n < len(lateBounds) && lateBounds[n] <= 5*time.Millisecond {
				within += c
			}
		}
		b.ReportMetric(float64(l.Max.Microseconds()), "µs-late-max")
		b.ReportMetric(100*float64(within)/float64(total), "%-in-half-an-interval")
	}
}

// What 1,000 masters at 1 s, and 1,000 backups, take of a core.
func BenchmarkThousand(b *testing.B) {
	used := func() time.Duration {
		var u syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	for _, c := range []struct {
		name     string
		priority uint8
	}{{"masters", 255}, {"backups", 100}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				h := newBusyHost(b)
				v := many(1000, c.priority, time.Second, 1)
				_, stop := h.run(b, v)
				time.Sleep(time.Second)
				before, began := used(), time.Now()
				for range 5 {
					if c.priority < 255 {
						for n := range v.Instances {
							h.receive[n%len(h.receive)](packet(&v.Instances[n], 200))
						}
					}
					time.Sleep(time.Second)
				}
				b.ReportMetric(100*float64(used()-before)/float64(time.Since(began)), "%-of-a-core")
				stop()
			}
		})
	}
}

func TestSendingAllocatesNothing(t *testing.T) {
	h := newBusyHost(t)
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

// What comes in and goes out at 10 ms, in a heap of 200.
func BenchmarkReceive(b *testing.B) {
	h := newBusyHost(b)
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
