package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/program"
)

// routers checks vrrp.yaml and its pools; spec is the cluster's beside it, nil
// without one.
func (k *checker) routers(path string, spec *conf.Spec) {
	v, warnings, err := conf.LoadVRRP(path)
	if err == nil {
		err = conf.CheckWorlds(v, spec)
	}
	if !k.say(path, warnings, err) {
		return
	}
	for _, p := range v.Pools {
		k.checked = append(k.checked, filepath.Join(filepath.Dir(path), p.File))
	}
	programs := programsOf(v)
	if !k.here {
		k.unseen = k.unseen || len(programs) > 0
		return
	}
	k.interfaces(path, v)
	for _, p := range programs {
		if err := p.usable(); err != nil {
			fmt.Fprintf(k.stderr, "%s: warning: %s: %v\n", path, p.what, err)
		}
	}
}

// interfaces warns of those that are not there.
func (k *checker) interfaces(path string, v *conf.VRRP) {
	here := interfacesHere()
	look := func(what, name string) { here.look(k.stderr, path, what, name) }
	for i := range v.Instances {
		c := &v.Instances[i]
		look("vrrp_instance "+c.Name, c.Interface)
		for _, a := range slices.Concat(c.Addresses, c.Excluded) {
			look("vrrp_instance "+c.Name+", address "+a.Address.Addr().String(), a.Interface)
		}
		for _, t := range c.TrackInterfaces {
			look("vrrp_instance "+c.Name+", track_interface", t.Name)
		}
	}
	for _, g := range v.SyncGroups {
		for _, t := range g.TrackInterfaces {
			look("vrrp_sync_group "+g.Name+", track_interface", t.Name)
		}
	}
}

// routerProgram is a script or a notify program.
type routerProgram struct {
	what, user string
	path       string
}

func (p routerProgram) usable() error {
	u, err := program.FindUser(p.user)
	if err != nil {
		return err
	}
	return program.Trusted(p.path, u.UID())
}

// programsOf are those that a vrrp.yaml names, each program of an instance once.
func programsOf(v *conf.VRRP) (all []routerProgram) {
	add := func(what, user string, command []string) {
		if len(command) == 0 {
			return
		}
		if p := (routerProgram{what, user, command[0]}); !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	notify := func(what string, n *conf.VRRPNotify) {
		for _, command := range [][]string{n.Master, n.Backup, n.Fault, n.Stop, n.Notify} {
			add(what+", notify", n.User, command)
		}
	}
	for _, s := range v.Scripts {
		add("vrrp_script "+s.Name, s.User, s.Command)
	}
	for i := range v.Instances {
		notify("vrrp_instance "+v.Instances[i].Name, &v.Instances[i].Notify)
	}
	for i := range v.SyncGroups {
		notify("vrrp_sync_group "+v.SyncGroups[i].Name, &v.SyncGroups[i].Notify)
	}
	return all
}
