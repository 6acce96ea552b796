package checks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

func refused(context.Context, conf.Check, int) (string, error) {
	return "", errors.New("connection refused")
}

func TestADownServerIsAskedAtItsOwnInterval(t *testing.T) {
	for _, tc := range []struct{ interval, down time.Duration }{
		{10 * time.Second, time.Second},
		{10 * time.Second, 10 * time.Second},
		{time.Second, 10 * time.Second},
		{7 * time.Second, 300 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("%v, %v while down", tc.interval, tc.down), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				// Up for the first 100 s, then down for 100 s, then up.
				up := func(at time.Time) bool { d := at.Sub(begin); return d < 100*time.Second || d > 200*time.Second }
				s, w, stop := start(t, 100, func(ctx context.Context, c conf.Check, n int) (string, error) {
					time.Sleep(5 * time.Millisecond)
					if !up(time.Now()) {
						return refused(ctx, c, n)
					}
					return "fine", nil
				})
				defer stop()
				c := target(1)
				c.Interval, c.IntervalDown = tc.interval, tc.down
				s.Subscribe(c, nil)
				time.Sleep(300 * time.Second)
				runs := w.runs(c)
				was := true // what the run before found
				for i, at := range runs[1:] {
					want := tc.interval
					if !was {
						want = tc.down
					}
					gap, now := at.Sub(runs[i]), up(at.Add(5*time.Millisecond))
					// When the state has just changed the next run is on the other
					// schedule, sooner than its interval.
					settled := i > 1 && was == up(runs[i-1].Add(5*time.Millisecond))
					if gap > want+5*time.Millisecond || (settled && gap != want) {
						t.Errorf("run %d came %v after the one before, want %v", i+1, gap, want)
					}
					was = now
				}
				if st := s.Stats(); st.Missed > 0 || st.MaxLate > 0 {
					t.Errorf("stats %+v", st)
				}
			})
		})
	}
}

func TestServersThatFailTogetherAreAskedSpreadOverTheIntervalWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, stop := start(t, 5000, refused)
		defer stop()
		begin := time.Now()
		for i := range 1000 {
			c := target(i)
			c.Interval, c.IntervalDown = 10*time.Second, 2*time.Second
			s.Subscribe(c, nil)
		}
		time.Sleep(21 * time.Second)
		slots := map[time.Duration]int{}
		for i := range 1000 {
			for _, at := range w.runs(target(i)) {
				slots[at.Sub(begin).Truncate(200*time.Millisecond)]++
			}
		}
		for at, n := range slots {
			if at > 3*time.Second && n > 150 { // 100 each, if all were even
				t.Errorf("%d starts in the 200 ms from %v", n, at)
			}
		}
	})
}

func TestJitterPutsEachStartOffByAPartOfItAndLosesNone(t *testing.T) {
	for _, jitter := range []time.Duration{300 * time.Millisecond, time.Second, time.Hour} {
		for _, takes := range []time.Duration{0, 10 * time.Millisecond, 700 * time.Millisecond} {
			t.Run(fmt.Sprintf("jitter %v, a check takes %v", jitter, takes), func(t *testing.T) {
				var first []time.Duration
				for range 2 {
					synctest.Test(t, func(t *testing.T) {
						s, w, stop := start(t, 10, func(context.Context, conf.Check, int) (string, error) {
							time.Sleep(takes)
							return "fine", nil
						})
						defer stop()
						c := target(9)
						c.Jitter = jitter
						begin, phase := time.Now(), phaseIn(c.Interval, placeOf(c))
						s.Subscribe(c, nil)
						const seconds = 200
						time.Sleep(seconds*time.Second + phase + min(jitter, c.Interval))
						var starts []time.Duration
						// The run at the beginning is outside the schedule, and may outlast its first place.
						for phase+min(jitter, c.Interval) < w.runs(c)[0].Sub(begin)+takes {
							phase += c.Interval
						}
						differ := map[time.Duration]bool{}
						for i, at := range w.runs(c) {
							starts = append(starts, at.Sub(begin))
							if i == 0 {
								continue
							}
							off := at.Sub(begin) - phase - time.Duration(i-1)*c.Interval
							// A run that takes long may push the next one to its end.
							if off < 0 || off > min(jitter, c.Interval)+takes {
								t.Fatalf("run %d starts %v after its place", i, off)
							}
							differ[off] = true
						}
						if len(starts) < seconds-1 || len(starts) > seconds+2 {
							t.Errorf("%d runs in %d s", len(starts), seconds)
						}
						if len(differ) < seconds/2 {
							t.Errorf("only %d different delays in %d runs", len(differ), len(starts))
						}
						if st := s.Stats(); st.MaxLate > 0 || st.Missed > 0 {
							t.Errorf("%+v: lateness counts from the time that jitter has chosen", st)
						}
						if first == nil {
							first = starts
						} else if !slices.Equal(first, starts) {
							t.Error("the second time the starts are others")
						}
					})
				}
			})
		}
	}
}

func TestNothingIsLostWhenIntervalsChangeAtRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := uint32(7)
		rnd := func(n int) int { x = x*1664525 + 1013904223; return int(x>>8) % n }
		s, w, stop := start(t, 10, func(ctx context.Context, c conf.Check, n int) (string, error) {
			time.Sleep(time.Duration(rnd(400)) * time.Millisecond)
			if rnd(3) == 0 {
				return refused(ctx, c, n)
			}
			return "fine", nil
		})
		defer stop()
		c := target(4)
		c.Interval, c.IntervalDown, c.Jitter, c.Fall, c.Rise = 3*time.Second, 500*time.Millisecond, 200*time.Millisecond, 2, 2
		s.Subscribe(c, nil)
		time.Sleep(time.Hour)
		runs := w.runs(c)
		if len(runs) < 3600/3 {
			t.Errorf("%d runs in an hour", len(runs))
		}
		for i, at := range runs[1:] {
			if gap := at.Sub(runs[i]); gap > c.Interval+c.Jitter+400*time.Millisecond {
				t.Errorf("%v between run %d and the next", gap, i)
			}
		}
	})
}

func TestPlacesAreSpreadOverAnyInterval(t *testing.T) {
	for _, i := range []time.Duration{shortest, 99 * time.Millisecond, time.Second, 7 * time.Second, 10 * time.Second, time.Hour} {
		places := map[time.Duration]int{}
		for n := range 10_000 {
			p := phaseIn(i, placeOf(target(n)))
			if p < 0 || p >= i {
				t.Fatalf("interval %v: a place at %v", i, p)
			}
			places[p.Truncate(i/50)]++
		}
		for p, n := range places { // 200 each, if all were even
			if n > 300 {
				t.Errorf("interval %v: %d of 10,000 checks in the fiftieth at %v", i, n, p)
			}
		}
		if len(places) < 50 {
			t.Errorf("interval %v: %d places", i, len(places))
		}
	}
}
