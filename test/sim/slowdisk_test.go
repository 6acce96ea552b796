package sim

import (
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// TestTheLogHearsOfAFencingHoweverSlowTheDisk: the owner of a store dies, the survivor has
// it fenced and opens its generation, and one write takes 6 s then. The store
// moves when the log knows of the fencing, and nobody else tells it.
func TestTheLogHearsOfAFencingHoweverSlowTheDisk(t *testing.T) {
	s := pairSchedule(conf.QuorumFencing,
		event{At: 2 * sec, For: 60 * sec, Do: power, On: []string{"director1"}},
		event{At: 40 * sec, Do: served},
	)
	w := play(t, s.Config, func(w *world) {
		r := newRun(w, s)
		go func() {
			time.Sleep(2 * sec) // it has started
			d := w.machine("director2").diskNow()
			d.mu.Lock()
			defer d.mu.Unlock()
			d.opened = 6 * sec
		}()
		r.play()
		r.drain()
	})
	for _, v := range w.violations {
		t.Error(v)
	}
	if t.Failed() {
		t.Logf("%s", w.transcript.Bytes())
	}
}
