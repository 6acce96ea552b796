package api

import (
	"context"
	"net/http"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
)

// NodeChanger is what the control socket needs of a node to change the nodes.
type NodeChanger interface {
	AddNode(ctx context.Context, name string, role conf.Role) (cluster.NodesChanged, error)
	RemoveNode(ctx context.Context, name string, rule conf.Quorum) (cluster.NodesChanged, error)
}

// NodeChange is the body of node/add and node/remove.
type NodeChange struct {
	Node    string `json:"node"`
	Witness bool   `json:"witness,omitempty"` // add: it votes and owns nothing
	Quorum  string `json:"quorum,omitempty"`  // remove: what decides when two are left: fencing, ping, unsafe
	Force   bool   `json:"force,omitempty"`
	Dry     bool   `json:"dry,omitempty"`
}

func (s *server) addNode(w http.ResponseWriter, r *http.Request) {
	var c NodeChange
	if !s.body(w, r, &c) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), commandTimeout)
	defer cancel()
	role := conf.Director
	if c.Witness {
		role = conf.Witness
	}
	v, err := s.cfg.Node.AddNode(cluster.ExtendOrder(ctx, c.Force, c.Dry), c.Node, role)
	s.result(w, v, err)
}

func (s *server) removeNode(w http.ResponseWriter, r *http.Request) {
	var c NodeChange
	if !s.body(w, r, &c) {
		return
	}
	var rule conf.Quorum
	if c.Quorum != "" {
		if err := rule.UnmarshalText([]byte(c.Quorum)); err != nil {
			s.result(w, nil, err)
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), commandTimeout)
	defer cancel()
	v, err := s.cfg.Node.RemoveNode(cluster.ExtendOrder(ctx, c.Force, c.Dry), c.Node, rule)
	s.result(w, v, err)
}
