package ipvs

import "net/netip"

// Diff returns what has to be done so that actual becomes wanted. Services of
// actual that are not wanted are deleted, so actual must hold none but ours.
//
// The order is such that a service which works before and after works in
// between: a service comes before its servers; then new servers and those that
// are let in (so that there is somewhere to send a request before a server
// goes); then those that change otherwise; then those shut out by weight 0;
// then those removed. What differs is edited in place and what does not differ
// is not touched, so its connections and counters stay.
func Diff(wanted, actual []Entry) []Op {
	have := make(map[Key]*Entry, len(actual))
	for i := range actual {
		have[actual[i].Service.Key] = &actual[i]
	}
	var ops []Op
	keep := make(map[Key]bool, len(wanted))
	for _, w := range wanted {
		keep[w.Service.Key] = true
		ops = append(ops, diffService(w, have[w.Service.Key])...)
	}
	for _, a := range actual {
		if !keep[a.Service.Key] {
			ops = append(ops, Op{Verb: DeleteService, Service: a.Service})
		}
	}
	return ops
}

func diffService(w Entry, a *Entry) []Op {
	var ops, shut, gone []Op
	s := w.Service.normal()
	var have map[netip.AddrPort]Dest
	switch {
	case a == nil:
		ops = append(ops, Op{Verb: AddService, Service: s})
	default:
		if s != a.Service.normal() {
			ops = append(ops, Op{Verb: EditService, Service: s})
		}
		have = make(map[netip.AddrPort]Dest, len(a.Dests))
		for _, d := range a.Dests {
			have[d.Address] = d
		}
	}

	var changed []Op
	for _, d := range w.Dests {
		old, found := have[d.Address]
		delete(have, d.Address)
		switch {
		case !found:
			ops = append(ops, Op{Verb: AddDest, Service: s, Dest: d})
		case d.same(old):
		case old.Weight == 0 && d.Weight > 0:
			ops = append(ops, Op{Verb: EditDest, Service: s, Dest: d})
		case d.Weight == 0 && old.Weight > 0:
			shut = append(shut, Op{Verb: EditDest, Service: s, Dest: d})
		default:
			changed = append(changed, Op{Verb: EditDest, Service: s, Dest: d})
		}
	}
	if a != nil {
		for _, d := range a.Dests { // in their order, not the map's
			if _, left := have[d.Address]; left {
				gone = append(gone, Op{Verb: DeleteDest, Service: s, Dest: d})
			}
		}
	}
	ops = append(ops, changed...)
	ops = append(ops, shut...)
	return append(ops, gone...)
}
