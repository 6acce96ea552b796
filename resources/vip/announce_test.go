package vip

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// rounds runs a burst in a bubble and returns the seconds at which rounds went out.
func rounds(t *testing.T, story func(b *burst, owned *atomic.Bool)) string {
	var at []string
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var owned atomic.Bool
		owned.Store(true)
		b := &burst{round: func() bool {
			if owned.Load() {
				at = append(at, fmt.Sprint(time.Since(begin).Seconds()))
			}
			return owned.Load()
		}}
		b.set(3, time.Second)
		story(b, &owned)
		time.Sleep(time.Minute)
	})
	return strings.Join(at, " ")
}

func TestAnnouncementsAreRepeated(t *testing.T) {
	for _, c := range []struct {
		name, want string
		story      func(b *burst, owned *atomic.Bool)
	}{
		{"one at once and the count after", "0 1 2 3", func(b *burst, _ *atomic.Bool) { b.start() }},
		{"none after cancel", "0 1", func(b *burst, _ *atomic.Bool) { b.start(); time.Sleep(1500 * time.Millisecond); b.cancel() }},
		{"none when ownership is over", "0 1", func(b *burst, owned *atomic.Bool) { b.start(); time.Sleep(1500 * time.Millisecond); owned.Store(false) }},
		{"a new start begins anew, once", "0 1 1.5 2.5 3.5 4.5", func(b *burst, _ *atomic.Bool) { b.start(); time.Sleep(1500 * time.Millisecond); b.start() }},
		{"a smaller count holds at once", "0 1", func(b *burst, _ *atomic.Bool) { b.start(); time.Sleep(1500 * time.Millisecond); b.set(1, time.Second) }},
		{"a larger count and interval too", "0 1 2 7 12", func(b *burst, _ *atomic.Bool) {
			b.start()
			time.Sleep(1500 * time.Millisecond)
			b.set(4, 5*time.Second)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := rounds(t, c.story); got != c.want {
				t.Errorf("rounds at %s, want %s", got, c.want)
			}
		})
	}
}
