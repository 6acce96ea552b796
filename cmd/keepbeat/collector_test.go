package main

import (
	"runtime/debug"
	"testing"
	"time"

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
