package vip

import (
	"sync"
	"time"
)

// burst repeats an announcement: one at once, then count more, interval apart.
type burst struct {
	// round sends one announcement and tells whether to go on.
	round func() bool

	mu       sync.Mutex // guards the rest; held while a round goes out, so that none follows cancel
	count    int
	interval time.Duration
	timer    *time.Timer
	run      uint64 // number of the current burst; a timer that fires late for an older one does nothing
	sent     int    // repetitions of the current burst
}

// set changes count and interval, of a running burst too.
func (b *burst) set(count int, interval time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count, b.interval = count, interval
}

// start sends the first announcement before it returns, and begins the repetitions.
func (b *burst) start() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end()
	b.sent = 0
	if b.round() {
		b.next()
	}
}

// cancel ends the burst: after it nothing is sent.
func (b *burst) cancel() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end()
}

func (b *burst) end() {
	b.run++
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
}

func (b *burst) next() {
	if b.sent >= b.count {
		b.timer = nil
		return
	}
	run := b.run
	b.timer = time.AfterFunc(b.interval, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.run != run || b.sent >= b.count {
			return
		}
		b.sent++
		if b.round() {
			b.next()
		}
	})
}
