package sim

import (
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Both start again, one of them with an empty disk, and it hangs before it has
// said that it waits. Who has just started fences nobody: it asks again.
func TestAnEmptyNodeThatHangsAtAColdStartIsNotFenced(t *testing.T) {
	for d := time.Duration(0); d < 2*sec; d += 200 * time.Millisecond {
		judge(t, pairSchedule(conf.QuorumFencing,
			event{At: 2 * sec, For: 600 * time.Millisecond, Do: diskLoss, On: []string{"director1"}},
			event{At: 2100 * time.Millisecond, For: 500 * time.Millisecond, Do: power, On: []string{"director2"}},
			event{At: 2700*time.Millisecond + d, For: 5 * sec, Do: pause, On: []string{"director1"}},
		))
	}
}

// An operator says that the other one is off for good, on a node that has lost its
// disk and is being taken in by that other one, which only cannot be heard for a moment.
func TestAConfirmationIsVoidWhenThePeerIsHeardAndActs(t *testing.T) {
	for d := time.Duration(0); d < 2*sec; d += 150 * time.Millisecond {
		judge(t, pairSchedule(conf.QuorumPing,
			event{At: 2 * sec, For: 1800 * time.Millisecond, Do: diskLoss, On: []string{"director1"}},
			event{At: 4300*time.Millisecond + d, For: 3 * sec, Do: partition, On: []string{"director1"}},
			event{At: 5500*time.Millisecond + d, Do: confirm, On: []string{"director1"}, Flag: true},
		))
	}
}
