package netdev

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/resources/vrrp"
)

// strangerFor is how long a virtual router that nobody here has is told of: longer
// than the longest interval of VRRP, 255 s.
const strangerFor = 10 * time.Minute

// strangers are those that a port has heard, 255 at most.
type strangers struct {
	mu  sync.Mutex // guards all
	all map[uint8]vrrp.Stranger
}

// hear notes a packet that was for nobody.
func (s *strangers) hear(dev string, p *vrrp.Packet, now time.Time) {
	vrid := p.Payload[1]
	if vrid == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[uint8]vrrp.Stranger{}
	}
	s.all[vrid] = vrrp.Stranger{Interface: dev, VRID: vrid, From: p.From, At: now, Count: s.all[vrid].Count + 1}
}

// forget drops one that is none any more.
func (s *strangers) forget(vrid uint8) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, vrid)
}

// Strangers is vrrp.Host's.
func (h *Host) Strangers() []vrrp.Stranger {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []vrrp.Stranger
	now := time.Now()
	for _, p := range h.ports {
		p.strangers.mu.Lock()
		for _, o := range p.strangers.all {
			if now.Sub(o.At) < strangerFor {
				all = append(all, o)
			}
		}
		p.strangers.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b vrrp.Stranger) int {
		return cmp.Or(cmp.Compare(a.Interface, b.Interface), cmp.Compare(a.VRID, b.VRID), a.From.Compare(b.From))
	})
	return all
}
