package cluster

import "time"

// failing is what becomes of something that is tried again and again: the disk is full, say.
type failing struct {
	why  string        // empty: the last try has not failed
	next time.Duration // the pause after the next failure
	said time.Time     // when the log was told of it
}

const (
	longestPause = time.Second      // between two tries
	saidAgain    = 10 * time.Second // how often the log is told of the same failure
)

// note takes what came of a try; nil: it is done. It returns for how long the next
// one waits, and whether the log is to be told.
func (x *failing) note(err error, now time.Time) (pause time.Duration, say bool) {
	if err == nil {
		*x = failing{}
		return 0, false
	}
	say = err.Error() != x.why || now.Sub(x.said) >= saidAgain
	x.why, pause = err.Error(), max(x.next, jobPause)
	x.next = min(2*pause, longestPause)
	if say {
		x.said = now
	}
	return pause, say
}
