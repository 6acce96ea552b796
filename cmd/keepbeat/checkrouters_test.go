package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const aRouter = "vrrp_instance:\n  VI_1: {interface: lo, virtual_router_id: 51, unicast_peer: 10.0.0.9, virtual_ipaddress: 10.0.0.201/24}\n"

func TestCheckConfigOfVirtualRouters(t *testing.T) {
	alone := t.TempDir()
	path := filepath.Join(alone, "vrrp.yaml")
	write(t, path, strings.Replace(aRouter, "201/24}", "201/24, notify_master: /nowhere/notify.sh}", 1))
	here := "--config=" + filepath.Join(alone, "ha.yaml")
	for _, args := range [][]string{{here}, {here, alone}, {here, path}} {
		r := command(t, append([]string{"keepbeat", "check-config"}, args...)...)
		if r.code != 0 || !strings.HasPrefix(r.out, "checked: "+path+"\n") || !strings.HasPrefix(r.stderr, path+": warning: vrrp_instance VI_1, notify: /nowhere") {
			t.Errorf("this machine's, %v: %+v", args, r)
		}
	}
	for _, of := range []string{alone, path} {
		if r := command(t, "keepbeat", "check-config", of); r.code != 0 || r.stderr != "" || !strings.Contains(r.out, path+"\nnot looked at: programs") {
			t.Errorf("from elsewhere, %s: %+v", of, r)
		}
	}
	other := filepath.Join(alone, "second.yaml")
	write(t, other, strings.Replace(aRouter, "51", "256", 1))
	if r := command(t, "keepbeat", "check-config", other); r.code != 1 || !strings.HasPrefix(r.stderr, other+":2:44: 256 is out of range: 1 to 255") {
		t.Errorf("of another name: %+v", r)
	}
}

func TestCheckConfigOfVirtualRoutersBesideACluster(t *testing.T) {
	dir := config(t)
	path := filepath.Join(dir, "vrrp.yaml")
	write(t, path, aRouter)
	if r := command(t, "keepbeat", "check-config", dir); r.code != 0 || r.stderr != "" || !strings.Contains(r.out, path) {
		t.Errorf("%+v", r)
	}
	write(t, path, strings.Replace(aRouter, "201", "200", 1))
	if r := command(t, "keepbeat", "check-config", dir); r.code != 1 || !strings.Contains(r.stderr, "address 10.0.0.200 of vrrp_instance \"VI_1\" is the cluster's, too") {
		t.Errorf("an address of both: %+v", r)
	}
	if err := os.Remove(filepath.Join(dir, "haresources.yaml")); err != nil {
		t.Fatal(err)
	}
	if r := command(t, "keepbeat", "check-config", dir); r.code != 1 || strings.Contains(r.stderr, "VI_1") {
		t.Errorf("of a cluster without its files: %+v", r)
	}
}

func TestCheckConfigWarnsOfInterfacesThatAreNotThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "vrrp.yaml")
	write(t, path, `vrrp_instance:
  VI_1: {interface: nowhere0, virtual_router_id: 51, virtual_ipaddress: 10.0.0.201/24}
  VI_2: {interface: nowhere0, virtual_router_id: 52, virtual_ipaddress: 10.0.0.202/24 dev nowhere1, track_interface: [lo, nowhere2 weight 5]}
vrrp_sync_group:
  VG: {group: [VI_1, VI_2], track_interface: nowhere3}
`)
	r := command(t, "keepbeat", "check-config", "--config="+path)
	var got []string
	for line := range strings.Lines(r.stderr) {
		what, has, _ := strings.Cut(line, "; this machine has ")
		if !strings.Contains(", "+strings.TrimSpace(has)+",", ", lo,") {
			t.Errorf("lo is not among them: %q", line)
		}
		got = append(got, what)
	}
	want := path + ": warning: vrrp_instance VI_1: nowhere0: no such interface\n" +
		path + ": warning: vrrp_instance VI_2, address 10.0.0.202: nowhere1: no such interface\n" +
		path + ": warning: vrrp_instance VI_2, track_interface: nowhere2: no such interface\n" +
		path + ": warning: vrrp_sync_group VG, track_interface: nowhere3: no such interface"
	if r.code != 0 || strings.Join(got, "\n") != want {
		t.Errorf("exit code %d\n%s\nwant\n%s", r.code, strings.Join(got, "\n"), want)
	}
}
