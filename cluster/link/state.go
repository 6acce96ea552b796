package link

import (
	"fmt"
	"math"
	"time"
)

// String is how status and logs write a state.
func (s State) String() string {
	switch s {
	case Up:
		return "up"
	case Late:
		return "late"
	case Down:
		return "down"
	}
	return "invalid"
}

// better reports whether s says more of a peer than o.
func (s State) better(o State) bool { return s < o }

// Timing is how often hellos go out and when their absence means something.
type Timing struct {
	Keepalive time.Duration // period of hellos on each link; default 100 ms
	WarnTime  time.Duration // a link is Late after this; default 2.5 keepalives, at least 2
	DeadTime  time.Duration // and Down after this; default 5 keepalives, more than WarnTime
}

func (t Timing) withDefaults() (Timing, error) {
	if t.Keepalive == 0 {
		t.Keepalive = 100 * time.Millisecond
	}
	if t.WarnTime == 0 {
		t.WarnTime = t.Keepalive * 5 / 2
	}
	if t.DeadTime == 0 {
		t.DeadTime = max(t.Keepalive*5, t.WarnTime*2)
	}
	switch {
	case t.Keepalive < time.Millisecond:
		return t, fmt.Errorf("keepalive %v: at least 1ms", t.Keepalive)
	case t.WarnTime < 2*t.Keepalive:
		return t, fmt.Errorf("warntime %v: at least two keepalives, %v", t.WarnTime, 2*t.Keepalive)
	case t.DeadTime <= t.WarnTime:
		return t, fmt.Errorf("deadtime %v: more than warntime, %v", t.DeadTime, t.WarnTime)
	}
	return t, nil
}

// slowed is the timing towards a peer that says hello every period: all times
// grow with it, and none becomes shorter.
func (t Timing) slowed(period time.Duration) Timing {
	if period <= t.Keepalive {
		return t
	}
	by := float64(period) / float64(t.Keepalive)
	longer := func(d time.Duration) time.Duration { return time.Duration(by * float64(d)) }
	return Timing{period, longer(t.WarnTime), longer(t.DeadTime)}
}

// evidence is what is known of one link towards one peer.
type evidence struct {
	problem string    // of our own interface, in words; empty: the port is open
	hello   time.Time // last hello of the believed boot on this link; zero: none
	saw     time.Time // last hello of any boot on this link, believed or not; zero: none
	echo    time.Time // until when the last hello with an echo of ours counts as just arrived; zero: none
}

// echoTime says as of when the link is proved in both directions by a hello
// that arrived now and echoes ours sent at sent. In peace the echo is at most a
// keepalive and a round trip old; two keepalives are granted, so that jitter is
// not taken for deafness, and what is older counts against the link.
func echoTime(now, sent time.Time, t Timing) time.Time {
	if e := sent.Add(2 * t.Keepalive); e.Before(now) {
		return e
	}
	return now
}

// judge is the state of a link as a function of what is known and the time.
// next is when the state will get worse if nothing arrives; zero: never.
func judge(e evidence, now time.Time, t Timing) (s State, why string, next time.Time) {
	if e.problem != "" {
		return Down, e.problem, time.Time{}
	}
	if !e.echo.IsZero() {
		// Exactly warntime is still up: "none within warntime".
		switch age := now.Sub(e.echo); {
		case age <= t.WarnTime:
			return Up, "", e.echo.Add(t.WarnTime + 1)
		case age <= t.DeadTime:
			return Late, absence(e, now, t), e.echo.Add(t.DeadTime + 1)
		}
	}
	return Down, absence(e, now, t), time.Time{}
}

// absence is in words what is missing.
func absence(e evidence, now time.Time, t Timing) string {
	switch {
	case !e.saw.IsZero() && now.Sub(e.saw) <= t.WarnTime:
		return "hears us not"
	case !e.hello.IsZero():
		return "no hello for " + roundAge(now.Sub(e.hello)).String()
	}
	return "no hello yet"
}

// roundAge keeps two or three digits, as people say durations.
func roundAge(d time.Duration) time.Duration {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond)
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

// lossWindow counts which of the last 100 hellos of a boot arrived on a link.
type lossWindow struct {
	first, top uint64 // ticks: the first that was seen, the newest; 0: none
	got        [lossSpan]bool
}

const lossSpan = 100

func (w *lossWindow) add(tick uint64) {
	switch {
	case tick == 0:
		return
	case w.top == 0:
		w.first, w.top = tick, tick
	case tick > w.top:
		for n := min(tick-w.top, lossSpan); n > 0; n-- {
			w.got[(tick-n+1)%lossSpan] = false
		}
		w.top = tick
	case tick < w.first || w.top-tick >= lossSpan:
		return
	}
	w.got[tick%lossSpan] = true
}

// share is the part of the last 100 that is missing, 0 to 1. overdue is how
// many more should have arrived since the newest.
func (w *lossWindow) share(overdue int) float64 {
	if w.top == 0 {
		return 0
	}
	overdue = min(max(overdue, 0), lossSpan)
	due := int(min(w.top-w.first+1, lossSpan))
	due = min(due, lossSpan-overdue) // the oldest fall out as the overdue come in
	got := 0
	for i := range due {
		if w.got[(w.top-uint64(i))%lossSpan] {
			got++
		}
	}
	return math.Max(0, 1-float64(got)/float64(due+overdue))
}

// bucket limits how many hellos one peer may provoke between the beats.
type bucket struct {
	tokens float64
	at     time.Time
}

const bucketSize = 8

// take spends a token; one comes back every per.
func (b *bucket) take(now time.Time, per time.Duration) bool {
	if b.at.IsZero() {
		b.tokens = bucketSize
	} else {
		b.tokens = min(bucketSize, b.tokens+float64(now.Sub(b.at))/float64(per))
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
