package netdev

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// many is 200 instances with 5,000 addresses.
func many() (all []*conf.VRRPInstance) {
	for n := range 200 {
		i := router4()
		i.Name, i.VRID = fmt.Sprint("VI_", n), uint8(n+1)
		for m := range 25 {
			a := netip.AddrFrom4([4]byte{10, 100, byte(n), byte(m + 1)})
			i.Addresses = append(i.Addresses, conf.VRRPAddress{Address: netip.PrefixFrom(a, 32)})
		}
		all = append(all, i)
	}
	return all
}

// BenchmarkTakeover acquires 5,000 addresses of 200 instances and releases them,
// while 200 messages are sent every 10 ms; it tells how late those were.
func BenchmarkTakeover(b *testing.B) {
	a, _ := pair(b)
	h := a.host(b.TempDir())
	all := many()
	var senders []opened
	for _, i := range all {
		senders = append(senders, open(b, h, i))
	}
	var late []time.Duration
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		const interval = 10 * time.Millisecond
		due := time.Now()
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Until(due)):
			}
			for _, s := range senders {
				if err := s.Send(message, group4); err != nil {
					b.Error(err)
					return
				}
			}
			late = append(late, time.Since(due))
			due = due.Add(interval)
		}
	}()
	var acquire, release time.Duration
	for b.Loop() {
		begin := time.Now()
		for _, i := range all {
			if err := h.Acquire(i); err != nil {
				b.Fatal(err)
			}
		}
		acquire += time.Since(begin)
		begin = time.Now()
		for _, i := range all {
			if err := h.Release(i); err != nil {
				b.Fatal(err)
			}
		}
		release += time.Since(begin)
	}
	close(stop)
	<-stopped
	slices.Sort(late)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(acquire)/float64(b.N), "ms/acquire")
	b.ReportMetric(ms(release)/float64(b.N), "ms/release")
	b.ReportMetric(ms(late[len(late)/2]), "ms-late-p50")
	b.ReportMetric(ms(late[len(late)*99/100]), "ms-late-p99")
	b.ReportMetric(ms(late[len(late)-1]), "ms-late-max")
}
