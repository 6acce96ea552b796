package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// A new daemon that cannot start leaves a node without one.
func TestARestartIsRefusedBeforeAnythingStops(t *testing.T) {
	const (
		router = "vrrp_instance:\n  VI_1: {interface: kbnone0, virtual_router_id: 51, virtual_ipaddress: 10.0.0.201/24}\n"
		way    = "the new daemon would not start, so this one goes on: correct that (`keepbeat check-config` looks at it), or begin a newer program that knows it by `systemctl restart keepbeat`"
	)
	node := func(name string) string {
		return "name: " + name + "\ncluster: test\nauthkeys: DIR/authkeys\nnodes: {director1: {}, director2: {}, arbiter: {role: witness}}\nlinks: [{bcast: eth1}, {bcast: eth2}]\n"
	}
	for _, c := range []struct {
		name string
		file string // empty: none is changed
		text string // empty: the file is gone
		want string // the first line; empty: it is restarted
	}{
		{"sound files", "", "", ""},
		{"vrrp.yaml that came since the start", "vrrp.yaml", router, ""},
		{"a faulty ha.yaml", "ha.yaml", node("director1") + "lnks: []\n", `DIR/ha.yaml:6:1: unknown key "lnks"; did you mean "links"?`},
		{"a group that is not there", "ha.yaml", node("director1") + "socket_group: keepbeat-nobody\n", `DIR/ha.yaml: socket_group: this machine has no group "keepbeat-nobody": make it (groupadd --system keepbeat-nobody), or name one that is there`},
		{"no ha.yaml", "ha.yaml", "", "DIR/ha.yaml: no such file; see the examples that come with keepbeat for how it looks"},
		{"faulty keys", "authkeys", "auth 2\n1 sha1 0123456789abcdef0123\n", `DIR/authkeys:1:1: auth 2 names no key of this file; add the line "2 sha1 KEY"`},
		{"a faulty vrrp.yaml", "vrrp.yaml", strings.Replace(router, "51", "256", 1), "DIR/vrrp.yaml:2:49: 256 is out of range: 1 to 255"},
		{"an address that is the cluster's, too", "vrrp.yaml", strings.Replace(router, "201", "200", 1), `DIR/vrrp.yaml:2:72: address 10.0.0.200 of vrrp_instance "VI_1" is the cluster's, too: group "web", resource "vip 10.0.0.200" of haresources.yaml; an address belongs to one of the two: take it out here or there`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := config(t)
			path := filepath.Join(dir, "ha.yaml")
			write(t, path, strings.ReplaceAll(node("director1"), "DIR", dir))
			if c.file != "" {
				write(t, filepath.Join(dir, c.file), strings.ReplaceAll(c.text, "DIR", dir))
				if c.text == "" {
					if err := os.Remove(filepath.Join(dir, c.file)); err != nil {
						t.Fatal(err)
					}
				}
			}
			again := &reexecutor{config: path} // without a node it cannot stop anything
			if c.want == "" {
				if err := again.sound(); err != nil {
					t.Error(err)
				}
				return
			}
			err := restartable{nil, again}.PrepareRestart(t.Context())
			if got := strings.ReplaceAll(fmt.Sprint(err), dir, "DIR"); got != c.want+"\n"+way {
				t.Errorf("%s\nwant %s\n%s", got, c.want, way)
			}
		})
	}
	t.Run("virtual routers on a witness", func(t *testing.T) {
		dir := config(t)
		path := filepath.Join(dir, "ha.yaml")
		write(t, path, strings.ReplaceAll(node("arbiter"), "DIR", dir))
		write(t, filepath.Join(dir, conf.VRRPName), router)
		err := (&reexecutor{config: path}).sound()
		if err == nil || !strings.HasPrefix(err.Error(), dir+"/vrrp.yaml: this node is a witness, which owns no addresses: ") {
			t.Error(err)
		}
	})
}
