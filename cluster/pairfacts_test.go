package cluster

import (
	"testing"
	"time"
)

func TestWhoMayFenceFirst(t *testing.T) {
	const d = time.Second
	for _, c := range []struct {
		name               string
		first              bool
		mine, theirs, runs int
		want               time.Duration
	}{
		{"who has more at stake, at once", true, 10, 1, 10, 0},
		{"who has less, after a delay", false, 1, 10, 1, d},
		{"of two that own nothing, the one whose name sorts first", true, 0, 0, 0, 0},
		{"and then the other", false, 0, 0, 0, d},
		{"who has more and runs nothing of it, last", true, 10, 1, 0, 2 * d},
		{"who owns all and runs nothing of it, last", true, 10, 0, 0, 2 * d},
		{"who runs some of it, and still more than the other owns, at once", true, 10, 1, 4, 0},
		{"who has less and runs nothing of it, after a delay as before", false, 1, 10, 0, d},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := fencingDelay(c.first, c.mine, c.theirs, c.runs, d); got != c.want {
				t.Errorf("waits %v, want %v", got, c.want)
			}
		})
	}
}

// Two that fenced each other at the same moment would both be off.
func TestTheTwoNeverFenceAtTheSameMoment(t *testing.T) {
	const d = time.Second
	for _, a := range []int{0, 1, 2, 10} {
		for _, b := range []int{0, 1, 2, 10} {
			for runsA := range a + 1 {
				for runsB := range b + 1 {
					first := a >= b // of equals, a's name sorts first
					x, y := fencingDelay(first, a, b, runsA, d), fencingDelay(!first, b, a, runsB, d)
					if (x - y).Abs() < d {
						t.Errorf("%d owned of which %d run waits %v, %d of which %d run %v", a, runsA, x, b, runsB, y)
					}
				}
			}
		}
	}
}
