package vip

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// rounds runs a burst in a bubble and returns the seconds at which rounds went out.
func rounds(t *testing.T, story func(b *burst, owned *bool)) string {
	var at []string
	synctest.Test(t, func(t *testing.T) {
		begin, owned := time.Now(), true
		b := &burst{round: func() bool {
			if owned {
				at = append(at, fmt.Sprint(time.Since(begin).Seconds()))
			}
			return owned
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
		story      func(b *burst, owned *bool)
	}{
		{"one at once and the count after", "0 1 2 3", func(b *burst, _ *bool) { b.start() }},
		{"none after cancel", "0 1", func(b *burst, _ *bool) { b.start(); time.Sleep(1500 * time.Millisecond); b.cancel() }},
		{"none when ownership is over", "0 1", func(b *burst, owned *bool) { b.start(); time.Sleep(1500 * time.Millisecond); *owned = false }},
		{"a new start begins anew, once", "0 1 1.5 2.5 3.5 4.5", func(b *burst, _ *bool) { b.start(); time.Sleep(1500 * time.Millisecond); b.start() }},
		{"a smaller count holds at once", "0 1", func(b *burst, _ *bool) { b.start(); time.Sleep(1500 * time.Millisecond); b.set(1, time.Second) }},
		{"a larger count and interval too", "0 1 2 7 12", func(b *burst, _ *bool) { b.start(); time.Sleep(1500 * time.Millisecond); b.set(4, 5*time.Second) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := rounds(t, c.story); got != c.want {
				t.Errorf("rounds at %s, want %s", got, c.want)
			}
		})
	}
}
