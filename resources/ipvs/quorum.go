package ipvs

// quorum says whether enough of a service's servers are up.
type quorum uint8

const (
	undecided quorum = iota // nothing was decided yet, and servers that are not checked yet may decide it
	met
	lost
)

// Names of quorum in status.
const (
	QuorumMet       = "met"
	QuorumLost      = "lost"
	QuorumUndecided = "undecided"
)

func (q quorum) String() string {
	switch q {
	case met:
		return QuorumMet
	case lost:
		return QuorumLost
	}
	return QuorumUndecided
}

// next is keepalived's rule: quorum is lost below need - hysteresis, or when
// nothing is left; it is there again from need + hysteresis. What it is at
// first need alone says. sum is what the servers that serve weigh, hope what
// those weigh of which nothing is known yet.
func (q quorum) next(sum, hope, need, hysteresis int) quorum {
	need = max(need, 1)
	switch {
	case q == met && (sum == 0 || sum < need-hysteresis):
		return lost
	case q == lost && sum >= need+hysteresis:
		return met
	case q != undecided:
		return q
	case sum >= need:
		return met
	case sum+hope < need:
		return lost
	}
	return undecided
}
