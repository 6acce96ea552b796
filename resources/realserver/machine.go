package realserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// machine looks at and changes the kernel of the network namespace of the
// thread that calls it.
type machine struct{}

// bootID tells runs of the kernel apart.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

func sysctlPath(name string) string { return "/proc/sys/" + strings.ReplaceAll(name, ".", "/") }

func sysctl(name string) (string, error) {
	b, err := os.ReadFile(sysctlPath(name))
	return strings.TrimSpace(string(b)), err
}

// look tells whether a step is in place, and of a sysctl what it is.
func (machine) look(s Step) (there bool, now string, err error) {
	switch s.Kind {
	case Module: // each makes its interface, whether loaded or built in
		_, err := netlink.LinkByName(deviceOf(s.Name))
		return err == nil, "", notFound(err)
	case Link:
		l, err := netlink.LinkByName(s.Name)
		return err == nil && l.Attrs().Flags&net.FlagUp != 0, "", notFound(err)
	case Sysctl:
		now, err := sysctl(s.Name)
		if errors.Is(err, fs.ErrNotExist) {
			return false, "", nil
		}
		if err != nil {
			return false, "", err
		}
		other := ""
		if s.Name == filter4 {
			if other, err = sysctl(filterAll); err != nil {
				return false, "", err
			}
		}
		return enough(s, now, other), now, nil
	case Address:
		prefix, err := netip.ParsePrefix(s.Name)
		if err != nil {
			return false, "", err
		}
		link, err := netlink.LinkByName(s.Value)
		if err != nil {
			return false, "", notFound(err)
		}
		family := netlink.FAMILY_V4
		if prefix.Addr().Is6() {
			family = netlink.FAMILY_V6
		}
		all, err := addresses(link, family)
		if err != nil {
			return false, "", err
		}
		for _, a := range all {
			if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == prefix.Addr() {
				return true, "", nil
			}
		}
		return false, "", nil
	}
	return false, "", fmt.Errorf("invalid step %d", s.Kind)
}

// dumpTries: a change of any address interrupts a dump (vishvananda/netlink#1018).
const dumpTries = 5

func addresses(link netlink.Link, family int) (all []netlink.Addr, err error) {
	for range dumpTries {
		all, err = netlink.AddrList(link, family)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// notFound makes "no such interface" no error.
func notFound(err error) error {
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	return err
}

func deviceOf(module string) string {
	if module == "ipip" {
		return tunnel4
	}
	return tunnel6
}

// make makes a step.
func (machine) make(s Step) error {
	switch s.Kind {
	case Module:
		return modprobe(s.Name)
	case Link:
		return link(s.Name, netlink.LinkSetUp)
	case Sysctl:
		return os.WriteFile(sysctlPath(s.Name), []byte(s.Value), 0o644)
	case Address:
		return link(s.Value, func(l netlink.Link) error { return netlink.AddrReplace(l, addressOf(s)) })
	}
	return fmt.Errorf("invalid step %d", s.Kind)
}

// undo takes a step back. note says what could not be put back, without being a failure.
func (m machine) undo(d Done) (note string, err error) {
	s := d.step()
	switch s.Kind {
	case Module:
		// Unloading takes every tunnel of its kind down, whoever has made it.
		if name, err := otherTunnel(s.Name); err != nil || name != "" {
			if err != nil {
				return fmt.Sprintf("module %s stays loaded: %v", s.Name, err), nil
			}
			return fmt.Sprintf("module %s stays loaded: tunnel %s needs it", s.Name, name), nil
		}
		// Others may use it by now, and a kernel may be built without unloading:
		// a module that stays loaded does nothing.
		if err := unix.DeleteModule(s.Name, unix.O_NONBLOCK); err != nil && err != unix.ENOENT {
			return fmt.Sprintf("module %s stays loaded: %v", s.Name, err), nil
		}
		return "", nil
	case Link:
		l, err := netlink.LinkByName(s.Name)
		if err != nil {
			return "", notFound(err)
		}
		all, err := addresses(l, netlink.FAMILY_ALL)
		if err != nil {
			return "", err
		}
		if i := slices.IndexFunc(all, given); i >= 0 {
			return fmt.Sprintf("%s stays up: somebody has given it %s", s.Name, all[i].IPNet), nil
		}
		return "", netlink.LinkSetDown(l)
	case Sysctl:
		now, err := sysctl(s.Name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // with its interface
			return "", nil
		case err != nil:
			return "", err
		case d.Before == "": // never found out, and so never changed
			return "", nil
		case now == s.Value:
			return "", os.WriteFile(sysctlPath(s.Name), []byte(d.Before), 0o644)
		case now != d.Before:
			return fmt.Sprintf("%s stays %s: somebody else has changed it since it was set to %s (before: %s)", s.Name, now, s.Value, d.Before), nil
		}
		return "", nil
	case Address:
		err := link(s.Value, func(l netlink.Link) error { return netlink.AddrDel(l, addressOf(s)) })
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			err = nil
		}
		return "", notFound(err)
	}
	return "", fmt.Errorf("invalid step %d", s.Kind)
}

// given tells whether an address was given by somebody: the kernel gives an
// interface that is up a link-local one.
func given(a netlink.Addr) bool {
	ip, ok := netip.AddrFromSlice(a.IP)
	return ok && !ip.Unmap().IsLinkLocalUnicast()
}

// otherTunnel finds a tunnel of a module beside the one that is made with it; empty: there is none here.
func otherTunnel(module string) (string, error) {
	links, err := netlink.LinkList()
	for range dumpTries {
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
		links, err = netlink.LinkList()
	}
	return anotherOf(module, links), err
}

func anotherOf(module string, links []netlink.Link) string {
	kind := map[string]string{"ipip": "ipip", "ip6_tunnel": "ip6tnl"}[module]
	for _, l := range links {
		if name := l.Attrs().Name; l.Type() == kind && name != deviceOf(module) {
			return name
		}
	}
	return ""
}

func link(name string, f func(netlink.Link) error) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return f(l)
}

// addressOf is the address of a step. The machine's own connections never leave
// from it: in IPv4 by its scope, in IPv6 because it is deprecated from the
// start; sockets bound to it are not affected. Detection of duplicates would
// find the director.
func addressOf(s Step) *netlink.Addr {
	prefix := netip.MustParsePrefix(s.Name) // look and parseStore have read it
	a := &netlink.Addr{IPNet: &net.IPNet{
		IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}}
	if prefix.Addr().Is4() {
		a.Scope = unix.RT_SCOPE_HOST
	} else {
		a.Flags = unix.IFA_F_NODAD
		a.ValidLft = math.MaxUint32
	}
	return a
}

// modprobePaths are where distributions have it; PATH is the caller's.
var modprobePaths = [...]string{"/sbin/modprobe", "/usr/sbin/modprobe", "/bin/modprobe"}

const modprobeTime = 15 * time.Second

func modprobe(module string) error {
	for _, path := range modprobePaths {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), modprobeTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, path, module)
		cmd.WaitDelay = time.Second
		out, err := cmd.CombinedOutput()
		if ctx.Err() != nil {
			return fmt.Errorf("%s %s did not end within %v", path, module, modprobeTime)
		}
		if err != nil {
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	return errors.New("no modprobe on this machine; load the module yourself")
}
