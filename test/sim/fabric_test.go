package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// TestANodeThatIsOnlyCutOffKeepsWhatAMajorityLetsItHave orders a fencing by a device
// that leaves the machine running, and looks for addresses on two of them.
func TestANodeThatIsOnlyCutOffKeepsWhatAMajorityLetsItHave(t *testing.T) {
	for name, events := range map[string][]event{
		"heard by another": {
			{At: 4 * sec, For: 20 * sec, Do: pairCut, On: []string{"director1"}, Peer: "director2"},
			{At: 8 * sec, Do: orderFence, On: []string{"director1"}, Peer: "director2"},
		},
		"heard by everybody": {
			{At: 4 * sec, Do: orderFence, On: []string{"director3"}, Peer: "director2"},
		},
		"just not heard any more": {
			{At: 4 * sec, For: 20 * sec, Do: partition, On: []string{"director2"}},
			{At: 4*sec + 100*time.Millisecond, Do: orderFence, On: []string{"director1"}, Peer: "director2"},
		},
		"a store that does not stop, until the daemon dies": {
			{At: 4 * sec, Do: failStops, On: []string{"director1"}, Count: 10000},
			{At: 4*sec + 100*time.Millisecond, Do: standby, On: []string{"director1"}, Count: 1},
			{At: 12 * sec, For: 20 * sec, Do: crash, On: []string{"director1"}}, // now it is revoked, and can be cut off
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := schedule{Config: Config{Seed: 1, Directors: 3, Groups: 3, Stores: 1, Fabric: true, Profile: conf.ProfileDefault}}
			s.Starts = []time.Duration{0, 0, 0}
			s.Events = append(events, event{At: 24 * sec, Do: served})
			s.Calm = 32 * sec
			judge(t, s)
		})
	}
}

func TestWhoWasCutOffAndLivesOnHasItsDisksBackBeforeItStartsAnything(t *testing.T) {
	s := schedule{Config: Config{Seed: 1, Directors: 3, Groups: 3, Stores: 1, Fabric: true, Profile: conf.ProfileDefault}}
	s.Starts = []time.Duration{0, 0, 0}
	s.Events = []event{
		{At: 4 * sec, For: 8 * sec, Do: partition, On: []string{"director1"}},
		{At: 18 * sec, Do: takeover, On: []string{"director1"}, Count: 1},
		{At: 24 * sec, Do: served},
	}
	s.Calm = 24 * sec
	w := judge(t, s)
	if n := strings.Count(w.transcript.String(), "11.0.0.1 answers on director1"); n != 2 {
		t.Errorf("its store was started there %d times\n%s", n, w.transcript.Bytes())
	}
}

func TestAnOrderThatNoDeviceCanCarryOutIsRefusedUntilTheNodeIsRevoked(t *testing.T) {
	s := schedule{Config: Config{Seed: 1, Directors: 3, Groups: 3, Stores: 1, Fabric: true, Told: true, Profile: conf.ProfileDefault}}
	s.Starts = []time.Duration{0, 0, 0}
	s.Events = []event{
		{At: 4 * sec, Do: orderFence, On: []string{"director1"}, Peer: "director2"},
		{At: 6 * sec, For: 10 * sec, Do: partition, On: []string{"director2"}},
		{At: 6*sec + 350*time.Millisecond, Do: orderFence, On: []string{"director1"}, Peer: "director2"},
	}
	s.Calm = 24 * sec
	w := judge(t, s)
	var got []string
	for line := range strings.Lines(w.transcript.String()) {
		if _, what, is := strings.Cut(line, "fence director2 on director1: "); is {
			got = append(got, strings.TrimSpace(what))
		}
	}
	if len(got) != 2 || !strings.Contains(got[0], "systemctl stop keepbeat") || got[1] != "<nil>" {
		t.Errorf("%q\n%s", got, w.transcript.Bytes())
	}
}
