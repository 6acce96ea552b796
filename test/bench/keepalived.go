package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// keepalived is Debian's, with one VRRP instance on the service network as its
// sample has it: director1 is preferred and takes the address back.
type keepalived struct {
	*scenario.Directors
	advert string // seconds
}

func newKeepalived(t lab.TB, advert string) contender {
	k := &keepalived{scenario.NewDirectors(t), advert}
	version := 2
	if strings.Contains(advert, ".") {
		version = 3 // version 2 has whole seconds
	}
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
	advert_int %s
	virtual_ipaddress {
		%s/24 dev eth0
	}
}
`, h.Name, version, 150-50*i, advert, scenario.VIP), 0o644)
	}
	return k
}

const keepalivedConf = "/etc/keepbeat/keepalived.conf"

func (k *keepalived) machines() *scenario.Directors { return k.Directors }

func (k *keepalived) step() time.Duration {
	d, err := time.ParseDuration(k.advert + "s")
	if err != nil {
		panic(err) // a constant of ours
	}
	return d
}

func (k *keepalived) start(h *lab.Host) {
	// Its reports of addresses come from /run, which each host has for itself.
	k.Daemons[h.Name] = h.Start("keepalived", nil, "/usr/sbin/keepalived", "--dont-fork", "--log-console", "--vrrp",
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
	lacks := map[string]string{
		"standby": "keepalived has no command that gives the address away",
		"cut":     "keepalived sends its advertisements on the service network; it has no other heartbeat path",
	}
	var all []system
	for _, advert := range []string{"1", "0.1", "0.01"} {
		all = append(all, system{
			name: "keepalived", config: "advert_int " + advert, needs: filepath.Join("/usr/sbin", "keepalived"), lacks: lacks,
			build: func(t lab.TB) contender { return newKeepalived(t, advert) },
		})
	}
	return all
}
