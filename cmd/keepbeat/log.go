package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// newLogger makes the daemon's log on f: text with a time, or, when f is the
// journal, which knows the time, with the priority in the form of sd-daemon(3).
// No record waits for whoever reads f; flush is called before the program ends.
func newLogger(f *os.File, debug bool) (log *slog.Logger, flush func()) {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	// When whoever reads the log has gone, a write is an error and not the end of
	// the daemon. Not signal.Ignore, which the programs that it runs would inherit.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	on := func(w io.Writer) *slog.Logger {
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
	}
	if isJournal(f, os.Getenv("JOURNAL_STREAM")) {
		on = func(w io.Writer) *slog.Logger { return journalLogger(w, level) }
	}
	w := &steadyWriter{f: f, lost: func(lines int) []byte {
		var b bytes.Buffer
		on(&b).Warn("lines of this log are lost: whatever reads it did not take them in time", "lines", lines)
		return b.Bytes()
	}}
	return on(w), w.Flush
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
