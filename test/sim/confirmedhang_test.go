package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// TestAWordIsKeptThroughAHang: both have died, one is back, and an operator has told
// it to go on alone. It waits for its device, or the tie-breaker, and hangs meanwhile: that
// it has heard nothing while it did not listen does not mean that the other one is back.
func TestAWordIsKeptThroughAHang(t *testing.T) {
	for _, rule := range []conf.Quorum{conf.QuorumFencing, conf.QuorumPing} {
		for _, hang := range []time.Duration{0, 150 * time.Millisecond, 300 * time.Millisecond, sec, 3 * sec} {
			t.Run(fmt.Sprintf("%v, %v", rule, hang), func(t *testing.T) {
				events := []event{
					{At: sec, For: 5 * sec, Do: power, On: []string{"director1"}},
					{At: sec, For: 39 * sec, Do: power, On: []string{"director2"}},
					{At: 9 * sec, Do: confirm, On: []string{"director1"}},
					{At: 32 * sec, Do: served},
				}
				switch rule {
				case conf.QuorumPing:
					events = append(events, event{At: sec, For: 17 * sec, Do: noTieBreaker, On: both})
				case conf.QuorumFencing:
					events = append(events, event{At: sec, For: 17 * sec, Do: deviceFails, Count: 100})
				}
				if hang > 0 {
					events = append(events, event{At: 12 * sec, For: hang, Do: pause, On: []string{"director1"}})
				}
				judge(t, pairSchedule(rule, events...))
			})
		}
	}
}
