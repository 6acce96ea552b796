package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// TestAnEpochGivenUpInVainIsGivenUpAgain: without a tie-breaker a node gives up
// groups that it has just got and not started, since its peer dies. The log does
// not hear of it: there is no majority. When the peer is back the node is meant
// to run them, under the epoch that is over there.
func TestAnEpochGivenUpInVainIsGivenUpAgain(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for _, v := range []struct{ cut, dies int }{{413, 1650}, {443, 1650}, {419, 1850}, {425, 1850}, {413, 2350}, {425, 2450}} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("cut for %d ms, death at %d ms, seed %d", v.cut, v.dies, seed), func(t *testing.T) {
				s := pairSchedule(conf.QuorumPing,
					event{At: ms(1000), For: ms(1714), Do: noTieBreaker, On: both},
					event{At: ms(1024), For: ms(v.cut), Do: partition, On: []string{"director1"}},
					event{At: ms(v.dies), For: ms(1033), Do: power, On: []string{"director2"}},
					event{At: ms(v.dies + 827), For: ms(6255), Do: noTieBreaker, On: both},
				)
				s.Seed, s.Groups, s.OneStarts = seed, 6, true
				judge(t, s)
			})
		}
	}
}
