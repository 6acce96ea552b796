package lease

import (
	"testing"
	"time"
)

func TestTheTimeSpentSuspendedIsNewsOnlyWhereNoSlownessExplainsIt(t *testing.T) {
	const ms, us = time.Millisecond, time.Microsecond
	for name, c := range map[string]struct {
		last, truth time.Duration
		// width of each reading; BOOTTIME is read in its middle.
		widths    []time.Duration
		want      time.Duration
		wantReads int
	}{
		"never suspended":                           {0, 0, []time.Duration{us}, 0, 1},
		"every system call is slow":                 {0, 0, []time.Duration{200 * us}, 0, 1},
		"descheduled for long in between":           {0, 0, []time.Duration{3 * time.Second, us}, 0, 2},
		"suspended some time ago":                   {90 * time.Second, 90*time.Second + 300*us, []time.Duration{us}, 90 * time.Second, 1},
		"suspended now":                             {0, 5 * time.Second, []time.Duration{2 * us, us, 3 * us, 2 * us, 2 * us}, 5 * time.Second, 5},
		"suspended now, and slow: the best reading": {0, 5 * time.Second, []time.Duration{ms, 800 * ms, 20 * us, ms, ms}, 5 * time.Second, 5},
		"suspended for the second time":             {2 * time.Second, 5 * time.Second, []time.Duration{us, us, us, us, us}, 5 * time.Second, 5},
		"descheduled again and again":               {0, 0, []time.Duration{time.Second, time.Second, time.Second, time.Second, time.Second}, 0, 5},
		"a long wait that would hide a suspension":  {0, 100 * ms, []time.Duration{time.Second, us, us, us, us}, 100 * ms, 5},
	} {
		reads, mono := 0, time.Hour
		got := suspendedNow(c.last, func() (before, boot, after time.Duration) {
			w := c.widths[reads]
			reads++
			before, after = mono, mono+w
			boot = mono + w/2 + c.truth
			mono = after
			return before, boot, after
		})
		if got != c.want || reads != c.wantReads {
			t.Errorf("%s: %v after %d readings, want %v after %d", name, got, reads, c.want, c.wantReads)
		}
	}
}

func TestLeaseTimeGoesOn(t *testing.T) {
	var c KernelClock
	last := c.Now()
	for range 1000 {
		if now := c.Now(); now < last {
			t.Fatalf("%v comes after %v", now, last)
		} else {
			last = now
		}
	}
}

func BenchmarkLeaseTime(b *testing.B) {
	var c KernelClock
	for b.Loop() {
		c.Now()
	}
}
