// Package api is the control socket: HTTP with JSON bodies on a Unix socket.
// Root writes; a group, when one is named, may read.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// SocketName is the socket's name in the run directory.
const SocketName = "control.sock"

// Node is what the socket shows and commands: a *cluster.Node.
type Node interface {
	Name() string
	Director() bool // false: a witness, which owns nothing
	Status(ctx context.Context) cluster.Status
	LocalStatus() cluster.LocalStatus
	Why(ctx context.Context, group string) (cluster.Why, error)
	History(group string) ([]state.Decision, error)
	Standby(ctx context.Context, which cluster.Which, to string) ([]cluster.Moved, error)
	Takeover(ctx context.Context, which cluster.Which) ([]cluster.Moved, error)
	Settled(ctx context.Context, moved []cluster.Moved) error
	Apply(ctx context.Context, base uint64, dry bool) (cluster.Changes, error)
	PrepareRestart(ctx context.Context) error
}

// Config is what Serve is given.
type Config struct {
	Node Node
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
	srv := &http.Server{
		Handler: handler(cfg), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 1 << 14,
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

// handler routes; who may do what is decided by the credentials in the request's context.
func handler(cfg Config) http.Handler {
	s := &server{cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/local", s.local)
	mux.HandleFunc("GET /v1/why/{group}", s.why)
	mux.HandleFunc("GET /v1/history", s.history)
	mux.HandleFunc("POST /v1/standby", s.root(s.standby))
	mux.HandleFunc("POST /v1/takeover", s.root(s.takeover))
	mux.HandleFunc("POST /v1/apply", s.root(s.apply))
	mux.HandleFunc("POST /v1/restart", s.root(s.restart))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, http.StatusNotFound, Error{Error: "this daemon knows no " + r.Method + " " + r.URL.Path + "; run the same version of keepbeat everywhere"})
	})
	return mux
}

// Error is the body of an answer that is not 200.
type Error struct {
	Error string `json:"error"`
	// Files says that Error lists faults of the configuration files, one a line.
	Files bool `json:"files,omitempty"`
}

func (s *server) root(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if uid, _ := r.Context().Value(credKey{}).(int); uid != 0 && uid != os.Geteuid() {
			s.answer(w, http.StatusForbidden, Error{Error: "only root may do this; members of the socket's group may read"})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
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
		var fault *conf.Error
		s.answer(w, http.StatusConflict, Error{Error: err.Error(), Files: errors.As(err, &fault)})
		return
	}
	s.answer(w, http.StatusOK, v)
}

func (s *server) status(w http.ResponseWriter, r *http.Request) {
	st := s.cfg.Node.Status(r.Context())
	st.Trouble = append(st.Trouble, PoolTrouble(st)...)
	s.answer(w, http.StatusOK, st)
}

// local answers without asking other nodes.
func (s *server) local(w http.ResponseWriter, _ *http.Request) {
	s.answer(w, http.StatusOK, s.cfg.Node.LocalStatus())
}

func (s *server) history(w http.ResponseWriter, r *http.Request) {
	d, err := s.cfg.Node.History(r.URL.Query().Get("group"))
	s.result(w, History{d}, err)
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

// History is the answer of history: the decisions that the log still has, oldest first.
type History struct {
	Decisions []state.Decision `json:"decisions"`
}

const (
	commandTimeout = 10 * time.Second
	maxBody        = 64 << 10  // no request is larger than a few words
	maxWait        = time.Hour // of standby and takeover, as heartbeat waited for a resource
)

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
		s.answer(w, http.StatusBadRequest, Error{Error: err.Error()})
		return
	}
	if !s.cfg.Node.Director() {
		s.answer(w, http.StatusConflict, Error{Error: "node " + s.cfg.Node.Name() + " is a witness: it votes and owns nothing, so there is nothing to give up or to take; run this on a director"})
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
		wctx, cancel := context.WithTimeout(r.Context(), time.Duration(min(m.Wait, maxWait.Milliseconds()))*time.Millisecond)
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
	// Only the body has a deadline: a handler may wait for a move much longer,
	// and a deadline that passes meanwhile would end its context.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(commandTimeout)) // where it is not supported there is no peer that could dawdle
	b, err := io.ReadAll(r.Body)
	_ = control.SetReadDeadline(time.Time{})
	if err == nil {
		err = decode(b, v)
	}
	if err != nil {
		s.answer(w, http.StatusBadRequest, Error{Error: "request: " + err.Error()})
		return false
	}
	return true
}

// decode reads one JSON value with no key that v does not have, and nothing after it.
func decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something after the JSON value")
	}
	return nil
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
