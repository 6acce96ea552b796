package api

import (
	"context"
	"net/http"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/fencing"
)

// Fencer is what the control socket needs of a node for fencing and pairs.
type Fencer interface {
	Fence(ctx context.Context, node string) (cluster.FenceOrdered, error)
	FenceWait(ctx context.Context, r cluster.FenceOrdered) (state.FenceRecord, error)
	FenceConfirm(ctx context.Context, node string) error
	FenceTest(ctx context.Context, device string) ([]fencing.DeviceStatus, error)
	FenceHistory(node string) []state.FenceRecord
	Confirm(ctx context.Context) error
}

// Fence is the body of fence.
type Fence struct {
	Node  string `json:"node"`
	Dry   bool   `json:"dry,omitempty"`   // only say what would be done
	Force bool   `json:"force,omitempty"` // also if the quorum would be lost
	Wait  int64  `json:"wait,omitempty"`  // milliseconds to wait for the end; 0: do not
}

// Fenced is its answer.
type Fenced struct {
	Ordered cluster.FenceOrdered `json:"ordered"`
	Record  *state.FenceRecord   `json:"record,omitempty"` // when it was waited for
}

// FenceHistory is the answer of fence/history: oldest first.
type FenceHistory struct {
	Fences []state.FenceRecord `json:"fences"`
}

// FenceDevices is the answer of fence/test.
type FenceDevices struct {
	Devices []fencing.DeviceStatus `json:"devices"`
}

// Named is the body of fence/confirm (a node) and of fence/test (a device; empty: all).
type Named struct {
	Name string `json:"name"`
}

// Confirm is the body of quorum/confirm.
type Confirm struct {
	Force bool `json:"force,omitempty"`
	Dry   bool `json:"dry,omitempty"` // only say whether it would be refused
}

// testTime bounds a look at fencing devices: their own time-outs are shorter.
const testTime = 5 * time.Minute

func (s *server) fence(w http.ResponseWriter, r *http.Request) {
	var f Fence
	if !s.body(w, r, &f) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), commandTimeout)
	defer cancel()
	o, err := s.cfg.Node.Fence(cluster.ExtendOrder(ctx, f.Force, f.Dry), f.Node)
	if err != nil || f.Wait <= 0 || f.Dry {
		s.result(w, Fenced{Ordered: o}, err)
		return
	}
	wctx, cancel := context.WithTimeout(r.Context(), time.Duration(min(f.Wait, maxWait.Milliseconds()))*time.Millisecond)
	defer cancel()
	rec, err := s.cfg.Node.FenceWait(wctx, o)
	s.result(w, Fenced{o, &rec}, err)
}

func (s *server) fenceConfirm(w http.ResponseWriter, r *http.Request) {
	var n Named
	if !s.body(w, r, &n) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), commandTimeout)
	defer cancel()
	s.result(w, struct{}{}, s.cfg.Node.FenceConfirm(ctx, n.Name))
}

func (s *server) fenceTest(w http.ResponseWriter, r *http.Request) {
	var n Named
	if !s.body(w, r, &n) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), testTime)
	defer cancel()
	d, err := s.cfg.Node.FenceTest(ctx, n.Name)
	s.result(w, FenceDevices{d}, err)
}

func (s *server) fenceHistory(w http.ResponseWriter, r *http.Request) {
	s.answer(w, http.StatusOK, FenceHistory{s.cfg.Node.FenceHistory(r.URL.Query().Get("node"))})
}

func (s *server) quorumConfirm(w http.ResponseWriter, r *http.Request) {
	var c Confirm
	if !s.body(w, r, &c) {
		return
	}
	s.result(w, struct{}{}, s.cfg.Node.Confirm(cluster.ExtendOrder(r.Context(), c.Force, c.Dry)))
}
