package fencing

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/conf"
)

// dummy is fence_dummy of Debian's fence-agents, whose machine is a file.
func dummy(t *testing.T, change func(*conf.FenceDevice)) (f *Fencer, statusFile string) {
	t.Helper()
	if _, err := os.Stat(DefaultAgentDir + "/fence_dummy"); err != nil {
		t.Fatalf("%v; run test/lab/deps.sh fencing", err)
	}
	statusFile = filepath.Join(t.TempDir(), "power")
	if err := os.WriteFile(statusFile, []byte("on"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := conf.FenceDevice{
		Name: "dummy", Type: conf.FenceAgent, Program: "fence_dummy", Timeout: 60 * time.Second,
		Targets: []conf.FenceTarget{{Node: "b"}}, Params: map[string]conf.Param{"status_file": {Value: statusFile}},
	}
	if change != nil {
		change(&d)
	}
	f = New(Config{Node: "a"})
	f.Configure(&conf.Fencing{Action: conf.FenceReboot, Devices: []conf.FenceDevice{d}})
	return f, statusFile
}

func TestFenceDummySwitchesItsMachine(t *testing.T) {
	f, machine := dummy(t, nil)
	if err := f.Can("b"); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		action conf.FenceAction
		want   string
	}{{conf.FenceOff, "off"}, {conf.FenceOff, "off"}, {conf.FenceOn, "on"}, {conf.FenceReboot, "on"}} {
		out, err := f.Fence(t.Context(), Target{Node: "b"}, c.action, nil)
		if err != nil || !out.Done || len(out.Attempts) != 1 || out.Attempts[0].Certain == (c.action == conf.FenceOn) {
			t.Errorf("%s: %+v, %v", c.action, out, err)
		}
		if got := read(t, machine); got != c.want {
			t.Errorf("after %s the machine is %s", c.action, got)
		}
	}
	list, err := f.Test(t.Context(), "dummy")
	if err != nil || len(list) != 1 || list[0].Error != "" || list[0].Kind != "agent fence_dummy" {
		t.Errorf("%+v, %v", list, err)
	}
	if problems := Validate(t.Context(), f.cfg, f.spec); len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
	if err := f.Unfence(t.Context(), "b"); err != nil {
		t.Error(err)
	}
	if plan := f.Plan("b", conf.FenceReboot); plan[0] != "level 1: device dummy (agent fence_dummy): reboot, one try of at most 1m0s" {
		t.Errorf("%q", plan)
	}
}

func TestFenceDummyThatFails(t *testing.T) {
	f, _ := dummy(t, func(d *conf.FenceDevice) {
		d.Params["type"], d.Params["power_timeout"], d.Retries = conf.Param{Value: "fail"}, conf.Param{Value: "1"}, 1
	})
	out, err := f.Fence(t.Context(), Target{Node: "b"}, conf.FenceOff, nil)
	if err == nil || out.Done || len(out.Attempts) != 2 || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("%+v, %v", out, err)
	}
}

// TestTwoDummiesAreOffTogether shows the two power supplies of a machine.
func TestTwoDummiesAreOffTogether(t *testing.T) {
	f, left := dummy(t, nil)
	_, right := dummy(t, nil)
	second := f.spec.Devices[0]
	second.Name, second.Params = "second", map[string]conf.Param{"status_file": {Value: right}}
	f.Configure(&conf.Fencing{
		Devices:  []conf.FenceDevice{f.spec.Devices[0], second},
		Topology: map[string][][]string{"b": {{"dummy", "second"}}},
	})
	var got []string
	out, err := f.Fence(t.Context(), Target{Node: "b"}, conf.FenceReboot, func(a Attempt) {
		got = append(got, fmt.Sprintf("%s %s: %s %s %t", a.Device, a.Action, read(t, left), read(t, right), a.Certain))
	})
	want := []string{"dummy off: off on false", "second off: off off true", "dummy on: on off false", "second on: on on false"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil || !out.Done {
		t.Errorf("%+v, %v (-want +got):\n%s", out, err, diff)
	}
}

// TestMetadataOfAgents reads what agents of every kind print. (All 84 programs of
// fence-agents 4.12 were read once; fence_ack_manual alone is no agent.)
func TestMetadataOfAgents(t *testing.T) {
	f := New(Config{})
	for name, want := range map[string]string{
		"fence_dummy": "reboot, single", "fence_ipmilan": "reboot, plug, single", "fence_virsh": "reboot, plug",
		"fence_scsi": "plug, unfencing, by the node itself", "fence_brocade": "plug, unfencing", "fence_pve": "reboot, plug",
		"fence_kdump": "nodename", "fence_rcd_serial": "reboot, single", "fence_heuristics_ping": "reboot, single",
	} {
		m, err := f.meta.of(t.Context(), &agent{f: f, path: filepath.Join(DefaultAgentDir, name)})
		if err != nil {
			t.Errorf("%v; run test/lab/deps.sh fencing", err)
			continue
		}
		var got []string
		for _, x := range []struct {
			is   bool
			word string
		}{
			{m.actions["reboot"], "reboot"}, {m.target() != "", m.target()}, {m.single(nil), "single"},
			{m.onItself, "unfencing"}, {m.onTarget, "by the node itself"},
		} {
			if x.is {
				got = append(got, x.word)
			}
		}
		if g := strings.Join(got, ", "); g != want {
			t.Errorf("%s: %s, and not %s", name, g, want)
		}
	}
}

// fake writes an agent that notes its input line by line and answers as the text says; $action is set.
func fake(t *testing.T, meta, answers string) (cfg Config, dir string) {
	t.Helper()
	dir = t.TempDir()
	writeProgram(t, dir+"/fence_fake", `#!/bin/bash
cd `+dir+`
[ $# = 0 ] || exit 9
in=$(cat)
action=$(sed -n s/^action=//p <<<"$in")
if [ "$action" = metadata ]; then cat meta.xml; exit 0; fi
tr '\n' ' ' <<<"$in" >>told; echo >>told
env >environment
`+answers+"\n")
	if err := os.WriteFile(dir+"/meta.xml", []byte(meta), 0o600); err != nil {
		t.Fatal(err)
	}
	return Config{Node: "a", AgentDir: dir, Verify: time.Millisecond}, dir
}

// meta is metadata made of words: actions, and parameters with ! when required.
func meta(actions, parameters string) string {
	b := &strings.Builder{}
	b.WriteString("<?xml version=\"1.0\" ?>\n<resource-agent name=\"fence_fake\"><parameters>")
	for _, p := range strings.Fields(parameters) {
		name, required := strings.CutSuffix(p, "!")
		name, older, _ := strings.Cut(name, ">")
		fmt.Fprintf(b, `<parameter name="%s" required="%d" obsoletes="%s"><content type="string"/></parameter>`, name, map[bool]int{true: 1}[required], older)
	}
	b.WriteString("</parameters><actions>")
	for _, a := range strings.Fields(actions) {
		name, automatic := strings.CutSuffix(a, "!")
		fmt.Fprintf(b, `<action name="%s" automatic="%d"/>`, name, map[bool]int{true: 1}[automatic])
	}
	b.WriteString("</actions></resource-agent>\n")
	return b.String()
}

func fakeDevice(params map[string]conf.Param, port string) *conf.Fencing {
	return &conf.Fencing{Action: conf.FenceReboot, Devices: []conf.FenceDevice{{
		Name: "x", Type: conf.FenceAgent, Program: "fence_fake", Timeout: 20 * time.Second, Params: params,
		Targets: []conf.FenceTarget{{Node: "b", Port: port}},
	}}}
}

func TestWhatAnAgentIsTold(t *testing.T) {
	pass := conf.Param{File: secretFile(t, "hunter2")}
	for _, c := range []struct {
		name, meta string
		params     map[string]conf.Param
		port       string
		action     conf.FenceAction
		answers    string
		want       string // what it was told, line by line
		err        string
	}{
		{
			name: "old names where it has old ones", meta: meta("off on reboot status", "port ipaddr login passwd"),
			params: map[string]conf.Param{"ipaddr": {Value: "10.0.0.1"}, "passwd": pass}, port: "3", action: conf.FenceReboot,
			want: "action=reboot port=3 ipaddr=10.0.0.1 passwd=hunter2",
		},
		{
			name: "new names where it has both", meta: meta("off on reboot status", "plug>port port ip>ipaddr ipaddr"),
			params: map[string]conf.Param{"ip": {Value: "10.0.0.1"}}, action: conf.FenceReboot,
			want: "action=reboot plug=b ip=10.0.0.1",
		},
		{
			name: "nodename where it has no plug", meta: meta("off monitor", "nodename"), action: conf.FenceOff,
			want: "action=off nodename=b",
		},
		{
			name: "no name where the plug is the board's address", meta: meta("off on reboot status", "plug port_as_ip"), action: conf.FenceReboot,
			want: "action=reboot",
		},
		{
			name: "off is verified", meta: meta("off on reboot status", ""), action: conf.FenceOff,
			answers: `[ $action = off ] || exit 2`, want: "action=off\naction=status",
		},
		{
			name: "off that changes nothing is found out", meta: meta("off on reboot status", ""), action: conf.FenceOff,
			answers: "exit 0", err: "the agent says that off is done, and its status that the node is on",
		},
		{
			name: "off that nobody can see is not certain", meta: meta("off on reboot status", ""), action: conf.FenceOff,
			answers: `[ $action = off ] || { echo no link; exit 1; }`, err: "its status cannot tell: exit status 1: no link",
		},
		{
			name: "off is believed where there is no status", meta: meta("off on", ""), action: conf.FenceOff, want: "action=off",
		},
		{
			name: "no reboot: off, verified, and on", meta: meta("off on status", "plug!"), action: conf.FenceReboot,
			answers: `[ $action = status ] && exit 2; exit 0`, want: "action=off plug=b\naction=status plug=b\naction=on plug=b",
		},
		{
			name: "no reboot and an on that unfences: off only", meta: meta("off on! status", "plug!"), action: conf.FenceReboot,
			answers: `[ $action = status ] && exit 2; exit 0`, want: "action=off plug=b\naction=status plug=b",
		},
		{
			name: "a password that it prints", meta: meta("off on reboot status", "passwd"), action: conf.FenceReboot,
			params: map[string]conf.Param{"passwd": pass}, answers: `echo "unknown option '$in'" >&2; exit 1`,
			err: "exit status 1: unknown option 'action=reboot; passwd=****'",
		},
		{
			name: "a value that would not arrive", meta: meta("off on reboot status", "passwd"), action: conf.FenceReboot,
			params: map[string]conf.Param{"passwd": {File: secretFile(t, "hunter2 ")}}, err: "parameter passwd: its value begins or ends with a blank",
		},
		{
			name: "a value of several lines", meta: meta("off on reboot status", "zone"), action: conf.FenceReboot,
			params: map[string]conf.Param{"zone": {Value: "x\naction=on"}}, err: "parameter zone: the value has a line break",
		},
		{
			name: "an agent that is none", meta: "usage: fence_fake", action: conf.FenceOff, err: "is it a fence agent?",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, dir := fake(t, c.meta, c.answers)
			f := New(cfg)
			f.Configure(fakeDevice(c.params, c.port))
			out, err := f.Fence(t.Context(), Target{Node: "b"}, c.action, nil)
			if c.err != "" {
				if out.Done || err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "hunter") {
					t.Errorf("says %v\nwant %s", err, c.err)
				}
				return
			}
			if err != nil || !out.Done {
				t.Fatal(err)
			}
			var told []string
			for line := range strings.Lines(read(t, dir+"/told")) {
				told = append(told, strings.TrimSpace(line))
			}
			if diff := cmp.Diff(c.want, strings.Join(told, "\n")); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
			if env := read(t, dir+"/environment"); strings.Contains(env, "hunter") || strings.Contains(env, "10.0.0.1") {
				t.Errorf("parameters in the environment: %s", env)
			}
		})
	}
}

func TestUnfenceIsForDevicesThatTakeSomethingAway(t *testing.T) {
	for _, c := range []struct {
		name, meta, answers string
		change              func(*conf.FenceDevice)
		want, err           string
	}{
		{name: "a fabric", meta: meta("off on! status", "plug!"), want: "action=on plug=a-7"},
		{name: "a power switch", meta: meta("off on reboot status", "plug!")},
		{name: "one that fails", meta: meta("off on! status", "plug!"), answers: "echo no path; exit 1", err: "device x: on: exit status 1: no path"},
		{name: "one that others operate", meta: meta("off on! status", "plug!"), change: func(d *conf.FenceDevice) { d.RunOn = []string{"c"} }, err: "operated by c only"},
		{name: "one that is not installed", change: func(d *conf.FenceDevice) { d.Program = "fence_none" }},
		{name: "one of another node", meta: meta("off on! status", "plug!"), change: func(d *conf.FenceDevice) { d.Targets[0].Node = "b" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, dir := fake(t, c.meta, c.answers)
			f := New(cfg)
			spec := fakeDevice(nil, "a-7")
			spec.Devices[0].Targets[0].Node = "a"
			if c.change != nil {
				c.change(&spec.Devices[0])
			}
			f.Configure(spec)
			err := f.Unfence(t.Context(), "a")
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("says %v, want %s", err, c.err)
			}
			told, err := os.ReadFile(dir + "/told")
			if got := strings.TrimSpace(string(told)); c.err == "" && got != c.want || err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("told %q, %v", got, err)
			}
		})
	}
}

// TestWhatLeavesANodeRunningFencesOneThatHasLostItsLease: what counts for a node
// that is trusted, for one that has to end (a pair's), and for any.
func TestWhatLeavesANodeRunningFencesOneThatHasLostItsLease(t *testing.T) {
	any, ends, trusted := Target{Node: "b"}, Target{Node: "b", Ends: true}, Target{Node: "b", Trusted: true}
	hour := func() time.Duration { return time.Hour }
	any.Silence, ends.Silence, trusted.Silence = hour, hour, hour
	fabric, power := meta("off on! status", "plug!"), meta("off on reboot", "plug!")
	dog := conf.FenceDevice{Name: "dog", Type: conf.FenceWatchdog, Timeout: time.Minute, Targets: []conf.FenceTarget{{Node: "b"}}}
	script := conf.FenceDevice{Name: "hook", Type: conf.FenceScript, Timeout: time.Minute, Targets: dog.Targets}
	for _, c := range []struct {
		name, meta string
		target     Target
		also       *conf.FenceDevice // on the next level
		by         string            // device that did it; empty: none
		err        string            // what the errors go on with after `device `
	}{
		{"a fabric cuts off who has lost its lease", fabric, any, nil, "x", ""},
		{"a fabric is not enough in a pair", fabric, ends, nil, "", "x, off: it cuts b off and does not end it"},
		{"a fabric is not enough for who is trusted", fabric, trusted, nil, "", "x"},
		{"a power switch ends who is trusted", power, trusted, nil, "x", ""},
		{"the next level does", fabric, trusted, &script, "hook", ""},
		{"a watchdog has reset who is heard by nobody", "", any, &dog, "dog", ""},
		{"silence here is no proof of who is trusted", "", trusted, &dog, "", "dog"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, dir := fake(t, c.meta, `[ $action = status ] && exit 2; exit 0`)
			cfg.Resets = believed
			f := New(cfg)
			spec := fakeDevice(nil, "")
			if c.meta == "" {
				spec.Devices = nil
			}
			if c.also != nil {
				d := *c.also
				if d.Type == conf.FenceScript {
					d.Program = dir + "/hook"
					writeProgram(t, d.Program, "#!/bin/sh\nexit 0\n")
				}
				spec.Devices = append(spec.Devices, d)
			}
			f.Configure(spec)
			out, err := f.Fence(t.Context(), c.target, conf.FenceReboot, nil)
			if out.Done != (c.by != "") || (err == nil) != out.Done || err != nil && !strings.Contains(err.Error(), "device "+c.err) {
				t.Errorf("%+v, %v", out, err)
			}
			if out.Done && out.Attempts[len(out.Attempts)-1].Device != c.by {
				t.Errorf("by %+v and not %s", out.Attempts, c.by)
			}
			if want := out.Done && (c.target.Ends || c.target.Trusted); out.Ended != want {
				t.Errorf("ended: %t", out.Ended)
			}
			if !c.target.Trusted {
				return
			}
			if err := f.Ends(t.Context(), "b"); (err == nil) != out.Done || err != nil && !strings.Contains(err.Error(), "level 1: device "+c.err) {
				t.Errorf("Ends says %v", err)
			}
		})
	}
}

func TestMetadataIsReadAgainWhenTheAgentChanges(t *testing.T) {
	cfg, dir := fake(t, meta("off on status", ""), `[ $action = status ] && exit 2; exit 0`)
	f := New(cfg)
	f.Configure(fakeDevice(nil, ""))
	rebooted := func() string {
		if _, err := f.Fence(t.Context(), Target{Node: "b"}, conf.FenceReboot, nil); err != nil {
			t.Fatal(err)
		}
		told := read(t, dir+"/told")
		_ = os.Remove(dir + "/told")
		return strings.Join(strings.Fields(told), " ")
	}
	if got := rebooted(); got != "action=off action=status action=on" {
		t.Error(got)
	}
	if err := os.WriteFile(dir+"/meta.xml", []byte(meta("off on reboot status", "")), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := rebooted(); got != "action=off action=status action=on" { // the program is the same
		t.Error(got)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(dir+"/fence_fake", later, later); err != nil {
		t.Fatal(err)
	}
	if got := rebooted(); got != "action=reboot" {
		t.Error(got)
	}
}

func TestValidateAgents(t *testing.T) {
	ip := conf.Param{Value: "10.0.0.1"}
	open := secretFile(t, "x")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*conf.FenceDevice)
		want   string
	}{
		{"nothing", func(*conf.FenceDevice) {}, ""},
		{"the older names", func(d *conf.FenceDevice) {
			d.Params = map[string]conf.Param{"ipaddr": ip, "login": {Value: "admin"}}
		}, ""},
		{"a misspelt name", func(d *conf.FenceDevice) { d.Params["pasword"] = conf.Param{Value: "x"} },
			`device x: parameter pasword: fence_virsh knows none of that name; did you mean "password"?`},
		{"required ones", func(d *conf.FenceDevice) { d.Params = nil },
			"device x: fence_virsh needs ip and username under params"},
		{"what keepbeat tells", func(d *conf.FenceDevice) { d.Params["plug"] = conf.Param{Value: "3"} },
			"device x: parameter plug: keepbeat itself tells the agent; take it out (the plug of each node belongs into targets)"},
		{"both names", func(d *conf.FenceDevice) { d.Params["ipaddr"] = ip },
			"device x: parameter ipaddr: is the older name of ip, which is given too; take one of them out"},
		{"a choice", func(d *conf.FenceDevice) {
			d.Program = "fence_ipmilan"
			d.Params["method"] = conf.Param{Value: "twice"}
		},
			"device x: parameter method: fence_ipmilan takes onoff, cycle"},
		{"a reboot that is not verified", func(d *conf.FenceDevice) {
			d.Program = "fence_ipmilan"
			d.Params["method"] = conf.Param{Value: "cycle"}
		},
			"device x: parameter method: with cycle the agent does not look whether the node was ever off; onoff does"},
		{"passwords in logs", func(d *conf.FenceDevice) { d.Params["verbose"] = conf.Param{Value: "1"} },
			"device x: parameter verbose: makes some agents write passwords into logs"},
		{"a secret that others can read", func(d *conf.FenceDevice) { d.Params["password"] = conf.Param{File: open} },
			"device x: parameter password: " + open + ": others than its owner have rights on it (mode 0644); chmod 600 " + open},
		{"time-outs that contradict each other", func(d *conf.FenceDevice) { d.Params["power_timeout"] = conf.Param{Value: "30"} },
			"device x: by its own time-outs fence_virsh may need 1m8s for reboot, and timeout is 1m0s; raise timeout, or lower power_timeout and its like under params"},
		{"an agent that is not installed", func(d *conf.FenceDevice) { d.Program = "fence_virshh" },
			"device x: stat /usr/sbin/fence_virshh: no such file or directory; install the package that has it (fence-agents, cluster-glue), or correct its name"},
		{"one machine for two nodes", func(d *conf.FenceDevice) {
			d.Program, d.Targets = "fence_ipmilan", append(d.Targets, conf.FenceTarget{Node: "c"})
		}, "device x: fence_ipmilan operates one machine, and here it is to be 2; make a device for each node"},
		{"a plug without a use", func(d *conf.FenceDevice) { d.Program, d.Params, d.Targets[0].Port = "fence_dummy", nil, "7" },
			`device x: fence_dummy operates one machine and has no plugs; take "7" of b out`},
		{"a program that is no agent", func(d *conf.FenceDevice) { d.Program, d.Params = "/bin/echo", nil },
			"device x: /bin/echo: metadata that ends too early, or none; is it a fence agent?"},
		{"not what others operate", func(d *conf.FenceDevice) { d.RunOn, d.Program = []string{"c"}, "fence_none" }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := conf.FenceDevice{
				Name: "x", Type: conf.FenceAgent, Program: "fence_virsh", Timeout: 60 * time.Second, Targets: []conf.FenceTarget{{Node: "b"}},
				Params: map[string]conf.Param{"ip": ip, "username": {Value: "admin"}},
			}
			c.change(&d)
			var got []string
			for _, p := range Validate(t.Context(), Config{Node: "a"}, &conf.Fencing{Action: conf.FenceReboot, Devices: []conf.FenceDevice{d}}) {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(c.want, strings.Join(got, "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// The other one of a pair runs on behind a fence that only cuts it off, and takes that as the proof that it was not fenced.
func TestADeviceThatOnlyCutsOffIsRefusedForAPair(t *testing.T) {
	for _, c := range []struct {
		actions string
		pair    bool
		want    string
	}{
		{"off on! status", false, ""},
		{"off on! status", true, "cuts a node off and does not end it, which is not enough for a pair (`quorum: fencing`): use a device that switches it off, or add a witness"},
		{"off on reboot status", true, ""},
	} {
		cfg, _ := fake(t, meta(c.actions, "plug!"), "")
		cfg.Pair = c.pair
		var got []string
		for _, p := range Validate(t.Context(), cfg, fakeDevice(nil, "a-7")) {
			got = append(got, strings.TrimPrefix(p.String(), "device x: fence_fake "))
		}
		if text := strings.Join(got, "\n"); text != c.want {
			t.Errorf("%s, in a pair %v: %q, want %q", c.actions, c.pair, text, c.want)
		}
	}
}
