package sim

import (
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// TestNewVotersGiveARevokedNodeNoLease: a node was revoked while it was cut off,
// and what it runs takes long to stop. When it is back, a voter that knows
// nothing of the revocation, since it has lost its disk, makes a majority with
// it: its lease must not come back, or its addresses answer while they stop.
func TestNewVotersGiveARevokedNodeNoLease(t *testing.T) {
	for _, p := range []conf.Profile{conf.ProfileFast, conf.ProfileDefault} {
		t.Run(p.Name, func(t *testing.T) {
			for seed := range uint64(4) {
				s := schedule{Config: Config{Seed: seed, Directors: 2, Witnesses: 1, Groups: 4, Profile: p}}
				s.Starts = make([]time.Duration, 3)
				s.Events = []event{
					{At: sec, For: 15 * sec, Do: slow, On: []string{"director1"}, Count: 15_000},
					{At: sec, For: 5 * sec, Do: partition, On: []string{"director1"}},
					{At: 4 * sec, For: 300 * time.Millisecond, Do: diskLoss, On: []string{"witness1"}},
				}
				s.Calm = 20 * sec
				judge(t, s)
			}
		})
	}
}
