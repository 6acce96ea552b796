package main

import (
	"fmt"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// keepalived is Debian's, with one VRRP instance on the service network as its
// sample has it: director1 is preferred and takes the address back.
type keepalived struct {
	*scenario.Directors
	advert time.Duration
}

func newKeepalived(t lab.TB, advert time.Duration) contender {
	k := &keepalived{scenario.NewDirectors(t), advert}
	for i, h := range k.Both() {
		h.WriteFile(keepalivedConf, fmt.Sprintf(`global_defs {
	router_id %s
	vrrp_version %d
}
vrrp_instance VI_1 {
	state BACKUP
	interface eth0
	virtual_router_id 51
	priority %d
	advert_int %g
	virtual_ipaddress {
		%s/24 dev eth0
	}
}
`, h.Name, versionFor(advert), 150-50*i, advert.Seconds(), scenario.VIP), 0o644)
	}
	return k
}

const (
	keepalivedProgram = "/usr/sbin/keepalived"
	keepalivedConf    = "/etc/keepbeat/keepalived.conf"
)

func (k *keepalived) machines() *scenario.Directors { return k.Directors }

func (k *keepalived) step() time.Duration { return k.advert }

func (k *keepalived) start(h *lab.Host) {
	// Its reports of addresses come from /run, which each host has for itself.
	k.Daemons[h.Name] = h.Start("keepalived", nil, keepalivedProgram, "--dont-fork", "--log-console", "--vrrp",
		"--use-file", keepalivedConf, "--pid", "/run/keepalived.pid", "--vrrp_pid", "/run/keepalived-vrrp.pid")
}

func (k *keepalived) settle() *lab.Host {
	switchOn(k.Directors, k.start)
	// Every state of a VRRP instance is told by the address: the backup is silent.
	waitOnlyOn(k.Directors, k.Director1, 2*k.step())
	return k.Director1
}

func (k *keepalived) stop(h *lab.Host) { terminate(k.Daemons[h.Name]) }

func (k *keepalived) standby(*lab.Host) {}

// keepalivedSystems are the configurations that are measured.
func keepalivedSystems() []system {
	var all []system
	for _, advert := range routerAdverts {
		all = append(all, system{
			name: "keepalived", config: fmt.Sprintf("advert_int %g", advert.Seconds()), needs: keepalivedProgram, lacks: routerLacks("keepalived"),
			build: func(t lab.TB) contender { return newKeepalived(t, advert) },
		})
	}
	return all
}
