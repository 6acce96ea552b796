package ipvs

import (
	"net/netip"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// partingTime is how long a fallback that answers no more stays with weight 0:
// the kernel drops the packets of a server that it has no more, and the answers
// that it has begun would hang. A page that says sorry is short.
const partingTime = 10 * time.Second

// parts tells whether a fallback of a service ends its answers. It does as real
// servers do, with quiescent. The schedulers that hash give a server of weight 0
// its share of the clients, and refuse these (net/netfilter/ipvs/ip_vs_sh.c, ip_vs_dh.c, ip_vs_mh.c).
func parts(v *conf.Virtual) bool {
	switch v.Scheduler {
	case "sh", "dh", "mh":
		return false
	}
	return v.Quiescent
}

// part finds the fallbacks that have yet to end their answers.
func (s *service) part(v *conf.Virtual, in input, d *decision) {
	if len(s.parting) == 0 {
		return
	}
	left := map[netip.AddrPort]time.Time{}
	for i, f := range v.Fallbacks {
		a := plain(f.Address)
		if until := s.parting[a]; i != d.fallback && parts(v) && until.After(in.now) {
			left[a] = until
			d.parting = append(d.parting, i)
			d.wake(in.now, until)
		}
	}
	s.parting = left
}
