package cluster

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// emptyDisk is what a new disk has: nothing of the data directory.
func emptyDisk(t *testing.T, h *lab.Host) {
	t.Helper()
	dir := h.Path("/var/lib/keepbeat")
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.RemoveAll(dir + "/" + f.Name()); err != nil {
			t.Fatal(err)
		}
	}
}

// hushed is how long after its last renewal a director may be heard: the lease,
// counted from before the renewal was sent, so that there is no need for a margin
// but the observer's own.
const hushed = lease + 100*time.Millisecond

func TestADaemonThatHangsIsSilentWithinItsLeaseAndNoSecondOwnerWhenItWakes(t *testing.T) {
	s := begin(t, scenario.Options{})
	for range 2 { // each way
		owner, epoch := s.owner(), s.epoch()
		since := s.hang(owner)
		s.takenOver(s.other(owner), since, epoch)
		s.silentBy(owner, since, hushed)
		if !owner.HasAddress(scenario.VIP) {
			t.Errorf("the address is not on %s any more: then it was not the guard that kept it silent", owner.Name)
		}
		woken := probe.Now()
		s.wake(owner)
		s.settle()
		time.Sleep(aWhile)
		s.silentBy(owner, since, hushed)
		s.noMoreThan(blink, woken, "the waking of "+owner.Name)
		if owner.HasAddress(scenario.VIP) {
			t.Errorf("%s has the address still, although the group is on %s", owner.Name, s.owner().Name)
		}
	}
}

func TestAHangShorterThanTheLeaseMovesNothing(t *testing.T) {
	s := begin(t, scenario.Options{Profile: "calm"})
	since, before := probe.Now(), s.standing()
	owner := s.owner()
	for range 5 {
		s.hang(owner)
		time.Sleep(300 * time.Millisecond)
		s.wake(owner)
		time.Sleep(300 * time.Millisecond)
	}
	if s.leader() != owner {
		s.nothingMoves(before, since, "short hangs")
		return
	}
	// A leader that hangs for longer than raft's election time is replaced; its groups stay.
	s.noMoreThan(blink, since, "short hangs")
	s.unmoved(before, "short hangs")
}

func TestAKilledDaemonIsSilentWithinItsLease(t *testing.T) {
	s := begin(t, scenario.Options{})

	t.Run("and one that starts again cleans up after it", func(t *testing.T) {
		owner, epoch := s.owner(), s.epoch()
		since := s.kill(owner)
		s.takenOver(s.other(owner), since, epoch)
		s.silentBy(owner, since, hushed)
		if !owner.HasAddress(scenario.VIP) || !guarded(owner, "eth0") {
			t.Errorf("address there: %v, guarded: %v; a dead daemon leaves both", owner.HasAddress(scenario.VIP), guarded(owner, "eth0"))
		}
		s.Start(owner)
		s.settle()
		s.silentBy(owner, since, hushed)
		if owner.HasAddress(scenario.VIP) {
			t.Errorf("the address is on %s still", owner.Name)
		}
	})

	t.Run("and keepbeat release takes back what it left", func(t *testing.T) {
		owner, epoch := s.owner(), s.epoch()
		s.refused(owner, 1, "runs on this machine", "release")
		since := s.kill(owner)
		s.takenOver(s.other(owner), since, epoch)
		s.must(owner, "release")
		s.nothingLeft(owner, scenario.VIP)
		s.must(owner, "release") // there is nothing to do; that is no error
		s.silentBy(owner, since, hushed)
		s.Start(owner)
		s.settle()
	})

	t.Run("and one that starts at once goes on where it was", func(t *testing.T) {
		owner := s.owner()
		since := s.kill(owner)
		s.Start(owner)
		s.settle()
		s.client.WaitAnswer("", probe.Now(), soon)
		s.Lab.Logf("killed and started at once: %v; the group is on %s, was on %s", s.client.Outage(since), s.owner().Name, owner.Name)
		if now := s.owner(); !now.HasAddress(scenario.VIP) || s.other(now).HasAddress(scenario.VIP) {
			t.Errorf("%s owns the group; address on director1: %v, on director2: %v", now.Name, s.Director1.HasAddress(scenario.VIP), s.Director2.HasAddress(scenario.VIP))
		}
	})
}

func TestAllDaemonsKilledAtOnceAndStartedAgainServeAgain(t *testing.T) {
	t.Parallel()
	s := begin(t, scenario.Options{})
	since := probe.Now()
	for _, h := range s.Nodes() {
		s.Daemons[h.Name].Signal(syscall.SIGKILL)
	}
	for _, h := range s.Nodes() {
		s.Daemons[h.Name].Wait(limit)
	}
	time.Sleep(aWhile)
	s.silentBy(s.Director1, since, hushed)
	for _, h := range s.Nodes() {
		s.Start(h)
	}
	s.client.WaitAnswer("", probe.Now(), limit)
	s.settle()
}

func TestAllMachinesLosePowerAtOnceAndServeAgain(t *testing.T) {
	t.Parallel()
	s := begin(t, scenario.Options{})
	for _, h := range s.Nodes() {
		h.Die()
	}
	for _, h := range s.Nodes() {
		h.Revive()
	}
	for _, h := range s.Nodes() {
		s.Start(h)
	}
	s.client.WaitAnswer("", probe.Now(), limit)
	s.settle()
}

func TestACleanStopHandsOverAndLeavesNothingBehind(t *testing.T) {
	s := begin(t, scenario.Options{})
	owner, epoch, since := s.owner(), s.epoch(), probe.Now()
	if err := s.Daemons[owner.Name].Terminate(limit); err != nil {
		t.Errorf("the daemon on %s ended with %v", owner.Name, err)
	}
	s.nothingLeft(owner, scenario.VIP)
	s.takenOver(s.other(owner), since, epoch)
	// Less than by its lease's end: it was handed over, not waited for.
	s.noMoreThan(lease, since, "the handover")

	// The last director has nobody to hand over to, and stops all the same.
	last := s.owner()
	if err := s.Daemons[last.Name].Terminate(limit); err != nil {
		t.Errorf("the daemon on %s ended with %v", last.Name, err)
	}
	s.nothingLeft(last, scenario.VIP)
	since = probe.Now()
	s.Start(owner)
	s.client.WaitAnswer(owner.Name, since, limit)
	s.Start(last)
	s.settle()

	// All of them, one after the other, as at the end of the day.
	for _, h := range s.Nodes() {
		if err := s.Daemons[h.Name].Terminate(limit); err != nil {
			t.Errorf("the daemon on %s ended with %v", h.Name, err)
		}
	}
	for _, h := range s.directors {
		s.nothingLeft(h, scenario.VIP)
	}
}

func TestTheGuardIsPutBackWhenAFirewallReloadRemovesIt(t *testing.T) {
	s := begin(t, scenario.Options{})
	owner, before, since := s.owner(), s.standing(), probe.Now()
	for _, reload := range [][]string{
		{"nft", "flush", "ruleset"},
		{"tc", "qdisc", "del", "dev", "eth0", "clsact"},
		{"tc", "filter", "del", "dev", "eth0", "ingress"},
		{"tc", "filter", "del", "dev", "eth0", "egress"},
	} {
		owner.Run(reload...)
		s.Lab.Eventually(soon, "the guard to be back", func() bool { return guarded(owner, "eth0") })
		if reload[0] == "tc" {
			s.Daemons[owner.Name].WaitLog(soon, `ALARM`)
		}
	}
	s.nothingMoves(before, since, "firewall reloads")

	// It is as good as before, and a ruleset that is flushed while nobody watches is no matter.
	epoch := s.epoch()
	since = s.hang(owner)
	owner.Run("nft", "flush", "ruleset")
	s.takenOver(s.other(owner), since, epoch)
	owner.Run("nft", "flush", "ruleset")
	time.Sleep(aWhile)
	s.silentBy(owner, since, hushed)
	s.wake(owner)
	s.wait(owner, "all to be well", func(st cluster.Status) bool { return settled(st) })
}
