package conf

import (
	"fmt"
	"strings"
	"sync"
)

// vrrpElsewhere are the words of keepalived.conf that have another place or
// name here, or no use. It is read after the keys of a mapping. Nobody changes
// the map.
var vrrpElsewhere = sync.OnceValue(func() map[string]string {
	m := map[string]string{}
	// A key at the wrong level is told where it belongs.
	p := &vrrpReader{reader: &reader{}}
	for _, x := range []struct {
		where  string
		fields []field
	}{
		{"vrrp_script: {NAME: {...}}", new(rawScript).fields(p.reader)},
		{"vrrp_track_process: {NAME: {...}}", new(rawProcess).fields(p.reader)},
		{"vrrp_sync_group: {NAME: {...}}", new(rawSyncGroup).fields(p)},
		{"vrrp_instance: {NAME: {...}}", new(rawInstance).fields(p)},
		{"global_defs", new(vrrpGlobals).fields(p.reader)},
		{"the file's top", new(rawVRRP).fields()},
	} {
		for _, f := range x.fields {
			m[f.name] = fmt.Sprintf("%q has no place here; it belongs into %s", f.name, x.where)
		}
	}
	for _, f := range new(rawAuthentication).fields(p) {
		m[f.name] = fmt.Sprintf("%q belongs into authentication: {auth_type: PASS, auth_pass: ...}", f.name)
	}
	say := func(text string, words string) {
		for _, w := range strings.Fields(words) {
			m[w] = fmt.Sprintf("%q ", w) + text
		}
	}
	say("is not built; take it out", "vrf disable_local_igmp garp_extra_if vrrp_garp_extra_if vmac_garp_intvl vrrp_vmac_garp_intvl namespace_with_ipsets track_group owner_ignore_adverts vrrp_owner_ignore_adverts")
	say("is not built; use_vmac gives the virtual router a MAC address of its own by a macvlan", "use_vmac_addr use_ipvlan")
	say("is not built; name the interface of each instance: use_vmac: NAME", "vmac_prefix vmac_addr_prefix")
	say("is not built; preempt_delay leaves a master of lower priority alone for some time", "vrrp_startup_delay vrrp_delay_after_boot interface_up_down_delays")
	say("is not built; use a vrrp_script that looks for it, and track_script", "track_src_ip unicast_fault_no_peer")
	say("has no use here: the kernel tells of the carrier; take it out", "linkbeat_use_polling linkbeat_interfaces")
	say("has no use here: a master that was late listens before it goes on; take it out", "timer_expired_backup thread_timer_expired")
	say("is not built; set net.ipv4.conf.IF.promote_secondaries by sysctl.d", "promote_secondaries")
	say("is not built; write garp_master_repeat: 1 and garp_master_delay: 0s", "vrrp_min_garp")
	say("is not built; write garp_interval into each instance", "garp_group")
	say("is not built; NetworkNamespacePath= of the unit keepbeat.service puts the daemon into a network namespace", "net_namespace net_namespace_ipvs")
	say("is not built; what a machine always has belongs into its network configuration, such as a file of systemd.network", "static_ipaddress static_routes static_rules")
	say("is not built; use ExecStartPre= of the unit keepbeat.service", "startup_script startup_script_timeout")
	say("is not built; use ExecStopPost= of the unit keepbeat.service", "shutdown_script shutdown_script_timeout")
	say("is not built; run `keepbeat run --debug`", "debug")
	say("is not built: an advertisement has an address in it; write one under virtual_ipaddress", "no_virtual_ipaddress")
	say("is not built: there is no BFD here, and it would not shorten the time until a backup takes over; take it out", "bfd_instance track_bfd")
	say("is not built: the draft is not stable; version 2 has the password of authentication", "auth_hmac")
	say("is not built: this program has no SNMP; `keepbeat status --json` tells the same", "snmp_socket enable_snmp_vrrp enable_snmp_keepalived enable_snmp_checker enable_snmp_rfc enable_snmp_rfcv2 enable_snmp_rfcv3 enable_traps snmp_vs_stats_update_interval snmp_rs_stats_update_interval snmp_name")
	say("is not built: this program has no D-Bus; `keepbeat status --json` tells the same", "enable_dbus dbus_service_name dbus_no_interface_name")
	say("is not built: notify is run at each change of an instance or a sync group", "notify_fifo vrrp_notify_fifo lvs_notify_fifo notify_fifo_script vrrp_notify_fifo_script lvs_notify_fifo_script vrrp_notify_priority_changes notify_priority_changes notify_master_rx_lower_pri notify_deleted fifo_write_vrrp_states_on_reload rs_init_notifies")
	say("has no use here: the addresses tell the family; take it out", "native_ipv6")
	say("has no use here: the addresses of an advertisement are compared, counted and told, and it is taken; take it out", "skip_check_adv_addr vrrp_skip_check_adv_addr")
	say("has no use here: an advertisement by unicast is taken from a unicast_peer only; take it out", "check_unicast_src vrrp_check_unicast_src")
	say("has no use here: routers older than keepalived 1.3.6 are not spoken with; take it out", "old_unicast_checksum")
	say("has no use here: what RFC 9568 forbids is refused where it contradicts the protocol; take it out", "strict_mode vrrp_strict")
	say("has no use here: hooks of root have to be files that nobody else may change, always; take it out", "enable_script_security use_symlink_paths")
	say("has no use here: a mail has 30 seconds and holds nothing up; take it out", "smtp_connect_timeout")
	say("has no use here: the server is told the domain of the sender; take it out", "smtp_helo_name")
	say("is \"emailalert\" of the pool's file", "smtp_alert_checker no_checker_emails")
	say("is \"smtp_alert\" of each instance", "no_email_faults")
	say("is \"vrrp_garp_interval\": neighbour advertisements keep the same distance", "vrrp_gna_interval")
	say("is \"garp_interval\": neighbour advertisements keep the same distance", "gna_interval")
	say("is \"delay\" here, for both directions", "fork_delay terminate_delay")
	say("has no use here: arguments after the program's name are compared from the first one on; take it out", "param_match")
	say("has no use here: a file that is not there counts as 0, and this program writes none; take it out", "init_file")
	say("has no use here: what sends advertisements has nice -20, which is more punctual here than a real-time policy; what else is wanted is systemd's: Nice=, CPUAffinity= of the unit; take it out", "max_auto_priority min_auto_priority_delay vrrp_priority checker_priority bfd_priority vrrp_no_swap checker_no_swap bfd_no_swap vrrp_cpu_affinity checker_cpu_affinity bfd_cpu_affinity vrrp_rt_priority checker_rt_priority bfd_rt_priority vrrp_rlimit_rttime checker_rlimit_rttime bfd_rlimit_rttime vrrp_rlimit_rtime checker_rlimit_rtime bfd_rlimit_rtime")
	say("has no use here; take it out", "vrrp_rx_bufs_policy vrrp_rx_bufs_multiplier kernel_rx_buf_size vrrp_netlink_cmd_rcv_bufs vrrp_netlink_cmd_rcv_bufs_force vrrp_netlink_monitor_rcv_bufs vrrp_netlink_monitor_rcv_bufs_force lvs_netlink_cmd_rcv_bufs lvs_netlink_cmd_rcv_bufs_force lvs_netlink_monitor_rcv_bufs lvs_netlink_monitor_rcv_bufs_force process_monitor_rcv_bufs process_monitor_rcv_bufs_force dynamic_interfaces log_unknown_vrids process_names process_name vrrp_process_name checker_process_name lvs_process_name bfd_process_name instance use_pid_dir child_wait_time reload_check_config reload_time_file reload_repeat reload_file config_save_dir tmp_config_directory data_use_instance state_dump_file stats_dump_file json_dump_file json_version iproute_usr_dir iproute_etc_dir umask set_supplementary_groups random_seed global_tracking")
	say("has no use here: no packet filter is needed for it; take it out", "vrrp_iptables vrrp_ipsets nftables nftables_priority nftables_counters nftables_ifindex nftables_ipvs nftables_ipvs_priority nftables_ipvs_start_fwmark")
	say("is of a cluster here: ipvs: {sync: ...} in haresources.yaml; take it out", "lvs_sync_daemon lvs_sync_daemon_interface")
	say("is of a cluster here: ipvs: {timeouts: ...} in haresources.yaml; take it out", "lvs_timeouts")
	say("has no use here: what stands in the table besides the pools is left alone; take it out", "lvs_flush lvs_flush_on_stop checker_log_all_failures")
	const pool = "belongs into a pool, a file beside this one: pools: [{ldirectord: ldirectord.yaml, instance: VI_1}]"
	say(pool, "virtual_server virtual_server_group real_server virtual SSL")
	say("is a pool; write pools: [{ldirectord: ldirectord.yaml, instance: VI_1}]", "ldirectord")
	say("is not built: the file is one; put together what is meant", "include includer includem includew includeb includea include_check")
	for _, w := range strings.Fields("cluster nodes links authkeys") {
		m[w] = fmt.Sprintf("%q belongs into ha.yaml", w)
	}
	for _, w := range strings.Fields("groups haresources fencing ipvs") {
		m[w] = fmt.Sprintf("%q belongs into haresources.yaml", w)
	}
	return m
})
