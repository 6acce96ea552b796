package ipvs

import (
	"encoding/json"
	"net/netip"
	"slices"

	"github.com/keepbeat/keepbeat/conf"
)

// earlier is what an earlier daemon of this node has left of a service in the
// table. What that shows has been told: when a daemon is replaced nothing has
// happened that anybody has to hear of.
type earlier struct {
	serves bool // a server had a weight
	stood  bool // a fallback stood for the servers
}

// told is the state of a server that an earlier daemon has told; now's own when
// the table does not say which; empty: there was no earlier daemon.
func (in input) told(a netip.AddrPort, now verdict) string {
	switch {
	case in.earlier == nil:
		return ""
	case in.assumed(a):
		return StateUp
	case in.stood(a), in.kept(a) && (in.earlier.stood || now.state == StateUp && now.weight == 0):
		return now.state // up or down: it had this weight either way
	}
	return StateDown
}

// toldQuorum is what an earlier daemon has told of quorum; undecided: there was none.
func (in input) toldQuorum(v *conf.Virtual, now quorum) quorum {
	switch {
	case in.earlier == nil:
		return undecided
	case slices.ContainsFunc(v.Reals, func(r conf.Real) bool { return in.stood(plain(r.Address)) }):
		return now // the last server, or the fallback that it is, too
	case in.earlier.stood || !in.earlier.serves:
		return lost
	case v.Quorum > 1 && len(v.Fallbacks) == 0:
		return now // servers go on without quorum when there is no fallback
	}
	return met
}

// Adopt implements resources.Adopter: which services an earlier daemon had, and
// what the kernel's settings were before it changed them, is known from its
// record only. A service that the pool has no more goes when it is started.
func (p *pool) Adopt(raw json.RawMessage) error {
	r, err := parseRecord(raw)
	if err != nil {
		return err
	}
	p.maker.shared.adopt(r.Kernel)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == nil {
		p.left = map[Key]bool{}
	}
	for _, s := range r.Services {
		if k, err := s.key(); err == nil { // parseRecord has seen it
			p.left[k], p.owned[k] = true, s.CleanStop
		}
	}
	return nil
}

// yield gives up what an earlier daemon had for this pool and another pool serves by now.
func (p *pool) yield() {
	p.mu.Lock()
	var keys []Key
	for k := range p.left {
		keys = append(keys, k)
	}
	p.mu.Unlock()
	ours := map[Key]bool{}
	for _, k := range p.maker.notOfOthers(p, keys) {
		ours[k] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range p.left {
		if !ours[k] {
			delete(p.left, k)
			delete(p.owned, k)
		}
	}
}
