package conf

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// testSecrets stands for the files of passwords.
func testSecrets(path string) (string, error) {
	switch path {
	case "/secrets/good":
		return "hunter2", nil
	case "/secrets/long":
		return "hunter2hunter2", nil
	}
	return "", fmt.Errorf("cannot be read: %w", fs.ErrNotExist)
}

func vrrp(t *testing.T, text string) *VRRP {
	t.Helper()
	v, warns, err := ParseVRRP(VRRPFiles{Data: []byte(text), Secret: testSecrets})
	if err != nil || len(warns) > 0 {
		t.Fatal(warns, err)
	}
	return v
}

func vrrpInstance(t *testing.T, lines string) VRRPInstance {
	t.Helper()
	return vrrp(t, "vrrp_instance:\n  VI_1:\n    interface: eth0\n    virtual_router_id: 51\n"+lines).Instances[0]
}

func TestAnInstanceHasTheDefaultsOfKeepalived(t *testing.T) {
	want := VRRPInstance{
		Name: "VI_1", Version: 2, VRID: 51, Priority: 100, Interface: "eth0", Interval: time.Second, DownAdverts: 3,
		Group: netip.MustParseAddr("224.0.0.18"), UnicastTTL: 255, Preempt: true, LowerAdvert: true, Accept: true,
		Addresses: []VRRPAddress{{Address: netip.MustParsePrefix("10.0.0.1/32")}},
		GARP: VRRPAnnounce{
			Repeat: 5, Delay: 5 * time.Second, RefreshRepeat: 1, LowerRepeat: 5, LowerDelay: 5 * time.Second,
		},
	}
	got := vrrpInstance(t, "    virtual_ipaddress: 10.0.0.1\n")
	if d := cmp.Diff(want, got, sameAddresses()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	six := vrrpInstance(t, "    virtual_ipaddress: \"fe80::1/64\"\n")
	if !six.IPv6 || six.Version != 3 || six.Group != netip.MustParseAddr("ff02::12") {
		t.Errorf("%+v", six)
	}
}

func TestGlobalDefsAreTheDefaultsOfInstances(t *testing.T) {
	v := vrrp(t, `
vrrp_instance:
  a: {virtual_router_id: 1, virtual_ipaddress: 10.0.0.1, notify_master: /etc/n}
  b: {virtual_router_id: 2, virtual_ipaddress: 10.0.0.2, interface: eth1, version: 2, garp_master_delay: 1s, garp_lower_prio_repeat: 0, smtp_alert: no, lower_prio_no_advert: no, v3_checksum_as_v2: no, notify_backup: [/etc/n, "two words"], script_user: nobody}
  c: {virtual_router_id: 3, virtual_ipaddress: "fd00::1"}
global_defs:
  router_id: lb1
  notification_email: [ops@example.com, root]
  notification_email_from: lb1@example.com
  smtp_server: 192.0.2.1 2525
  smtp_alert: no
  smtp_alert_vrrp: yes
  script_user: keepalived_script
  default_interface: eth0
  vrrp_version: 3
  vrrp_mcast_group4: 224.0.0.99
  vrrp_mcast_group6: "ff02::99"
  vrrp_down_timer_adverts: 4
  vrrp_lower_prio_no_advert: yes
  vrrp_higher_prio_send_advert: yes
  v3_checksum_as_v2: yes
  vrrp_garp_master_delay: 2s
  vrrp_garp_master_repeat: 3
  vrrp_garp_master_refresh: 1m
  vrrp_garp_master_refresh_repeat: 2
  vrrp_garp_interval: 1ms
`)
	if v.RouterID != "lb1" || v.Email != (Email{To: "ops@example.com,root", From: "lb1@example.com", Server: "192.0.2.1:2525"}) {
		t.Errorf("%+v", v)
	}
	a, b, c := v.Instances[0], v.Instances[1], v.Instances[2]
	if a.Interface != "eth0" || a.Version != 3 || a.Group.String() != "224.0.0.99" || a.DownAdverts != 4 || a.LowerAdvert || !a.HigherAdvert || !a.ChecksumWithoutPseudo ||
		!a.Notify.Mail || a.Notify.User != "keepalived_script" ||
		a.GARP != (VRRPAnnounce{Repeat: 3, Delay: 2 * time.Second, Refresh: time.Minute, RefreshRepeat: 2, LowerRepeat: 3, LowerDelay: 2 * time.Second, Interval: time.Millisecond}) {
		t.Errorf("a: %+v", a)
	}
	if b.Interface != "eth1" || b.Version != 2 || !b.LowerAdvert || b.ChecksumWithoutPseudo || b.Notify.Mail || b.Notify.User != "nobody" || !slices.Equal(b.Notify.Backup, []string{"/etc/n", "two words"}) ||
		b.GARP.Delay != time.Second || b.GARP.LowerDelay != time.Second || b.GARP.LowerRepeat != 0 || b.GARP.Repeat != 3 {
		t.Errorf("b: %+v", b)
	}
	if !c.IPv6 || c.Version != 3 || c.ChecksumWithoutPseudo || c.Group.String() != "ff02::99" || c.Notify.User != "" {
		t.Errorf("c: %+v", c)
	}
}

func TestWhatAnInstanceSaysIsWhatItIs(t *testing.T) {
	for name, c := range map[string]struct {
		lines string
		is    func(i VRRPInstance) bool
	}{
		"master":                    {"    state: MASTER\n    priority: 150\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return i.Master && i.Priority == 150 }},
		"the owner":                 {"    priority: 255\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return i.Priority == 255 && !i.Master }},
		"centiseconds":              {"    version: 3\n    advert_int: 10ms\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return i.Interval == 10*time.Millisecond }},
		"the longest of version 3":  {"    version: 3\n    advert_int: 40.95s\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return i.Interval == 40950*time.Millisecond }},
		"the longest of version 2":  {"    advert_int: 255s\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return i.Interval == 255*time.Second }},
		"a password":                {"    authentication: {auth_type: PASS, auth_pass: 1111}\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return i.Password == "1111" }},
		"a password of eight bytes": {"    authentication: {auth_pass: \"12345678\"}\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return i.Password == "12345678" }},
		"a password in a file":      {"    authentication: {auth_pass_file: /secrets/good}\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return i.Password == "hunter2" }},
		"nopreempt":                 {"    nopreempt: yes\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return !i.Preempt }},
		"preempt: no":               {"    preempt: no\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return !i.Preempt }},
		"preempt_delay":             {"    preempt_delay: 1000s\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return i.PreemptDelay == 1000*time.Second }},
		"no_accept":                 {"    no_accept: yes\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return !i.Accept }},
		"a VMAC":                    {"    use_vmac: yes\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return i.VMAC == "vrrp.51" && !i.VMACBase }},
		"a VMAC of IPv6":            {"    use_vmac: yes\n    virtual_ipaddress: \"fe80::1\"\n", func(i VRRPInstance) bool { return i.VMAC == "vrrp6.51" }},
		"a VMAC with a name":        {"    use_vmac: vmac0\n    vmac_xmit_base: yes\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return i.VMAC == "vmac0" && i.VMACBase }},
		"no VMAC":                   {"    use_vmac: no\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return i.VMAC == "" }},
		"a VMAC with a great yes":   {"    use_vmac: Yes\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return i.VMAC == "vrrp.51" }},
		"its own interface": {"    track_interface: [eth0, eth1 weight 5]\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool {
			return slices.Equal(i.TrackInterfaces, []VRRPTrack{{Name: "eth1", Weight: 5}})
		}},
		"its own interface, weighed": {"    track_interface: eth0 weight -5 reverse\n    dont_track_primary: yes\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool {
			return slices.Equal(i.TrackInterfaces, []VRRPTrack{{"eth0", -5, true}}) && i.DontTrack
		}},
		"a source": {"    mcast_src_ip: 10.0.0.9\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool { return i.Source == netip.MustParseAddr("10.0.0.9") }},
		"peers": {"    unicast_src_ip: 10.0.0.9\n    unicast_ttl: 64\n    unicast_peer:\n      - 10.0.0.8\n      - 10.0.0.7 min_ttl 60 max_ttl 64\n      - {address: 10.0.0.6, min_ttl: 255}\n    virtual_ipaddress: 10.0.0.1\n", func(i VRRPInstance) bool {
			a := netip.MustParseAddr
			return i.UnicastTTL == 64 && i.Source == a("10.0.0.9") && slices.Equal(i.Peers, []VRRPPeer{{a("10.0.0.8"), 0, 255}, {a("10.0.0.7"), 60, 64}, {a("10.0.0.6"), 255, 255}})
		}},
		"both families": {"    virtual_ipaddress: 10.0.0.1\n    virtual_ipaddress_excluded: [\"fd00::1/64\", 10.0.0.2]\n", func(i VRRPInstance) bool { return !i.IPv6 && len(i.Excluded) == 2 }},
	} {
		t.Run(name, func(t *testing.T) {
			if i := vrrpInstance(t, c.lines); !c.is(i) {
				t.Errorf("%+v", i)
			}
		})
	}
}

// What is read is shown in keepalived's or iproute2's form, and reads the same again.
func TestAddressesRoutesAndRulesHaveOneForm(t *testing.T) {
	address := func(s string) (string, error) { var a VRRPAddress; err := a.parse(s); return a.String(), err }
	route := func(s string) (string, error) { var x VRRPRoute; err := x.parse(s, false); return x.String(), err }
	rule := func(s string) (string, error) { var x VRRPRule; err := x.parse(s); return x.String(), err }
	for _, c := range []struct {
		parse    func(string) (string, error)
		in, want string
	}{
		{address, "10.0.0.1", "10.0.0.1/32"},
		{address, "172.16.100.1/16 dev eth0 label eth0:0", "172.16.100.1/16 dev eth0 label eth0:0"},
		{address, "10.0.0.1/255.255.255.0 label eth0:1 broadcast + dev eth0 scope link", "10.0.0.1/24 brd 10.0.0.255 dev eth0 scope link label eth0:1"},
		{address, "10.0.0.1/24 brd 10.0.0.127 scope 7", "10.0.0.1/24 brd 10.0.0.127 scope 7"},
		{address, "10.0.0.1 brd +", "10.0.0.1/32 brd 10.0.0.1"},
		{address, "fe80::1", "fe80::1/128"},
		{address, "::ffff:10.0.0.1/24", "10.0.0.1/24"},
		{route, "default via 10.0.0.9", "0.0.0.0/0 via 10.0.0.9"},
		{route, "default via fd00::9 dev eth0", "::/0 via fd00::9 dev eth0"},
		{route, "src 10.0.0.1 to 192.168.109.0/24 via 10.0.0.9 dev eth1", "192.168.109.0/24 via 10.0.0.9 src 10.0.0.1 dev eth1"},
		{route, "192.168.109.5 gw 10.0.0.9 table 100 metric 5 mtu 1400 onlink scope link proto static", "192.168.109.5/32 via 10.0.0.9 table 100 metric 5 mtu 1400 onlink scope link proto static"},
		{route, "10.0.0.0/8 dev eth1 table main", "10.0.0.0/8 dev eth1"},
		{route, "10.0.0.0/8 dev eth1 scope global", "10.0.0.0/8 dev eth1 scope global"},
		{route, "10.0.0.0/8 dev eth1 scope link", "10.0.0.0/8 dev eth1"},
		{route, "blackhole 10.0.0.0/8", "blackhole 10.0.0.0/8"},
		{route, "0.0.0.0/0 via 10.0.0.9", "0.0.0.0/0 via 10.0.0.9"},
		{rule, "from 10.0.0.0/8 table 100", "from 10.0.0.0/8 table 100"},
		{rule, "to 10.0.0.1 lookup main pref 5", "from all to 10.0.0.1/32 table 254 priority 5"},
		{rule, "iif eth0 oif eth1 fwmark 0x1f prohibit", "from all iif eth0 oif eth1 fwmark 31 prohibit"},
		{rule, "from all to fd00::/8 table 5", "from all to fd00::/8 table 5"},
	} {
		got, err := c.parse(c.in)
		if err != nil || got != c.want {
			t.Errorf("%q is %q (%v), and should be %q", c.in, got, err, c.want)
		}
		if again, err := c.parse(got); err != nil || again != got {
			t.Errorf("%q read again is %q (%v)", got, again, err)
		}
	}
}

func TestATrackHasTheWeightOfWhatItTracks(t *testing.T) {
	v := vrrp(t, `
vrrp_script:
  plain: {script: /bin/true}
  heavy: {script: "/bin/grep -q 'a b' \"/x y\"", interval: 2s, weight: -20 reverse, rise: 2, fall: 3, user: nobody, init_fail: yes}
vrrp_track_process:
  p: {process: nginx worker, weight: 254, quorum: 2, quorum_max: 4, delay: 5s}
  q: {process: [/usr/sbin/haproxy], full_command: yes}
vrrp_track_file:
  f: {file: /run/weight}
  g: {file: /run/down, weight: 0, reverse: yes}
vrrp_instance:
  VI_1:
    interface: eth0
    virtual_router_id: 51
    virtual_ipaddress: 10.0.0.1
    track_script: [plain, heavy]
    track_process: [p, q weight -3 reverse]
    track_file: [f, g weight -254]
    track_interface: {name: eth1, weight: 10, reverse: yes}
  VI_2:
    interface: eth0
    virtual_router_id: 52
    virtual_ipaddress: 10.0.0.2
    track_script: [{name: plain, weight: 7}, heavy weight 5]
  VI_3:
    interface: eth0
    virtual_router_id: 53
    virtual_ipaddress: 10.0.0.3
    track_script: heavy weight 5 noreverse
`)
	i, j := v.Instances[0], v.Instances[1]
	for _, c := range []struct{ got, want []VRRPTrack }{
		{i.TrackScripts, []VRRPTrack{{Name: "plain"}, {"heavy", -20, true}}},
		{i.TrackProcesses, []VRRPTrack{{"p", 254, false}, {"q", -3, true}}},
		{i.TrackFiles, []VRRPTrack{{"f", 1, false}, {"g", -254, true}}},
		{i.TrackInterfaces, []VRRPTrack{{"eth1", 10, true}}},
		{v.Instances[2].TrackScripts, []VRRPTrack{{"heavy", 5, false}}},
		{j.TrackScripts, []VRRPTrack{{"plain", 7, false}, {"heavy", 5, true}}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%v, want %v", c.got, c.want)
		}
	}
	want := &VRRP{
		Scripts: []VRRPScript{
			{Name: "plain", Command: []string{"/bin/true"}, Interval: time.Second, Timeout: time.Second, Rise: 1, Fall: 1},
			{Name: "heavy", Command: []string{"/bin/grep", "-q", "a b", "/x y"}, Interval: 2 * time.Second, Timeout: 2 * time.Second, Weight: -20, Reverse: true, Rise: 2, Fall: 3, User: "nobody", InitFail: true},
		},
		Processes: []VRRPProcess{
			{Name: "p", Process: []string{"nginx", "worker"}, Weight: 254, Quorum: 2, Most: 4, Delay: 5 * time.Second},
			{Name: "q", Process: []string{"/usr/sbin/haproxy"}, Quorum: 1, Full: true},
		},
		Files: []VRRPFile{{Name: "f", Path: "/run/weight", Weight: 1}, {Name: "g", Path: "/run/down", Reverse: true}},
	}
	if d := cmp.Diff(want, &VRRP{Scripts: v.Scripts, Processes: v.Processes, Files: v.Files}); d != "" {
		t.Error(d)
	}
}

func TestASyncGroupHasItsOwnTracksAndHooks(t *testing.T) {
	v := vrrp(t, `
vrrp_sync_group:
  VG:
    group: [a, b]
    sync_group_tracking_weight: yes
    track_interface: eth2
    notify: /etc/keepbeat/notify.sh
    notify_stop: [/etc/keepbeat/notify.sh, stop]
vrrp_instance:
  a: {interface: eth0, virtual_router_id: 1, virtual_ipaddress: 10.0.0.1}
  b: {interface: eth1, virtual_router_id: 1, virtual_ipaddress: 10.0.1.1}
`)
	want := []VRRPSyncGroup{{
		Name: "VG", Instances: []string{"a", "b"}, Weights: true, TrackInterfaces: []VRRPTrack{{Name: "eth2"}},
		Notify: VRRPNotify{Notify: []string{"/etc/keepbeat/notify.sh"}, Stop: []string{"/etc/keepbeat/notify.sh", "stop"}},
	}}
	if d := cmp.Diff(want, v.SyncGroups); d != "" {
		t.Error(d)
	}
}

func TestWhatAPacketDoesNotHoldIsExcluded(t *testing.T) {
	var b strings.Builder
	for i := range 300 {
		b.WriteString("      - " + netip.AddrFrom4([4]byte{10, 0, byte(i / 200), byte(i%200 + 1)}).String() + "\n")
	}
	v, warns, err := ParseVRRP(VRRPFiles{Data: []byte("vrrp_instance:\n  VI_1:\n    interface: eth0\n    virtual_router_id: 51\n    virtual_ipaddress:\n" + b.String())})
	if err != nil || len(warns) != 1 {
		t.Fatal(warns, err)
	}
	i := v.Instances[0]
	if len(i.Addresses) != 255 || len(i.Excluded) != 45 || i.Excluded[0].String() != "10.0.1.56/32" {
		t.Errorf("%d and %d, from %s", len(i.Addresses), len(i.Excluded), i.Excluded[0])
	}
}

func TestAPasswordInAFileIsItsFirstLine(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		content string
		mode    fs.FileMode
		want    string
		err     string
	}{
		"a line":     {"hunter2\nmore\n", 0o600, "hunter2", ""},
		"dos":        {"hunter2\r\n", 0o640, "hunter2", ""},
		"no newline": {"hunter2", 0o600, "hunter2", ""},
		"open":       {"hunter2\n", 0o644, "", "can be read by everybody; run: chmod 600 "},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(c.content), c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			got, err := ReadSecret(path)
			if got != c.want || (err == nil) != (c.err == "") || err != nil && (!strings.HasPrefix(err.Error(), c.err) || strings.Contains(err.Error(), "hunter2")) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	if _, err := ReadSecret(dir); err == nil {
		t.Error("a directory was read")
	}
}

func TestAnOpenFileWithAPasswordIsWarnedOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), VRRPName)
	text := "vrrp_instance: {VI_1: {interface: eth0, virtual_router_id: 51, virtual_ipaddress: 10.0.0.1, authentication: {auth_pass: hunter2}}}\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	_, warns, err := LoadVRRP(path)
	if err != nil || len(warns) != 1 || !strings.Contains(warns[0].Msg, "chmod 600") {
		t.Errorf("%v, %v", warns, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, warns, err := LoadVRRP(path); err != nil || len(warns) != 0 {
		t.Errorf("%v, %v", warns, err)
	}
}

// A reload reads what lies there at that moment, and nothing of it may hold up the daemon.
func TestAFileThatIsNoneIsRefusedAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), VRRPName)
	for name, put := range map[string]func() error{
		"a FIFO":                func() error { return unix.Mkfifo(path, 0o600) },
		"a directory":           func() error { return os.Mkdir(path, 0o700) },
		"a device without end":  func() error { return os.Symlink("/dev/zero", path) },
		"a link to itself":      func() error { return os.Symlink(path, path) },
		"a link without target": func() error { return os.Symlink(path+"x", path) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := put(); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(path)
			done := make(chan error, 1)
			go func() {
				_, _, err := LoadVRRP(path)
				done <- err
			}()
			select {
			case err := <-done:
				if err == nil || !strings.HasPrefix(err.Error(), path+": ") || strings.Contains(err.Error(), "\n") {
					t.Error(err)
				}
			case <-time.After(time.Minute):
				t.Fatal("it hangs")
			}
		})
	}
}

// Every word of a keepalived.conf that is no key is answered in one line.
func TestWordsOfKeepalivedAreAnswered(t *testing.T) {
	for word, text := range vrrpElsewhere() {
		if !strings.Contains(text, word) || strings.ContainsAny(text, "\n") || len(text) > 250 {
			t.Errorf("%s: %q", word, text)
		}
	}
}

// An alias makes much of little; what it would make is bounded.
func TestAliasesMakeNoBoundlessRouters(t *testing.T) {
	var many, wide strings.Builder
	many.WriteString("vrrp_instance:\n")
	wide.WriteString("vrrp_instance:\n")
	instance := func(b *strings.Builder, i int, more string) {
		fmt.Fprintf(b, "  i%d: {interface: e%d, virtual_router_id: %d, virtual_ipaddress: 10.%d.%d.%d%s}\n", i, i/200, i%200+1, i/40_000, i/200%200, i%200+1, more)
	}
	for i := range 10_001 {
		instance(&many, i, "")
	}
	instance(&wide, 0, ", virtual_routes: &r ["+strings.Repeat("10.9.0.0/16 via 10.0.0.9, ", 5000)+"]")
	for i := range 30 {
		instance(&wide, i+1, ", virtual_routes: *r")
	}
	for name, c := range map[string]struct{ text, want string }{
		"instances": {many.String(), ": more than 10000 entries of vrrp_instance; the limit is 10000"},
		"routes":    {wide.String(), ": more than 100000 addresses, peers, routes and rules; the limit is 100000"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := ParseVRRP(VRRPFiles{Data: []byte(c.text)})
			if err == nil || !strings.HasSuffix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%.300v", err)
			}
		})
	}
}
