package transport

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// HCLog returns a logger for hashicorp's libraries that writes to slog, with the
// name as the attribute "part", all of it for debugging.
func HCLog(log *slog.Logger, name string) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: name, Level: hclog.Off, Output: io.Discard})
	l.RegisterSink(&slogSink{log.With("part", name)})
	return l
}

type slogSink struct{ log *slog.Logger }

// Accept implements hclog.SinkAdapter.
func (s *slogSink) Accept(_ string, _ hclog.Level, msg string, args ...any) {
	// They call an ERROR what is daily life here, ten times a second: a peer that
	// is dead does not answer heartbeats, and the links say it once.
	const l = slog.LevelDebug
	ctx := context.Background()
	if !s.log.Enabled(ctx, l) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	s.log.Log(ctx, l, msg, args...)
}
