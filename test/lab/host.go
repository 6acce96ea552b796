package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/vishvananda/netlink"
)

// Host is a machine of the lab: own interfaces, own `uname -n`, own processes,
// own /run, /etc/keepbeat and /var/lib/keepbeat. All other files are the machine's.
type Host struct {
	Name string

	lab   *Lab
	index int
	ports []*Port

	// power guards off, and ns against PowerOff: everything else about ns is for the lab's own goroutine.
	power sync.Mutex
	ns    *namespaces // nil while dead
	off   bool        // switched off by PowerOff: Revive buries what is left
	// afterRevival does again what a death undid.
	afterRevival []func()
}

// private lists the directories that each host has for itself and that outlive its death.
var private = []string{"/etc/keepbeat", "/var/lib/keepbeat"}

// Host makes a host, which is up at once. The name is its `uname -n`.
func (l *Lab) Host(name string) *Host {
	l.t.Helper()
	if name == "" || len(name) > probe.MaxName || strings.ContainsAny(name, "/\x00 ") {
		l.t.Fatalf("lab: host %q: want a name of 1 to %d bytes without / and spaces", name, probe.MaxName)
	}
	if slices.ContainsFunc(l.hosts, func(h *Host) bool { return h.Name == name }) {
		l.t.Fatalf("lab: host %s: there is one already", name)
	}
	h := &Host{Name: name, lab: l, index: len(l.hosts) + 1}
	for _, dir := range private {
		if err := os.MkdirAll(h.Path(dir), 0o755); err != nil {
			l.t.Fatalf("lab: host %s: %v", name, err)
		}
	}
	l.hosts = append(l.hosts, h)
	h.start()
	return h
}

func (h *Host) start() {
	h.lab.t.Helper()
	var mounts []string
	for _, dir := range private {
		mounts = append(mounts, h.Path(dir)+"="+dir)
	}
	var err error
	if h.ns, err = startNamespaces(h.lab.tool, h.Name, mounts); err != nil {
		h.lab.t.Fatalf("lab: %v", err)
	}
	// Addresses count from the first moment, as with the VIP itself; nobody advertises routes here.
	h.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	h.Sysctl("net.ipv6.conf.default.accept_ra", "0")
	h.Sysctl("net.ipv6.conf.default.router_solicitations", "0")
}

// Path is where this machine has the host's file /etc/keepbeat/... or /var/lib/keepbeat/....
func (h *Host) Path(inside string) string {
	return filepath.Join(h.lab.dir, "hosts", h.Name, inside)
}

// WriteFile writes a file below /etc/keepbeat or /var/lib/keepbeat, also while the host is dead.
func (h *Host) WriteFile(path, content string, mode os.FileMode) {
	h.lab.t.Helper()
	inside := slices.ContainsFunc(private, func(dir string) bool { return strings.HasPrefix(filepath.Clean(path), dir+"/") })
	if !inside {
		h.lab.t.Fatalf("lab: host %s: %s is not the host's own; those are %s", h.Name, path, strings.Join(private, ", "))
	}
	if err := os.MkdirAll(filepath.Dir(h.Path(path)), 0o755); err != nil {
		h.lab.t.Fatalf("lab: host %s: %v", h.Name, err)
	}
	if err := os.WriteFile(h.Path(path), []byte(content), mode); err != nil {
		h.lab.t.Fatalf("lab: host %s: %v", h.Name, err)
	}
	// WriteFile leaves the mode of a file that was there, and the umask takes bits away.
	if err := os.Chmod(h.Path(path), mode); err != nil {
		h.lab.t.Fatalf("lab: host %s: %v", h.Name, err)
	}
}

// alive is the host's namespaces; the test ends when it is dead.
func (h *Host) alive() *namespaces {
	h.lab.t.Helper()
	if h.ns == nil {
		h.lab.t.Fatalf("lab: host %s is dead: Revive it first", h.Name)
	}
	return h.ns
}

// Do runs f in the host: sockets that f opens, and files it names, are the host's.
func (h *Host) Do(f func() error) error {
	h.lab.t.Helper()
	return h.alive().do(f)
}

// environment is what every program in a host gets, beside what the caller adds.
func (h *Host) environment() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"}
}

// Try runs a program in the host for at most 30 s and returns what it printed,
// standard output and error together, and how it failed.
func (h *Host) Try(args ...string) (string, error) {
	h.lab.t.Helper()
	return h.TryFor(30*time.Second, args...)
}

// TryFor is Try with another time limit.
func (h *Host) TryFor(limit time.Duration, args ...string) (string, error) {
	h.lab.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var out safeBuffer
	err := h.Do(func() error {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env, cmd.Dir = h.environment(), "/"
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.WaitDelay = time.Second
		return cmd.Run()
	})
	if ctx.Err() != nil {
		err = fmt.Errorf("not done within %v", limit)
	}
	return out.String(), err
}

// Run is Try for what has to succeed.
func (h *Host) Run(args ...string) string {
	h.lab.t.Helper()
	out, err := h.Try(args...)
	if err != nil {
		h.lab.t.Fatalf("lab: on %s: %s: %v\n%s", h.Name, strings.Join(args, " "), err, out)
	}
	return out
}

// ExitCode is the exit status in an error of Try: 0 for nil, -1 where there is none.
func ExitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// Sysctl sets a value, by its name with dots; interface names with dots are written with slashes.
func (h *Host) Sysctl(name, value string) {
	h.lab.t.Helper()
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	if err := h.Do(func() error { return os.WriteFile(path, []byte(value), 0) }); err != nil {
		h.lab.t.Fatalf("lab: on %s: sysctl %s=%s: %v", h.Name, name, value, err)
	}
}

// AddressOnLo gives the host an address that it accepts and does not announce:
// the VIP of a real server in gate mode.
func (h *Host) AddressOnLo(address string) {
	h.lab.t.Helper()
	h.addressOnLo(address)
	h.afterRevival = append(h.afterRevival, func() { h.addressOnLo(address) })
}

func (h *Host) addressOnLo(address string) {
	h.lab.t.Helper()
	ip := net.ParseIP(address)
	if ip == nil {
		h.lab.t.Fatalf("lab: on %s: %q is not an address", h.Name, address)
	}
	bits := 128
	if ip.To4() != nil {
		bits = 32
		h.Sysctl("net.ipv4.conf.all.arp_ignore", "1")
		h.Sysctl("net.ipv4.conf.all.arp_announce", "2")
	}
	nl := h.alive().nl
	lo, err := nl.LinkByName("lo")
	if err == nil {
		err = nl.AddrReplace(lo, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)}})
	}
	if err != nil {
		h.lab.t.Fatalf("lab: on %s: %s on lo: %v", h.Name, address, err)
	}
}

// HasAddress says whether one of the host's interfaces has the address; a dead host has none.
func (h *Host) HasAddress(address string) bool {
	h.lab.t.Helper()
	if h.Dead() {
		return false
	}
	ip := net.ParseIP(address)
	addrs, err := h.ns.nl.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		h.lab.t.Fatalf("lab: on %s: addresses: %v", h.Name, err)
	}
	return slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.Equal(ip) })
}

// Neighbour makes the host believe for ever that address is at mac.
func (h *Host) Neighbour(ifname, address string, mac net.HardwareAddr) {
	h.lab.t.Helper()
	nl := h.alive().nl
	link, err := nl.LinkByName(ifname)
	if err == nil {
		err = nl.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: net.ParseIP(address), HardwareAddr: mac, State: netlink.NUD_PERMANENT})
	}
	if err != nil {
		h.lab.t.Fatalf("lab: on %s: neighbour %s on %s: %v", h.Name, address, ifname, err)
	}
}

// Dead says whether the host has died, or was switched off, and was not revived.
func (h *Host) Dead() bool {
	h.power.Lock()
	defer h.power.Unlock()
	return h.ns == nil || h.off
}

// Die is the loss of power: all links are cut and all processes killed in the
// same instant. The instant just before is returned, so that what is measured from
// it is never too short; an answer or two may still be given after it. Only
// /etc/keepbeat and /var/lib/keepbeat remain.
func (h *Host) Die() probe.Instant {
	h.lab.t.Helper()
	h.alive()
	at := probe.Now()
	err := h.PowerOff()
	h.power.Lock()
	defer h.power.Unlock()
	if err == nil {
		err = h.bury()
	}
	if err != nil {
		h.lab.t.Fatalf("lab: %s dies: %v", h.Name, err)
	}
	return at
}

// PowerOff is Die for a device that fences: any goroutine may call it, and a
// dead host stays so. When it returns nil, nothing that the host does reaches
// anybody any more.
func (h *Host) PowerOff() error {
	h.power.Lock()
	defer h.power.Unlock()
	if h.ns == nil || h.off {
		return nil
	}
	// First the ports, in microseconds: a dying process must not be able to say goodbye,
	// and the kernel sends resets for its connections.
	if err := h.lab.disablePorts(h.ports); err != nil {
		return err
	}
	if err := h.ns.kill(); err != nil {
		return err
	}
	h.off = true
	return nil
}

// bury takes away what is left of a host that was switched off; power is held.
func (h *Host) bury() error {
	if h.ns == nil {
		return nil
	}
	h.ns.end()
	h.ns, h.off = nil, false
	for _, p := range h.ports {
		if err := p.unplug(); err != nil {
			return err
		}
	}
	return nil
}

// Revive switches a dead host on: with its interfaces as Attach made them, its
// responder if it had one, and its addresses on lo. No other process runs.
func (h *Host) Revive() {
	h.lab.t.Helper()
	if !h.Dead() {
		h.lab.t.Fatalf("lab: host %s is not dead", h.Name)
	}
	// A device that wants to switch it off waits until it is there as a whole.
	h.power.Lock()
	defer h.power.Unlock()
	if err := h.bury(); err != nil {
		h.lab.t.Fatalf("lab: %s: what was left of it: %v", h.Name, err)
	}
	h.start()
	for _, p := range h.ports {
		p.plug()
	}
	for _, f := range h.afterRevival {
		f()
	}
}
