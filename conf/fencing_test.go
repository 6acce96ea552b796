package conf

import (
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
