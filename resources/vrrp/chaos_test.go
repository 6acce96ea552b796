package vrrp

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
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
		switch random.IntN(9) {
		case 0:
			hosts[n].link("eth0", random.IntN(2) == 0)
		case 1:
			hosts[n].link("eth1", random.IntN(2) == 0)
		case 2:
			hosts[n].freeze(time.Duration(random.IntN(8000)) * time.Millisecond)
		case 3:
			routers[n].SetTracked(track.Script, "s", track.Result{Well: random.IntN(2) == 0})
		case 4:
			// What the kernel keeps then is the next process's to take away (netdev.New).
			hosts[n].set(func() { hosts[n].keeps = nil })
			routers[n].stop()
			begin(n)
		case 5:
			hosts[n].set(func() { hosts[n].slow = time.Duration(random.IntN(2000)) * time.Millisecond })
		case 6:
			hosts[n].set(func() { hosts[n].opening = time.Duration(random.IntN(2000)) * time.Millisecond })
		case 7:
			hosts[n].set(func() { hosts[n].keeps = sometimes(random, "device or resource busy") })
		case 8:
			routers[n].Update(edited(random, config(n)))
		}
		time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
	}
	for n, h := range hosts {
		h.link("eth0", true)
		h.link("eth1", true)
		h.set(func() { h.keeps = nil })
		routers[n].Update(config(n))
		routers[n].SetTracked(track.Script, "s", track.Result{Well: true})
	}
	time.Sleep(30 * time.Second)
	for n, r := range routers {
		for _, i := range r.Status().Instances {
			if want := n == 2; (i.State == Master) != want || hosts[n].holds(i.Name) != want {
				t.Errorf("%s at %s is %s, holds %v", i.Name, hosts[n].name, i.State, hosts[n].holds(i.Name))
			}
			if i.Failure != "" || i.Lacks != "" || i.Waits {
				t.Errorf("%s at %s: failure %q, lacks %q, waits %v", i.Name, hosts[n].name, i.Failure, i.Lacks, i.Waits)
			}
		}
		var want []string
		for _, i := range config(n).Instances {
			if n == 2 {
				want = append(want, standing(&i)...)
			}
		}
		slices.Sort(want)
		hosts[n].set(func() {
			if got := slices.Sorted(maps.Keys(hosts[n].stands)); !slices.Equal(got, want) {
				t.Errorf("%s has %q, want %q", hosts[n].name, got, want)
			}
		})
	}
	for _, r := range routers {
		r.stop()
	}
	for _, h := range hosts {
		if len(h.stands) > 0 {
			t.Errorf("%s still has %v", h.name, h.stands)
		}
	}
}

// edited returns a configuration as an administrator might have changed it.
func edited(random *rand.Rand, v conf.VRRP) conf.VRRP {
	if random.IntN(2) == 0 {
		v.SyncGroups = nil
	}
	if random.IntN(4) == 0 {
		v.Instances, v.SyncGroups = v.Instances[:1], nil
	}
	for k := range v.Instances {
		i := &v.Instances[k]
		switch random.IntN(7) {
		case 0:
			i.Addresses = addresses("192.0.2.11/24", "192.0.2.12/24")
		case 1:
			i.Excluded = addresses("192.0.2.13/24")
		case 2:
			i.Source = upper
		case 3:
			i.GARP.Refresh, i.GARP.RefreshRepeat = 2*time.Second, 1
		case 4:
			i.Interval = 500 * time.Millisecond
		case 5:
			i.VRID += 10
		case 6:
			i.Name += "_renamed"
		}
	}
	for g := range v.SyncGroups {
		v.SyncGroups[g].Instances = nil
		for _, i := range v.Instances {
			v.SyncGroups[g].Instances = append(v.SyncGroups[g].Instances, i.Name)
		}
	}
	return v
}

// sometimes returns an error, or none.
func sometimes(random *rand.Rand, text string) error {
	if random.IntN(2) == 0 {
		return nil
	}
	return errors.New(text)
}
