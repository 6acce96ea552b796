// Package api is the control socket: HTTP with JSON bodies on a Unix socket.
// Root writes; a group, when one is named, may read.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/cluster"
)

// SocketName is the socket's name in the run directory.
const SocketName = "control.sock"

// Config is what Serve is given.
type Config struct {
	Node   *cluster.Node
	RunDir string // the socket is RunDir/control.sock
	Group  string // may read; empty: root only
	// Restart re-executes the daemon once the answer has been sent.
	Restart func()
	Logger  *slog.Logger
}

// Listen makes the socket. A stale one is removed; one that answers belongs to a daemon that runs.
func Listen(dir, group string) (net.Listener, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, SocketName)
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s answers: another keepbeat runs here; stop it first", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	mode, gid := os.FileMode(0o600), -1
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("socket_group %s: %w", group, err), l.Close())
		}
		gid, _ = strconv.Atoi(g.Gid)
		mode = 0o660
	}
	if gid >= 0 {
		err = os.Chown(path, -1, gid)
	}
	if err = errors.Join(err, os.Chmod(path, mode)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

type credKey struct{}

// Serve answers on l until ctx ends.
func Serve(ctx context.Context, l net.Listener, cfg Config) error {
	s := &server{cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/why/{group}", s.why)
	mux.HandleFunc("POST /v1/standby", s.root(s.standby))
	mux.HandleFunc("POST /v1/takeover", s.root(s.takeover))
	mux.HandleFunc("POST /v1/apply", s.root(s.apply))
	mux.HandleFunc("POST /v1/restart", s.root(s.restart))
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 1 << 14,
		ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, credKey{}, peerUID(c))
		},
	}
	stop := context.AfterFunc(ctx, func() {
		sctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if srv.Shutdown(sctx) != nil {
			srv.Close()
		}
	})
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// peerUID returns who is at the other end; -1 when the kernel does not say (unix(7), SO_PEERCRED).
func peerUID(c net.Conn) int {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return -1
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return -1
	}
	uid := -1
	if err := raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = int(cred.Uid)
		}
	}); err != nil {
		return -1
	}
	return uid
}

type server struct{ cfg Config }

// Error is the body of an answer that is not 200.
type Error struct {
	Error string `json:"error"`
}

func (s *server) root(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if uid, _ := r.Context().Value(credKey{}).(int); uid != 0 && uid != os.Geteuid() {
			s.answer(w, http.StatusForbidden, Error{"only root may do this; members of the socket's group may read"})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
		h(w, r)
	}
}

func (s *server) answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.cfg.Logger.Debug("control socket", "err", err)
	}
}

func (s *server) result(w http.ResponseWriter, v any, err error) {
	if err != nil {
		s.answer(w, http.StatusConflict, Error{err.Error()})
		return
	}
	s.answer(w, http.StatusOK, v)
}

func (s *server) status(w http.ResponseWriter, r *http.Request) {
	s.answer(w, http.StatusOK, s.cfg.Node.Status(r.Context()))
}

func (s *server) why(w http.ResponseWriter, r *http.Request) {
	v, err := s.cfg.Node.Why(r.Context(), r.PathValue("group"))
	s.result(w, v, err)
}

// Move is the body of standby and takeover.
type Move struct {
	Which string `json:"which"`          // all, local, foreign, failback
	To    string `json:"to,omitempty"`   // standby only
	Wait  int64  `json:"wait,omitempty"` // milliseconds to wait for the end; 0: do not
}

// Moves is their answer.
type Moves struct {
	Moved   []cluster.Moved `json:"moved"`
	Settled bool            `json:"settled"`
}

const commandTimeout = 10 * time.Second

func (s *server) standby(w http.ResponseWriter, r *http.Request) {
	s.move(w, r, func(ctx context.Context, m Move, which cluster.Which) ([]cluster.Moved, error) {
		return s.cfg.Node.Standby(ctx, which, m.To)
	})
}

func (s *server) takeover(w http.ResponseWriter, r *http.Request) {
	s.move(w, r, func(ctx context.Context, m Move, which cluster.Which) ([]cluster.Moved, error) {
		return s.cfg.Node.Takeover(ctx, which)
	})
}

func (s *server) move(w http.ResponseWriter, r *http.Request, do func(context.Context, Move, cluster.Which) ([]cluster.Moved, error)) {
	var m Move
	if !s.body(w, r, &m) {
		return
	}
	which, err := cluster.ParseWhich(m.Which)
	if err != nil {
		s.answer(w, http.StatusBadRequest, Error{err.Error()})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), commandTimeout)
	defer cancel()
	moved, err := do(ctx, m, which)
	if err != nil {
		s.result(w, nil, err)
		return
	}
	out := Moves{Moved: moved}
	if m.Wait > 0 {
		wctx, cancel := context.WithTimeout(r.Context(), time.Duration(m.Wait)*time.Millisecond)
		defer cancel()
		if err := s.cfg.Node.Settled(wctx, moved); err != nil {
			s.result(w, nil, err)
			return
		}
		out.Settled = true
	}
	s.answer(w, http.StatusOK, out)
}

func (s *server) body(w http.ResponseWriter, r *http.Request, v any) bool {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		s.answer(w, http.StatusBadRequest, Error{"request: " + err.Error()})
		return false
	}
	return true
}

// Apply is the body of apply.
type Apply struct {
	Base uint64 `json:"base,omitempty"` // version that the change was made against; 0: the present one
	Dry  bool   `json:"dry,omitempty"`
}

func (s *server) apply(w http.ResponseWriter, r *http.Request) {
	var a Apply
	if !s.body(w, r, &a) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 3*commandTimeout)
	defer cancel()
	c, err := s.cfg.Node.Apply(ctx, a.Base, a.Dry)
	s.result(w, c, err)
}

func (s *server) restart(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), commandTimeout)
	defer cancel()
	if err := s.cfg.Node.PrepareRestart(ctx); err != nil {
		s.result(w, nil, err)
		return
	}
	s.answer(w, http.StatusOK, struct{}{})
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	s.cfg.Restart()
}
