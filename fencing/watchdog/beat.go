package watchdog

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Beat is the sign of life of one loop. Its methods may be called from any
// goroutine, take no lock (but Done), and do nothing on a nil Beat.
type Beat struct {
	name   string
	maxAge time.Duration // 0: the device's timeout
	set    *beats
	// last is when the loop turned, in nanoseconds since set.base; idle when it need not.
	last atomic.Int64
}

const idle = -1

// Turn says that the loop has turned. It ends being idle.
func (b *Beat) Turn() {
	if b != nil {
		b.last.Store(int64(b.set.now()))
	}
}

// Idle(true) says that the loop has nothing to do and need not turn; Idle(false)
// is Turn. Whoever gives an idle loop work says Idle(false), not the loop: one
// that does not wake up for it is then noticed.
func (b *Beat) Idle(is bool) {
	switch {
	case b == nil:
	case is:
		b.last.Store(idle)
	default:
		b.Turn()
	}
}

// Done says that the loop has ended, as it should: it is not asked for any more.
func (b *Beat) Done() {
	if b != nil {
		b.set.remove(b)
	}
}

// beats are the registered loops.
type beats struct {
	// base is the zero of all instants. Durations since it are by CLOCK_MONOTONIC, which stands still
	// while the machine is suspended, as softdog's timer does: waking up is no reason for a reset.
	base time.Time

	mu  sync.Mutex // guards all; never held over anything that may wait
	all []*Beat
}

func (s *beats) now() time.Duration { return time.Since(s.base) }

func (s *beats) add(name string, maxAge time.Duration) *Beat {
	b := &Beat{name: name, maxAge: max(maxAge, 0), set: s}
	b.Turn()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, b)
	return b
}

func (s *beats) remove(b *Beat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(other *Beat) bool { return other == b })
}

// read returns the beats as they are at now, by name.
func (s *beats) read(now, timeout time.Duration) []reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	readings := make([]reading, len(s.all))
	for i, b := range s.all {
		r := reading{name: b.name, maxAge: b.maxAge}
		if r.maxAge == 0 {
			r.maxAge = timeout
		}
		if last := b.last.Load(); last == idle {
			r.idle = true
		} else {
			// It may have turned since now was read.
			r.age = max(0, now-time.Duration(last))
		}
		readings[i] = r
	}
	slices.SortStableFunc(readings, func(a, b reading) int { return strings.Compare(a.name, b.name) })
	return readings
}
