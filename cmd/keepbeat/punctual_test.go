package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

func TestMemoryIsCollectedSeldomWhileAdvertisementsAreDueOften(t *testing.T) {
	before := debug.SetGCPercent(usualGrowth)
	defer debug.SetGCPercent(before)
	for _, c := range []struct {
		name      string
		goGC      string
		intervals []time.Duration
		want      int
	}{
		{"seconds", "", []time.Duration{time.Second}, usualGrowth},
		{"one of them often", "", []time.Duration{time.Second, 10 * time.Millisecond}, seldomGrowth},
		{"not any more", "", []time.Duration{time.Second}, usualGrowth},
		{"the administrator's word", "50", []time.Duration{10 * time.Millisecond}, usualGrowth},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("GOGC", c.goGC)
			v := &conf.VRRP{}
			for _, d := range c.intervals {
				v.Instances = append(v.Instances, conf.VRRPInstance{Interval: d})
			}
			collectSeldom(v)
			is := debug.SetGCPercent(usualGrowth)
			debug.SetGCPercent(is)
			if is != c.want {
				t.Errorf("%d %%, want %d", is, c.want)
			}
		})
	}
}

func TestTheDaemonLeavesRoomForTheClock(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	t.Setenv("GOMAXPROCS", "")
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := unix.Gettid()
	defer func() { _ = unix.Setpriority(unix.PRIO_PROCESS, self, 0) }()
	for _, c := range []struct{ was, want int }{{-20, roomNice}, {-11, roomNice}, {-10, -10}, {-1, -1}, {0, 0}} {
		if err := unix.Setpriority(unix.PRIO_PROCESS, self, c.was); err != nil {
			t.Fatal(err)
		}
		makeRoom()
		is, err := unix.Getpriority(unix.PRIO_PROCESS, self)
		if err != nil {
			t.Fatal(err)
		}
		if got := 20 - is; got != c.want {
			t.Errorf("a thread of nice %d has %d, want %d", c.was, got, c.want)
		}
	}
	if got := runtime.GOMAXPROCS(0); got != runtime.NumCPU()+roomProcessors {
		t.Errorf("%d processors of Go's on %d", got, runtime.NumCPU())
	}
	t.Setenv("GOMAXPROCS", "3")
	runtime.GOMAXPROCS(3)
	if makeRoom(); runtime.GOMAXPROCS(0) != 3 {
		t.Error("the administrator's GOMAXPROCS was changed")
	}
}
