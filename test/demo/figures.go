package main

import (
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/test/lab/probe"
)

// fallbackPage begins the name that the directors' own web server answers with.
const fallbackPage = "fallback"

// A window is a time announced beforehand in which a step may cost the client
// something.
type window struct {
	name string
	from probe.Instant
	to   probe.Instant // zero: still open
	// onlyFallback: requests may not fail; the fallback's page is right.
	onlyFallback bool
}

// touches says whether any part of the request lies in the window: one that was
// under way when the fault came is its victim too.
func (w window) touches(s probe.Sample) bool {
	return s.Received >= w.from && (w.to == 0 || s.Sent <= w.to)
}

// verdict is what became of the client's requests.
type verdict struct {
	requests int
	// excused holds, for each window, how many requests went wrong in it.
	excused []int
	// errors are the requests that went wrong outside of every window.
	errors []probe.Sample
}

// judge counts the requests that went wrong: that failed, or were answered by the
// fallback. Each is put down to the first window that it touches and that excuses it.
func judge(samples []probe.Sample, windows []window) verdict {
	v := verdict{requests: len(samples), excused: make([]int, len(windows))}
	for _, s := range samples {
		fallback := s.OK() && strings.HasPrefix(s.Who, fallbackPage)
		if s.OK() && !fallback {
			continue
		}
		i := slices.IndexFunc(windows, func(w window) bool { return w.touches(s) && (!w.onlyFallback || fallback) })
		if i < 0 {
			v.errors = append(v.errors, s)
		} else {
			v.excused[i]++
		}
	}
	return v
}

// firstPage is the first answer that came to a request sent after the instant and
// whose server is accepted.
func firstPage(samples []probe.Sample, after probe.Instant, accept func(who string) bool) (probe.Sample, bool) {
	var first probe.Sample
	for _, s := range samples {
		if s.OK() && s.Sent >= after && accept(s.Who) && (first.Received == 0 || s.Received < first.Received) {
			first = s
		}
	}
	return first, first.Received != 0
}

func isReal(who string) bool     { return strings.HasPrefix(who, "rs") }
func isFallback(who string) bool { return strings.HasPrefix(who, fallbackPage) }

// lastAnswer is when the director gave its last answer not before the instant, by
// its own stamp; zero when there was none.
func lastAnswer(samples []probe.Sample, since probe.Instant) probe.Instant {
	var last probe.Instant
	for _, s := range samples {
		if s.OK() && s.At >= since {
			last = max(last, s.At)
		}
	}
	return last
}

// milliseconds with one digit after the point.
func milliseconds(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond)) / float64(time.Millisecond)
}
