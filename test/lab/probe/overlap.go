package probe

import (
	"sort"
	"time"
)

// Overlap is the time for which two owners both answered for one address: a and
// b are what two observers saw, each of which can reach only its own director.
//
// Every answer carries the instant at which the director gave it. Answers of one
// director that are not more than quiet apart count as one uninterrupted time of
// being active; the result is the sum of the common times of both, and at least
// a nanosecond where a single answer of one falls into the time of the other.
// quiet has to be several times the observers' interval, so that a lost datagram
// does not cut a time in two.
func Overlap(a, b []Sample, quiet time.Duration) time.Duration {
	var total time.Duration
	for _, x := range activeTimes(a, quiet) {
		for _, y := range activeTimes(b, quiet) {
			from, to := max(x.from, y.from), min(x.to, y.to)
			if from <= to {
				total += max(to.Sub(from), 1)
			}
		}
	}
	return total
}

type span struct{ from, to Instant }

func activeTimes(samples []Sample, quiet time.Duration) []span {
	var stamps []Instant
	for _, s := range samples {
		if s.OK() && s.At > 0 {
			stamps = append(stamps, s.At)
		}
	}
	sort.Slice(stamps, func(i, j int) bool { return stamps[i] < stamps[j] })
	var spans []span
	for _, at := range stamps {
		if n := len(spans); n > 0 && at.Sub(spans[n-1].to) <= quiet {
			spans[n-1].to = at
			continue
		}
		spans = append(spans, span{at, at})
	}
	return spans
}
