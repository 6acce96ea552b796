package vrrp

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

func TestAMasterThatWasStoppedFindsItsSuccessor(t *testing.T) {
	for _, c := range []struct {
		name    string
		preempt bool
		story   string
	}{
		{"and takes over again", true, `
12.828s b has VI_1
12.828s b: instance VI_1 is MASTER
30s b gives back VI_1
30s b: instance VI_1 is BACKUP`},
		{"and leaves it the addresses", false, `
12.828s b has VI_1
12.828s b: instance VI_1 is MASTER
30s a gives back VI_1
30s a: instance VI_1 is BACKUP`},
	} {
		t.Run(c.name, func(t *testing.T) {
			story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
				preempt := func(i *conf.VRRPInstance) { i.Preempt = c.preempt }
				ha.run(file(200, preempt))
				hb.run(file(100, nil))
				time.Sleep(10 * time.Second)
				s.told()
				ha.freeze(20 * time.Second)
				time.Sleep(5 * time.Second)
				s.expect(c.story)
			})
		})
	}
}

func TestABackupThatWasStoppedDoesNotTakeOver(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		pair(s, ha, hb)
		hb.freeze(20 * time.Second)
		time.Sleep(5 * time.Second)
		s.expect(``)
		s.neverTwice("VI_1", 0)
	})
}

func TestAMasterThatLacksSomethingIsInFault(t *testing.T) {
	for _, c := range []struct {
		name  string
		lose  func(*fakeHost)
		back  func(*fakeHost)
		lacks string
		story string
	}{
		{"its link", func(h *fakeHost) { h.link("eth0", false) }, func(h *fakeHost) { h.link("eth0", true) },
			"interface eth0 is down", `
10s a gives back VI_1
10s a: instance VI_1 is FAULT
12.828s b has VI_1
12.828s b: instance VI_1 is MASTER
20s a: instance VI_1 is BACKUP
23.219s a has VI_1
23.219s a: instance VI_1 is MASTER
23.219s b gives back VI_1
23.219s b: instance VI_1 is BACKUP`},
		{"an address of its own", func(h *fakeHost) { h.set(func() { h.addr = netip.Addr{} }) }, func(h *fakeHost) { h.set(func() { h.addr = local }) },
			"interface eth0 has no address to send from", `
10.219s a gives back VI_1
10.219s a: instance VI_1 is FAULT
12.828s b has VI_1
12.828s b: instance VI_1 is MASTER
20.219s a: instance VI_1 is BACKUP
23.438s a has VI_1
23.438s a: instance VI_1 is MASTER
23.438s b gives back VI_1
23.438s b: instance VI_1 is BACKUP`},
	} {
		t.Run(c.name, func(t *testing.T) {
			story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
				a := pair(s, ha, hb)
				c.lose(ha)
				time.Sleep(10 * time.Second)
				if got := a.Status().Instances[0]; got.State != Fault || got.Lacks != c.lacks {
					t.Errorf("status %s, lacks %q", got.State, got.Lacks)
				}
				c.back(ha)
				time.Sleep(10 * time.Second)
				s.expect(c.story)
				s.neverTwice("VI_1", time.Millisecond)
			})
		})
	}
}

func TestAnInterfaceThatIsNotThereYetIsAFault(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, _ *fakeHost) {
		ha.links["eth0"] = false
		ha.run(file(255, nil))
		time.Sleep(10 * time.Second)
		ha.link("eth0", true)
		time.Sleep(10 * time.Second)
		s.expect(`
0s a: instance VI_1 is FAULT
10s a has VI_1
10s a: instance VI_1 is MASTER`)
	})
}

func TestWhatTheKernelRefusesIsTriedAgain(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, _ *fakeHost) {
		ha.set(func() { ha.refuse = errors.New("no such device") })
		a := ha.run(file(200, nil))
		time.Sleep(4 * time.Second)
		if got := a.Status().Instances[0]; got.State != Master || got.Failure != "no such device" {
			t.Errorf("%s, failure %q", got.State, got.Failure)
		}
		ha.set(func() { ha.refuse = nil })
		time.Sleep(6 * time.Second)
		if got := a.Status().Instances[0]; !ha.has("192.0.2.10/24") || got.Failure != "" {
			t.Errorf("failure %q", got.Failure)
		}
	})
}

func TestAMasterThatIsNotHeardShowsIt(t *testing.T) {
	for name, c := range map[string]struct {
		trouble func(*fakeHost)
		want    string
	}{
		"advertisements": {func(h *fakeHost) { h.cut = !h.cut }, "advertisements are not sent: network is down"},
		"gratuitous ARP": {func(h *fakeHost) {
			if h.mute == nil {
				h.mute = errors.New("no buffer space")
			} else {
				h.mute = nil
			}
		}, "the addresses were not announced: no buffer space"},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, _ *segment, ha, _ *fakeHost) {
				a := ha.run(file(255, func(i *conf.VRRPInstance) { i.GARP.Refresh, i.GARP.RefreshRepeat = time.Second, 1 }))
				for _, want := range []string{"", c.want, ""} {
					time.Sleep(1500 * time.Millisecond)
					if got := a.Status().Instances[0].Failure; got != want {
						t.Errorf("failure %q, want %q", got, want)
					}
					ha.set(func() { c.trouble(ha) })
				}
			})
		})
	}
}

func TestAMasterTellsOfAnotherOne(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		a, rival := ha.run(file(200, nil)), hb.announcer(50, conf.ConflictKeep)
		start(t, rival)
		time.Sleep(10 * time.Second)
		got := a.Status().Instances[0].Notes
		if len(got) != 1 || got[0].Why != ReasonRival || got[0].From != hb.addr || got[0].Count < 6 {
			t.Errorf("notes %+v", got)
		}
		if n := ha.rounds("VI_1"); n < 15 {
			t.Errorf("its addresses were announced %d times", n)
		}
		stop(t, rival)
	})
}

func TestWhoHasYieldedWhileItWaitedForTheKernelTakesNothing(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		ha.slow = 5 * time.Second
		two := func(priority uint8) conf.VRRP {
			v := grouped(priority)
			v.SyncGroups = nil
			return v
		}
		ha.run(two(100))
		time.Sleep(time.Second)
		hb.run(two(200))
		time.Sleep(20 * time.Second)
		had := 0
		for _, l := range lines(s.told()) {
			if l.said == "a has VI_1" || l.said == "a has VI_2" {
				had++
			}
		}
		if had != 1 {
			t.Errorf("%d times it took addresses, want the one that had begun before it yielded", had)
		}
	})
}

// What the kernel has kept is taken away later, and nothing else is.
func TestWhatTheKernelKeepsIsTakenAwayLater(t *testing.T) {
	owner := func(all ...string) conf.VRRP {
		return file(255, func(i *conf.VRRPInstance) { i.Addresses = addresses(all...) })
	}
	moved := func() conf.VRRP {
		v := owner("192.0.2.10/24")
		v.Instances[0].Name, v.Instances[0].VRID = "VI_2", 52
		return v
	}
	busy := errors.New("device or resource busy")
	const ten, eleven = "192.0.2.10/24", "192.0.2.11/24"
	for _, c := range []struct {
		name   string
		then   func(*fakeHost, *runner) // while the kernel keeps what it has
		kept   string
		shown  string                   // which instance has a failure
		later  func(*fakeHost, *runner) // when it does not any more
		stands []string                 // in the end
	}{
		{"an address that a reload has taken out", func(_ *fakeHost, a *runner) { a.Update(owner(eleven)) }, ten, "VI_1", nil, []string{eleven}},
		{"of a router that is in fault, whatever is reloaded meanwhile", func(h *fakeHost, _ *runner) { h.link("eth0", false) }, ten, "VI_1",
			func(_ *fakeHost, a *runner) { a.Update(owner(eleven)) }, nil},
		{"of a router that a reload has taken out", func(_ *fakeHost, a *runner) { a.Update(conf.VRRP{}) }, ten, "VI_1", nil, nil},
		{"of a router whose address another one has got", func(_ *fakeHost, a *runner) { a.Update(moved()) }, eleven, "VI_1", nil, []string{ten}},
		{"of one that was in trouble before it was taken out", func(_ *fakeHost, a *runner) {
			a.Update(owner(eleven))
			time.Sleep(time.Second)
			a.Update(conf.VRRP{})
		}, ten, "VI_1", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			story(t, func(t *testing.T, s *segment, ha, _ *fakeHost) {
				a := ha.run(owner(ten, eleven))
				time.Sleep(time.Second)
				ha.set(func() { ha.keeps = busy })
				c.then(ha, a)
				time.Sleep(2 * time.Second)
				failed := ""
				for _, i := range a.Status().Instances {
					if i.Failure == busy.Error() {
						failed += i.Name
					}
				}
				if !ha.has(c.kept) || failed != c.shown {
					t.Errorf("%s stands: %v; a failure is shown of %q", c.kept, ha.has(c.kept), failed)
				}
				ha.set(func() { ha.keeps = nil })
				if c.later != nil {
					c.later(ha, a)
				}
				time.Sleep(10 * time.Second)
				for _, address := range []string{ten, eleven} {
					if got := ha.has(address); got != slices.Contains(c.stands, address) {
						t.Errorf("in the end %s stands: %v", address, got)
					}
				}
				for _, i := range a.Status().Instances {
					if i.Failure != "" || i.State == Initialize {
						t.Errorf("in the end %s is %s, failure %q", i.Name, i.State, i.Failure)
					}
				}
			})
		})
	}
}
