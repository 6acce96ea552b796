// Package screen renders what the daemon answers for people: on eighty
// columns, trouble first, at three in the morning.
package screen

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Options say what the terminal can show.
type Options struct {
	Width  int // columns; below 40 is taken as 40
	Colour bool
}

// shade is a colour by what it means.
type shade string

const (
	plain shade = ""
	good  shade = "\x1b[32m"
	bad   shade = "\x1b[1;31m"
	mild  shade = "\x1b[33m"
	head  shade = "\x1b[1m"
)

const maxTrouble = 25 // lines: more would push what is well off the screen

type page struct {
	b strings.Builder
	o Options
}

func newPage(o Options) *page {
	o.Width = max(o.Width, 40)
	return &page{o: o}
}

func (p *page) paint(s shade, text string) string {
	if s == plain || !p.o.Colour || text == "" {
		return text
	}
	return string(s) + text + "\x1b[0m"
}

func (p *page) line(s shade, text string) {
	p.b.WriteString(p.paint(s, strings.TrimRight(clean(text), " ")))
	p.b.WriteByte('\n')
}

// wrapped writes text behind a first indent, and what does not fit on further lines behind the second.
func (p *page) wrapped(s shade, first, rest, text string) {
	indent := first
	for _, l := range fold(clean(text), p.o.Width-len(first), p.o.Width-len(rest)) {
		p.b.WriteString(indent)
		p.b.WriteString(p.paint(s, l))
		p.b.WriteByte('\n')
		indent = rest
	}
}

// clean makes text from elsewhere (a real server's answer) harmless for a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
			return '?'
		}
		return r
	}, s)
}

// fold breaks text at blanks: the first line has room for first runes, the others for rest. A longer word is cut.
func fold(s string, first, rest int) []string {
	room := max(first, 8)
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		for {
			n := utf8.RuneCountInString(line)
			w := utf8.RuneCountInString(word)
			switch {
			case n == 0 && w <= room:
				line = word
			case n > 0 && n+1+w <= room:
				line += " " + word
			case n > 0:
				lines, line, room = append(lines, line), "", max(rest, 8)
				continue
			default:
				r := []rune(word)
				lines = append(lines, string(r[:room]))
				word, room = string(r[room:]), max(rest, 8)
				continue
			}
			break
		}
	}
	if line != "" || len(lines) == 0 {
		lines = append(lines, line)
	}
	return lines
}

// cut tells whether a word, an address perhaps, is longer than a line of room runes.
func cut(s string, room int) bool {
	return slices.ContainsFunc(strings.Fields(s), func(w string) bool { return utf8.RuneCountInString(w) > room })
}

// cell is one field of a table.
type cell struct {
	text  string
	shade shade
	right bool
}

func text(format string, args ...any) cell {
	return cell{text: clean(fmt.Sprintf(format, args...))}
}

func (c cell) in(s shade) cell { c.shade = s; return c }
func (c cell) toRight() cell   { c.right = true; return c }

// table writes rows whose columns line up. The last column takes what is left
// of the width and goes on beneath itself; a text that would make a long thin
// stripe there, or be cut within a word, goes on lines of its own.
func (p *page) table(indent string, rows [][]cell) {
	var widths []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	const gap, least, most = 2, 16, 40
	last := len(widths) - 1
	at := len(indent)
	for _, w := range widths[:max(last, 0)] {
		at += w + gap
	}
	room := p.o.Width - at
	for _, r := range rows {
		var b strings.Builder
		b.WriteString(indent)
		var below []string // the last cell, when it does not fit beside the others
		for i, c := range r {
			if i == last {
				lines := fold(c.text, room, room)
				if len(lines) > 2 && room < most || len(lines) > 1 && room < least || cut(c.text, room) {
					below = fold(c.text, p.o.Width-len(indent)-gap, p.o.Width-len(indent)-gap)
					break
				}
				for j, l := range lines {
					if j > 0 {
						b.WriteString("\n" + strings.Repeat(" ", at))
					}
					b.WriteString(p.paint(c.shade, l))
				}
				continue
			}
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text))
			if c.right {
				b.WriteString(space + p.paint(c.shade, c.text))
			} else {
				b.WriteString(p.paint(c.shade, c.text) + space)
			}
			b.WriteString(strings.Repeat(" ", gap))
		}
		p.b.WriteString(strings.TrimRight(b.String(), " "))
		p.b.WriteByte('\n')
		for _, l := range below {
			p.b.WriteString(indent + strings.Repeat(" ", gap) + p.paint(r[last].shade, l) + "\n")
		}
	}
}

// age says how long ago t was, as seen at now: clocks of two machines may differ a little.
func age(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := now.Sub(t)
	if d < time.Second {
		return "now"
	}
	return span(d) + " ago"
}

func span(d time.Duration) string {
	s, m, h := int(d/time.Second), int(d/time.Minute), int(d/time.Hour)
	switch {
	case s < 120:
		return fmt.Sprintf("%d s", max(s, 0))
	case m < 120:
		return fmt.Sprintf("%d min", m)
	case h < 48 && m%60 != 0:
		return fmt.Sprintf("%d h %d min", h, m%60)
	case h < 48:
		return fmt.Sprintf("%d h", h)
	}
	return fmt.Sprintf("%d days", h/24)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
