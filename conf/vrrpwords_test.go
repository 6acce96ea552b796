package conf

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// vrrpKeywords are the keywords of keepalived 2.4's keepalived.conf but those
// of virtual servers and their checks, which a pool has. From its manual and parser, without code.
var vrrpKeywords = map[string]string{
	"the top": `include includer includem includew includeb includea include_check random_seed
		net_namespace net_namespace_ipvs namespace_with_ipsets instance use_pid_dir linkbeat_use_polling child_wait_time
		linkbeat_interfaces interface_up_down_delays global_defs track_group static_ipaddress static_routes static_rules
		track_file vrrp_track_file vrrp_track_process garp_group vrrp_script vrrp_sync_group vrrp_instance bfd_instance
		virtual_server_group virtual_server SSL`,
	"global_defs": `router_id notification_email notification_email_from smtp_server smtp_helo_name smtp_connect_timeout
		smtp_alert smtp_alert_vrrp smtp_alert_checker no_email_faults no_checker_emails
		script_user enable_script_security set_supplementary_groups use_symlink_paths startup_script shutdown_script
		startup_script_timeout shutdown_script_timeout umask
		notify_fifo notify_fifo_script vrrp_notify_fifo vrrp_notify_fifo_script lvs_notify_fifo lvs_notify_fifo_script
		vrrp_notify_priority_changes fifo_write_vrrp_states_on_reload rs_init_notifies
		vrrp_version vrrp_mcast_group4 vrrp_mcast_group6 default_interface vrrp_garp_master_delay vrrp_garp_master_repeat
		vrrp_garp_master_refresh vrrp_garp_master_refresh_repeat vrrp_garp_lower_prio_delay vrrp_garp_lower_prio_repeat
		vrrp_garp_interval vrrp_gna_interval vrrp_min_garp vrrp_garp_extra_if vrrp_vmac_garp_intvl vrrp_down_timer_adverts
		vrrp_lower_prio_no_advert vrrp_higher_prio_send_advert vrrp_owner_ignore_adverts v3_checksum_as_v2
		vrrp_check_unicast_src vrrp_skip_check_adv_addr vrrp_strict vrrp_startup_delay vrrp_delay_after_boot log_unknown_vrids
		dynamic_interfaces vmac_prefix vmac_addr_prefix disable_local_igmp
		nftables nftables_priority nftables_counters nftables_ifindex nftables_ipvs nftables_ipvs_priority
		nftables_ipvs_start_fwmark vrrp_iptables vrrp_ipsets
		lvs_sync_daemon lvs_timeouts lvs_flush lvs_flush_on_stop checker_log_all_failures
		max_auto_priority min_auto_priority_delay vrrp_priority checker_priority bfd_priority vrrp_no_swap checker_no_swap
		bfd_no_swap vrrp_cpu_affinity checker_cpu_affinity bfd_cpu_affinity vrrp_rt_priority checker_rt_priority
		bfd_rt_priority vrrp_rlimit_rttime checker_rlimit_rttime bfd_rlimit_rttime vrrp_rlimit_rtime checker_rlimit_rtime
		bfd_rlimit_rtime process_names process_name vrrp_process_name checker_process_name lvs_process_name bfd_process_name
		snmp_socket enable_snmp_vrrp enable_snmp_keepalived enable_snmp_checker enable_snmp_rfc enable_snmp_rfcv2
		enable_snmp_rfcv3 enable_traps snmp_vs_stats_update_interval snmp_rs_stats_update_interval
		enable_dbus dbus_service_name dbus_no_interface_name
		vrrp_netlink_cmd_rcv_bufs vrrp_netlink_cmd_rcv_bufs_force vrrp_netlink_monitor_rcv_bufs
		vrrp_netlink_monitor_rcv_bufs_force lvs_netlink_cmd_rcv_bufs lvs_netlink_cmd_rcv_bufs_force
		lvs_netlink_monitor_rcv_bufs lvs_netlink_monitor_rcv_bufs_force process_monitor_rcv_bufs process_monitor_rcv_bufs_force
		vrrp_rx_bufs_policy vrrp_rx_bufs_multiplier
		reload_check_config reload_time_file reload_repeat reload_file config_save_dir tmp_config_directory data_use_instance
		state_dump_file stats_dump_file json_dump_file json_version iproute_usr_dir iproute_etc_dir`,
	"vrrp_instance": `state interface vrf virtual_router_id priority advert_int version use_vmac use_vmac_addr vmac_xmit_base
		use_ipvlan native_ipv6 dont_track_primary linkbeat_use_polling track_interface track_script track_file track_process
		track_bfd track_src_ip mcast_src_ip unicast_src_ip mcast_dst_ip unicast_peer unicast_ttl unicast_fault_no_peer
		check_unicast_src old_unicast_checksum v3_checksum_as_v2 authentication auth_hmac virtual_ipaddress
		virtual_ipaddress_excluded no_virtual_ipaddress promote_secondaries virtual_routes virtual_rules accept no_accept
		preempt nopreempt preempt_delay down_timer_adverts timer_expired_backup thread_timer_expired lower_prio_no_advert
		higher_prio_send_advert owner_ignore_adverts skip_check_adv_addr strict_mode garp_master_delay garp_master_repeat
		garp_master_refresh garp_master_refresh_repeat garp_lower_prio_delay garp_lower_prio_repeat garp_interval gna_interval
		garp_extra_if vmac_garp_intvl notify_master notify_backup notify_fault notify_stop notify_deleted notify
		notify_master_rx_lower_pri notify_priority_changes smtp_alert kernel_rx_buf_size lvs_sync_daemon_interface debug
		dont_track_primary track_group`,
	"authentication": `auth_type auth_pass`,
	"auth_hmac":      `key active_key anti_replay time_window mode`,
	"vrrp_sync_group": `group track_interface track_script track_file track_process track_bfd notify_master notify_backup
		notify_fault notify_stop notify notify_priority_changes smtp_alert sync_group_tracking_weight global_tracking`,
	"vrrp_script":        `script interval timeout weight rise fall user init_fail`,
	"vrrp_track_process": `process param_match weight quorum quorum_max fork_delay terminate_delay delay full_command`,
	"track_file":         `file weight init_file`,
	"bfd_instance":       `neighbor_ip source_ip min_rx min_tx idle_tx multiplier passive ttl hoplimit max_hops multihop weight`,
}

// An administrator who brings a keepalived.conf along is told of every word of
// it what has become of it: it is a key, or the answer names it.
func TestEveryWordOfKeepalivedIsAKeyOrIsAnswered(t *testing.T) {
	p := &vrrpReader{reader: &reader{}}
	keys := map[string]bool{}
	for _, fields := range [][]field{
		new(rawVRRP).fields(), new(vrrpGlobals).fields(p.reader), new(rawInstance).fields(p), new(rawSyncGroup).fields(p),
		new(rawScript).fields(p.reader), new(rawProcess).fields(p.reader), new(rawFile).fields(p.reader), new(rawAuthentication).fields(p),
	} {
		for _, f := range fields {
			keys[f.name] = true
		}
	}
	answers := vrrpElsewhere()
	for _, where := range slices.Sorted(maps.Keys(vrrpKeywords)) {
		for _, word := range strings.Fields(vrrpKeywords[where]) {
			// What stands inside a block that is not built is not looked at.
			if where == "auth_hmac" || where == "bfd_instance" {
				word = where
			}
			if !keys[word] && answers[word] == "" {
				t.Errorf("%s: %s is neither a key nor answered", where, word)
			}
		}
	}
}
