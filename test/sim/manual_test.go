package sim

import (
	"slices"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// A node that was cut off for a moment is back: who were still asked to see to it that it
// is off would switch off a healthy one.
func TestNobodyIsToldToSwitchOffANodeThatIsBack(t *testing.T) {
	s := schedule{Config: Config{Seed: 1, Directors: 3, Groups: 2, Stores: 1, Manual: true, Profile: conf.ProfileDefault}}
	s.Starts = make([]time.Duration, s.Directors)
	s.Events = []event{{At: 2 * sec, For: 10 * sec, Do: partition, On: []string{"director1"}}}
	s.Calm = 12 * sec
	var asked bool
	w := judgeThen(t, s, func(w *world) {
		for _, m := range w.machines {
			for _, x := range m.node.LocalStatus().Waiting {
				t.Errorf("%s asks for %s to be off", m.name, x.Node)
			}
			asked = asked || slices.ContainsFunc(m.node.State().Decisions, func(d state.Decision) bool {
				return d.Node == "director1" && d.Text == "not fenced any more: it is back and runs nothing"
			})
		}
	})
	if !asked || t.Failed() {
		t.Errorf("it was to be fenced: %v\n%s", asked, w.transcript.Bytes())
	}
}
