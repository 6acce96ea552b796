package api

import (
	"cmp"
	"encoding/json"
	"fmt"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/ipvs"
)

// Pools returns the IPVS pools of a group with what their owner says of them.
func Pools(g cluster.GroupStatus) []ipvs.Detail {
	var all []ipvs.Detail
	for _, r := range g.Resource {
		var d ipvs.Detail
		if r.Kind == conf.KindLdirectord && len(r.Detail) > 0 && json.Unmarshal(r.Detail, &d) == nil {
			all = append(all, d)
		}
	}
	return all
}

// PoolTrouble lists what is wrong with the virtual services of the groups that
// run: those without a server first, then single servers.
func PoolTrouble(s cluster.Status) []string {
	var services, reals []string
	for _, g := range s.Groups {
		for _, p := range Pools(g) {
			if !p.Started {
				continue
			}
			if p.Trouble != "" {
				services = append(services, fmt.Sprintf("pool %s: %s", p.Pool, p.Trouble))
			}
			if p.Blind != "" {
				services = append(services, fmt.Sprintf("pool %s: %s", p.Pool, p.Blind))
			}
			for _, v := range p.Services {
				services, reals = serviceTrouble(v, services, reals)
			}
		}
	}
	return append(append(services, sharedTrouble(s)...), reals...)
}

// sharedTrouble lists, once for each node that has pools, what is wrong with
// the kernel's settings and the sync daemons there: a node that waits for a
// group has to receive its connections too.
func sharedTrouble(s cluster.Status) []string {
	var all []string
	for _, n := range s.Nodes {
		if n.Here == nil {
			continue
		}
		said := map[string]bool{} // every pool of a node tells the same
		for _, g := range n.Here.Groups {
			for _, p := range Pools(cluster.GroupStatus{Resource: g.Resources}) {
				if p.Kernel == nil {
					continue
				}
				for _, text := range p.Kernel.Trouble {
					if !said[text] {
						said[text] = true
						all = append(all, fmt.Sprintf("node %s: %s", n.Name, text))
					}
				}
			}
		}
	}
	return all
}

func serviceTrouble(v ipvs.ServiceDetail, services, reals []string) (_, _ []string) {
	if text := quorumTrouble(v); !v.InKernel {
		services = append(services, fmt.Sprintf("service %s is not in the kernel's table", v.Name))
	} else if text != "" {
		services = append(services, fmt.Sprintf("service %s%s", v.Name, text))
	}
	for _, r := range v.Reals {
		switch {
		case r.Trouble != "":
			reals = append(reals, fmt.Sprintf("service %s: the kernel does not take real server %s: %s", v.Name, r.Address, r.Trouble))
		case r.Overdue:
			reals = append(reals, fmt.Sprintf("service %s: real server %s has had no result of its check for longer than the schedule allows and is kept as it was: %s", v.Name, r.Address, r.Answer))
		case r.State == ipvs.StateDown && r.Check != conf.Off.String() && !r.Held():
			reals = append(reals, fmt.Sprintf("service %s: real server %s is down: %s", v.Name, r.Address, cmp.Or(r.Reason, r.Answer)))
		}
	}
	return services, reals
}

// quorumTrouble says what is wrong with a service as a whole; empty: nothing is.
func quorumTrouble(v ipvs.ServiceDetail) string {
	f := v.Active()
	short := fmt.Sprintf(" has no quorum: %d of %d real servers are up and weigh %d, and it needs %d", v.Up, len(v.Reals), v.Sum, v.Needed)
	switch {
	case v.Up > 0 && v.Quorum != ipvs.QuorumLost:
		return ""
	case v.Up > 0 && f != nil:
		return short + "; the fallback " + f.Address + " answers"
	case v.Up > 0 && v.Sum == 0:
		return ": no real server that is up has a weight, and no fallback answers: clients get no answer"
	case v.Up > 0:
		return short + "; no fallback is up, so they go on"
	case f != nil:
		return ": no real server is up; the fallback " + f.Address + " answers"
	case len(v.Reals) == 0:
		return " has no real server"
	case len(v.Fallbacks) == 0:
		return ": no real server is up, and there is no fallback: clients get no answer"
	}
	return ": no real server is up, and no fallback either: clients get no answer"
}
