package vrrp

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/vrrp/track"
)

// Whatever has happened to three routers, when it is over there is one master,
// and it is the best one; who is in a sync group has all of it.
func TestAfterAnyTroubleTheBestOneIsMaster(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { trouble(t, rand.New(rand.NewPCG(seed, 5))) })
		})
	}
}

func trouble(t *testing.T, random *rand.Rand) {
	s := newSegment(t)
	together := random.IntN(2) == 0
	config := func(n int) conf.VRRP {
		v := grouped(uint8(100 + 50*n))
		if !together {
			v.SyncGroups = nil
		}
		for k := range v.Instances {
			v.Instances[k].TrackScripts = []conf.VRRPTrack{{Name: "s"}}
		}
		return v
	}
	hosts := make([]*fakeHost, 3)
	routers := make([]*runner, 3)
	begin := func(n int) {
		routers[n] = hosts[n].run(config(n))
		routers[n].SetTracked(track.Script, "s", track.Result{Well: true})
	}
	for n := range hosts {
		hosts[n] = s.host(string(rune('a'+n)), fmt.Sprintf("192.0.2.%d", 5+n))
		begin(n)
	}
	for range 40 {
		n := random.IntN(3)
		switch random.IntN(6) {
		case 0:
			hosts[n].link("eth0", random.IntN(2) == 0)
		case 1:
			hosts[n].link("eth1", random.IntN(2) == 0)
		case 2:
			hosts[n].freeze(time.Duration(random.IntN(8000)) * time.Millisecond)
		case 3:
			routers[n].SetTracked(track.Script, "s", track.Result{Well: random.IntN(2) == 0})
		case 4:
			routers[n].stop()
			begin(n)
		case 5:
			hosts[n].set(func() { hosts[n].slow = time.Duration(random.IntN(2000)) * time.Millisecond })
		}
		time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
	}
	for n, h := range hosts {
		h.link("eth0", true)
		h.link("eth1", true)
		routers[n].SetTracked(track.Script, "s", track.Result{Well: true})
	}
	time.Sleep(30 * time.Second)
	for n, r := range routers {
		for _, i := range r.Status().Instances {
			if want := n == 2; (i.State == Master) != want || hosts[n].holds(i.Name) != want {
				t.Errorf("%s at %s is %s, holds %v", i.Name, hosts[n].name, i.State, hosts[n].holds(i.Name))
			}
		}
	}
	for _, r := range routers {
		r.stop()
	}
	for _, h := range hosts {
		for _, name := range []string{"VI_1", "VI_2"} {
			if h.holds(name) {
				t.Errorf("%s still has %s", h.name, name)
			}
		}
	}
}
