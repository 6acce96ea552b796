package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// An ordered fencing fails again and again, and its node goes on. A daemon that takes
// the place of the present one would not be admitted, and would stop everything.
func TestANodeThatIsToBeFencedIsNotRestartedAsPlanned(t *testing.T) {
	s := schedule{Config: Config{Seed: 1, Directors: 3, Groups: 3, Stores: 1, Profile: conf.ProfileDefault}}
	s.Starts = make([]time.Duration, s.Directors)
	s.Events = []event{
		{At: 3 * sec, For: 57 * sec, Do: deviceFails, Count: 100_000},
		{At: 4 * sec, Do: orderFence, On: []string{"director1"}, Peer: "director2"},
		{At: 20 * sec, For: sec, Do: restart, On: []string{"director2"}},
		{At: 25 * sec, Do: served},
	}
	s.Calm = 62 * sec
	w := judge(t, s)
	if !strings.Contains(w.transcript.String(), "director2 is ready to restart: this node is being fenced by director1 (ordered): ") {
		t.Errorf("it is restarted\n%s", w.transcript.Bytes())
	}
}
