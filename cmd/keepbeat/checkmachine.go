package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing/watchdog"
	"github.com/keepbeat/keepbeat/resources/rtnl"
)

// machine looks whether this machine has what its ha.yaml names. Without a group
// the daemon does not start; what else is not there may come later.
func (k *checker) machine(path string, local *conf.Local) {
	if err := groupsOf(local).Check(); err != nil {
		k.say(path, nil, fmt.Errorf("%s: %w", path, err))
	}
	if device := watchdogDevice(local, isDirector(local)); device != "" {
		if _, err := watchdog.Look(device); err != nil {
			fmt.Fprintf(k.stderr, "%s: warning: %v\n", path, err)
		}
	}
	for _, a := range ownAddresses(local.PingGroup) {
		k.say(path, nil, fmt.Errorf("%s: ping_group: %s is an address of this machine: the tie-breaker has to be a third one that both reach, such as the router of the service network", path, a))
	}
	here := interfacesHere()
	for _, l := range local.Links {
		here.look(k.stderr, path, "link "+l.Name(), l.Interface)
		if l.Type == conf.Serial {
			if err := unix.Access(l.Device, unix.R_OK|unix.W_OK); err != nil {
				fmt.Fprintf(k.stderr, "%s: warning: link %s: %v\n", path, l.Name(), err)
			}
		}
	}
}

func groupsOf(local *conf.Local) api.Groups {
	return api.Groups{Read: local.SocketGroup, Admin: local.AdminGroup}
}

// ownAddresses returns those that this machine has.
func ownAddresses(all []netip.Addr) (own []netip.Addr) {
	have, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, h := range have {
		p, err := netip.ParsePrefix(h.String())
		if err == nil && slices.Contains(all, p.Addr().Unmap()) {
			own = append(own, p.Addr().Unmap())
		}
	}
	return own
}

// interfaces are the names of this machine's; nil: they cannot be read.
type interfaces struct {
	known map[string]bool // and those that were asked for
	names []string
}

func interfacesHere() *interfaces {
	kernel, err := rtnl.Open("")
	if err != nil {
		return nil
	}
	defer kernel.Close()
	h := interfaces{known: map[string]bool{}}
	if err := kernel.Links(func(l rtnl.Link) {
		h.names = append(h.names, l.Name)
		for _, n := range append(l.Alt, l.Name) {
			h.known[n] = true
		}
	}); err != nil {
		return nil
	}
	slices.Sort(h.names)
	return &h
}

// look warns, once, of an interface that is not there: a name may be misspelt. It
// is no fault, since an interface may come later.
func (h *interfaces) look(w io.Writer, path, what, name string) {
	if h == nil || name == "" || h.known[name] {
		return
	}
	h.known[name] = true
	fmt.Fprintf(w, "%s: warning: %s: %s: no such interface; this machine has %s\n", path, what, name, strings.Join(h.names, ", "))
}
