package netdev

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/rtnl"
)

// route is a virtual route for the kernel.
func (h *Host) route(r conf.VRRPRoute) (rtnl.Route, error) {
	k := rtnl.Route{
		To: r.To, Via: r.Via, Source: r.Source, Table: r.Table, Metric: r.Metric, MTU: r.MTU,
		OnLink: r.OnLink, Scope: r.Scope, Type: r.Type, Protocol: r.Protocol,
	}
	if !r.To.IsValid() {
		return k, errors.New("it has no destination")
	}
	if k.Type == 0 {
		k.Type = unix.RTN_UNICAST
	}
	if k.Protocol == 0 {
		k.Protocol = Mark
	}
	if r.Interface != "" {
		if err := h.view(); err != nil {
			return k, err
		}
		l, ok := h.seen.link(r.Interface)
		h.mu.Unlock()
		if !ok {
			return k, fmt.Errorf("%s: %w", r.Interface, errNoInterface)
		}
		k.Index = l.Index
	}
	return k, nil
}

func (h *Host) addRoute(hold *holding, r conf.VRRPRoute, p *problems) {
	k, err := h.route(r)
	held := slices.Contains(hold.routes, r)
	if err == nil {
		err = h.k.Do(rtnl.AddRoute(k))
	}
	switch {
	case err == nil:
		if !held {
			hold.routes = append(hold.routes, r)
		}
		hold.links[r] = k.Index
	case errors.Is(err, unix.EEXIST) && held:
	case errors.Is(err, unix.EEXIST):
		p.add("route %s: there is one to this destination already that keepbeat has not added; remove it, or give this one another metric", routeText(r))
	default:
		p.add("route %s: %w", routeText(r), err)
	}
}

// removeRoute tells whether it is gone. index is that of the interface it went
// to, which may have another name by now; 0: it goes by the name.
func (h *Host) removeRoute(r conf.VRRPRoute, index int, p *problems) bool {
	if index != 0 {
		r.Interface = ""
	}
	k, err := h.route(r)
	if index != 0 {
		k.Index = index
	}
	if err == nil {
		err = h.k.Do(rtnl.RemoveRoute(k))
	}
	// It went with its interface, or with the address that it leaves from.
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, errNoInterface) {
		p.add("removing route %s: %w", routeText(r), err)
		return false
	}
	return true
}

// routeText is the route as ip(8) has it.
func routeText(r conf.VRRPRoute) string {
	var b strings.Builder
	b.WriteString(r.To.String())
	if r.Via.IsValid() {
		fmt.Fprintf(&b, " via %s", r.Via)
	}
	if r.Interface != "" {
		fmt.Fprintf(&b, " dev %s", r.Interface)
	}
	if r.Table != 0 {
		fmt.Fprintf(&b, " table %d", r.Table)
	}
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	return b.String()
}

// rule is a rule with the family that it has when it names no network.
type rule struct {
	conf.VRRPRule
	IPv6 bool `json:"ipv6"`
}

// rulesOf are the rules of an instance with their families.
func rulesOf(i *conf.VRRPInstance) []rule {
	rules := make([]rule, 0, len(i.Rules))
	for _, r := range i.Rules {
		six := i.IPv6
		if r.From.IsValid() || r.To.IsValid() {
			six = r.From.Addr().Is6() || r.To.Addr().Is6()
		}
		rules = append(rules, rule{r, six})
	}
	return rules
}

func (r rule) kernel() rtnl.Rule {
	return rtnl.Rule{
		IPv6: r.IPv6, From: r.From, To: r.To, IIF: r.IIF, OIF: r.OIF, FWMark: r.FWMark,
		Table: r.Table, Priority: r.Priority, Prohibit: r.Prohibits, Protocol: Mark,
	}
}

func (h *Host) addRule(hold *holding, r rule, p *problems) {
	held := slices.Contains(hold.rules, r)
	if held && r.Priority == 0 {
		return // the kernel would make another one
	}
	err := h.k.Do(rtnl.AddRule(r.kernel()))
	switch {
	case err == nil && !held:
		hold.rules = append(hold.rules, r)
	case err == nil, errors.Is(err, unix.EEXIST) && held:
	case errors.Is(err, unix.EEXIST):
		p.add("rule %s: there is one like it already that keepbeat has not added; remove it", r.text())
	default:
		p.add("rule %s: %w", r.text(), err)
	}
}

// removeRule tells whether it is gone.
func (h *Host) removeRule(r rule, p *problems) bool {
	if err := h.k.Do(rtnl.RemoveRule(r.kernel())); err != nil && !errors.Is(err, unix.ENOENT) {
		p.add("removing rule %s: %w", r.text(), err)
		return false
	}
	return true
}

// text is the rule as ip(8) has it.
func (r rule) text() string {
	from := "all"
	if r.From.IsValid() {
		from = r.From.String()
	}
	s := "from " + from
	if r.To.IsValid() {
		s += " to " + r.To.String()
	}
	return fmt.Sprintf("%s table %d", s, r.Table)
}
