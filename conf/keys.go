package conf

import (
	"net/netip"
	"time"

	"gopkg.in/yaml.v3"
)

// KeyDoc describes one key of a file; the reference manual is made from these.
type KeyDoc struct {
	File string // ha.yaml, haresources.yaml, ldirectord.yaml, vrrp.yaml, realserver.yaml
	Path string // where the key stands: "", "groups.NAME", "virtual[]"
	Key  string
	Doc  string // what it does, unit, range, default
}

// Keys returns every key of the files, in the order in which the manual
// shows them.
func Keys() []KeyDoc {
	var out []KeyDoc
	add := func(file, path string, fields []field) {
		for _, f := range fields {
			out = append(out, KeyDoc{file, path, f.name, f.doc})
		}
	}
	r := &reader{}
	var (
		local         rawLocal
		text          opt[string]
		number        opt[int]
		yes           opt[bool]
		duration      opt[time.Duration]
		address       opt[netip.Addr]
		real          rawReal
		node          *yaml.Node
		group         Group
		vip           VIP
		sides         []RealServer
		virtual       rawVirtual
		resourceExtra options
		ipvs          rawIPVS
		timeouts      IPVSTimeouts
		sync          rawSync
		fencing       Fencing
		device        rawDevice
	)
	add("ha.yaml", "", local.fields(r))
	add("ha.yaml", "links[].bcast, mcast, ucast", linkFields(r, &text, &number))
	add("ha.yaml", "links[].serial", serialFields(r, &text, &number))
	add("ha.yaml", "watchdog", watchdogFields(r, &text, &duration))
	s := &specReader{reader: r}
	add("haresources.yaml", "", s.fields(&yes, &node, &node, &node, &node))
	add("haresources.yaml", "groups.NAME", s.groupFields(&group, &yes, &node))
	add("haresources.yaml", "groups.NAME.resources[]", []field{
		{"vip", "A virtual IP address: ADDRESS[/PREFIX[/INTERFACE[:LABEL]]][/BROADCAST], or a mapping.", nil},
		{"ldirectord", "An IPVS pool: the plain name of its file, ldirectord.yaml.", nil},
		{"vrrp", "An announcer: the owner of the group tells by VRRP that it has the addresses of the vips before it, and nobody else of the cluster does. A mapping.", nil},
		{"realserver", "This machine as a real server: virtual addresses that it takes without answering for them on the wire, each `ADDRESS [gate|ipip]`; one or a list.", nil},
	})
	add("haresources.yaml", "groups.NAME.resources[]", s.optionFields(&resourceExtra))
	var conflict opt[Conflict]
	add("haresources.yaml", "groups.NAME.resources[].vip", s.vipFields(&vip, &address, &address))
	add("haresources.yaml", "groups.NAME.resources[].vrrp", announcerFields(r, new(rawInstance), &conflict, &text))
	add("realserver.yaml", "", r.realServerFields(&sides, &node))
	add("haresources.yaml", "fencing", s.fencingFields(&fencing, &node, &node))
	add("haresources.yaml", "fencing.devices.NAME", s.deviceFields(&device))
	add("haresources.yaml", "fencing.devices.NAME.params.NAME", s.paramFields(&text, &text))
	add("haresources.yaml", "ipvs", ipvs.fields(r))
	add("haresources.yaml", "ipvs.timeouts", timeoutFields(r, &timeouts))
	add("haresources.yaml", "ipvs.sync", sync.fields(r))
	p := newPoolReader("")
	add("ldirectord.yaml", "", p.fields(&node))
	add("ldirectord.yaml", "virtual[]", p.virtualFields(&virtual))
	add("ldirectord.yaml", "virtual[].real[]", real.fields(p))
	add("ldirectord.yaml", CheckPlace, p.global.fields(p))
	vrrpKeys(add)
	return out
}

// vrrpKeys are the keys of vrrp.yaml.
func vrrpKeys(add func(file, path string, fields []field)) {
	v := &vrrpReader{reader: &reader{}}
	r := v.reader
	var name opt[string]
	tracks := trackFields(r, maxWeight, &name, &rawTracked{})
	add(VRRPName, "", new(rawVRRP).fields())
	add(VRRPName, "global_defs", new(vrrpGlobals).fields(r))
	add(VRRPName, "vrrp_script.NAME", new(rawScript).fields(r))
	add(VRRPName, "vrrp_track_process.NAME", new(rawProcess).fields(r))
	add(VRRPName, "track_file.NAME", new(rawFile).fields(r))
	add(VRRPName, "vrrp_instance.NAME", new(rawInstance).fields(v))
	add(VRRPName, "vrrp_instance.NAME.authentication", new(rawAuthentication).fields(v))
	add(VRRPName, "vrrp_instance.NAME.virtual_ipaddress[]", new(rawAddress).fields(r))
	add(VRRPName, "vrrp_instance.NAME.unicast_peer[]", new(rawPeer).fields(r))
	add(VRRPName, "vrrp_instance.NAME.track_interface[] and the other tracks", tracks)
	add(VRRPName, "vrrp_sync_group.NAME", new(rawSyncGroup).fields(v))
	add(VRRPName, "pools[]", new(rawPool).fields(r))
}
