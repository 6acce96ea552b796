package api

import (
	"net/http"
	"strings"

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

// instead is what does for virtual routers alone what a request would do in a
// cluster, by the first word of the request.
var instead = map[string]string{
	"standby":  "a track_file without weight takes a virtual router out, as does `systemctl stop keepbeat`",
	"takeover": "a higher priority in vrrp.yaml and `keepbeat vrrp reload` take the addresses",
	"apply":    "`keepbeat vrrp reload` reads vrrp.yaml and its pools again",
	"real":     "a file in maintenancedir takes a real server out, a weight in the pool's file counts after `keepbeat vrrp reload`",
	"why":      "`keepbeat vrrp` says what is, and `journalctl -u keepbeat` what was",
	"history":  "`journalctl -u keepbeat` has what was",
}

// alone answers what only a node of a cluster knows.
func (s *server) alone(w http.ResponseWriter, r *http.Request) {
	word, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
	text := "this is for a node of a cluster (ha.yaml), and this machine runs virtual routers alone (vrrp.yaml)"
	if way := instead[word]; way != "" {
		text += ": " + way
	}
	s.answer(w, http.StatusConflict, Error{Error: text})
}
