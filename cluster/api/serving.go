package api

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/ipvs"
)

// EmptiedNow says which virtual services have a real server that takes new
// connections at this moment, by its checks and by what was ordered, and would
// have none after an order for these.
func EmptiedNow(s cluster.Status, meant []cluster.RealOrdered, order conf.RealOrder) string {
	ordered := map[netip.AddrPort]bool{}
	for _, m := range meant {
		ordered[serverAddress(m.Address)] = true
	}
	var lines []string
	for _, g := range s.Groups {
		for _, p := range Pools(g) {
			for _, v := range p.Services {
				if line := emptiedService(v, ordered, order); p.Started && line != "" {
					lines = append(lines, line+" (pool "+p.Pool+")")
				}
			}
		}
	}
	return strings.Join(lines, "\n")
}

func emptiedService(v ipvs.ServiceDetail, ordered map[netip.AddrPort]bool, order conf.RealOrder) string {
	before, after := false, false
	var others []string
	for _, r := range v.Reals {
		takes := r.Wanted > 0
		before = before || takes
		if ordered[serverAddress(r.Address)] {
			after = after || r.State == ipvs.StateUp && order.Action == conf.RealWeight && order.Weight > 0
			continue
		}
		after = after || takes
		why := r.State
		switch {
		case r.File != "":
			why = "in maintenancedir"
		case r.Order != nil:
			why = r.Order.String()
		case r.State == ipvs.StateUp:
			why = "weight 0"
		}
		others = append(others, fmt.Sprintf("%s: %s", cmp.Or(r.Host, r.Address), why))
	}
	if !before || after {
		return ""
	}
	text := "virtual service " + v.Name + " would have no real server that takes new connections"
	if len(others) > 0 {
		text += "; of the others, " + strings.Join(others, ", ")
	}
	return text
}

// serverAddress reads ADDRESS:PORT, or ADDRESS for servers of a firewall mark.
func serverAddress(s string) netip.AddrPort {
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a
	}
	a, _ := netip.ParseAddr(s) // what is neither is no server's
	return netip.AddrPortFrom(a, 0)
}
