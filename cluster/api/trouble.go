package api

import (
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
			for _, v := range p.Services {
				services, reals = serviceTrouble(v, services, reals)
			}
		}
	}
	return append(services, reals...)
}

func serviceTrouble(v ipvs.ServiceDetail, services, reals []string) (_, _ []string) {
	switch {
	case !v.InKernel:
		services = append(services, fmt.Sprintf("service %s is not in the kernel's table", v.Name))
	case v.Up > 0:
	case v.Fallback != nil:
		services = append(services, fmt.Sprintf("service %s: no real server is up; the fallback %s answers", v.Name, v.Fallback.Address))
	case len(v.Reals) == 0:
		services = append(services, fmt.Sprintf("service %s has no real server", v.Name))
	default:
		services = append(services, fmt.Sprintf("service %s: no real server is up, and there is no fallback: clients get no answer", v.Name))
	}
	for _, r := range v.Reals {
		switch {
		case r.Trouble != "":
			reals = append(reals, fmt.Sprintf("service %s: the kernel does not take real server %s: %s", v.Name, r.Address, r.Trouble))
		case r.Overdue:
			reals = append(reals, fmt.Sprintf("service %s: real server %s has had no result of its check for longer than the schedule allows and is kept as it was: %s", v.Name, r.Address, r.Answer))
		case r.State == ipvs.StateDown && r.Check != conf.Off.String():
			reals = append(reals, fmt.Sprintf("service %s: real server %s is down: %s", v.Name, r.Address, r.Answer))
		}
	}
	return services, reals
}
