package main

import (
	"fmt"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// router is keepbeat without a cluster, as a router of VRRP: what keepalived is.
type router struct {
	*scenario.Directors
	advert time.Duration
}

// routerAdverts are the intervals at which keepbeat and keepalived are routers.
var routerAdverts = []time.Duration{time.Second, 100 * time.Millisecond, 10 * time.Millisecond}

// versionFor is the first version of the protocol that has the interval: 2 has whole seconds.
func versionFor(advert time.Duration) int {
	if advert%time.Second != 0 {
		return 3
	}
	return 2
}

func newRouter(t lab.TB, advert time.Duration) contender {
	r := &router{scenario.NewDirectors(t), advert}
	for i, h := range r.Both() {
		h.WriteFile("/etc/keepbeat/vrrp.yaml", fmt.Sprintf(`vrrp_instance:
  VI_1:
    state: BACKUP
    interface: eth0
    virtual_router_id: 51
    version: %d
    priority: %d
    advert_int: %v
    virtual_ipaddress: %s/24
`, versionFor(advert), 150-50*i, advert, scenario.VIP), 0o644)
	}
	return r
}

func (r *router) machines() *scenario.Directors { return r.Directors }

func (r *router) step() time.Duration { return r.advert }

func (r *router) settle() *lab.Host {
	switchOn(r.Directors, func(h *lab.Host) { r.Start(h) })
	waitOnlyOn(r.Directors, r.Director1, 2*r.advert)
	return r.Director1
}

func (r *router) stop(h *lab.Host) { terminate(r.Daemons[h.Name]) }

func (r *router) standby(*lab.Host) {}

// routerLacks is what no router of VRRP alone can do.
func routerLacks(program string) map[string]string {
	return map[string]string{
		"standby": program + " has no command that gives the address away",
		"cut":     program + " sends its advertisements on the service network; it has no other heartbeat path",
	}
}

func routerSystems() []system {
	var all []system
	for _, advert := range routerAdverts {
		all = append(all, system{
			name: "keepbeat", config: fmt.Sprintf("router advert_int %v", advert), lacks: routerLacks("keepbeat as a router"),
			build: func(t lab.TB) contender { return newRouter(t, advert) },
		})
	}
	return all
}
