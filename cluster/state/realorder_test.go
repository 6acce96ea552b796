package state

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// poolOf is a pool whose only virtual service has these real servers.
func poolOf(reals ...string) *conf.Spec {
	v := conf.Virtual{Address: netip.MustParseAddrPort("192.0.2.1:80"), Protocol: conf.TCP}
	for _, r := range reals {
		v.Reals = append(v.Reals, conf.Real{Address: netip.MustParseAddrPort(r), Forward: conf.Gate, Weight: 1})
	}
	v.Fallbacks = []conf.Real{{Address: netip.MustParseAddrPort("127.0.0.1:80"), Forward: conf.Gate, Weight: 1}}
	return &conf.Spec{Pools: map[string]conf.Pool{"p.yaml": {Virtuals: []conf.Virtual{v}}}}
}

func realsCommand(order *conf.RealOrder, servers ...string) Command {
	c := Command{At: time.Unix(100, 0), Reals: &SetReals{Order: order}}
	for _, s := range servers {
		c.Reals.Servers = append(c.Reals.Servers, netip.MustParseAddrPort(s))
	}
	return c
}

func ordersText(s *State) string {
	var all []string
	for a, o := range s.Orders {
		all = append(all, a.String()+" "+o.String())
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

func TestOrdersForRealServers(t *testing.T) {
	drain := &conf.RealOrder{Action: conf.RealDrain, By: "alice"}
	seven := &conf.RealOrder{Action: conf.RealWeight, Weight: 7}
	begin := func(t *testing.T) *State {
		admit := admitOf("a", 11, 0)
		admit.Admit.Format = Format
		return play(t, New(), admit, Command{Upgrade: &Upgrade{Format: 2}}, Command{Upgrade: &Upgrade{Format: 3}},
			Command{Spec: &SetSpec{Spec: poolOf("10.0.0.1:80", "10.0.0.2:80")}})
	}
	for name, c := range map[string]struct {
		before  []Command
		command Command
		refused string
		then    string
	}{
		"an order":                        {nil, realsCommand(drain, "10.0.0.1:80"), "", "10.0.0.1:80 drained by alice"},
		"for several":                     {nil, realsCommand(drain, "10.0.0.1:80", "10.0.0.2:80"), "", "10.0.0.1:80 drained by alice; 10.0.0.2:80 drained by alice"},
		"a fallback may have one, too":    {nil, realsCommand(drain, "127.0.0.1:80"), "", "127.0.0.1:80 drained by alice"},
		"the later one counts":            {[]Command{realsCommand(drain, "10.0.0.1:80")}, realsCommand(seven, "10.0.0.1:80"), "", "10.0.0.1:80 weight 7 ordered by an operator"},
		"taken back":                      {[]Command{realsCommand(drain, "10.0.0.1:80", "10.0.0.2:80")}, realsCommand(nil, "10.0.0.1:80"), "", "10.0.0.2:80 drained by alice"},
		"taken back without having one":   {nil, realsCommand(nil, "10.0.0.1:80"), "", ""},
		"a server that no pool has":       {nil, realsCommand(drain, "10.0.0.1:80", "10.0.0.9:80"), "no pool of version 1 has the real server 10.0.0.9:80", ""},
		"a weight that cannot be":         {nil, realsCommand(&conf.RealOrder{Action: conf.RealWeight, Weight: 70000}, "10.0.0.1:80"), "does not know", ""},
		"an action of a newer version":    {nil, realsCommand(&conf.RealOrder{Action: 9}, "10.0.0.1:80"), "does not know", ""},
		"a new version keeps orders":      {[]Command{realsCommand(drain, "10.0.0.1:80")}, Command{Spec: &SetSpec{Base: 1, Spec: poolOf("10.0.0.1:80", "10.0.0.3:80")}}, "", "10.0.0.1:80 drained by alice"},
		"and drops those of gone servers": {[]Command{realsCommand(drain, "10.0.0.1:80")}, Command{Spec: &SetSpec{Base: 1, Spec: poolOf("10.0.0.2:80")}}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := play(t, begin(t), c.before...)
			before := ordersText(s)
			after, r := s.Apply(s.Index+1, c.command)
			if c.refused == "" && r.Refused != "" || !strings.Contains(r.Refused, c.refused) {
				t.Errorf("refused %q, want %q", r.Refused, c.refused)
			}
			if got := ordersText(after); got != c.then {
				t.Errorf("then %q, want %q", got, c.then)
			}
			if ordersText(s) != before {
				t.Error("the state that was handed out has changed")
			}
		})
	}
}

func TestAnOrderThatHasRunOutIsTakenBackOnlyIfItIsStillTheSame(t *testing.T) {
	admit := admitOf("a", 11, 0)
	admit.Admit.Format = Format
	hour := &conf.RealOrder{Action: conf.RealDrain, For: time.Hour}
	s := play(t, New(), admit, Command{Upgrade: &Upgrade{Format: 2}}, Command{Upgrade: &Upgrade{Format: 3}},
		Command{Spec: &SetSpec{Spec: poolOf("10.0.0.1:80")}}, realsCommand(hour, "10.0.0.1:80"))
	first := s.Orders[netip.MustParseAddrPort("10.0.0.1:80")].N
	if first != s.Index {
		t.Fatalf("N %d, index %d", first, s.Index)
	}
	s = play(t, s, realsCommand(hour, "10.0.0.1:80"))
	end := realsCommand(nil, "10.0.0.1:80")
	end.Reals.Was = first
	if s = play(t, s, end); len(s.Orders) != 1 {
		t.Error("a newer order was taken back")
	}
	end.Reals.Was = s.Orders[netip.MustParseAddrPort("10.0.0.1:80")].N
	if s = play(t, s, end); s.Orders != nil {
		t.Errorf("orders: %v", s.Orders)
	}
	if last := s.Decisions[len(s.Decisions)-1].Text; last != "real server 10.0.0.1:80: enabled again, the time of the order is over" {
		t.Errorf("history: %s", last)
	}
}

func TestAnEarlierFormatKnowsNoOrdersForRealServers(t *testing.T) {
	s := play(t, begun(t), Command{Spec: &SetSpec{Base: 1, Spec: poolOf("10.0.0.1:80")}})
	after, r := s.Apply(s.Index+1, realsCommand(&conf.RealOrder{Action: conf.RealDrain}, "10.0.0.1:80"))
	if r.Refused == "" || after.Orders != nil {
		t.Errorf("refused %q, orders %v", r.Refused, after.Orders)
	}
}

func TestOrdersForRealServersAreBounded(t *testing.T) {
	admit := admitOf("a", 11, 0)
	admit.Admit.Format = Format
	var servers []string
	for i := range maxOrders + 1 {
		servers = append(servers, fmt.Sprintf("10.%d.%d.%d:80", i>>16, i>>8&255, i&255))
	}
	s := play(t, New(), admit, Command{Upgrade: &Upgrade{Format: 2}}, Command{Upgrade: &Upgrade{Format: 3}}, Command{Spec: &SetSpec{Spec: poolOf(servers...)}})
	after, r := s.Apply(s.Index+1, realsCommand(&conf.RealOrder{Action: conf.RealDrain}, servers...))
	if !strings.HasPrefix(r.Refused, "more than 10000 real servers have orders") || after.Orders != nil {
		t.Errorf("refused %q, %d orders", r.Refused, len(after.Orders))
	}
}
