package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// A node that was silent for a moment is back, and has its groups, when the
// device that was asked acts. It starts faster than its lease ends and the device
// acts again: that comes to an end all the same.
func TestADeviceThatActsWhenTheNodeIsBackDoesNotDoSoForEver(t *testing.T) {
	for _, takes := range []int{3200, 3600, 4000} {
		s := schedule{Config: Config{Seed: 1, Directors: 3, Groups: 2, Stores: 1, Profile: conf.ProfileDefault}}
		s.Starts = make([]time.Duration, s.Directors)
		s.Events = []event{
			{At: sec, For: 60 * sec, Do: deviceSlow, Count: takes},
			{At: 2 * sec, For: 1500 * time.Millisecond, Do: pause, On: []string{"director1"}},
		}
		s.Calm = 61 * sec
		w := judge(t, s)
		if n := strings.Count(w.transcript.String(), "fences director1"); n < 2 || n > 4 {
			t.Errorf("device takes %d ms: director1 is fenced %d times\n%s", takes, n, w.transcript.Bytes())
		}
	}
}

// The device fails at first, and by the time it would be asked again the node is back.
func TestADeviceThatHasFailedIsNotAskedAgainWhenTheNodeIsBack(t *testing.T) {
	s := schedule{Config: Config{Seed: 1, Directors: 3, Groups: 2, Stores: 1, Profile: conf.ProfileDefault}}
	s.Starts = make([]time.Duration, s.Directors)
	s.Events = []event{
		{At: sec, For: 20 * sec, Do: deviceSlow, Count: 5000},
		{At: sec, For: 20 * sec, Do: deviceFails, Count: 1},
		{At: 2 * sec, For: 1500 * time.Millisecond, Do: pause, On: []string{"director1"}},
		{At: 20 * sec, Do: served},
	}
	s.Calm = 21 * sec
	w := judge(t, s)
	if w.power.uses != 1 || strings.Contains(w.transcript.String(), "fences director1") {
		t.Errorf("the device is asked %d times\n%s", w.power.uses, w.transcript.Bytes())
	}
}
