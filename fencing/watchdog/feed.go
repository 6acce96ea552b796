package watchdog

import (
	"context"
	"log/slog"
	"strings"
	"time"
)

// feed is the feeding goroutine.
//
// It has no thread of its own and no real-time priority. A goroutine runs when one of the runtime's
// few processors is free for it, whatever its thread's priority, and its loops' signs of life
// come from ordinary threads anyway: a feeder that runs while they do not would find them old, and hold back. What helps
// helps all of the daemon: its unit has Nice=-20 and OOMScoreAdjust=-1000. Nor does it lock memory: mlockall is for the
// whole process, and a daemon that cannot page itself in for a timeout does not work. What is left
// is to be early (perTimeout), and to wait for nothing but the device.
func (w *Watchdog) feed(ctx context.Context) {
	// The log may be a pipe that nobody reads: it is written by somebody else, who is not waited for.
	lines := make(chan func(*slog.Logger), 16)
	defer close(lines)
	go func() {
		for line := range lines {
			line(w.log)
		}
	}()
	say := func(line func(*slog.Logger)) {
		select {
		case lines <- line:
		default: // Status has it
		}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-w.wake:
		}
		timer.Reset(w.turn(say))
	}
}

// turn decides once, feeds or not, and returns the time until the next turn.
func (w *Watchdog) turn(say func(func(*slog.Logger))) time.Duration {
	w.mu.Lock()
	if why := w.starved.Load(); why != nil {
		w.state.starved = *why
	}
	now := w.beats.now()
	next, feed, notes := w.state.step(now, w.beats.read(now, w.state.timeout))
	w.state = next
	dev, before, wait := w.dev, w.trouble, next.next()
	w.mu.Unlock()

	if feed && w.starved.Load() == nil {
		// now was before it was fed: what is left is never shown too long.
		err := dev.feed()
		w.mu.Lock()
		w.trouble = err
		if err == nil {
			w.state.fed = now
		}
		left := w.state.left(w.beats.now())
		w.mu.Unlock()
		switch {
		case err != nil && (before == nil || before.Error() != err.Error()):
			say(func(l *slog.Logger) {
				l.Error("the watchdog could not be fed", "device", w.cfg.Device, "err", err, "resets in", round(left))
			})
		case err == nil && before != nil:
			say(func(l *slog.Logger) { l.Info("the watchdog can be fed again", "device", w.cfg.Device) })
		}
	}
	if !feed {
		told, err := dev.left()
		if err != nil {
			told = 0
		}
		w.mu.Lock()
		w.told = told
		w.mu.Unlock()
	}
	for _, n := range notes {
		say(func(l *slog.Logger) { n.log(l, w.cfg.Device) })
	}
	return wait
}

func (n note) log(l *slog.Logger, device string) {
	if n.fedAgain {
		l.Warn("the watchdog is fed again", "device", device, "was not for", round(n.lasted), "was left", round(n.left))
		return
	}
	var why []string
	for _, h := range n.holds {
		why = append(why, h.text)
	}
	l.Error("the watchdog is not fed", "device", device, "why", strings.Join(why, "; "), "resets in", round(n.left))
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
