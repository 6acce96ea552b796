package sim

import (
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// A survivor takes a third director in while the peer, which it has fenced,
// cannot hear it. The peer goes on by the rule in its turn; the third one must
// not act on the word of the one that was overtaken.
func TestADirectorThatJoinsASurvivorWaitsForThePeer(t *testing.T) {
	s := pairSchedule(conf.QuorumFencing,
		event{At: 3 * sec, For: 5 * sec, Do: crash, On: []string{"director2"}},
		event{At: 3200 * time.Millisecond, For: 9 * sec, Do: oneWay, On: []string{"director2"}},
		event{At: 7 * sec, Do: nodes, On: []string{"director1"}, Peer: "spare1"},
	)
	s.OneStarts, s.Together, s.Spares = true, true, []conf.Role{conf.Director}
	judge(t, s)
}

// A node that is stopped cleanly gives up its vote, and the other one decides
// alone from then on. The one that stops may not have heard that it is so when
// the links are cut: it must not go on without what the other has decided.
func TestWhoIsBeingStoppedSurvivesNobody(t *testing.T) {
	for _, d := range []time.Duration{20, 30, 37, 45, 60, 100} {
		for _, rule := range pairRules {
			judge(t, pairSchedule(rule,
				event{At: 5 * sec, For: 12 * sec, Do: cleanStop, On: []string{"director1"}},
				event{At: 5*sec + d*time.Millisecond, For: 1600 * time.Millisecond, Do: partition, On: []string{"director1"}},
				event{At: 5*sec + (d+109)*time.Millisecond, For: 1100 * time.Millisecond, Do: pause, On: []string{"director2"}},
			))
		}
	}
}
