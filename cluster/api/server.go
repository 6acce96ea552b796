// Package api is the control socket: HTTP with JSON bodies on a Unix socket.
// Root and the members of one group give orders, those of another may look.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

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
	StopCost() string
	Keys(ctx context.Context) []cluster.NodeKeys
	AddKey(ctx context.Context, index int, key conf.Secret) (cluster.KeyChange, error)
	UseKey(ctx context.Context, index int) (cluster.KeyChange, error)
	RemoveKey(ctx context.Context, index int) (cluster.KeyChange, error)
	Fencer
	NodeChanger
	RealOrderer
}

// Config is what Serve is given.
type Config struct {
	Node    Node    // nil: this machine runs virtual routers alone
	Routers Routers // nil: there is no vrrp.yaml
	// Restart re-executes the daemon once the answer has been sent.
	Restart func()
	Logger  *slog.Logger
	// Patience is for how long somebody may send a request's body, or read an answer. Default 10 s.
	Patience time.Duration
}

type peerKey struct{}

// Serve answers on l until ctx ends.
func Serve(ctx context.Context, l *Socket, cfg Config) error {
	srv := &http.Server{
		Handler: handler(cfg, l.access), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 1 << 14,
		ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if known, ok := c.(*conn); ok {
				ctx = context.WithValue(ctx, peerKey{}, known.peer)
			}
			return ctx
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

type server struct {
	cfg    Config
	access access
	denied denied
}

// handler decides who may do what by the credentials in the request's context, before anything else, and routes.
func handler(cfg Config, a access) http.Handler {
	if cfg.Patience == 0 {
		cfg.Patience = commandTimeout
	}
	s := &server{cfg: cfg, access: a}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/vrrp", s.vrrp)
	mux.HandleFunc("POST /v1/vrrp/reload", s.reloadRouters)
	if cfg.Node == nil {
		mux.HandleFunc(allElse, s.alone)
		return s.guard(mux)
	}
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/local", s.local)
	mux.HandleFunc("GET /v1/why/{group}", s.why)
	mux.HandleFunc("GET /v1/history", s.history)
	mux.HandleFunc("GET /v1/keys", s.keys)
	mux.HandleFunc("POST /v1/standby", s.standby)
	mux.HandleFunc("POST /v1/takeover", s.takeover)
	mux.HandleFunc("POST /v1/apply", s.apply)
	mux.HandleFunc("POST /v1/restart", s.restart)
	mux.HandleFunc("GET /v1/fence/history", s.fenceHistory)
	mux.HandleFunc("POST /v1/fence", s.fence)
	mux.HandleFunc("POST /v1/fence/confirm", s.fenceConfirm)
	mux.HandleFunc("POST /v1/fence/test", s.fenceTest)
	mux.HandleFunc("POST /v1/quorum/confirm", s.quorumConfirm)
	mux.HandleFunc("POST /v1/node/add", s.addNode)
	mux.HandleFunc("POST /v1/node/remove", s.removeNode)
	mux.HandleFunc("GET /v1/real", s.realOrders)
	mux.HandleFunc("POST /v1/real", s.orderReal)
	mux.HandleFunc("POST /v1/keys/add", s.addKey)
	mux.HandleFunc("POST /v1/keys/use", s.useKey)
	mux.HandleFunc("POST /v1/keys/remove", s.removeKey)
	mux.HandleFunc(allElse, func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, http.StatusNotFound, Error{Error: "this daemon knows no " + r.Method + " " + r.URL.Path + "; run the same version of keepbeat everywhere"})
	})
	return s.guard(mux)
}

// allElse is the pattern of what nobody here does.
const allElse = "/"

// needs is what somebody has to be allowed for a request.
func needs(r *http.Request) right {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return look
	}
	return order
}

// ordered is where the answer to an order goes; the log has what came of it.
type ordered struct {
	http.ResponseWriter
	fault string
}

// Unwrap is for http.ResponseController.
func (o *ordered) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// guard lets in who may, bounds what is read of him, and notes who he is. An
// order is in the log when it comes, and again when it was answered with an error.
func (s *server) guard(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Of a body that nobody wants the server reads some, too.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.cfg.Patience)) // a test's writer has no deadline, and no peer that could dawdle
		p, known := r.Context().Value(peerKey{}).(peer)
		if !known {
			p.uid = -1
		}
		need := needs(r)
		if s.access.of(p) < need {
			w.Header().Set("Connection", "close")
			why := s.access.refusal(p, need)
			if _, pattern := mux.Handler(r); need == order && pattern != allElse && s.denied.say(p.uid, time.Now()) {
				s.cfg.Logger.Warn("order refused", "what", r.URL.Path, "by", userName(p.uid), "why", why)
			}
			s.answer(w, http.StatusForbidden, Error{Error: why})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if need == look {
			mux.ServeHTTP(w, r)
			return
		}
		by, fault := userName(p.uid), "order refused"
		if _, pattern := mux.Handler(r); pattern != allElse {
			fault = "order answered with an error"
			s.cfg.Logger.Info("order", "what", r.URL.Path, "by", by)
		}
		o := &ordered{ResponseWriter: w}
		mux.ServeHTTP(o, r.WithContext(cluster.WithOrder(r.Context(), cluster.Order{By: by})))
		if o.fault != "" {
			s.cfg.Logger.Warn(fault, "what", r.URL.Path, "by", by, "why", o.fault)
		}
	})
}

// Error is the body of an answer that is not 200.
type Error struct {
	Error string `json:"error"`
	// Files says that Error lists faults of the configuration files, one a line.
	Files bool `json:"files,omitempty"`
	// Force says that the same order with force is done.
	Force bool `json:"force,omitempty"`
	// Unknown says that the order may have been done all the same.
	Unknown bool `json:"unknown,omitempty"`
}

func (s *server) answer(w http.ResponseWriter, code int, v any) {
	if e, faulty := v.(Error); faulty {
		if o, ok := w.(*ordered); ok {
			o.fault = e.Error
		}
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.cfg.Patience)) // for who does not read
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.cfg.Logger.Debug("control socket", "err", err)
	}
}

func (s *server) result(w http.ResponseWriter, v any, err error) {
	if err != nil {
		var fault *conf.Error
		var costly *cluster.ForceError
		var unknown *consensus.UnknownError
		e := Error{Error: err.Error(), Files: errors.As(err, &fault), Force: errors.As(err, &costly), Unknown: errors.As(err, &unknown)}
		code := http.StatusConflict
		if e.Unknown {
			code = http.StatusGatewayTimeout
		}
		s.answer(w, code, e)
		return
	}
	s.answer(w, http.StatusOK, v)
}

func (s *server) status(w http.ResponseWriter, r *http.Request) {
	st := s.cfg.Node.Status(r.Context())
	st.Trouble = append(st.Trouble, AnnouncerTrouble(st)...)
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
	Which string `json:"which"`           // all, local, foreign, failback
	To    string `json:"to,omitempty"`    // standby only
	Wait  int64  `json:"wait,omitempty"`  // milliseconds to wait for the end; 0: do not
	Force bool   `json:"force,omitempty"` // standby only: groups that nobody else can have, too
	Dry   bool   `json:"dry,omitempty"`   // standby only: what would happen
}

// Moves is their answer.
type Moves struct {
	Moved   []cluster.Moved `json:"moved"`
	Settled bool            `json:"settled"`
	// StopCost says, after a dry run, what the cluster would lose if keepbeat were stopped here.
	StopCost string `json:"stop_cost,omitempty"`
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
		return s.cfg.Node.Standby(cluster.ExtendOrder(ctx, m.Force, m.Dry), which, m.To)
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
	if m.Dry {
		out.StopCost = s.cfg.Node.StopCost()
	} else if m.Wait > 0 {
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
	if err := s.read(w, r, v); err != nil {
		s.answer(w, http.StatusBadRequest, Error{Error: "request: " + err.Error()})
		return false
	}
	return true
}

// read reads a request's body. Only that has a deadline: a handler may wait for
// a move much longer, and a deadline that passes meanwhile would end its context.
func (s *server) read(w http.ResponseWriter, r *http.Request, v any) error {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // as above
	return decode(b, v)
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
	// Force applies although most of what runs would stop.
	Force bool `json:"force,omitempty"`
}

func (s *server) apply(w http.ResponseWriter, r *http.Request) {
	var a Apply
	if !s.body(w, r, &a) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 3*commandTimeout)
	defer cancel()
	c, err := s.cfg.Node.Apply(cluster.ExtendOrder(ctx, a.Force, a.Dry), a.Base, a.Dry)
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
	_ = http.NewResponseController(w).Flush() // the answer, before the process is another one
	s.cfg.Restart()
}
