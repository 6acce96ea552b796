package ipvs

import "time"

// riseStep is the time between two weights of a server that starts slowly. All
// servers of a pool change at the same moments, so that a thousand of them are
// two batches of changes a second.
const riseStep = 500 * time.Millisecond

// riseFrom is the moment of the pool's steps at which a rise begins.
func riseFrom(base, now time.Time) time.Time {
	return base.Add(now.Sub(base).Truncate(riseStep))
}

// rise is a server's weight on its way from 1 to what it ought to have, and
// when it is another; zero: it has arrived.
func rise(since, now time.Time, slow time.Duration, weight int) (int, time.Time) {
	elapsed := now.Sub(since).Truncate(riseStep)
	if weight <= 1 || elapsed >= slow {
		return weight, time.Time{}
	}
	// 65535 x a day in nanoseconds still fits into 64 bits.
	w := 1 + int(int64(weight-1)*int64(elapsed)/int64(slow))
	due := min((slow*time.Duration(w)+time.Duration(weight-2))/time.Duration(weight-1), slow)
	return w, since.Add(max((due + riseStep - 1).Truncate(riseStep), elapsed+riseStep))
}
