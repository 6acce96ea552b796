package fault

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/keepbeat/keepbeat/test/lab/probe"
)

// timeline collects what was done and seen, in whatever order it becomes known.
type timeline struct {
	mu     sync.Mutex // guards events
	events []event
}

type event struct {
	at   probe.Instant
	text string
}

func (l *timeline) add(at probe.Instant, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, event{at, fmt.Sprintf(format, args...)})
}

// between renders what happened between two instants, in milliseconds from the first.
func (l *timeline) between(from, to probe.Instant) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	events := slices.Clone(l.events)
	slices.SortStableFunc(events, func(a, b event) int { return int(a.at - b.at) })
	var b strings.Builder
	for _, e := range events {
		if e.at >= from && e.at <= to {
			fmt.Fprintf(&b, "%10.1f ms  %s\n", float64(e.at.Sub(from).Microseconds())/1000, e.text)
		}
	}
	return b.String()
}
