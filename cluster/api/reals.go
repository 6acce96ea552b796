package api

import (
	"context"
	"net/http"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
)

// RealOrderer gives orders for real servers.
type RealOrderer interface {
	OrderReal(ctx context.Context, server string, order *conf.RealOrder) ([]cluster.RealOrdered, error)
	RealOrders() []cluster.RealOrdered
}

// Real is the body of real: an order for a real server.
type Real struct {
	Server string          `json:"server"`          // ADDRESS[:PORT], or the name that it has in the pools
	Order  *conf.RealOrder `json:"order,omitempty"` // absent: enable
	Force  bool            `json:"force,omitempty"`
}

// Reals is its answer: the servers that were meant, or all that have an order.
type Reals struct {
	Servers []cluster.RealOrdered `json:"servers"`
}

func (s *server) orderReal(w http.ResponseWriter, r *http.Request) {
	var real Real
	if !s.body(w, r, &real) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), commandTimeout)
	defer cancel()
	all, err := s.cfg.Node.OrderReal(cluster.ExtendOrder(ctx, real.Force, false), real.Server, real.Order)
	s.result(w, Reals{all}, err)
}

func (s *server) realOrders(w http.ResponseWriter, _ *http.Request) {
	s.answer(w, http.StatusOK, Reals{s.cfg.Node.RealOrders()})
}
