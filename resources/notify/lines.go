package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	maxLine  = 1000    // bytes of a line, without its end
	maxLines = 100_000 // that wait for a disk: more than a pool has servers that change at once
)

// Lines appends lines to files.
type Lines struct {
	log  *slog.Logger
	wake chan struct{} // capacity 1

	mu      sync.Mutex // guards all below
	waiting []line
	dropped int
	failing map[string]bool // files of which it was said that they cannot be written
}

type line struct{ path, text string }

// NewLines returns Lines; Run makes it work.
func NewLines(log *slog.Logger) *Lines {
	return &Lines{log: log, wake: make(chan struct{}, 1), failing: map[string]bool{}}
}

// Add has a line appended to a file. It does not wait; a line that finds
// maxLines before it is dropped, which is counted and logged.
func (l *Lines) Add(path, text string) {
	l.mu.Lock()
	if len(l.waiting) < maxLines {
		l.waiting = append(l.waiting, line{path, text})
	} else {
		l.dropped++
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends, and then what still waits.
func (l *Lines) Run(ctx context.Context) {
	for {
		select {
		case <-l.wake:
			l.write()
		case <-ctx.Done():
			l.write()
			return
		}
	}
}

func (l *Lines) write() {
	l.mu.Lock()
	all, dropped := l.waiting, l.dropped
	l.waiting, l.dropped = nil, 0
	l.mu.Unlock()
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].path == all[0].path {
			n++
		}
		path := all[0].path
		err := appendLines(path, all[:n])
		all = all[n:]
		l.mu.Lock()
		said := l.failing[path]
		l.failing[path] = err != nil
		l.mu.Unlock()
		if err != nil && !said {
			l.log.Error("monitorfile cannot be written; said once until it works again", "err", err)
		}
	}
	if dropped > 0 {
		l.log.Error("monitorfile is written too slowly: lines are lost", "lines", dropped)
	}
}

// appendLines opens the file each time, so that it may be renamed away. A
// symbolic link is not followed: who may write to the directory must not choose
// what the daemon writes to. Nor is anything but a plain file written.
func appendLines(path string, lines []line) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o640)
	if errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%s is a symbolic link, and none is followed; name the file itself", path)
	}
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a plain file", path)
	}
	if err == nil {
		var b strings.Builder
		for _, l := range lines {
			b.WriteString(bounded(l.text, maxLine) + "\n")
		}
		_, err = f.WriteString(b.String())
	}
	return errors.Join(err, f.Close())
}

// bounded is a text cut to a number of bytes, in one line of valid UTF-8.
func bounded(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-3], "") + "..."
}
