package conf

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// whole is a section with everything that may be written.
const whole = `
fencing:
  action: off
  priority_fencing_delay: 10s
  random_delay: 1s
  devices:
    ipmi-director1:
      agent: fence_ipmilan
      targets: [director1]
      run_on: [director2]
      params: {ip: 10.9.0.1, username: admin, password: {file: /etc/keepbeat/ipmi.secret}, lanplus: yes}
      timeout: 90s
      retries: 0
      delay: 2s
      monitor_interval: 0s
    pdu-a: {external: external/rackpdu, targets: {director1: 3, Director2: "04"}, params: {community: {env: PDU_COMMUNITY}, empty: ""}}
    pdu-b: {agent: /usr/sbin/fence_apc, targets: {director1: "3,4", director2: }}
    hook:  {script: /etc/keepbeat/fence.sh, targets: [director1, director2]}
    hands: {manual: yes, targets: [director1, director2]}
    dog:   {watchdog: yes, timeout: 20s, targets: director1}
  topology:
    director1: [ipmi-director1, [pdu-a, pdu-b], [hook, dog], hands]
groups:
  web: {priority: 10, resources: [{vip: 10.0.0.1, class: fenced}]}
  old: {resources: [{vip: 10.0.0.2}]}
`

func pairOf(q Quorum) *Local {
	return &Local{Name: "director1", Nodes: []Node{{"director1", Director}, {"director2", Director}}, Quorum: q, Profile: ProfileDefault,
		Watchdog: Watchdog{"/dev/watchdog", 10 * time.Second}}
}

func parseFencing(t *testing.T, text string, local *Local) *Spec {
	t.Helper()
	s, _, err := ParseSpec(Files{Haresources: []byte(text)}, local)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFencingMeansWhatIsWritten(t *testing.T) {
	s := parseFencing(t, whole, pairOf(QuorumFencing))
	device := func(name string, kind FenceType, program string, targets ...FenceTarget) FenceDevice {
		d := FenceDevice{Name: name, Type: kind, Program: program, Targets: targets, Timeout: time.Minute, Retries: 1, MonitorInterval: time.Minute}
		if kind == FenceManual || kind == FenceWatchdog {
			d.Retries, d.MonitorInterval = 0, 0
		}
		return d
	}
	one, two := FenceTarget{"director1", ""}, FenceTarget{"director2", ""}
	ipmi := device("ipmi-director1", FenceAgent, "fence_ipmilan", one)
	ipmi.RunOn, ipmi.Timeout, ipmi.Retries, ipmi.Delay, ipmi.MonitorInterval = []string{"director2"}, 90*time.Second, 0, 2*time.Second, 0
	ipmi.Params = map[string]Param{"ip": {Value: "10.9.0.1"}, "username": {Value: "admin"}, "password": {File: "/etc/keepbeat/ipmi.secret"}, "lanplus": {Value: "yes"}}
	pduA := device("pdu-a", FenceExternal, "rackpdu", FenceTarget{"director1", "3"}, FenceTarget{"director2", "04"})
	pduA.Params = map[string]Param{"community": {Env: "PDU_COMMUNITY"}, "empty": {}}
	hands := device("hands", FenceManual, "", one, two)
	hands.Timeout = 30 * time.Minute
	dog := device("dog", FenceWatchdog, "", one)
	dog.Timeout = 20 * time.Second
	want := &Fencing{
		Action: FenceOff, PriorityDelay: 10 * time.Second, RandomDelay: time.Second,
		Devices: []FenceDevice{ipmi, pduA,
			device("pdu-b", FenceAgent, "/usr/sbin/fence_apc", FenceTarget{"director1", "3,4"}, two),
			device("hook", FenceScript, "/etc/keepbeat/fence.sh", one, two), hands, dog},
		Topology: map[string][][]string{"director1": {{"ipmi-director1"}, {"pdu-a", "pdu-b"}, {"hook", "dog"}, {"hands"}}},
	}
	if d := cmp.Diff(want, s.Fencing); d != "" {
		t.Errorf("fencing (-want +got):\n%s", d)
	}
	if s.Groups[0].Priority != 10 || s.Groups[1].Priority != 1 || s.Groups[0].Resources[0].Class != Fenced {
		t.Errorf("%+v", s.Groups)
	}
	if d := cmp.Diff([][]string{{"pdu-a"}, {"pdu-b"}, {"hook"}, {"hands"}}, s.Fencing.Levels("director2")); d != "" {
		t.Errorf("levels of a node that topology does not name:\n%s", d)
	}
	roundTrip(t, s)
}

func TestFencingDefaults(t *testing.T) {
	s := parseFencing(t, "fencing: {devices: {hook: {script: /x, targets: [director1, director2]}}}\ngroups: {web: {resources: [{vip: 10.0.0.1}]}}", nil)
	f := s.Fencing
	if f.Action != FenceReboot || f.PriorityDelay != time.Second || f.RandomDelay != 0 || f.Topology != nil {
		t.Errorf("%+v", f)
	}
	roundTrip(t, s)
}

// ParseSpec knows the ha.yaml of the node where it runs; the others ask again.
func TestASpecificationIsValidForSomeNodesOnly(t *testing.T) {
	const text = `
fencing:
  devices:
    pdu: {agent: fence_apc, targets: {director1: 1, director2: 2}, run_on: [director3]}
    ipmi: {agent: fence_ipmilan, targets: [director3]}
    dog: {watchdog: yes, timeout: 20s, targets: [director2]}
groups: {web: {resources: [{vip: 10.0.0.1, class: fenced}]}}
`
	three := pairOf(QuorumMajority)
	three.Nodes = append(three.Nodes, Node{"director3", Director})
	s := parseFencing(t, text, three)
	change := func(f func(*Local)) *Local {
		l := *three
		f(&l)
		return &l
	}
	for name, c := range map[string]struct {
		local *Local
		want  string
	}{
		"the node that read it": {three, ""},
		"a node whose watchdog is slow": {change(func(l *Local) { l.Name, l.Watchdog.Timeout = "director2", 30*time.Second }),
			`device "dog" waits 20s, and the watchdog of director2 takes up to 30s (ha.yaml); make its timeout 1m26s or more`},
		"a node without its watchdog": {change(func(l *Local) { l.Name, l.Watchdog = "director2", Watchdog{} }),
			`device "dog" counts on the watchdog of director2, and ha.yaml there names none; add "watchdog: /dev/watchdog" to it`},
		"a fourth node that nothing can fence": {change(func(l *Local) { l.Nodes = append(l.Nodes[:3:3], Node{"director4", Director}) }),
			`group web: vip 10.0.0.1 is of class fenced, and no device that another node may operate can fence director4; add one under "fencing: {devices: ...}"`},
		"the operator of a device is a witness": {change(func(l *Local) { l.Nodes = append(l.Nodes[:2:2], Node{"director3", Witness}) }),
			`device "pdu" is operated by directors, and director3 in run_on is a witness, which votes and does nothing else; take it out of run_on, and name a director, or nobody (every director but the target)` + "\n" +
				`group web: vip 10.0.0.1 is of class fenced, and no device that another node may operate can fence director1; add one under "fencing: {devices: ...}"`},
		"the operator of a device has left": {change(func(l *Local) { l.Nodes, l.Quorum = l.Nodes[:2], QuorumFencing }),
			"quorum is fencing in ha.yaml, and no device that another node may operate can fence director1; add one under \"fencing: {devices: ...}\"\n" +
				`device "dog" alone cannot fence director2 in a pair: when the links are cut, each node would wait for the other's watchdog, and both go on; let a device that switches the node off succeed with it, take it out, or add a witness`},
		"a node whose serial line is too slow for the cluster's profile": {change(func(l *Local) {
			l.Profile, l.Links = ProfileCalm, []Link{{Type: Bcast, Interface: "eth1"}, {Type: Serial, Device: "/dev/ttyS0", Baud: 9600}}
		}),
			`the profile of the cluster is not that of ha.yaml: 9600 baud are too slow for leases of 500ms (profile default): when /dev/ttyS0 is all that is left they would end; write "- serial: {device: /dev/ttyS0, baud: 19200}" on both nodes, or choose a calmer profile`},
		"a pair without a rule that is certain": {change(func(l *Local) { l.Nodes, l.Quorum = l.Nodes[:2], QuorumUnsafe }),
			"group web: vip 10.0.0.1 is of class fenced, and under quorum unsafe two nodes could own it; use quorum fencing, or a witness and fencing devices"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := s.ValidFor(c.local); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("it says\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestNamesThatSayThatTheValueIsASecret(t *testing.T) {
	for name, want := range map[string]bool{
		"password": true, "passwd": true, "ipmi_passwd": true, "ilo_password": true, "adminpassword": true, "snmp_priv_passwd": true,
		"community": true, "key": true, "api_key": true, "secret_key": true, "access-token": true, "pin": true, "PASSWORD": true, "passphrase": true, "password2": true,
		"ip": false, "username": false, "plug": false, "lanplus": false, "password_script": false, "passwd_script": false, "identity_file": false, "key_file": false,
		"snmp_auth_prot": false, "keyboard": false, "monkey": false, "compass": false, "pinned": false, "login_timeout": false, "cipher": false,
	} {
		if got := IsSecret(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// The message must help without showing what was written.
func TestNoMessageShowsASecret(t *testing.T) {
	for _, params := range []string{
		"{password: hunter2}", "{password: {file: hunter2}}", "{password: {env: -hunter2}}", "{password: {value: hunter2}}", "{url: 'x://a:hunter2@b'}",
		"{password: [hunter2]}", "{password: !x hunter2}", "{password: \"hunter2\\n\"}", "{password: {hunter2: 1}}", "hunter2", "[hunter2]", "{password: &a hunter2, x: *a}",
		"{password: {file: [hunter2]}}", "{password: {file: \"hunter2\\n\"}}", "{password: {env: \"hunter2\\n\"}}", "{password: {file: !x hunter2}}",
	} {
		text := "fencing: {devices: {hook: {script: /x, targets: [director1], params: " + params + "}}}\ngroups: {web: {resources: [{vip: 10.0.0.1}]}}"
		_, warns, err := ParseSpec(Files{Haresources: []byte(text)}, nil)
		if err == nil {
			t.Errorf("%s: accepted", params)
			continue
		}
		if s := err.Error() + fmt.Sprint(warns); strings.Contains(s, "hunter2") {
			t.Errorf("%s: %s", params, s)
		}
	}
}

// Under profile calm a lease is longer than the default delay.
func TestADelayShorterThanALeaseIsWarnedOf(t *testing.T) {
	for _, c := range []struct {
		profile Profile
		rule    Quorum
		text    string
		warned  bool
	}{
		{ProfileDefault, QuorumFencing, "", false},
		{ProfileCalm, QuorumFencing, "", true},
		{ProfileCalm, QuorumFencing, "  priority_fencing_delay: 3s\n", false},
		{ProfileCalm, QuorumPing, "", false},
	} {
		local := pairOf(c.rule)
		local.Profile = c.profile
		_, warnings, err := ParseSpec(Files{Haresources: []byte("fencing:\n" + c.text + "  devices:\n    power: {script: /bin/true, targets: [director1, director2]}\n" +
			"groups:\n  web: {prefer: [director1], resources: [{vip: 10.0.0.200/24/eth0}]}\n")}, local)
		if err != nil {
			t.Fatal(err)
		}
		warned := slices.ContainsFunc(warnings, func(w Warning) bool { return strings.Contains(w.String(), "is less than 1.3 leases (2.6s)") })
		if warned != c.warned {
			t.Errorf("profile %s, quorum %v, %q: %v", c.profile.Name, c.rule, c.text, warnings)
		}
	}
}
