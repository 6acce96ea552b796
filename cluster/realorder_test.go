package cluster

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// shop is a specification with two pools that share servers.
func shop() *conf.Spec {
	real := func(address, host string, weight int) conf.Real {
		return conf.Real{Address: netip.MustParseAddrPort(address), Host: host, Weight: weight, Check: conf.Check{Type: conf.Ping}}
	}
	web := conf.Virtual{Address: netip.MustParseAddrPort("192.0.2.1:80"), Protocol: conf.TCP, Reals: []conf.Real{real("10.0.0.1:80", "www1", 1), real("10.0.0.2:80", "www2", 1)}}
	tls := conf.Virtual{Address: netip.MustParseAddrPort("192.0.2.1:443"), Protocol: conf.TCP, Reals: []conf.Real{real("10.0.0.1:443", "www1", 1), real("10.0.0.3:443", "", 0)}}
	mark := conf.Virtual{FWMark: 5, Protocol: conf.FWM, Reals: []conf.Real{real("10.0.0.4:0", "", 1), real("10.0.0.5:0", "", 1)}}
	return &conf.Spec{Pools: map[string]conf.Pool{"a.yaml": {Virtuals: []conf.Virtual{web, tls}}, "b.yaml": {Virtuals: []conf.Virtual{mark}}}}
}

func TestWhichRealServersAWordMeans(t *testing.T) {
	for word, want := range map[string]string{
		"10.0.0.1:80":          "10.0.0.1:80",
		"10.0.0.1":             "10.0.0.1:80 10.0.0.1:443",
		"::ffff:10.0.0.1":      "10.0.0.1:80 10.0.0.1:443",
		"[::ffff:10.0.0.2]:80": "10.0.0.2:80",
		"www1":                 "10.0.0.1:80 10.0.0.1:443",
		"WWW1:443":             "10.0.0.1:443",
		"10.0.0.4":             "10.0.0.4:0",
		"10.0.0.9":             `no pool has a real server "10.0.0.9"; there are 10.0.0.3:443, 10.0.0.4, 10.0.0.5, www1, www2`,
		"192.0.2.1:80":         "192.0.2.1:80 is no real server but a virtual service; its real servers are www1, www2",
		"192.0.2.1":            "192.0.2.1 is no real server but a virtual service; its real servers are 10.0.0.3:443, www1, www2",
		"":                     `no pool has a real server ""; there are 10.0.0.3:443, 10.0.0.4, 10.0.0.5, www1, www2`,
	} {
		got, err := realsNamed(shop(), word)
		var words []string
		for _, a := range got {
			words = append(words, a.String())
		}
		text := strings.Join(words, " ")
		if err != nil {
			text = err.Error()
		}
		if text != want {
			t.Errorf("%q: %s, want %s", word, text, want)
		}
	}
}

func TestWhatAnOrderWouldLeaveEmpty(t *testing.T) {
	ap := netip.MustParseAddrPort
	drain, seven, none := conf.RealOrder{Action: conf.RealDrain}, conf.RealOrder{Action: conf.RealWeight, Weight: 7}, conf.RealOrder{Action: conf.RealWeight}
	for name, c := range map[string]struct {
		before  map[netip.AddrPort]conf.RealOrder
		servers []netip.AddrPort
		order   conf.RealOrder
		want    string
	}{
		"one of two":                   {nil, []netip.AddrPort{ap("10.0.0.1:80")}, drain, ""},
		"the last one with a weight":   {nil, []netip.AddrPort{ap("10.0.0.1:443")}, drain, "virtual service 192.0.2.1:443 tcp of a.yaml would have no real server that takes new connections"},
		"a weight is no such order":    {nil, []netip.AddrPort{ap("10.0.0.1:443")}, seven, ""},
		"but the weight 0 is":          {nil, []netip.AddrPort{ap("10.0.0.1:443")}, none, "virtual service 192.0.2.1:443 tcp of a.yaml would have no real server that takes new connections"},
		"the second of two":            {map[netip.AddrPort]conf.RealOrder{ap("10.0.0.4:0"): drain}, []netip.AddrPort{ap("10.0.0.5:0")}, drain, "virtual service fwmark 5 of b.yaml would have no real server that takes new connections"},
		"what is empty stays so":       {map[netip.AddrPort]conf.RealOrder{ap("10.0.0.4:0"): drain, ap("10.0.0.5:0"): drain}, []netip.AddrPort{ap("10.0.0.5:0")}, drain, ""},
		"an order gave one its weight": {map[netip.AddrPort]conf.RealOrder{ap("10.0.0.3:443"): seven}, []netip.AddrPort{ap("10.0.0.1:443")}, drain, ""},
	} {
		t.Run(name, func(t *testing.T) {
			st := &state.State{Spec: shop(), Orders: c.before}
			if got := emptied(st, c.servers, c.order); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestTheCommandThatARefusalNamesIsWholeAndCanBePasted(t *testing.T) {
	for want, o := range map[string]conf.RealOrder{
		"keepbeat real drain www1":                                {Action: conf.RealDrain},
		"keepbeat real weight www1 0 --for 10m0s":                 {Action: conf.RealWeight, For: 10 * time.Minute},
		`keepbeat real disable www1 --reason 'Ann'\''s new disk'`: {Action: conf.RealDisable, Reason: "Ann's new disk"},
	} {
		if got := typed("www1", o); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
