package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
)

// Keys is the answer of GET /v1/keys.
type Keys struct {
	Nodes []cluster.NodeKeys `json:"nodes"`
}

// KeyText is a key in a request; it prints as stars.
type KeyText string

// Format writes stars, whatever the verb.
func (KeyText) Format(f fmt.State, verb rune) { conf.Secret{}.Format(f, verb) }

// Key is the body of keys/add, keys/use and keys/remove.
type Key struct {
	Index int     `json:"index,omitempty"` // 1 to 15; add only, 0: a free one
	Key   KeyText `json:"key,omitempty"`   // add only; empty: the one that this node holds under the number
	Force bool    `json:"force,omitempty"` // remove only
}

func (s *server) keys(w http.ResponseWriter, r *http.Request) {
	s.answer(w, http.StatusOK, Keys{s.cfg.Node.Keys(r.Context())})
}

func (s *server) addKey(w http.ResponseWriter, r *http.Request) {
	s.changeKey(w, r, func(ctx context.Context, k Key) (cluster.KeyChange, error) {
		return s.cfg.Node.AddKey(ctx, k.Index, conf.NewSecret(string(k.Key)))
	})
}

func (s *server) useKey(w http.ResponseWriter, r *http.Request) {
	s.changeKey(w, r, func(ctx context.Context, k Key) (cluster.KeyChange, error) { return s.cfg.Node.UseKey(ctx, k.Index) })
}

func (s *server) removeKey(w http.ResponseWriter, r *http.Request) {
	s.changeKey(w, r, func(ctx context.Context, k Key) (cluster.KeyChange, error) { return s.cfg.Node.RemoveKey(ctx, k.Index) })
}

func (s *server) changeKey(w http.ResponseWriter, r *http.Request, do func(context.Context, Key) (cluster.KeyChange, error)) {
	var k Key
	if err := s.read(w, r, &k); err != nil {
		// The reason could hold what was sent, and that could be a key.
		s.answer(w, http.StatusBadRequest, Error{Error: "request: it is not as this version of keepbeat wants it"})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 3*commandTimeout)
	defer cancel()
	c, err := do(cluster.ExtendOrder(ctx, k.Force, false), k)
	s.result(w, c, err)
}
