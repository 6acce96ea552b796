package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const width = 80

// narrator writes what a person reads: steps with what is done, expected and seen.
type narrator struct {
	mu    sync.Mutex // guards out and last
	out   io.Writer
	last  time.Time
	began time.Time
	steps int
	// step and expected are what is being shown, for the message of a failure.
	step, expected string
}

func newNarrator(out io.Writer) *narrator {
	now := time.Now()
	return &narrator{out: out, began: now, last: now}
}

func (n *narrator) write(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	// Nobody is left to be told that the reader has gone; the exit status says what happened.
	_, _ = io.WriteString(n.out, text)
	n.last = time.Now()
}

// silent is for how long nothing was written.
func (n *narrator) silent() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Since(n.last)
}

// say writes a paragraph.
func (n *narrator) say(format string, args ...any) {
	n.write(fill("", "", fmt.Sprintf(format, args...)))
}

// begin begins a step of the story.
func (n *narrator) begin(title string) {
	n.steps++
	n.step, n.expected = fmt.Sprintf("%d. %s", n.steps, title), ""
	at := time.Since(n.began).Round(time.Second)
	stamp := fmt.Sprintf("%d:%02d", int(at.Minutes()), int(at.Seconds())%60)
	rule := strings.Repeat("-", max(1, width-len(n.step)-len(stamp)-2))
	n.write("\n" + n.step + " " + rule + " " + stamp + "\n")
}

func (n *narrator) done(format string, args ...any) { n.labelled("done", format, args...) }
func (n *narrator) seen(format string, args ...any) { n.labelled("seen", format, args...) }

// expect says what is expected now; a failure before the next one is this one's.
func (n *narrator) expect(format string, args ...any) {
	n.expected = fmt.Sprintf(format, args...)
	n.labelled("expected", "%s", n.expected)
}

func (n *narrator) labelled(label, format string, args ...any) {
	n.write(fill(fmt.Sprintf("  %-9s ", label), strings.Repeat(" ", 12), fmt.Sprintf(format, args...)))
}

// command shows what an operator typed on a host, and the answer as it came.
func (n *narrator) command(host, typed, answer string) {
	n.write("\n" + host + ":~# " + typed + "\n" + strings.TrimRight(answer, "\n") + "\n\n")
}

// fill breaks text into lines of the screen's width.
func fill(first, rest, text string) string {
	var b strings.Builder
	line, empty := first, true
	for _, word := range strings.Fields(text) {
		if !empty && len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line, empty = rest, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	b.WriteString(line + "\n")
	return b.String()
}
