package fencing

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// libvirt returns a Fencer with cluster-glue's external/libvirt for node b. The
// plugin is the real one; virsh, which it calls, is a stand-in that keeps the state
// of a domain in a file.
func libvirt(t *testing.T, change func(*conf.FenceDevice)) (f *Fencer, dir string) {
	t.Helper()
	if _, err := os.Stat(DefaultPluginDir + "/libvirt"); err != nil {
		t.Fatalf("%v; run test/lab/deps.sh fencing", err)
	}
	dir = t.TempDir()
	writeProgram(t, dir+"/virsh", `#!/bin/bash
cd `+dir+`
echo "$*" >>told
[ "$1 $2" = "-c test:///" ] || { echo "no hypervisor $2"; exit 1; }
case $3 in
version) exit 0 ;;
destroy) [ "$(cat domain-$4)" = on ] || { echo "domain is not running"; exit 1; }; echo off >domain-$4 ;;
start) echo on >domain-$4 ;;
dominfo) grep -q on domain-$4 && echo "State: running" || echo "State: shut off" ;;
*) exit 1 ;;
esac
`)
	if err := os.WriteFile(dir+"/domain-vm7", []byte("on\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := conf.FenceDevice{
		Name: "virt", Type: conf.FenceExternal, Program: "libvirt", Timeout: 60 * time.Second, Targets: []conf.FenceTarget{{Node: "b"}},
		Params: map[string]conf.Param{"hostlist": {Value: "b:vm7"}, "hypervisor_uri": {Value: "test:///"}},
	}
	if change != nil {
		change(&d)
	}
	f = New(Config{Node: "a", Path: dir + ":" + DefaultPath})
	f.Configure(&conf.Fencing{Action: conf.FenceReboot, Devices: []conf.FenceDevice{d}})
	return f, dir
}

func TestAClusterGluePluginSwitchesItsMachine(t *testing.T) {
	f, dir := libvirt(t, nil)
	if err := f.Can("b"); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		action conf.FenceAction
		want   string
	}{{conf.FenceOff, "off"}, {conf.FenceOff, "off"}, {conf.FenceOn, "on"}, {conf.FenceReboot, "on"}} {
		out, err := f.Fence(t.Context(), Target{Node: "b"}, c.action, nil)
		if err != nil || !out.Done {
			t.Errorf("%s: %+v, %v", c.action, out, err)
		}
		if got := strings.TrimSpace(read(t, dir+"/domain-vm7")); got != c.want {
			t.Errorf("after %s the machine is %s", c.action, got)
		}
	}
	if told := read(t, dir+"/told"); !strings.HasSuffix(told, "-c test:/// destroy vm7\n-c test:/// start vm7\n") {
		t.Errorf("reset did: %s", told)
	}
	list, err := f.Test(t.Context(), "")
	if err != nil || len(list) != 1 || list[0].Error != "" || list[0].Kind != "external libvirt" {
		t.Errorf("%+v, %v", list, err)
	}
	if problems := Validate(t.Context(), f.cfg, f.spec); len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
}

func TestAPluginThatFails(t *testing.T) {
	f, _ := libvirt(t, func(d *conf.FenceDevice) { d.Params["hypervisor_uri"] = conf.Param{Value: "xen:///"} })
	if out, err := f.Fence(t.Context(), Target{Node: "b"}, conf.FenceOff, nil); err == nil || out.Done || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("%+v, %v", out, err)
	}
	f, _ = libvirt(t, func(d *conf.FenceDevice) { d.Params["hostlist"] = conf.Param{Value: "bb:vm7"} })
	if list, err := f.Test(t.Context(), "virt"); err != nil || list[0].Error != `gethosts does not name b; did you mean "bb"?` {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestValidatePlugins(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*conf.FenceDevice)
		want   string
	}{
		{"a misspelt name", func(d *conf.FenceDevice) { d.Params["host_list"] = conf.Param{Value: "x"} },
			`device virt: parameter host_list: external libvirt knows none of that name; did you mean "hostlist"?`},
		{"a required one", func(d *conf.FenceDevice) { delete(d.Params, "hypervisor_uri") },
			"device virt: external libvirt needs hypervisor_uri under params"},
		{"one that only its XML names", func(d *conf.FenceDevice) { d.Params["reset_method"] = conf.Param{Value: "reboot"} }, ""},
		{"a plugin that is not there", func(d *conf.FenceDevice) { d.Program = "libvirtt" },
			"device virt: stat /usr/lib/stonith/plugins/external/libvirtt: no such file or directory; install the package that has it (fence-agents, cluster-glue), or correct its name"},
		{"a secret that is not there", func(d *conf.FenceDevice) { d.Params["hypervisor_uri"] = conf.Param{Env: "NO_SUCH_VARIABLE_HERE"} },
			"device virt: parameter hypervisor_uri: the daemon's environment has no variable NO_SUCH_VARIABLE_HERE; set it in the unit (Environment= or EnvironmentFile=) and restart the daemon"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, _ := libvirt(t, c.change)
			var got []string
			for _, p := range Validate(t.Context(), f.cfg, f.spec) {
				got = append(got, p.String())
			}
			if s := strings.Join(got, "\n"); s != c.want {
				t.Errorf("got  %s\nwant %s", s, c.want)
			}
		})
	}
}

func TestAPluginThatOthersCanChangeIsNotRun(t *testing.T) {
	dir := t.TempDir()
	writeProgram(t, dir+"/mine", "#!/bin/sh\ntouch "+dir+"/ran\n")
	if err := os.Chmod(dir+"/mine", 0o775); err != nil {
		t.Fatal(err)
	}
	f := New(Config{Node: "a", PluginDir: dir})
	f.Configure(&conf.Fencing{Devices: []conf.FenceDevice{{Name: "m", Type: conf.FenceExternal, Program: "mine", Timeout: time.Minute, Targets: []conf.FenceTarget{{Node: "b"}}}}})
	if _, err := f.Fence(t.Context(), Target{Node: "b"}, conf.FenceOff, nil); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Error(err)
	}
	if _, err := os.Stat(dir + "/ran"); err == nil {
		t.Error("it ran")
	}
}
