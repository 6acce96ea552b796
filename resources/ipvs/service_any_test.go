package ipvs

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
)

// Whatever happens in whatever order, these hold of a service:
// deciding twice is deciding once; the next time is later; the fallback and the
// servers never get requests at once; with quorum, and with any server of
// weight at all, there is somebody to answer; who does not serve has no weight.
func TestServiceWhateverHappens(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 4))
		v := virtual("10.0.0.1:80")
		v.Quorum, v.Hysteresis = r.IntN(8), 0
		v.Hysteresis = r.IntN(max(v.Quorum, 1))
		v.Quiescent, v.Alpha, v.Omega = r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0
		v.SlowStart = time.Duration(r.IntN(3)) * 5 * time.Second
		v.Email.Every = time.Duration(r.IntN(2)) * 30 * time.Second
		for i := range r.IntN(5) {
			s := real(fmt.Sprintf("10.0.0.%d:80", 5+i), conf.Gate, r.IntN(12))
			if r.IntN(2) == 0 {
				also := s.Check
				also.Target = netip.AddrPortFrom(s.Address.Addr(), 81)
				s.Also = append(s.Also, also)
			}
			v.Reals = append(v.Reals, s)
		}
		for i := range r.IntN(3) {
			f := real(fmt.Sprintf("10.1.0.%d:80", 1+i), conf.Masq, 1+r.IntN(3))
			if r.IntN(2) == 0 {
				f.Check = conf.Check{}
			}
			v.Fallbacks = append(v.Fallbacks, f)
		}
		health := map[conf.Check]checks.Status{}
		orders := map[netip.AddrPort]Order{}
		file := ""
		in := inputOf(func(c conf.Check) checks.Status { return health[c] })
		in.assumed = func(a netip.AddrPort) bool { return seed%3 == 0 }
		in.order = func(a netip.AddrPort) (Order, bool) { o, found := orders[a]; return o, found }
		in.file = func(r conf.Real) string {
			if r.Address.String() == file {
				return file
			}
			return ""
		}
		in.checked = func(conf.Check) time.Time { return in.now.Add(-time.Duration(seed%5) * time.Second) }
		var s service
		for step := range 60 {
			all := append(append([]conf.Real{}, v.Reals...), v.Fallbacks...)
			if len(all) > 0 {
				x := all[r.IntN(len(all))]
				c := x.Check
				if len(x.Also) > 0 && r.IntN(2) == 0 {
					c = x.Also[0]
				}
				switch r.IntN(8) {
				case 0, 1, 2:
					health[c] = checks.Status{Known: true, Up: true, OK: true, Weighed: r.IntN(4) == 0, Weight: r.IntN(20)}
				case 3, 4:
					health[c] = checks.Status{Known: true, Detail: "refused"}
				case 5:
					orders[plain(x.Address)] = []Order{{Action: Drain}, {Action: Disable}, {Action: SetWeight, Weight: r.IntN(9)}}[r.IntN(3)]
				case 6:
					clear(orders)
					file = ""
				case 7:
					file = x.Address.String()
					s.removed(plain(x.Address), in.now)
				}
			}
			in.now = in.now.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
			d := s.step(v, in)
			again := s.step(v, in)
			fail := func(what string) {
				t.Fatalf("seed %d, step %d: %s\n%s%+v", seed, step, what, Text([]Entry{d.entry}), d)
			}
			if len(again.events) != 0 || Text([]Entry{again.entry}) != Text([]Entry{d.entry}) {
				fail("deciding twice is not deciding once")
			}
			if !d.next.IsZero() && !d.next.After(in.now) {
				fail("the next time is not later")
			}
			weights := map[netip.AddrPort]uint32{}
			answering := 0
			for _, dest := range d.entry.Dests {
				if _, twice := weights[dest.Address]; twice {
					fail("a server is there twice")
				}
				weights[dest.Address] = dest.Weight
				if dest.Weight > 0 {
					answering++
				}
			}
			switch {
			case d.fallback >= 0 && answering != 1:
				fail("the fallback does not answer alone")
			case d.fallback >= 0 && d.quorum == met:
				fail("the fallback answers with quorum")
			case d.sum > 0 && answering == 0:
				fail("nobody answers")
			case d.quorum == met && (d.sum == 0 || d.sum < v.Quorum-v.Hysteresis):
				fail("quorum of too little")
			case d.quorum == lost && d.sum >= max(v.Quorum, 1)+v.Hysteresis:
				fail("no quorum of enough")
			}
			for i, st := range d.reals {
				if w := weights[plain(v.Reals[i].Address)]; !st.serves && w > 0 && d.fallback < 0 {
					fail("a server that does not serve has weight")
				}
			}
		}
	}
}
