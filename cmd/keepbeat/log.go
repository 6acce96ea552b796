package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// newLogger makes the daemon's log on f: text with a time, or, when f is the
// journal, which knows the time, with the priority in the form of sd-daemon(3).
func newLogger(f *os.File, debug bool) *slog.Logger {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	if isJournal(f, os.Getenv("JOURNAL_STREAM")) {
		return journalLogger(f, level)
	}
	return slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: level}))
}

// isJournal compares the file with what systemd.exec(5) puts into
// JOURNAL_STREAM: a program may be given the variable and another stderr.
func isJournal(f *os.File, stream string) bool {
	var st unix.Stat_t
	return stream != "" && unix.Fstat(int(f.Fd()), &st) == nil && fmt.Sprintf("%d:%d", st.Dev, st.Ino) == stream
}

func journalLogger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(priorityWriter{w}, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

// priorityWriter turns the level that a record begins with into the journal's
// priority. A TextHandler writes each record in one call.
type priorityWriter struct{ w io.Writer }

func (p priorityWriter) Write(b []byte) (int, error) {
	for _, l := range []struct{ level, priority string }{
		{"level=DEBUG ", "<7>"}, {"level=INFO ", "<6>"}, {"level=WARN ", "<4>"}, {"level=ERROR ", "<3>"},
	} {
		if rest, ok := bytes.CutPrefix(b, []byte(l.level)); ok {
			if _, err := p.w.Write(append([]byte(l.priority), rest...)); err != nil {
				return 0, err
			}
			return len(b), nil
		}
	}
	return p.w.Write(b)
}
