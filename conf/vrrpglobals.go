package conf

import (
	"net/netip"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// vrrpGlobals are global_defs as they are written.
type vrrpGlobals struct {
	routerID, from, server, user opt[string]
	run, socket, admin           opt[string]
	to                           opt[string]
	iface                        opt[string]
	version                      opt[int]
	group4, group6               opt[netip.Addr]
	adverts                      opt[int]
	noLower, higher, checksum    opt[bool]
	alert, alertVRRP             opt[bool]
	garp                         rawGARP
}

func (g *vrrpGlobals) fields(r *reader) []field {
	return append([]field{
		{"router_id", "Name of this machine in mails. Default: what `uname -n` says.", into(&g.routerID, r.short)},
		{"run_dir", "Directory of the control socket, on a machine without ha.yaml. Default /run/keepbeat.", into(&g.run, r.runDir)},
		{"socket_group", "Group that may read the control socket, on a machine without ha.yaml. Default: none, root only.", into(&g.socket, r.short)},
		{"admin_group", "Group that may also give orders there. Default: none, root only.", into(&g.admin, r.short)},
		{"notification_email", "Whom mails tell of changes (smtp_alert): one address, several with commas, or a list. Default: nobody.", into(&g.to, r.mailAddresses)},
		{"notification_email_from", "Address of the sender. Default root@NODE.", into(&g.from, r.mailAddress)},
		{"smtp_server", "Mail server, HOST[:PORT] or `HOST PORT`, port 25 without one. Default: the local sendmail.", into(&g.server, r.smtpServer)},
		{"smtp_alert", "Whether changes of instances and sync groups are mailed that do not say so themselves. Default no.", into(&g.alert, r.boolean)},
		{"smtp_alert_vrrp", "The same as smtp_alert, and counts before it.", into(&g.alertVRRP, r.boolean)},
		{"script_user", "User as whom scripts and notify programs run that name none. Default: the daemon's, root.", into(&g.user, r.userName)},
		{"default_interface", "Interface of instances that name none. Default: none.", into(&g.iface, r.iface)},
		{"vrrp_version", "Version of instances for IPv4 that name none, 2 or 3. Default 2.", into(&g.version, r.integer(2, 3))},
		{"vrrp_mcast_group4", "Multicast group of instances for IPv4. Default 224.0.0.18.", into(&g.group4, r.vrrpGroup)},
		{"vrrp_mcast_group6", "Multicast group of instances for IPv6. Default ff02::12.", into(&g.group6, r.vrrpGroup)},
		{"vrrp_down_timer_adverts", "down_timer_adverts of instances that name none. Default 3.", into(&g.adverts, r.integer(1, 100))},
		{"vrrp_lower_prio_no_advert", "lower_prio_no_advert of instances that do not say. Default no.", into(&g.noLower, r.boolean)},
		{"vrrp_higher_prio_send_advert", "higher_prio_send_advert of instances that do not say. Default no.", into(&g.higher, r.boolean)},
		{"v3_checksum_as_v2", "v3_checksum_as_v2 of instances that do not say. Default no.", into(&g.checksum, r.boolean)},
	}, g.garp.fields(r, "vrrp_")...)
}

func (p *vrrpReader) readGlobals(n *yaml.Node) {
	g := &p.global
	p.v.RunDir = DefaultRunDir
	if n == nil {
		return
	}
	before := p.odd
	if !p.mapping(n, "global_defs", g.fields(p.reader), vrrpElsewhere()) {
		return
	}
	for _, x := range []struct {
		group opt[netip.Addr]
		is6   bool
		key   string
	}{{g.group4, false, "vrrp_mcast_group4"}, {g.group6, true, "vrrp_mcast_group6"}} {
		if x.group.ok && x.group.v.Is6() != x.is6 {
			p.errorf(x.group.at, "%s: %s is of the other family", x.key, x.group.v)
		}
	}
	p.v.RouterID = g.routerID.or("")
	p.v.RunDir, p.v.SocketGroup, p.v.AdminGroup = g.run.or(DefaultRunDir), g.socket.or(""), g.admin.or("")
	if g.to.ok {
		p.v.Email = Email{To: g.to.v, From: g.from.or(""), Server: g.server.or("")}
		return
	}
	if g.to.at != nil || p.odd > before {
		return
	}
	for key, at := range map[string]*yaml.Node{"notification_email_from": g.from.at, "smtp_server": g.server.at} {
		if at != nil {
			p.errorf(at, "%s without notification_email has no effect; add \"notification_email: admin@example.org\", or take it out", key)
		}
	}
}

// maxName is more than any name of a machine or of a group has (useradd(8), hostname(7)).
const maxName = 255

// maxRunDir leaves room for the name of the control socket (unix(7), sun_path).
const maxRunDir = 107 - len("/control.sock")

func (r *reader) short(n *yaml.Node) (string, bool) {
	s, ok := r.text(n)
	if ok && len(s) > maxName {
		r.errorf(n, "the text has %d bytes; the limit is %d", len(s), maxName)
		return "", false
	}
	return s, ok
}

func (r *reader) runDir(n *yaml.Node) (string, bool) {
	s, ok := r.path(n)
	if ok && len(s) > maxRunDir {
		r.errorf(n, "run_dir has %d bytes; the path of the control socket in it may have 107 (unix(7)): write at most %d", len(s), maxRunDir)
		return "", false
	}
	return s, ok
}

// smtpServer reads HOST[:PORT], or HOST PORT as keepalived writes it.
func (r *reader) smtpServer(n *yaml.Node) (string, bool) {
	s, ok := r.scalar(n, "a mail server")
	if !ok {
		return "", false
	}
	if words := strings.Fields(s); len(words) == 2 {
		if a, err := netip.ParseAddr(words[0]); err == nil && a.Is6() {
			words[0] = "[" + words[0] + "]"
		}
		s = strings.Join(words, ":")
	}
	if err := checkHostPort(s); err != nil {
		r.errorf(n, "smtp_server: %s; write HOST or HOST:PORT", err)
		return "", false
	}
	return s, true
}

// vrrpGroup reads a multicast group.
func (r *reader) vrrpGroup(n *yaml.Node) (netip.Addr, bool) {
	a, ok := r.address(n)
	if ok && (!a.IsMulticast() || a.Zone() != "") {
		r.errorf(n, "%s is not a multicast group; those of VRRP are 224.0.0.18 and ff02::12", a)
		return a, false
	}
	return a, ok
}

// rawGARP says how a new master tells the network, as it is written.
type rawGARP struct {
	delay, refresh, lowerDelay, interval opt[time.Duration]
	repeat, refreshRepeat, lowerRepeat   opt[int]
}

const (
	maxGARPRepeat = 100 // at each of which every address is announced once
	maxGARPTime   = 24 * time.Hour
)

// fields are those of an instance; with "vrrp_" before them, the defaults of all.
func (g *rawGARP) fields(r *reader, prefix string) []field {
	times := r.duration(0, maxGARPTime)
	count := r.integer(0, maxGARPRepeat)
	fields := []field{
		{"garp_master_repeat", "Rounds of gratuitous ARP or neighbour advertisements for every address when an instance has become master, and again after garp_master_delay, 0 to 100. Default 5.", into(&g.repeat, count)},
		{"garp_master_delay", "Time until the second burst, 0s to 24h; 0s: there is none. Default 5s.", into(&g.delay, times)},
		{"garp_master_refresh", "Time after which a master tells the network again, and so on, up to 24h; 0s: never. Default 0s.", into(&g.refresh, times)},
		{"garp_master_refresh_repeat", "Rounds of each such time, 0 to 100. Default 1.", into(&g.refreshRepeat, count)},
		{"garp_lower_prio_repeat", "Rounds after an advertisement of lower priority, whose sender may have told the network otherwise, 0 to 100. Default: garp_master_repeat.", into(&g.lowerRepeat, count)},
		{"garp_lower_prio_delay", "Time until the second burst after such an advertisement, 0s to 24h. Default: garp_master_delay.", into(&g.lowerDelay, times)},
		{"garp_interval", "Time between two such packets on an interface, 0s to 10s. Default 0s.", into(&g.interval, r.duration(0, 10*time.Second))},
	}
	if prefix != "" {
		for i := range fields {
			f := &fields[i]
			f.doc = "Of instances that do not say: " + strings.ToLower(f.doc[:1]) + f.doc[1:]
			f.name = prefix + f.name
		}
	}
	return fields
}

// over fills in the defaults.
func (g *rawGARP) over(global *rawGARP) VRRPAnnounce {
	a := VRRPAnnounce{
		Repeat:        first(DefaultGARPRepeat, g.repeat, global.repeat),
		Delay:         first(DefaultGARPDelay, g.delay, global.delay),
		Refresh:       first(0, g.refresh, global.refresh),
		RefreshRepeat: first(1, g.refreshRepeat, global.refreshRepeat),
		Interval:      first(0, g.interval, global.interval),
	}
	a.LowerRepeat = first(a.Repeat, g.lowerRepeat, global.lowerRepeat)
	a.LowerDelay = first(a.Delay, g.lowerDelay, global.lowerDelay)
	return a
}
