package vrrp

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/vrrp/track"
)

func TestAReload(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*conf.VRRPInstance)
		story  string
		check  func(*testing.T, *fakeHost, *runner)
	}{
		{"changes nothing", func(*conf.VRRPInstance) {}, ``, nil},
		{"adds an address and takes one away", func(i *conf.VRRPInstance) { i.Addresses = addresses("192.0.2.11/24", "192.0.2.12/24") }, ``, func(t *testing.T, h *fakeHost, _ *runner) {
			if h.has("192.0.2.10/24") || !h.has("192.0.2.11/24") || !h.has("192.0.2.12/24") {
				t.Error("the addresses are not those of the new configuration")
			}
		}},
		{"changes the priority", func(i *conf.VRRPInstance) { i.Priority = 180 }, ``, func(t *testing.T, _ *fakeHost, r *runner) {
			if got := r.Status().Instances[0].Priority; got != 180 {
				t.Errorf("priority %d", got)
			}
		}},
		{"changes the source", func(i *conf.VRRPInstance) { i.UnicastTTL = 64 }, ``, nil},
		{"changes the virtual router", func(i *conf.VRRPInstance) { i.VRID = 99 }, `
10s a leaves VI_1
10s a gives back VI_1
10s a: instance VI_1 is INIT
10s a: instance VI_1 is BACKUP
10.609s b has VI_1
10.609s b: instance VI_1 is MASTER
13.219s a has VI_1
13.219s a: instance VI_1 is MASTER`, nil},
		{"removes it", nil, `
10s a leaves VI_1
10s a gives back VI_1
10s a: instance VI_1 is INIT
10.609s b has VI_1
10.609s b: instance VI_1 is MASTER`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
				a := pair(s, ha, hb)
				next := conf.VRRP{}
				if c.change != nil {
					next = file(200, nil)
					c.change(&next.Instances[0])
				}
				a.Update(next)
				time.Sleep(10 * time.Second)
				s.expect(c.story)
				if c.check != nil {
					c.check(t, ha, a)
				}
			})
		})
	}
}

func TestAReloadChangesHowOftenAMasterAnnounces(t *testing.T) {
	story(t, func(t *testing.T, _ *segment, ha, _ *fakeHost) {
		refreshed := func(every time.Duration) conf.VRRP {
			return file(255, func(i *conf.VRRPInstance) {
				i.GARP = conf.VRRPAnnounce{Repeat: 1, Refresh: every, RefreshRepeat: 1}
			})
		}
		a := ha.run(refreshed(10 * time.Second))
		rounds := 1 // of the new master
		for _, c := range []struct {
			every time.Duration
			more  int // in 65 s
		}{{10 * time.Second, 6}, {0, 0}, {20 * time.Second, 3}, {20 * time.Second, 3}, {10 * time.Second, 6}} {
			a.Update(refreshed(c.every))
			time.Sleep(65 * time.Second)
			rounds += c.more
			if got := ha.rounds("VI_1"); got != rounds {
				t.Errorf("a round every %v: %d by now, want %d", c.every, got, rounds)
			}
		}
	})
}

func TestAnAddressMovesToAnotherInstance(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, _ *fakeHost) {
		owner := grouped(255)
		owner.SyncGroups = nil
		owner.Instances[1].Addresses = addresses("192.0.2.20/24")
		a := ha.run(owner)
		time.Sleep(time.Second)
		next := grouped(255)
		next.SyncGroups = nil
		next.Instances[0].Addresses = addresses("192.0.2.11/24")
		next.Instances[1].Addresses = addresses("192.0.2.20/24", "192.0.2.10/24")
		a.Update(next)
		time.Sleep(time.Second)
		for _, address := range []string{"192.0.2.10/24", "192.0.2.11/24", "192.0.2.20/24"} {
			if !ha.has(address) {
				t.Errorf("%s is nowhere", address)
			}
		}
	})
}

func TestAVMACGoesAndComesWithItsAddresses(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, _ *fakeHost) {
		vmac := func(i *conf.VRRPInstance) { i.VMAC = "vrrp.51" }
		a := ha.run(file(255, vmac))
		time.Sleep(time.Second)
		next := file(255, vmac)
		next.Instances[0].Source = lower
		a.Update(next)
		time.Sleep(time.Second)
		s.expect(`
0s a has VI_1
0s a: instance VI_1 is MASTER
1s a gives back VI_1
1s a has VI_1`)
		if !ha.has("192.0.2.10/24") {
			t.Error("the addresses have not come back")
		}
	})
}

func TestAReloadWhileTheKernelIsBusy(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, _ *fakeHost) {
		ha.slow = 5 * time.Second
		a := ha.run(file(255, nil))
		time.Sleep(time.Second)
		next := file(255, nil)
		next.Instances[0].Addresses = addresses("192.0.2.11/24", "192.0.2.12/24")
		a.Update(next)
		time.Sleep(20 * time.Second)
		if ha.has("192.0.2.10/24") || !ha.has("192.0.2.11/24") || !ha.has("192.0.2.12/24") {
			t.Error("the addresses are not those of the new configuration")
		}
	})
}

func TestAScriptThatIsTrackedAgainIsWaitedFor(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, _ *fakeHost) {
		scripted := file(255, func(i *conf.VRRPInstance) { i.TrackScripts = []conf.VRRPTrack{{Name: "haproxy"}} })
		scripted.Scripts = []conf.VRRPScript{{Name: "haproxy"}}
		a := ha.run(scripted)
		a.SetTracked(track.Script, "haproxy", track.Result{})
		time.Sleep(time.Second)
		a.Update(file(255, nil))
		time.Sleep(time.Second)
		a.Update(scripted)
		time.Sleep(time.Second)
		if got := a.Status().Instances[0]; got.State != Master || !got.Waits {
			t.Errorf("%s, waits %v", got.State, got.Waits)
		}
		a.SetTracked(track.Script, "haproxy", track.Result{})
		time.Sleep(time.Second)
		if got := a.Status().Instances[0]; got.State != Fault {
			t.Errorf("then %s", got.State)
		}
	})
}

func TestAReloadOpensTheNextSocketsFirst(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		peers := func(all ...netip.Addr) func(*conf.VRRPInstance) {
			return func(i *conf.VRRPInstance) {
				i.Interval = 10 * time.Millisecond
				for _, p := range all {
					i.Peers = append(i.Peers, conf.VRRPPeer{Address: p, MaxTTL: 255})
				}
			}
		}
		a := ha.run(file(200, peers(hb.addr)))
		hb.run(file(100, peers(ha.addr)))
		time.Sleep(time.Second)
		s.told()
		ha.set(func() { ha.opening = time.Second })
		a.Update(file(200, peers(hb.addr, upper.Next())))
		time.Sleep(3 * time.Second)
		s.expect(``)
		if got := a.Status().Instances[0]; got.SendErrors > 0 || got.Sent < 390 {
			t.Errorf("%d advertisements were sent, %d were not", got.Sent, got.SendErrors)
		}
	})
}

func TestWhatCameLastGoesFirst(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, _ *fakeHost) {
		gone := func(what string) {
			t.Helper()
			var came, went []string
			for _, l := range lines(s.told()) {
				if name, ok := strings.CutPrefix(l.said, "a has "); ok {
					came = append(came, name)
				}
				if name, ok := strings.CutPrefix(l.said, "a gives back "); ok {
					went = append(went, name)
				}
			}
			slices.Reverse(went)
			if len(came) != 50 || !slices.Equal(came, went) {
				t.Errorf("%s: %d came\n%q\nand %d went, in reverse\n%q", what, len(came), came, len(went), went)
			}
		}
		a := ha.run(many(50, 255, time.Second, 2))
		time.Sleep(time.Second)
		a.Update(conf.VRRP{})
		time.Sleep(time.Second)
		gone("a reload takes them out")
		a.Update(many(50, 255, time.Second, 2))
		time.Sleep(time.Second)
		a.stop()
		gone("it stops")
	})
}

func TestWhatAnInstanceHas(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*conf.VRRPInstance)
		same   bool
	}{
		{"another priority", func(i *conf.VRRPInstance) { i.Priority = 90 }, true},
		{"another address", func(i *conf.VRRPInstance) { i.Addresses = addresses("192.0.2.12/24") }, false},
		{"packets are taken", func(i *conf.VRRPInstance) { i.Accept = true }, false},
		{"they are, since it is the owner", func(i *conf.VRRPInstance) { i.Priority = 255 }, false},
	} {
		if got := sameHoldings(virtual(3, nil), virtual(3, c.change)); got != c.same {
			t.Errorf("%s: the same %v", c.name, got)
		}
	}
	// What is no more in the packet stays where it is.
	old, excluded := virtual(3, nil), virtual(3, func(i *conf.VRRPInstance) { i.Excluded, i.Addresses = i.Addresses[1:], i.Addresses[:1] })
	if gone := without(old, excluded); gone != nil {
		t.Errorf("an address that is excluded is taken away: %+v", gone)
	}
}
