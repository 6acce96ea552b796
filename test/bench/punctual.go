package main

import (
	"slices"
	"time"
)

// advert is an advertisement as it was seen, and how long after it was due.
type advert struct{ at, late time.Duration }

// onGrid tells how late each of a router's advertisements was that sends at
// fixed times: one that is late does not put off those after it, unless it was
// late by more than an interval: then the times begin anew with it. So the times
// only ever move back, and all that follow tell where they are now. One that was
// never seen makes the next one late by an interval.
func onGrid(seen []time.Duration, interval time.Duration) []advert {
	all := make([]advert, len(seen))
	begin := time.Duration(1<<63 - 1) // when the first would have been due, for who sends as those from k on
	for k := len(seen) - 1; k >= 0; k-- {
		at := seen[k] - time.Duration(k)*interval
		begin = min(begin, at)
		due := begin
		if k > 0 {
			due = min(due, seen[k-1]-time.Duration(k-1)*interval)
		}
		all[k] = advert{seen[k], at - due}
	}
	return all
}

// sinceLast tells how late each advertisement was of a router that counts from
// the one before.
func sinceLast(seen []time.Duration, interval time.Duration) []advert {
	all := make([]advert, 0, len(seen))
	for k := 1; k < len(seen); k++ {
		all = append(all, advert{seen[k], max(0, seen[k]-seen[k-1]-interval)})
	}
	return all
}

// Punctuality is how late the advertisements of a time were.
type Punctuality struct {
	Program string  `json:"program"`
	While   string  `json:"while"`
	Seconds float64 `json:"seconds"`
	Distribution
	OverHalf int      `json:"later_than_half_an_interval"`
	Longest  float64  `json:"longest_gap_ms"` // between two of a router
	Machine  Busyness `json:"machine"`
	Budget   Budget   `json:"budget"`
	Met      bool     `json:"met"`
}

// window is a time that is looked at.
type window struct {
	while    string
	from, to time.Duration
	machine  Busyness
}

// punctuality is that of all advertisements that were due in a window.
func punctuality(program string, w window, routers [256][]time.Duration, interval time.Duration, lateness func([]time.Duration, time.Duration) []advert) Punctuality {
	p := Punctuality{Program: program, While: w.while, Seconds: round((w.to - w.from).Seconds()), Machine: w.machine}
	var late []time.Duration
	for _, seen := range routers {
		for _, a := range lateness(seen, interval) {
			if due := a.at - a.late; due < w.from || due > w.to {
				continue
			}
			late = append(late, a.late)
			if a.late > interval/2 {
				p.OverHalf++
			}
		}
		for k := 1; k < len(seen); k++ {
			if seen[k] >= w.from && seen[k-1] <= w.to {
				p.Longest = max(p.Longest, ms(seen[k]-seen[k-1]))
			}
		}
	}
	slices.Sort(late)
	p.Distribution = distribution(late)
	return p
}
