package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// A node is fenced, and the only other voter has no room left for the log, so
// that nobody can know of it. It is fenced once, and may come back to be the majority.
func TestWhatADeviceHasDoneIsNotDoneAgainWhileItCannotBeRecorded(t *testing.T) {
	s := schedule{Config: Config{Seed: 1, Directors: 3, Groups: 2, Stores: 1, Profile: conf.ProfileDefault}}
	s.Starts = make([]time.Duration, s.Directors)
	s.Events = []event{
		{At: sec, For: 10 * sec, Do: deviceSlow, Count: 4000},
		{At: 2 * sec, For: 40 * sec, Do: partition, On: []string{"director1"}},
		{At: 5 * sec, For: 60 * sec, Do: diskFull, On: []string{"director3"}}, // the device is at work
		{At: 60 * sec, Do: served},
	}
	s.Calm = 66 * sec
	records := 0
	w := judgeThen(t, s, func(w *world) {
		for _, f := range w.machine("director2").node.State().Fences {
			if f.Done {
				records++
			}
		}
	})
	if n := strings.Count(w.transcript.String(), "fences director1"); n != 1 {
		t.Errorf("director1 is fenced %d times\n%s", n, w.transcript.Bytes())
	}
	if records != 1 {
		t.Errorf("it is in the log %d times\n%s", records, w.transcript.Bytes())
	}
}
