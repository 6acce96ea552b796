package vrrp

import (
	"cmp"
	"slices"
	"testing"
	"time"
)

// span is a time in which a router advertised that it is master: from the first
// advertisement to the last, or to the one with priority 0.
type span struct{ from, to time.Time }

// spans are the times in which one router was master of one VRID. It has stopped
// to be when two advertisements in a row are missing: a third, and others take
// over (RFC 9568, 6.1), while one alone may be late on a busy machine.
func spans(all []advert, interval time.Duration) (masters []span) {
	going := false
	for i := range all {
		a := &all[i]
		last := len(masters) - 1
		switch {
		case going && a.at.Sub(masters[last].to) < 5*interval/2:
			masters[last].to = a.at
		case a.priority() > 0:
			masters = append(masters, span{a.at, a.at})
		}
		going = a.priority() > 0
	}
	return masters
}

// both is for how long two were master at once, in all; longest the longest of those times.
func both(a, b []span) (longest time.Duration) {
	for _, x := range a {
		for _, y := range b {
			from, to := later(x.from, y.from), earlier(x.to, y.to)
			longest = max(longest, to.Sub(from))
		}
	}
	return longest
}

// nobody is the longest time between two times in which somebody was master.
func nobody(a, b []span) (longest time.Duration) {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y span) int { return cmp.Compare(x.from.UnixNano(), y.from.UnixNano()) })
	var until time.Time
	for n, s := range all {
		if n > 0 {
			longest = max(longest, s.from.Sub(until))
		}
		until = later(until, s.to)
	}
	return longest
}

// within is what of the spans lies after an instant.
func within(all []span, since time.Time) (cut []span) {
	for _, s := range all {
		if s.to.After(since) {
			cut = append(cut, span{later(s.from, since), s.to})
		}
	}
	return cut
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func TestMasteryIsComputedFromAdvertisements(t *testing.T) {
	zero := time.Unix(0, 0)
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	sent := func(from, to, step int) (all []advert) {
		for ms := from; ms <= to; ms += step {
			all = append(all, advert{at: at(ms), message: []byte{0x31, 51, 100, 0, 0, 10, 0, 0}})
		}
		return all
	}
	resigns := func(ms int) advert { return advert{at: at(ms), message: make([]byte, 8)} }
	const interval = 100 * time.Millisecond
	for _, tt := range []struct {
		name         string
		a, b         []advert
		both, nobody time.Duration
	}{
		{"one alone", sent(0, 1000, 100), nil, 0, 0},
		{"the second after the first is silent", sent(0, 500, 100), sent(800, 1000, 100), 0, 300 * time.Millisecond},
		{"the second while the first goes on", sent(0, 1000, 100), sent(650, 1650, 100), 350 * time.Millisecond, 0},
		{"a resignation ends it", append(sent(0, 500, 100), resigns(530)), sent(600, 1000, 100), 0, 70 * time.Millisecond},
		{"a late advertisement ends nothing", append(sent(0, 500, 100), sent(740, 1000, 100)...), sent(700, 720, 100), 0, 0},
		{"three that are missing do", append(sent(0, 500, 100), sent(900, 1000, 100)...), nil, 0, 400 * time.Millisecond},
	} {
		a, b := spans(tt.a, interval), spans(tt.b, interval)
		if got := both(a, b); got != tt.both {
			t.Errorf("%s: both for %v, want %v", tt.name, got, tt.both)
		}
		if got := nobody(a, b); got != tt.nobody {
			t.Errorf("%s: nobody for %v, want %v", tt.name, got, tt.nobody)
		}
	}
}
