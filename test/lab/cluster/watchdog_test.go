package cluster

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// A machine without the device that its ha.yaml names resets nothing when its daemon
// hangs. (That one with the device is believed is for test/lab/watchdog to show.)
func TestAWatchdogThatIsNotArmedIsNotBelieved(t *testing.T) {
	s := prepare(t, scenario.Options{
		Groups: databases, Extra: "watchdog: {device: /dev/nowhere, timeout: 1s}\n",
		Fencing: "  devices:\n    reset: {watchdog: yes, timeout: 30s, targets: [director1, director2]}\n",
	})
	s.StartAll(limit)
	s.WaitOwner(s.Director1, limit)
	const why = "director1 has not said since its daemon started that its watchdog is armed"
	says := func(what string, args ...string) {
		t.Helper()
		if out, _ := s.Director2.Keepbeat(args...); !strings.Contains(out, why) {
			t.Errorf("%s does not say so:\n%s", what, out)
		}
	}
	s.wait(s.Director2, "status says why it is not armed, and what that means", func(st cluster.Status) bool {
		text := strings.Join(st.Trouble, "\n")
		return strings.Contains(text, "node director1: the watchdog /dev/nowhere is not armed: ") && strings.Contains(text, "fencing device reset fences nobody as it is: "+why)
	})
	says("a test of the device", "fence", "test")
	says("a dry run", "fence", "director1", "--dry-run")

	s.Daemons["director1"].Signal(syscall.SIGSTOP)
	defer s.Daemons["director1"].Signal(syscall.SIGCONT)
	for range 2 { // by the operator that heard it say nothing, and by one that has just started
		s.wait(s.Director2, "it is tried and fails", func(st cluster.Status) bool { return st.Fencing["director1"].Tries > 0 })
		says("the history", "fence", "history")
		if owner, _ := s.Active(s.Director2); owner != "director1" || s.Director2.HasAddress(scenario.VIP) || s.Director1.Dead() {
			t.Fatalf("the group is with %q although its owner runs on", owner)
		}
		s.must(s.Director2, "restart")
		time.Sleep(time.Second)
	}
}
