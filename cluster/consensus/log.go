package consensus

import (
	"context"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// hclogger hands raft's log to slog. raft calls an ERROR what is daily life
// here (a peer that is dead does not answer heartbeats), and the links say it
// better, so its levels are lowered by two.
type hclogger struct {
	l    *slog.Logger
	name string
	args []any
}

// NewHCLog returns an hclog.Logger that writes to l.
func NewHCLog(l *slog.Logger) hclog.Logger { return &hclogger{l: l, name: "raft"} }

func (h *hclogger) level(l hclog.Level) slog.Level {
	switch l {
	case hclog.Error:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

func (h *hclogger) Log(l hclog.Level, msg string, args ...any) {
	h.l.Log(context.Background(), h.level(l), h.name+": "+msg, append(append([]any{}, h.args...), args...)...)
}
func (h *hclogger) Trace(string, ...any)          {}
func (h *hclogger) Debug(msg string, args ...any) { h.Log(hclog.Debug, msg, args...) }
func (h *hclogger) Info(msg string, args ...any)  { h.Log(hclog.Info, msg, args...) }
func (h *hclogger) Warn(msg string, args ...any)  { h.Log(hclog.Warn, msg, args...) }
func (h *hclogger) Error(msg string, args ...any) { h.Log(hclog.Error, msg, args...) }
func (h *hclogger) IsTrace() bool                 { return false }
func (h *hclogger) IsDebug() bool                 { return h.on(hclog.Debug) }
func (h *hclogger) IsInfo() bool                  { return h.on(hclog.Info) }
func (h *hclogger) IsWarn() bool                  { return h.on(hclog.Warn) }
func (h *hclogger) IsError() bool                 { return true }
func (h *hclogger) on(l hclog.Level) bool         { return h.l.Enabled(context.Background(), h.level(l)) }
func (h *hclogger) ImpliedArgs() []any            { return h.args }
func (h *hclogger) Name() string                  { return h.name }
func (h *hclogger) SetLevel(hclog.Level)          {}
func (h *hclogger) GetLevel() hclog.Level         { return hclog.Debug }
func (h *hclogger) With(args ...any) hclog.Logger {
	return &hclogger{l: h.l, name: h.name, args: append(append([]any{}, h.args...), args...)}
}
func (h *hclogger) Named(name string) hclog.Logger {
	return &hclogger{l: h.l, name: h.name + "." + name, args: h.args}
}
func (h *hclogger) ResetNamed(name string) hclog.Logger {
	return &hclogger{l: h.l, name: name, args: h.args}
}
func (h *hclogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(h.l.Handler(), slog.LevelDebug)
}
func (h *hclogger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	return h.StandardLogger(o).Writer()
}
