package vrrp

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

func listen(t *testing.T, a *Announcer) {
	t.Helper()
	if err := a.Listen(); err != nil {
		t.Fatal(err)
	}
}

func end(t *testing.T, a *Announcer) {
	t.Helper()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

// outbid says whether it hears a foreign master.
func outbid(t *testing.T, a *Announcer, want bool, when string) {
	t.Helper()
	if f, is := a.Conflict(); is != want {
		t.Errorf("%s: conflict %v with %v", when, is, f)
	}
}

func TestANodeThatWaitsHearsAForeignMaster(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		a := ha.announcer(254, conf.ConflictYield)
		listen(t, a)
		listen(t, a)
		b := hb.run(file(255, nil))
		time.Sleep(500 * time.Millisecond)
		outbid(t, a, false, "one advertisement is a straggler's")
		time.Sleep(time.Second)
		outbid(t, a, true, "it goes on")
		b.stop()
		time.Sleep(3 * time.Second)
		outbid(t, a, true, "as long as a backup would wait")
		time.Sleep(2 * time.Second)
		outbid(t, a, false, "it is gone")
		if s := a.Status(); s.Sent != 0 || s.Announces || s.Received == 0 || s.Foreign != nil {
			t.Errorf("it has said something, or heard nothing: %+v", s)
		}
		end(t, a)
	})
}

func TestANodeThatWaitsKnowsTheOwnerFromAForeignMaster(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		a, b := ha.announcer(254, conf.ConflictYield), hb.announcer(254, conf.ConflictYield)
		listen(t, a)
		listen(t, b)
		start(t, b)
		time.Sleep(10 * time.Second)
		outbid(t, a, false, "the owner announces")
		stop(t, b)
		start(t, a)
		time.Sleep(10 * time.Second)
		outbid(t, b, false, "the owner announces")
		outbid(t, a, false, "the other one is silent")
		end(t, a)
		end(t, b)
		s.expect(`10s b leaves VI_1`)
	})
}

func TestWhoHasYieldedToAnEqualKnowsIt(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		a := ha.announcer(254, conf.ConflictYield)
		listen(t, a)
		start(t, a)
		b := hb.announcer(254, conf.ConflictKeep) // has the higher address
		start(t, b)
		time.Sleep(3 * time.Second)
		outbid(t, a, true, "the higher address wins")
		stop(t, a)
		time.Sleep(10 * time.Second)
		outbid(t, a, true, "it is the same router")
		end(t, b)
		time.Sleep(5 * time.Second)
		outbid(t, a, false, "it is gone")
		end(t, a)
		// Who has yielded leaves without a word: it was no master any more.
		s.expect(`1s a: outbid by 192.0.2.6, priority 254`)
	})
}

func TestTheNextOwnerIsNoRivalOfOneWithoutALease(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		a := ha.announcer(254, conf.ConflictYield)
		var live atomic.Bool
		live.Store(true)
		a.cfg.Live = live.Load
		start(t, a)
		time.Sleep(2 * time.Second)
		live.Store(false)
		b := hb.announcer(254, conf.ConflictYield) // has the higher address
		start(t, b)
		time.Sleep(10 * time.Second)
		outbid(t, a, false, "it is the next owner")
		end(t, a)
		end(t, b)
		s.expect(``)
	})
}

func TestAnOwnerTellsOfAMasterOfLowerPriority(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		a, b := ha.announcer(254, conf.ConflictYield), hb.announcer(100, conf.ConflictKeep)
		listen(t, a)
		start(t, b)
		time.Sleep(5 * time.Second)
		if notes := a.Status().Notes; notes != nil {
			t.Errorf("before it is owner: %+v", notes)
		}
		start(t, a)
		time.Sleep(5 * time.Second)
		got := a.Status().Notes
		if len(got) != 1 || got[0].Why != ReasonRival || got[0].From != hb.addr || got[0].Count < 4 {
			t.Errorf("notes %+v", got)
		}
		outbid(t, a, false, "it is of lower priority")
		end(t, a)
		end(t, b)
	})
}

func TestARivalIsHeardTwice(t *testing.T) {
	i := &file(254, nil).Instances[0]
	now := time.Unix(1e9, 0)
	at := func(seconds float64) time.Time { return now.Add(time.Duration(seconds * float64(time.Second))) }
	one, two := netip.MustParseAddr("192.0.2.6"), netip.MustParseAddr("192.0.2.7")
	for _, c := range []struct {
		name  string
		heard []struct {
			at   float64
			from netip.Addr
		}
		begins int // which one
	}{
		{"one", []struct {
			at   float64
			from netip.Addr
		}{{0, one}}, -1},
		{"two from one router", []struct {
			at   float64
			from netip.Addr
		}{{0, one}, {1, one}, {2, one}}, 1},
		{"one from each of two routers", []struct {
			at   float64
			from netip.Addr
		}{{0, one}, {1, two}}, -1},
		{"the second too late", []struct {
			at   float64
			from netip.Addr
		}{{0, one}, {4.5, one}}, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r rival
			began := -1
			for n, h := range c.heard {
				if r.hear(Advert{Priority: 255, Interval: time.Second, From: h.from}, i, at(h.at)) {
					began = n
				}
			}
			if began != c.begins {
				t.Errorf("the conflict begins with advertisement %d, want %d", began, c.begins)
			}
		})
	}
}

func TestARestartOfTheDaemonMakesNobodyMaster(t *testing.T) {
	fast := func(v int) func(i *conf.VRRPInstance) {
		return func(i *conf.VRRPInstance) { i.Version, i.Interval = uint8(v), 100*time.Millisecond }
	}
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		hb.run(file(100, fast(3)))
		a := ha.announcer(254, conf.ConflictYield)
		fast(3)(&a.cfg.Announcer.Instance)
		a = NewAnnouncer(a.cfg)
		start(t, a)
		time.Sleep(1050 * time.Millisecond)
		a.Replacing(30 * time.Second)
		time.Sleep(time.Second) // until the process is another one
		end(t, a)
		time.Sleep(25 * time.Second)
		s.expect(`0s b: instance VI_1 is BACKUP`)
		a = NewAnnouncer(a.cfg)
		start(t, a)
		time.Sleep(1050 * time.Millisecond)
		end(t, a)
		time.Sleep(time.Second)
		// The usual interval counts again.
		s.expect(`
28.411s b has VI_1
28.411s b: instance VI_1 is MASTER`)
	})
}

func TestARestartThatFailsGoesOnAsBefore(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		hb.run(file(100, func(i *conf.VRRPInstance) { i.Version = 3 }))
		a := ha.announcer(254, conf.ConflictYield)
		a.cfg.Announcer.Instance.Version = 3
		a = NewAnnouncer(a.cfg)
		start(t, a)
		time.Sleep(9500 * time.Millisecond)
		a.Replacing(30 * time.Second)
		time.Sleep(10 * time.Second)
		end(t, a)
		time.Sleep(5 * time.Second)
		s.expect(`
0s b: instance VI_1 is BACKUP
22.609s b has VI_1
22.609s b: instance VI_1 is MASTER`)
	})
}
