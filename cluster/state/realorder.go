package state

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/keepbeat/keepbeat/conf"
)

// SetReals gives or ends an operator's order for real servers, as their
// address stands in the specification.
type SetReals struct {
	Servers []netip.AddrPort `json:"servers"`
	Order   *conf.RealOrder  `json:"order,omitempty"` // nil: what was ordered ends
	// Was, when it is not 0, ends only an order with that N: one that has run out.
	Was uint64 `json:"was,omitempty"`
}

// maxOrders bounds the servers with orders: far more than anybody gives by hand.
const maxOrders = 10_000

func (e *edit) setReals(s SetReals) Result {
	switch {
	case e.Format < 3:
		return refuse("orders for real servers can be given when every node runs a version of keepbeat that knows them")
	case e.Spec == nil:
		return refuse("there is no specification yet")
	case s.Order != nil && (s.Order.Action < conf.RealDrain || s.Order.Action > conf.RealWeight || s.Order.Weight < 0 || s.Order.Weight > 65535 || s.Order.For < 0):
		return refuse("an order for real servers that this version of keepbeat does not know; run the same version on every node")
	}
	there := realsOf(e.Spec)
	orders := maps.Clone(e.Orders)
	if orders == nil {
		orders = map[netip.AddrPort]conf.RealOrder{}
	}
	var done []string
	for _, a := range s.Servers {
		old, ordered := orders[a]
		switch {
		case s.Order != nil && !there[a]:
			return refuse("no pool of version %d has the real server %s", e.SpecInfo.Version, conf.ServerName(a))
		case s.Order != nil:
			o := *s.Order
			o.N = e.Index
			orders[a] = o
		case !ordered || s.Was != 0 && old.N != s.Was:
			continue
		default:
			delete(orders, a)
		}
		done = append(done, conf.ServerName(a))
	}
	if len(orders) > maxOrders {
		return refuse("more than %d real servers have orders; take some back (`keepbeat real enable`), or write it into the pool", maxOrders)
	}
	if len(done) == 0 {
		return Result{}
	}
	e.setOrders(orders)
	names := strings.Join(done[:min(len(done), 5)], ", ")
	if len(done) > 5 {
		names += " and more"
	}
	switch {
	case s.Order != nil:
		o := *s.Order
		e.note("", "", "real server "+names+": "+o.String())
	case s.Was != 0:
		e.note("", "", "real server "+names+": enabled again, the time of the order is over")
	default:
		e.note("", "", "real server "+names+": enabled")
	}
	return Result{Number: uint64(len(done))}
}

// setOrders stores them; nil when there are none, so that equal states are equal.
func (e *edit) setOrders(orders map[netip.AddrPort]conf.RealOrder) {
	if len(orders) == 0 {
		orders = nil
	}
	e.Orders = orders
}

// dropOrders ends the orders for servers that a specification does not have.
func (e *edit) dropOrders(spec *conf.Spec) {
	if len(e.Orders) == 0 {
		return
	}
	there := realsOf(spec)
	orders := maps.Clone(e.Orders)
	maps.DeleteFunc(orders, func(a netip.AddrPort, _ conf.RealOrder) bool { return !there[a] })
	e.setOrders(orders)
}

// realsOf are the real servers of all pools.
func realsOf(spec *conf.Spec) map[netip.AddrPort]bool {
	all := map[netip.AddrPort]bool{}
	for _, p := range spec.Pools {
		for _, v := range p.Virtuals {
			for _, r := range slices.Concat(v.Reals, v.Fallbacks) {
				all[r.Address] = true
			}
		}
	}
	return all
}
