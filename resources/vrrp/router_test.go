package vrrp

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/vrrp/track"
)

// story runs two hosts, a with the lower address, on a segment.
func story(t *testing.T, tell func(t *testing.T, s *segment, a, b *fakeHost)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSegment(t)
		tell(t, s, s.host("a", "192.0.2.5"), s.host("b", "192.0.2.6"))
		for _, r := range s.running {
			r.stop()
		}
	})
}

// pair runs a as the better one of two until it has been master for a while.
func pair(s *segment, ha, hb *fakeHost) *runner {
	a := ha.run(file(200, nil))
	hb.run(file(100, nil))
	time.Sleep(10 * time.Second)
	s.told()
	return a
}

func TestTheBetterOneIsMasterWhenBothStart(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		a := ha.run(file(200, nil))
		time.Sleep(time.Millisecond)
		b := hb.run(file(100, nil))
		time.Sleep(10 * time.Second)
		s.expect(`
0s a: instance VI_1 is BACKUP
1ms b: instance VI_1 is BACKUP
3.219s a has VI_1
3.219s a: instance VI_1 is MASTER`)
		b.stop()
		a.stop()
		s.expect(`
10.001s b: instance VI_1 is INIT
10.001s a leaves VI_1
10.001s a gives back VI_1
10.001s a: instance VI_1 is INIT`)
		s.neverTwice("VI_1", 0)
	})
}

func TestTheBetterOneTakesOverWhenItStartsLater(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		ha.run(file(100, nil))
		time.Sleep(10 * time.Second)
		hb.run(file(200, nil))
		time.Sleep(10 * time.Second)
		s.expect(`
0s a: instance VI_1 is BACKUP
3.609s a has VI_1
3.609s a: instance VI_1 is MASTER
10s b: instance VI_1 is BACKUP
13.219s b has VI_1
13.219s b: instance VI_1 is MASTER
13.219s a gives back VI_1
13.219s a: instance VI_1 is BACKUP`)
		// From the first advertisement of the one to the last address of the other.
		s.neverTwice("VI_1", time.Millisecond)
	})
}

func TestItDoesNotTakeOverWithoutPreemption(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		a := ha.run(file(100, nil))
		time.Sleep(10 * time.Second)
		hb.run(file(200, func(i *conf.VRRPInstance) { i.Preempt = false }))
		time.Sleep(10 * time.Second)
		s.expect(`
0s a: instance VI_1 is BACKUP
3.609s a has VI_1
3.609s a: instance VI_1 is MASTER
10s b: instance VI_1 is BACKUP`)
		a.stop()
		time.Sleep(10 * time.Second)
		s.expect(`
20s a leaves VI_1
20s a gives back VI_1
20s a: instance VI_1 is INIT
20.219s b has VI_1
20.219s b: instance VI_1 is MASTER`)
	})
}

func TestItTakesOverAfterTheDelay(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		ha.run(file(100, nil))
		time.Sleep(10 * time.Second)
		s.told()
		hb.run(file(200, func(i *conf.VRRPInstance) { i.PreemptDelay = 20 * time.Second }))
		time.Sleep(40 * time.Second)
		s.expect(`
10s b: instance VI_1 is BACKUP
32.828s b has VI_1
32.828s b: instance VI_1 is MASTER
32.828s a gives back VI_1
32.828s a: instance VI_1 is BACKUP`)
	})
}

func TestTheOtherTakesOverWhenTheMasterDies(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		fast := func(i *conf.VRRPInstance) { i.Interval = 10 * time.Millisecond }
		a := ha.run(file(200, fast))
		hb.run(file(100, fast))
		time.Sleep(time.Second)
		s.told()
		a.die()
		time.Sleep(time.Second)
		s.expect(`
1s a dies
1.028s b has VI_1
1.028s b: instance VI_1 is MASTER`)
	})
}

func TestAMasterThatIsStoppedHandsOver(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		a := pair(s, ha, hb)
		a.stop()
		time.Sleep(10 * time.Second)
		s.expect(`
10s a leaves VI_1
10s a gives back VI_1
10s a: instance VI_1 is INIT
10.609s b has VI_1
10.609s b: instance VI_1 is MASTER`)
		s.neverTwice("VI_1", 0)
	})
}

func TestWhoLeavesIsCountedOnBothSides(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		a := ha.run(file(200, func(i *conf.VRRPInstance) { i.TrackInterfaces = []conf.VRRPTrack{{Name: "eth1"}} }))
		b := hb.run(file(100, nil))
		time.Sleep(10 * time.Second)
		ha.link("eth1", false)
		time.Sleep(time.Second)
		c := ha.announcer(254, conf.ConflictYield)
		start(t, c)
		time.Sleep(10 * time.Second)
		stop(t, c)
		if got := a.Status().Instances[0]; got.SentZero != 1 || got.ReceivedZero != 0 || got.Sent < 6 {
			t.Errorf("the router that left: %+v", got)
		}
		if got := c.Status(); got.SentZero != 1 || got.ReceivedZero != 0 || got.Sent < 10 {
			t.Errorf("the announcer that left: %+v", got)
		}
		time.Sleep(time.Second)
		if got := b.Status().Instances[0]; got.SentZero != 0 || got.ReceivedZero != 2 || got.Received < 16 {
			t.Errorf("the one that stays: %+v", got)
		}
	})
}

func TestOfThreeTheSecondBestFollows(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		a := ha.run(file(200, nil))
		hb.run(file(100, nil))
		c := s.host("c", "192.0.2.7").run(file(150, nil))
		time.Sleep(10 * time.Second)
		s.told()
		a.die()
		time.Sleep(10 * time.Second)
		c.stop()
		time.Sleep(10 * time.Second)
		s.expect(`
10s a dies
12.633s c has VI_1
12.633s c: instance VI_1 is MASTER
20s c leaves VI_1
20s c gives back VI_1
20s c: instance VI_1 is INIT
20.609s b has VI_1
20.609s b: instance VI_1 is MASTER`)
		s.neverTwice("VI_1", 0)
	})
}

func TestBetweenEqualsTheHigherAddressIsMaster(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		ha.run(file(100, nil))
		hb.run(file(100, nil))
		time.Sleep(20 * time.Second)
		s.expect(`
0s a: instance VI_1 is BACKUP
0s b: instance VI_1 is BACKUP
3.609s b has VI_1
3.609s b: instance VI_1 is MASTER
3.609s a has VI_1
3.609s a: instance VI_1 is MASTER
3.609s a gives back VI_1
3.609s a: instance VI_1 is BACKUP`)
		s.neverTwice("VI_1", 2*time.Millisecond)
	})
}

func TestUnicastPeersTalk(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		peer := func(h *fakeHost) func(*conf.VRRPInstance) {
			return func(i *conf.VRRPInstance) { i.Peers = []conf.VRRPPeer{{Address: h.addr, MaxTTL: 255}} }
		}
		ha.run(file(200, peer(hb)))
		b := hb.run(file(100, peer(ha)))
		time.Sleep(10 * time.Second)
		if got := b.Status().Instances[0]; got.State != Backup || got.Master != ha.addr || got.Received == 0 || got.Notes != nil {
			t.Errorf("the backup: %+v", got)
		}
	})
}

func TestAScriptDecides(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		scripted := func(weight int) func(*conf.VRRPInstance) {
			return func(i *conf.VRRPInstance) { i.TrackScripts = []conf.VRRPTrack{{Name: "haproxy", Weight: weight}} }
		}
		a, b := ha.run(file(101, scripted(-2))), hb.run(file(100, scripted(0)))
		time.Sleep(10 * time.Second)
		s.expect(`
0s a: instance VI_1 is BACKUP
3.605s a has VI_1
3.605s a: instance VI_1 is MASTER`)
		b.SetTracked(track.Script, "haproxy", track.Result{Well: true})
		time.Sleep(10 * time.Second)
		a.SetTracked(track.Script, "haproxy", track.Result{})
		time.Sleep(10 * time.Second)
		s.expect(`
10s b: instance VI_1 is BACKUP
23.215s b has VI_1
23.215s b: instance VI_1 is MASTER
23.215s a gives back VI_1
23.215s a: instance VI_1 is BACKUP`)
		b.SetTracked(track.Script, "haproxy", track.Result{})
		time.Sleep(10 * time.Second)
		s.expect(`
30s b leaves VI_1
30s b gives back VI_1
30s b: instance VI_1 is FAULT
30.613s a has VI_1
30.613s a: instance VI_1 is MASTER`)
		s.neverTwice("VI_1", time.Millisecond)
	})
}

// A sync group over two interfaces.
func grouped(priority uint8) conf.VRRP {
	v := file(priority, nil)
	other := v.Instances[0]
	other.Name, other.VRID, other.Interface = "VI_2", 52, "eth1"
	v.Instances = append(v.Instances, other)
	v.SyncGroups = []conf.VRRPSyncGroup{{Name: "VG", Instances: []string{"VI_1", "VI_2"}}}
	return v
}

func TestASyncGroupMovesAsOne(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		a, b := ha.run(grouped(200)), hb.run(grouped(100))
		time.Sleep(10 * time.Second)
		masters := func(r *runner) (n int) {
			for _, i := range r.Status().Instances {
				if i.State == Master {
					n++
				}
			}
			return n
		}
		if masters(a) != 2 || masters(b) != 0 {
			t.Error("not both are master at the better one")
		}
		ha.link("eth1", false)
		time.Sleep(5 * time.Second)
		if masters(a) != 0 || masters(b) != 2 {
			t.Error("not both have moved")
		}
		if got := a.Status().Instances[0]; got.State != Fault || got.Lacks != "interface eth1 is down" || got.Group != "VG" {
			t.Errorf("the other one of the group: %s, %q", got.State, got.Lacks)
		}
		ha.link("eth1", true)
		time.Sleep(10 * time.Second)
		if masters(a) != 2 || masters(b) != 0 {
			t.Error("not both have come back")
		}
		for _, name := range []string{"VI_1", "VI_2"} {
			s.neverTwice(name, 2*time.Millisecond)
		}
	})
}

func TestAGroupIsToldWhenItsMembersAre(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, _ *fakeHost) {
		a := ha.run(grouped(200))
		time.Sleep(10 * time.Second)
		a.stop()
		groups := map[string]int{}
		for _, line := range lines(s.told()) {
			for _, state := range []string{"BACKUP", "MASTER", "INIT"} {
				if line.said == "a: group VG is "+state {
					groups[state]++
				}
			}
		}
		for _, state := range []string{"BACKUP", "MASTER", "INIT"} {
			if groups[state] != 1 {
				t.Errorf("the group was told %d times to be %s", groups[state], state)
			}
		}
	})
}

func TestAdvertisementsDoNotWaitForTheKernel(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		ha.slow = 5 * time.Second
		fast := func(i *conf.VRRPInstance) { i.Interval = 10 * time.Millisecond }
		a := ha.run(file(200, fast))
		hb.run(file(100, fast))
		time.Sleep(20 * time.Second)
		s.expect(`
0s a: instance VI_1 is BACKUP
0s b: instance VI_1 is BACKUP
5.032s a has VI_1
5.032s a: instance VI_1 is MASTER`)
		if late := a.Status().Lateness; late.Max != 0 || late.Counts[0] < 1900 {
			t.Errorf("lateness %+v", late)
		}
	})
}

func TestAnnouncingEndsWhenTheMasterYields(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		// The fake host fails the test if it is to announce what it has given back.
		slowly := func(i *conf.VRRPInstance) { i.GARP.Interval = time.Second }
		ha.run(file(100, slowly))
		time.Sleep(4 * time.Second)
		hb.run(file(200, slowly))
		time.Sleep(30 * time.Second)
		if a, b := ha.rounds("VI_1"), hb.rounds("VI_1"); a >= 5 || b < 5 {
			t.Errorf("announced %d and %d times", a, b)
		}
		s.neverTwice("VI_1", time.Millisecond)
	})
}

func TestANewMasterAnnouncesTwice(t *testing.T) {
	story(t, func(t *testing.T, _ *segment, ha, _ *fakeHost) {
		ha.run(file(200, func(i *conf.VRRPInstance) { i.GARP.Refresh, i.GARP.RefreshRepeat = 20*time.Second, 1 }))
		for _, c := range []struct {
			after time.Duration
			want  int
		}{{3 * time.Second, 0}, {time.Second, 5}, {5 * time.Second, 10}, {20 * time.Second, 11}, {20 * time.Second, 12}} {
			time.Sleep(c.after)
			synctest.Wait()
			if got := ha.rounds("VI_1"); got != c.want {
				t.Errorf("%d rounds, want %d", got, c.want)
			}
		}
	})
}

func TestWhatIsRefusedIsCountedAndShown(t *testing.T) {
	story(t, func(t *testing.T, s *segment, ha, hb *fakeHost) {
		a := ha.run(file(200, nil))
		hb.run(file(100, func(i *conf.VRRPInstance) { i.Version = 2 }))
		time.Sleep(10 * time.Second)
		got := a.Status().Instances[0]
		if len(got.Notes) != 1 || got.Notes[0].Why != ReasonVersion || got.Notes[0].Count < 6 || got.Notes[0].From != hb.addr {
			t.Errorf("notes %+v", got.Notes)
		}
	})
}
