package cluster

import (
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// The disk of a director is full and the witness dies: nothing can be decided
// without what is written there. Nothing crashes, the owner, whose disk is well,
// goes on under its lease, and when there is room all goes on.
func TestAFullDiskWhoseNodeIsNeededStopsDecisionsAndNothingElse(t *testing.T) {
	t.Parallel()
	s := prepare(t, scenario.Options{})
	full := s.Director2
	full.Run("mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", "/var/lib/keepbeat")
	s.startAll()
	s.settle()
	owner, epoch, began := s.owner(), s.epoch(), probe.Now()
	full.Run("sh", "-c", "cat /dev/zero >/var/lib/keepbeat/filler 2>/dev/null; true")
	since := s.Arbiter.Die()
	s.Daemons[full.Name].WaitLog(limit, "no space left on device")
	time.Sleep(12 * time.Second) // several times what a leader waits for its own disk
	for _, h := range s.directors {
		if d := s.Daemons[h.Name]; d.Ended() {
			t.Fatalf("the daemon on %s has ended:\n%s", h.Name, d.Log())
		}
	}
	s.noMoreThan(blink, since, "a full disk and a dead witness")

	since = probe.Now()
	full.Run("rm", "/var/lib/keepbeat/filler")
	s.wait(full, "a leader", func(st cluster.Status) bool { return st.Leader != "" })
	s.revive(s.Arbiter)
	s.settle()
	s.noMoreThan(blink, since, "the room on the disk")
	s.stayed(began, place{owner, epoch}, place{s.owner(), s.epoch()}, "a full disk and its end")
}
