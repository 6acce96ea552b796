package netdev

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/vrrp"
)

// many is 200 instances with 5,000 addresses.
func many() (all []conf.VRRPInstance) {
	for n := range 200 {
		i := router4()
		i.Name, i.VRID = fmt.Sprint("VI_", n), uint8(n+1)
		for m := range 25 {
			a := netip.AddrFrom4([4]byte{10, 100, byte(n), byte(m + 1)})
			i.Addresses = append(i.Addresses, conf.VRRPAddress{Address: netip.PrefixFrom(a, 32)})
		}
		all = append(all, *i)
	}
	return all
}

// BenchmarkTakeover acquires 5,000 addresses of 200 instances and releases them.
func BenchmarkTakeover(b *testing.B) {
	a, _ := pair(b)
	h := a.host(b.TempDir())
	all := many()
	each := func(f func(*conf.VRRPInstance) error) (took time.Duration) {
		begin := time.Now()
		for n := range all {
			if err := f(&all[n]); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(begin)
	}
	var acquire, release time.Duration
	for b.Loop() {
		acquire += each(h.Acquire)
		release += each(h.Release)
	}
	b.ReportMetric(float64(acquire.Milliseconds())/float64(b.N), "ms/acquire")
	b.ReportMetric(float64(release.Milliseconds())/float64(b.N), "ms/release")
}

// BenchmarkLateness runs 200 masters at 10 ms that put 5,000 addresses into the
// kernel, announce them and take them back, and prints how late advertisements were.
func BenchmarkLateness(b *testing.B) {
	a, _ := pair(b)
	h := a.host(b.TempDir())
	all := many()
	for n := range all {
		// Owners are masters at once.
		all[n].Version, all[n].Interval, all[n].Priority, all[n].DownAdverts = 3, 10*time.Millisecond, 255, 3
		all[n].GARP = conf.VRRPAnnounce{Repeat: 5, RefreshRepeat: 1}
	}
	for b.Loop() {
		r := vrrp.NewRouter(vrrp.Config{Host: h, Logger: slog.New(slog.DiscardHandler)})
		r.Update(conf.VRRP{Instances: all})
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		begin := time.Now()
		for busy := true; busy; time.Sleep(50 * time.Millisecond) {
			busy = false
			for _, i := range r.Status().Instances {
				busy = busy || i.State != vrrp.Master || i.Programs
			}
		}
		took := time.Since(begin)
		l := r.Status().Lateness
		cancel()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
		b.Logf("programmed and announced in %v; lateness %+v", took, l)
	}
}

// BenchmarkAnnounce announces 5,000 addresses of 200 instances once.
func BenchmarkAnnounce(b *testing.B) {
	a, _ := pair(b)
	h := a.host("")
	all := many()
	for n := range all {
		if err := h.Acquire(&all[n]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		for n := range all {
			if err := h.Announce(b.Context(), &all[n]); err != nil {
				b.Fatal(err)
			}
		}
	}
}
