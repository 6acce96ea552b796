// Package probe measures from outside who answers and when: the samples that
// the lab's responders and clients produce, and what can be concluded from them.
//
// All instants are CLOCK_MONOTONIC of the one kernel that every host of the lab
// shares, so that they may be compared between processes and namespaces.
package probe

import (
	"encoding/json"
	"fmt"
	"sort"
	"time"

	"golang.org/x/sys/unix"
)

// Instant is a point of CLOCK_MONOTONIC in nanoseconds. Zero means "never".
type Instant int64

// Now is the present instant.
func Now() Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("CLOCK_MONOTONIC: " + err.Error()) // every Linux has it
	}
	return Instant(ts.Nano())
}

// Sub is the time from u to i.
func (i Instant) Sub(u Instant) time.Duration { return time.Duration(i - u) }

// Add is the instant d after i.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// A Sample is one request and its answer, or its failure.
type Sample struct {
	// Number counts an HTTP client's requests from 1, in the order in which they
	// are sent; zero for datagrams.
	Number uint64 `json:"n,omitempty"`
	// Sent is when the client sent the request.
	Sent Instant `json:"sent"`
	// At is when the server answered, by its own stamp; zero for HTTP and for failures.
	At Instant `json:"at,omitempty"`
	// Received is when the client had the answer, or gave up.
	Received Instant `json:"received"`
	// Who answered: a host's name, or for HTTP the first line of the body.
	Who string `json:"who,omitempty"`
	// Error is why there is no answer. Lost datagrams leave no sample at all.
	Error string `json:"error,omitempty"`
}

// OK says whether the request was answered.
func (s Sample) OK() bool { return s.Error == "" }

// ParseSample reads one line of a client's output.
func ParseSample(line []byte) (Sample, error) {
	var s Sample
	if err := json.Unmarshal(line, &s); err != nil {
		return Sample{}, fmt.Errorf("sample %.200q: %w", line, err)
	}
	if s.Sent <= 0 || s.Received < s.Sent {
		return Sample{}, fmt.Errorf("sample %.200q: an answer has to be received after its request was sent", line)
	}
	return s, nil
}

// A Gap is a time without answers.
type Gap struct {
	From, To Instant
	// Before and After say who answered last, which may be before From, and next;
	// empty where nobody did.
	Before, After string
}

// Length is how long nobody answered.
func (g Gap) Length() time.Duration { return g.To.Sub(g.From) }

func (g Gap) String() string {
	name := func(s string) string {
		if s == "" {
			return "nobody"
		}
		return s
	}
	return fmt.Sprintf("%v from %s to %s", g.Length().Round(100*time.Microsecond), name(g.Before), name(g.After))
}

// LongestGap is the longest time without an answer between from and to. The
// edges count: no answer at all is one gap over the whole time.
func LongestGap(samples []Sample, from, to Instant) Gap {
	answers := answersBetween(samples, from, to)
	var longest Gap
	last := Gap{From: from}
	var earlier Instant
	for _, s := range samples {
		if s.OK() && s.Received < from && s.Received > earlier {
			earlier, last.Before = s.Received, s.Who
		}
	}
	for _, s := range answers {
		last.To, last.After = s.Received, s.Who
		if last.Length() > longest.Length() {
			longest = last
		}
		last = Gap{From: s.Received, Before: s.Who}
	}
	last.To, last.After = to, ""
	if last.Length() > longest.Length() {
		longest = last
	}
	return longest
}

func answersBetween(samples []Sample, from, to Instant) []Sample {
	var answers []Sample
	for _, s := range samples {
		if s.OK() && s.Received >= from && s.Received <= to {
			answers = append(answers, s)
		}
	}
	sort.Slice(answers, func(i, j int) bool { return answers[i].Received < answers[j].Received })
	return answers
}

// Complete says whether every request that an HTTP client sent before an instant
// has been answered or has failed.
func Complete(samples []Sample, before Instant) bool {
	first, seen := uint64(0), map[uint64]bool{}
	for _, s := range samples {
		seen[s.Number] = true
		if s.Sent >= before && (first == 0 || s.Number < first) {
			first = s.Number
		}
	}
	for n := uint64(1); n < first; n++ {
		if !seen[n] {
			return false
		}
	}
	return first > 0
}

// Summary counts samples.
type Summary struct {
	Answers   int            `json:"answers"`
	Errors    int            `json:"errors"`
	Who       map[string]int `json:"who"`
	LongestMS float64        `json:"longest_gap_ms"`
	// LastError is the latest failure, for the reader.
	LastError string `json:"last_error,omitempty"`
}

// Summarize counts the answers received between from and to, and the failures
// until to of requests that were sent from from on: a request fails some time
// after it was sent, and what was before from is to blame for the others.
func Summarize(samples []Sample, from, to Instant) Summary {
	sum := Summary{Who: map[string]int{}}
	for _, s := range samples {
		if s.Received < from || s.Received > to {
			continue
		}
		if !s.OK() {
			if s.Sent < from {
				continue
			}
			sum.Errors++
			sum.LastError = s.Error
			continue
		}
		sum.Answers++
		sum.Who[s.Who]++
	}
	sum.LongestMS = float64(LongestGap(samples, from, to).Length()) / 1e6
	return sum
}
