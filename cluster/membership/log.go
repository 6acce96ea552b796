package membership

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"strings"
)

// stdLogger returns a logger for memberlist, whose lines carry their level in
// brackets, that writes to slog. memberlist calls errors what a heartbeat
// cluster sees whenever a node is away, and warns of every restart.
func stdLogger(l *slog.Logger) *log.Logger { return log.New(lineWriter{l}, "", 0) }

type lineWriter struct{ log *slog.Logger }

func (w lineWriter) Write(b []byte) (int, error) {
	level, msg := parseLine(string(bytes.TrimSpace(b)))
	w.log.Log(context.Background(), level, msg, "part", "memberlist")
	return len(b), nil
}

func parseLine(line string) (slog.Level, string) {
	levels := []struct {
		prefix string
		level  slog.Level
	}{
		{"[DEBUG]", slog.LevelDebug}, {"[INFO]", slog.LevelDebug},
		{"[WARN]", slog.LevelDebug}, {"[ERR]", slog.LevelInfo}, {"[ERROR]", slog.LevelInfo},
	}
	for _, l := range levels {
		if rest, ok := strings.CutPrefix(line, l.prefix); ok {
			return l.level, strings.TrimPrefix(strings.TrimSpace(rest), "memberlist: ")
		}
	}
	return slog.LevelInfo, line
}
