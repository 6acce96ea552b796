package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// RealOrdered is a real server with an order, as `keepbeat real` shows it.
type RealOrdered struct {
	Address string         `json:"address"` // ADDRESS:PORT; the address alone for servers of a firewall mark
	Host    string         `json:"host,omitempty"`
	Order   conf.RealOrder `json:"order"`
	// Was is the order that OrderReal has ended or replaced; nil: there was none.
	Was *conf.RealOrder `json:"was,omitempty"`
	// Services are the virtual services that have it: "192.168.56.200:80 tcp of ldirectord.yaml".
	Services []string `json:"services"`
}

const (
	maxRealFor    = 365 * 24 * time.Hour
	maxRealReason = 200
)

// OrderReal gives an order for a real server (ADDRESS:PORT, ADDRESS or the name
// it has in the pools, which mean every port), or ends what was ordered (nil).
// It returns the servers that were meant. It is in the replicated log when
// OrderReal returns, and so survives moves and restarts. An order that leaves a
// virtual service without a server that takes new connections is a ForceError.
func (n *Node) OrderReal(ctx context.Context, server string, order *conf.RealOrder) ([]RealOrdered, error) {
	o := OrderOf(ctx)
	if order != nil {
		switch r := order; {
		case r.For < 0 || r.For > maxRealFor:
			return nil, fmt.Errorf("--for %v is out of range: up to %v", r.For, maxRealFor)
		case r.Weight < 0 || r.Weight > 65535:
			return nil, fmt.Errorf("weight %d is out of range: 0 to 65535", r.Weight)
		case len(r.Reason) > maxRealReason || strings.ContainsFunc(r.Reason, unicode.IsControl):
			return nil, fmt.Errorf("the reason is one line of at most %d bytes", maxRealReason)
		}
		order.By, order.Until = o.By, time.Time{}
		if order.For > 0 {
			order.Until = time.Now().Add(order.For).Round(time.Second)
		}
	}
	if err := n.current(ctx); err != nil {
		return nil, err
	}
	st := n.State()
	if st.Spec == nil {
		return nil, errors.New("the cluster has no specification yet, and so no real servers: write haresources.yaml on a director and run `keepbeat apply` there")
	}
	meant, err := realsNamed(st.Spec, server)
	if err != nil {
		return nil, err
	}
	if order != nil && !o.Force {
		if cost := emptied(st, meant, *order); cost != "" {
			return nil, &ForceError{cost, typed(server, *order) + " --force"}
		}
	}
	var all []RealOrdered
	for _, a := range meant {
		r := RealOrdered{Address: conf.ServerName(a)}
		if order != nil {
			r.Order = *order
		}
		if was, found := st.Orders[a]; found {
			r.Was = &was
		}
		r.Host, r.Services = usesOf(st.Spec, a)
		all = append(all, r)
	}
	if order != nil && !o.Force && n.cfg.RealCost != nil {
		if cost := n.cfg.RealCost(n.Status(ctx), all, *order); cost != "" {
			return nil, &ForceError{cost, typed(server, *order) + " --force"}
		}
	}
	if _, err := n.propose(ctx, state.Command{Reals: &state.SetReals{Servers: meant, Order: order}}); err != nil {
		return nil, err
	}
	for _, r := range all {
		what := "enabled" + o.by()
		if order != nil {
			what = order.String()
		}
		n.logger.Info("real server "+r.Address+" "+what, "services", strings.Join(r.Services, ", "))
	}
	return all, nil
}

// typed is the command that gives an order.
func typed(server string, o conf.RealOrder) string {
	c := fmt.Sprintf("keepbeat real %s %s", o.Action, server)
	if o.Action == conf.RealWeight {
		c += fmt.Sprintf(" %d", o.Weight)
	}
	if o.For > 0 {
		c += " --for " + o.For.String()
	}
	if o.Reason != "" {
		c += " --reason '" + strings.ReplaceAll(o.Reason, "'", `'\''`) + "'"
	}
	return c
}

// RealOrders returns the real servers that have an order, sorted by address.
func (n *Node) RealOrders() []RealOrdered {
	st := n.State()
	all := []RealOrdered{}
	for _, a := range slices.SortedFunc(maps.Keys(st.Orders), netip.AddrPort.Compare) {
		r := RealOrdered{Address: conf.ServerName(a), Order: st.Orders[a]}
		if st.Spec != nil {
			r.Host, r.Services = usesOf(st.Spec, a)
		}
		all = append(all, r)
	}
	return all
}

// eachReal calls f for every real server and fallback of the pools, in the order of their names.
func eachReal(spec *conf.Spec, f func(pool string, v conf.Virtual, r conf.Real)) {
	for _, name := range slices.Sorted(maps.Keys(spec.Pools)) {
		for _, v := range spec.Pools[name].Virtuals {
			for _, r := range slices.Concat(v.Reals, v.Fallbacks) {
				f(name, v, r)
			}
		}
	}
}

// realsNamed finds the servers that a word of the command line means.
func realsNamed(spec *conf.Spec, word string) ([]netip.AddrPort, error) {
	means := func(r conf.Real) bool { return r.Host != "" && strings.EqualFold(r.Host, word) }
	if a, err := netip.ParseAddrPort(word); err == nil {
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		means = func(r conf.Real) bool { return r.Address == a }
	} else if a, err := netip.ParseAddr(strings.Trim(word, "[]")); err == nil {
		means = func(r conf.Real) bool { return r.Address.Addr() == a.Unmap() }
	} else if host, port, found := strings.Cut(word, ":"); found {
		means = func(r conf.Real) bool { return strings.EqualFold(r.Host, host) && fmt.Sprint(r.Address.Port()) == port }
	}
	found, near := map[netip.AddrPort]bool{}, map[string]bool{}
	eachReal(spec, func(_ string, _ conf.Virtual, r conf.Real) {
		if means(r) {
			found[r.Address] = true
		}
		near[cmp.Or(r.Host, conf.ServerName(r.Address))] = true
	})
	if len(found) > 0 {
		return slices.SortedFunc(maps.Keys(found), netip.AddrPort.Compare), nil
	}
	if reals := behind(spec, word); len(reals) > 0 {
		return nil, fmt.Errorf("%s is no real server but a virtual service; its real servers are %s", word, some(reals))
	}
	if len(near) == 0 {
		return nil, fmt.Errorf("no pool has a real server %q; there are none", word)
	}
	return nil, fmt.Errorf("no pool has a real server %q; there are %s", word, some(near))
}

// some lists names, not too many.
func some(names map[string]bool) string {
	const most = 10
	all := slices.Sorted(maps.Keys(names))
	list := strings.Join(all[:min(len(all), most)], ", ")
	if len(all) > most {
		list += fmt.Sprintf(" and %d more", len(all)-most)
	}
	return list
}

// behind are the real servers of the virtual services that a word means.
func behind(spec *conf.Spec, word string) map[string]bool {
	reals := map[string]bool{}
	eachReal(spec, func(_ string, v conf.Virtual, r conf.Real) {
		if v.Address.IsValid() && (v.Address.String() == word || v.Address.Addr().String() == word) {
			reals[cmp.Or(r.Host, conf.ServerName(r.Address))] = true
		}
	})
	return reals
}

// usesOf tells which virtual services have a server, and the name it has there.
func usesOf(spec *conf.Spec, a netip.AddrPort) (host string, services []string) {
	eachReal(spec, func(pool string, v conf.Virtual, r conf.Real) {
		if r.Address == a {
			host = cmp.Or(host, r.Host)
			if s := v.String() + " of " + pool; !slices.Contains(services, s) {
				services = append(services, s)
			}
		}
	})
	return host, services
}

// emptied says which virtual services would have no real server that takes new
// connections, with an order in force, whatever the checks say: Config.RealCost heeds those.
func emptied(st *state.State, servers []netip.AddrPort, order conf.RealOrder) string {
	takes := func(r conf.Real, ordered map[netip.AddrPort]conf.RealOrder) bool {
		o, found := ordered[r.Address]
		switch {
		case !found:
			return r.Weight > 0 && r.Check.Type != conf.Off
		case o.Action == conf.RealWeight:
			return o.Weight > 0
		}
		return false
	}
	after := maps.Clone(st.Orders)
	if after == nil {
		after = map[netip.AddrPort]conf.RealOrder{}
	}
	for _, a := range servers {
		after[a] = order
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(st.Spec.Pools)) {
		for _, v := range st.Spec.Pools[name].Virtuals {
			left := func(ordered map[netip.AddrPort]conf.RealOrder) bool {
				return slices.ContainsFunc(v.Reals, func(r conf.Real) bool { return takes(r, ordered) })
			}
			if left(st.Orders) && !left(after) {
				lines = append(lines, fmt.Sprintf("virtual service %s of %s would have no real server that takes new connections", v, name))
			}
		}
	}
	return strings.Join(lines, "\n")
}

// followOrders tells the pools of this node what was ordered.
func (n *Node) followOrders(st *state.State) {
	if n.cfg.RealOrders == nil || n.ordersTold && maps.Equal(st.Orders, n.orders) {
		return
	}
	n.orders, n.ordersTold = st.Orders, true
	n.cfg.RealOrders(st.Orders)
}

// endOrders takes orders back whose time is over, counted by this node's own
// clock from when it first saw them: the wall clock may step.
func (n *Node) endOrders(st *state.State, seen map[uint64]time.Time) {
	current := map[uint64]bool{}
	for a, o := range st.Orders {
		if o.For <= 0 {
			continue
		}
		current[o.N] = true
		first, known := seen[o.N]
		if !known {
			// A new leader has not seen it begin: what the wall clocks say is left
			// is the best it can know, within what was asked for.
			left := min(max(time.Until(o.Until), 0), o.For)
			first = time.Now().Add(left - o.For)
			seen[o.N] = first
		}
		if time.Since(first) < o.For {
			continue
		}
		cmd := state.Command{Reals: &state.SetReals{Servers: []netip.AddrPort{a}, Was: o.N}}
		n.jobs.start("end the order for "+conf.ServerName(a), n.wake, func(ctx context.Context) error {
			_, err := n.cons.Propose(ctx, cmd)
			if err == nil {
				n.logger.Info("real server "+conf.ServerName(a)+": the time of its order is over", "was", o.String())
			}
			return err
		})
	}
	maps.DeleteFunc(seen, func(i uint64, _ time.Time) bool { return !current[i] })
}
