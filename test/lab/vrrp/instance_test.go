package vrrp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// instance is a virtual router as both of its routers have it: an entry of vrrp_instance in either program's words.
type instance struct {
	name     string
	vrid     uint8
	version  int
	six      bool // IPv6
	unicast  bool
	plain    bool // the checksum without pseudo-header, which keepalived 2.2.7 does not have
	vmac     bool // the addresses have the virtual router's MAC address
	eth1     bool // on the second network
	fixed    bool // nopreempt
	script   bool // tracks one that fails while the router's file exists
	synced   bool // of the sync group
	interval [2]time.Duration
	password [2]string
	priority [2]int
}

// lan is the addresses of a network of the scene: those of the routers end in 1 and 2.
type lan struct{ four, six string }

var lans = map[bool]lan{false: {"10.20.0.", "fd20::"}, true: {"10.21.0.", "fd21::"}}

func (i *instance) iface() string {
	if i.eth1 {
		return "eth1"
	}
	return "eth0"
}

// own is the address of a router (0 or 1) for unicast.
func (i *instance) own(router int) string {
	if i.six {
		return fmt.Sprintf("%s%d", lans[i.eth1].six, router+1)
	}
	return fmt.Sprintf("%s%d", lans[i.eth1].four, router+1)
}

// addresses are the virtual ones. Two of them: their order is part of the message.
func (i *instance) addresses() []netip.Addr {
	if i.six {
		return []netip.Addr{
			netip.MustParseAddr(fmt.Sprintf("%s1:%x", lans[i.eth1].six, i.vrid)),
			netip.MustParseAddr(fmt.Sprintf("%s2:%x", lans[i.eth1].six, i.vrid)),
		}
	}
	return []netip.Addr{
		netip.MustParseAddr(fmt.Sprintf("%s%d", lans[i.eth1].four, i.vrid)),
		netip.MustParseAddr(fmt.Sprintf("%s%d", lans[i.eth1].four, int(i.vrid)+100)),
	}
}

func (i *instance) prefixes() []string {
	bits := 24
	if i.six {
		bits = 64
	}
	var all []string
	for _, a := range i.addresses() {
		all = append(all, netip.PrefixFrom(a, bits).String())
	}
	return all
}

func (i *instance) state(router int) string {
	if i.fixed || router == 1 {
		return "BACKUP"
	}
	return "MASTER"
}

const (
	directory  = "/etc/keepbeat/"
	downFile   = directory + "down" // the script fails while it is there
	failsWhile = "[ ! -f " + downFile + " ]"
	weight     = -20
)

// keepalivedConf is the file of a router that runs keepalived.
func keepalivedConf(all []instance, router int) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("global_defs {\n\trouter_id router%d\n\tscript_user root\n}", router)
	if slices.ContainsFunc(all, func(i instance) bool { return i.script }) {
		line("vrrp_script down {\n\tscript \"/bin/sh -c '%s'\"\n\tinterval 1\n\tfall 1\n\trise 1\n\tweight %d\n}", failsWhile, weight)
	}
	for n := range all {
		i := &all[n]
		line("vrrp_instance %s {", i.name)
		line("\tstate %s\n\tinterface %s\n\tvirtual_router_id %d\n\tpriority %d", i.state(router), i.iface(), i.vrid, i.priority[router])
		line("\tversion %d\n\tadvert_int %g\n\tgarp_master_delay 1", i.version, i.interval[router].Seconds())
		if i.fixed {
			line("\tnopreempt")
		}
		if i.password[router] != "" {
			line("\tauthentication {\n\t\tauth_type PASS\n\t\tauth_pass %s\n\t}", i.password[router])
		}
		if i.unicast {
			line("\tunicast_src_ip %s\n\tunicast_peer {\n\t\t%s\n\t}", i.own(router), i.own(1-router))
		}
		if i.vmac {
			line("\tuse_vmac")
		}
		if i.script {
			line("\ttrack_script {\n\t\tdown\n\t}")
		}
		line("\tvirtual_ipaddress {\n\t\t%s\n\t}\n}", strings.Join(i.prefixes(), "\n\t\t"))
	}
	if names := syncedNames(all); len(names) > 0 {
		line("vrrp_sync_group together {\n\tgroup {\n\t\t%s\n\t}\n}", strings.Join(names, "\n\t\t"))
	}
	return b.String()
}

// keepbeatConf is vrrp.yaml of a router that runs keepbeat.
func keepbeatConf(all []instance, router int) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if slices.ContainsFunc(all, func(i instance) bool { return i.script }) {
		line("vrrp_script:\n  down: {script: [/bin/sh, -c, %q], interval: 1s, fall: 1, rise: 1, weight: %d}", failsWhile, weight)
	}
	line("vrrp_instance:")
	for n := range all {
		i := &all[n]
		line("  %s:", i.name)
		line("    state: %s\n    interface: %s\n    virtual_router_id: %d\n    priority: %d", i.state(router), i.iface(), i.vrid, i.priority[router])
		line("    version: %d\n    advert_int: %v\n    garp_master_delay: 1s", i.version, i.interval[router])
		if i.fixed {
			line("    preempt: no")
		}
		if i.plain {
			line("    v3_checksum_as_v2: yes")
		}
		if i.password[router] != "" {
			line("    authentication: {auth_type: PASS, auth_pass: %s}", i.password[router])
		}
		if i.unicast {
			line("    unicast_src_ip: %q\n    unicast_peer: [%q]", i.own(router), i.own(1-router))
		}
		if i.vmac {
			line("    use_vmac: yes")
		}
		if i.script {
			line("    track_script: down")
		}
		line(`    virtual_ipaddress: ["%s"]`, strings.Join(i.prefixes(), `", "`))
	}
	if names := syncedNames(all); len(names) > 0 {
		line("vrrp_sync_group:\n  together: {group: [%s]}", strings.Join(names, ", "))
	}
	return b.String()
}

func syncedNames(all []instance) (names []string) {
	for n := range all {
		if all[n].synced {
			names = append(names, all[n].name)
		}
	}
	return names
}
