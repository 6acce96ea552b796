package api

import (
	"net/http"

	"github.com/keepbeat/keepbeat/resources/vrrp/site"
)

// Routers is what vrrp.yaml has on this machine: a *site.Site with its file.
type Routers interface {
	Status() site.Status
	// Reload reads the file again. A faulty one changes nothing; the error names its faults.
	Reload() error
}

// VRRP is the answer of vrrp.
type VRRP struct {
	// Alone says that this machine is no node of a cluster.
	Alone   bool         `json:"alone,omitempty"`
	Routers *site.Status `json:"vrrp,omitempty"` // absent: there is no vrrp.yaml here
}

func (s *server) vrrp(w http.ResponseWriter, _ *http.Request) {
	a := VRRP{Alone: s.cfg.Node == nil}
	if s.cfg.Routers != nil {
		st := s.cfg.Routers.Status()
		a.Routers = &st
	}
	s.answer(w, http.StatusOK, a)
}

func (s *server) reloadRouters(w http.ResponseWriter, _ *http.Request) {
	if s.cfg.Routers == nil {
		s.answer(w, http.StatusConflict, Error{Error: "this daemon has no vrrp.yaml; it is read when keepbeat starts, so `keepbeat restart` begins with a new one"})
		return
	}
	if err := s.cfg.Routers.Reload(); err != nil {
		s.result(w, nil, err)
		return
	}
	s.vrrp(w, nil)
}

// alone answers what only a node of a cluster knows.
func (s *server) alone(w http.ResponseWriter, r *http.Request) {
	s.answer(w, http.StatusConflict, Error{Error: "this machine runs virtual routers alone (vrrp.yaml) and is no node of a cluster (ha.yaml): it knows no " + r.Method + " " + r.URL.Path})
}
