package sim

import (
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// A leader that is stopped while the other one is away leaves nothing in its
// own log that keeps the two from deciding when both are back.
func TestAStopOfTheLeaderWhileTheOtherIsAway(t *testing.T) {
	for _, rule := range pairRules {
		for _, d := range []time.Duration{0, 20, 60, 200} {
			judge(t, pairSchedule(rule,
				event{At: sec, For: 5 * sec, Do: cleanStop, On: []string{"leader"}},
				event{At: sec + d*time.Millisecond, For: 8 * sec, Do: power, On: []string{"director2"}},
			))
			judge(t, pairSchedule(rule,
				event{At: sec, For: 5 * sec, Do: cleanStop, On: []string{"leader"}},
				event{At: sec + d*time.Millisecond, For: sec, Do: crash, On: []string{"director1"}},
			))
		}
	}
}

// The follower of the one of two survivors that gives way goes with the other.
func TestAWitnessFollowsTheSurvivorThatGaveWay(t *testing.T) {
	for _, who := range []string{"director1", "director2"} {
		s := pairSchedule(conf.QuorumUnsafe,
			event{At: 250 * time.Millisecond, For: 12 * sec, Do: partition, On: []string{"director1"}},
			event{At: sec, Do: nodes, On: []string{who}, Peer: "spare1"},
		)
		s.Spares = []conf.Role{conf.Witness}
		judge(t, s)
	}
}

// One of two that are left loses its disk while the third is on its way out, or
// in: it is replaced first, or the cluster begins anew as the guide says.
func TestADiskIsLostWhileTheNodesChange(t *testing.T) {
	for _, rule := range pairRules {
		for d := time.Duration(0); d < 3*sec; d += 400 * time.Millisecond {
			s := pairSchedule(rule,
				event{At: sec, Do: nodes, On: []string{"director1"}, Peer: "spare1"},
				event{At: sec + d, For: sec, Do: diskLoss, On: []string{"director2"}},
			)
			s.Spares = []conf.Role{conf.Witness}
			judge(t, s)
			s = pairSchedule(rule,
				event{At: sec, Do: nodes, On: []string{"director1"}, Peer: "spare1"},
				event{At: 20 * sec, Do: nodes, On: []string{"director1"}, Peer: "spare1", Flag: true},
				event{At: 20*sec + d - sec/2, For: sec, Do: diskLoss, On: []string{"director2"}},
			)
			s.Spares = []conf.Role{conf.Witness}
			judge(t, s)
		}
	}
}

// A leader that is being stopped, and cannot stop everything, gives itself nothing.
func TestALeaderBeingStoppedGivesItselfNothing(t *testing.T) {
	s := pairSchedule(conf.QuorumUnsafe,
		event{At: sec, For: 30 * sec, Do: power, On: []string{"director2"}},
		event{At: 8 * sec, Do: failStops, On: []string{"director1"}, Count: 2},
		event{At: 9 * sec, For: 5 * sec, Do: cleanStop, On: []string{"director1"}},
	)
	judge(t, s)
}
