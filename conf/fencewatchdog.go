package conf

import (
	"slices"
	"time"
)

// LoopAge is how old the sign of life of a loop may be that feeds the watchdog.
// The slowest turns twice a second at rest; a hogged machine makes it late.
const LoopAge = 5 * time.Second

// StopBudget is how long the group's resources may take to stop, one after the other.
func (g *Group) StopBudget() (sum time.Duration) {
	for _, r := range g.Resources {
		sum += max(r.StopTimeout, time.Second)
	}
	return sum
}

// ResetWithin is how long a node that has fallen silent may take to reset itself. Its lease
// runs for a lease. What the guard cannot cut off may take stop and a lease more before the watchdog
// is starved for it. The loop that sees to that may hang; and the daemon may end right before the
// device bites, which feeds it once more.
func ResetWithin(lease, stop, watchdog time.Duration) time.Duration {
	return 2*lease + stop + LoopAge + 2*watchdog
}

// longestStop is the longest of those groups that only fencing ends when their owner is silent.
func (s *Spec) longestStop() (longest time.Duration) {
	for i := range s.Groups {
		g := &s.Groups[i]
		if slices.ContainsFunc(g.Resources, func(r Resource) bool { return r.Class == Fenced }) {
			longest = max(longest, g.StopBudget())
		}
	}
	return longest
}
