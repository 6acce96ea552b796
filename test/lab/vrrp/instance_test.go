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
	older    bool // router1 has version 2
	interval [2]time.Duration
	priority [2]int
	password [2]string

	six     bool // IPv6
	unicast bool
	ttl     [2]int  // for peers; 0: the program's own
	minTTL  int     // of a peer
	plain   [2]bool // the checksum without pseudo-header, which keepalived 2.2.7 does not have
	vmac    bool    // the addresses have the virtual router's MAC address
	eth1    bool    // on the second network
	more    bool    // has another address
	beyond  bool    // has one of the other family, which is not in the packet

	fixed  bool          // nopreempt
	delay  time.Duration // preempt_delay
	script bool          // tracks one that fails while the router's file exists
	faulty bool          // what makes it FAULT, and is no weight
	file   bool          // tracks one with a number
	port   bool          // tracks eth1, with a weight
	synced bool          // of the sync group
	mailed bool          // changes of router0 are
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

// packed are the virtual addresses of the packet. Two of them at least: their order is part of the message.
func (i *instance) packed() []netip.Addr {
	all := []netip.Addr{i.address(0, i.six), i.address(1, i.six)}
	if i.more {
		all = append(all, i.address(2, i.six))
	}
	return all
}

// addresses are all that the master has.
func (i *instance) addresses() []netip.Addr {
	all := i.packed()
	if i.beyond {
		all = append(all, i.address(0, !i.six))
	}
	return all
}

func (i *instance) address(n int, six bool) netip.Addr {
	if six {
		return netip.MustParseAddr(fmt.Sprintf("%s%d:%x", lans[i.eth1].six, n+1, i.vrid))
	}
	return netip.MustParseAddr(fmt.Sprintf("%s%d", lans[i.eth1].four, int(i.vrid)+100*n))
}

func (i *instance) prefixes() []string {
	var all []string
	for _, a := range i.packed() {
		all = append(all, prefix(a))
	}
	return all
}

func prefix(a netip.Addr) string {
	if a.Is6() {
		return netip.PrefixFrom(a, 64).String()
	}
	return netip.PrefixFrom(a, 24).String()
}

func (i *instance) state(router int) string {
	if i.fixed || i.delay > 0 || router == 1 {
		return "BACKUP"
	}
	return "MASTER"
}

const (
	directory  = "/etc/keepbeat/"
	downFile   = directory + "down" // the script fails while it is there
	failsWhile = "[ ! -f " + downFile + " ]"
	numberFile = directory + "number"
	weight     = -20
)

// keepalivedConf is the file of a router that runs keepalived.
func keepalivedConf(all []instance, router int) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("global_defs {\n\trouter_id router%d\n\tscript_user root", router)
	if router == 0 && slices.ContainsFunc(all, func(i instance) bool { return i.mailed }) {
		line("\tnotification_email {\n\t\t%s\n\t}\n\tnotification_email_from %s\n\tsmtp_server %s", mailTo, mailFrom, mailServer)
	}
	line("}")
	if slices.ContainsFunc(all, func(i instance) bool { return i.script }) {
		line("vrrp_script down {\n\tscript \"/bin/sh -c '%s'\"\n\tinterval 1\n\tfall 1\n\trise 1\n\tweight %d\n}", failsWhile, weight)
	}
	if slices.ContainsFunc(all, func(i instance) bool { return i.file }) {
		line("track_file number {\n\tfile %s\n\tweight 2\n}", numberFile)
	}
	for n := range all {
		i := &all[n]
		line("vrrp_instance %s {", i.name)
		line("\tstate %s\n\tinterface %s\n\tvirtual_router_id %d\n\tpriority %d", i.state(router), i.iface(), i.vrid, i.priority[router])
		line("\tversion %d\n\tadvert_int %g\n\tgarp_master_delay 1", i.versionOf(router), i.interval[router].Seconds())
		if i.fixed {
			line("\tnopreempt")
		}
		if i.delay > 0 {
			line("\tpreempt_delay %g", i.delay.Seconds())
		}
		if i.mailed && router == 0 {
			line("\tsmtp_alert")
		}
		if i.password[router] != "" {
			line("\tauthentication {\n\t\tauth_type PASS\n\t\tauth_pass %s\n\t}", i.password[router])
		}
		if i.unicast {
			line("\tunicast_src_ip %s\n\tunicast_peer {\n\t\t%s%s\n\t}", i.own(router), i.own(1-router), i.peerTTL())
			if i.ttl[router] > 0 {
				line("\tunicast_ttl %d", i.ttl[router])
			}
		}
		if i.vmac {
			line("\tuse_vmac")
		}
		if i.script {
			line("\ttrack_script {\n\t\tdown%s\n\t}", i.weight())
		}
		if i.file {
			line("\ttrack_file {\n\t\tnumber\n\t}")
		}
		if i.port {
			line("\ttrack_interface {\n\t\teth1 weight %d\n\t}", weight)
		}
		if i.beyond {
			line("\tvirtual_ipaddress_excluded {\n\t\t%s\n\t}", prefix(i.address(0, !i.six)))
		}
		line("\tvirtual_ipaddress {\n\t\t%s\n\t}\n}", strings.Join(i.prefixes(), "\n\t\t"))
	}
	if names := syncedNames(all); len(names) > 0 {
		line("vrrp_sync_group together {\n\tgroup {\n\t\t%s\n\t}", strings.Join(names, "\n\t\t"))
		if groupMailed(all, router) {
			line("\tsmtp_alert")
		}
		line("}")
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
	if router == 0 && slices.ContainsFunc(all, func(i instance) bool { return i.mailed }) {
		line("global_defs: {router_id: router%d, notification_email: [%s], notification_email_from: %s, smtp_server: %s}", router, mailTo, mailFrom, mailServer)
	}
	if slices.ContainsFunc(all, func(i instance) bool { return i.file }) {
		line("track_file:\n  number: {file: %s, weight: 2}", numberFile)
	}
	line("vrrp_instance:")
	for n := range all {
		i := &all[n]
		line("  %s:", i.name)
		line("    state: %s\n    interface: %s\n    virtual_router_id: %d\n    priority: %d", i.state(router), i.iface(), i.vrid, i.priority[router])
		line("    version: %d\n    advert_int: %v\n    garp_master_delay: 1s", i.versionOf(router), i.interval[router])
		if i.fixed {
			line("    preempt: no")
		}
		if i.delay > 0 {
			line("    preempt_delay: %v", i.delay)
		}
		if i.mailed && router == 0 {
			line("    smtp_alert: yes")
		}
		if i.plain[router] {
			line("    v3_checksum_as_v2: yes")
		}
		if i.password[router] != "" {
			line("    authentication: {auth_type: PASS, auth_pass: %s}", i.password[router])
		}
		if i.unicast {
			line("    unicast_src_ip: %q\n    unicast_peer: [%q]", i.own(router), i.own(1-router)+i.peerTTL())
			if i.ttl[router] > 0 {
				line("    unicast_ttl: %d", i.ttl[router])
			}
		}
		if i.vmac {
			line("    use_vmac: yes")
		}
		if i.script {
			line("    track_script: down%s", i.weight())
		}
		if i.file {
			line("    track_file: number")
		}
		if i.port {
			line("    track_interface: eth1 weight %d", weight)
		}
		if i.beyond {
			line("    virtual_ipaddress_excluded: %q", prefix(i.address(0, !i.six)))
		}
		line(`    virtual_ipaddress: ["%s"]`, strings.Join(i.prefixes(), `", "`))
	}
	if names := syncedNames(all); len(names) > 0 {
		mail := ""
		if groupMailed(all, router) {
			mail = ", smtp_alert: yes"
		}
		line("vrrp_sync_group:\n  together: {group: [%s]%s}", strings.Join(names, ", "), mail)
	}
	return b.String()
}

func (i *instance) versionOf(router int) int {
	if i.older && router == 1 {
		return 2
	}
	return i.version
}

// weight is behind the name of the script.
func (i *instance) weight() string {
	if i.faulty {
		return " weight 0"
	}
	return ""
}

// peerTTL is behind the address of a peer.
func (i *instance) peerTTL() string {
	if i.minTTL > 0 {
		return fmt.Sprintf(" min_ttl %d", i.minTTL)
	}
	return ""
}

func groupMailed(all []instance, router int) bool {
	return router == 0 && slices.ContainsFunc(all, func(i instance) bool { return i.synced && i.mailed })
}

func syncedNames(all []instance) (names []string) {
	for n := range all {
		if all[n].synced {
			names = append(names, all[n].name)
		}
	}
	return names
}
