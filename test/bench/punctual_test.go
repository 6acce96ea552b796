package main

import (
	"slices"
	"testing"
	"time"
)

func TestLatenessOfARouterThatSendsAtFixedTimes(t *testing.T) {
	for _, c := range []struct {
		name       string
		seen, late []int
	}{
		{"punctual", []int{3, 13, 23, 33}, []int{0, 0, 0, 0}},
		{"a late one does not put off the next", []int{3, 13, 27, 33}, []int{0, 0, 4, 0}},
		{"the first one was late", []int{5, 13, 23}, []int{2, 0, 0}},
		{"all but one were late", []int{5, 14, 23, 36}, []int{2, 1, 0, 3}},
		{"more than an interval late: the times begin anew", []int{0, 10, 35, 45, 57}, []int{0, 0, 15, 0, 2}},
		{"twice", []int{0, 35, 45, 80, 90}, []int{0, 25, 0, 25, 0}},
		{"one was lost", []int{0, 10, 30, 41, 50}, []int{0, 0, 10, 1, 0}},
		{"one", []int{7}, []int{0}},
		{"none", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var seen []time.Duration
			for _, s := range c.seen {
				seen = append(seen, time.Duration(s)*time.Millisecond)
			}
			var late []int
			for _, a := range onGrid(seen, 10*time.Millisecond) {
				late = append(late, int(a.late/time.Millisecond))
			}
			if !slices.Equal(late, c.late) {
				t.Errorf("%v, want %v", late, c.late)
			}
		})
	}
}
