package ipvs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// SyncState says what a sync daemon does.
type SyncState uint8

// States of a sync daemon, as the kernel numbers them. The zero value is invalid.
const (
	_      SyncState = iota
	Master           // sends what it knows of connections
	Backup           // receives
)

func (s SyncState) String() string {
	switch s {
	case Master:
		return "master"
	case Backup:
		return "backup"
	default:
		return "invalid"
	}
}

// Daemon is one of the kernel's two threads that keep the connection tables of
// several directors alike. It is comparable.
type Daemon struct {
	State     SyncState  `json:"state"`
	Interface string     `json:"interface"`
	ID        int        `json:"id"`
	Group     netip.Addr `json:"group"`
	Port      uint16     `json:"port"`
	TTL       uint8      `json:"ttl"`
	MaxLen    uint16     `json:"maxlen,omitempty"` // bytes; 0: what the MTU allows
}

func daemonOf(s SyncState, c conf.IPVSSync) Daemon {
	return Daemon{s, c.Interface, c.ID, c.Group.Unmap(), c.Port, c.TTL, uint16(c.MaxLen)}
}

// String is how errors call it: "backup on eth1, id 7, 224.0.0.81:8848".
func (d Daemon) String() string {
	return fmt.Sprintf("%s on %s, id %d, %s", d.State, d.Interface, d.ID, netip.AddrPortFrom(d.Group, d.Port))
}

// same tells whether the kernel's daemon is what was asked for. The kernel
// makes MaxLen what it likes: not above the MTU, and 1,024 at least to receive.
func (d Daemon) same(actual Daemon) bool {
	actual.MaxLen = d.MaxLen
	return d == actual
}

// The sync daemons, include/uapi/linux/ip_vs.h.
const (
	cmdNewDaemon = 9
	cmdDelDaemon = 10
	cmdGetDaemon = 11

	cmdAttrDaemon = 3

	daemonState     = 1
	daemonInterface = 2
	daemonID        = 3
	daemonMaxLen    = 4 // this and the following: Linux 4.3
	daemonGroup     = 5
	daemonGroup6    = 6
	daemonPort      = 7 // unlike all other ports in the byte order of the machine
	daemonTTL       = 8
)

func (m *message) daemon(d Daemon) {
	m.nest(cmdAttrDaemon, func() {
		m.u32(daemonState, uint32(d.State))
		if d.Interface == "" {
			return
		}
		m.str(daemonInterface, d.Interface)
		m.u32(daemonID, uint32(d.ID))
		if d.MaxLen != 0 {
			m.u16(daemonMaxLen, d.MaxLen)
		}
		if d.Group.Is6() {
			m.attr(daemonGroup6, d.Group.AsSlice())
		} else {
			m.attr(daemonGroup, d.Group.AsSlice())
		}
		m.u16(daemonPort, d.Port)
		m.attr(daemonTTL, []byte{d.TTL})
	})
}

func decodeDaemon(payload []byte) (Daemon, error) {
	body, err := nested(payload, cmdAttrDaemon)
	if err != nil {
		return Daemon{}, err
	}
	var d Daemon
	err = attributes(body, func(kind uint16, v []byte) (err error) {
		var n uint64
		switch kind {
		case daemonState:
			n, err = number(v)
			d.State = SyncState(min(n, 255))
		case daemonInterface:
			d.Interface = text(v)
		case daemonID:
			n, err = number(v)
			d.ID = int(uint32(n))
		case daemonMaxLen:
			n, err = number(v)
			d.MaxLen = uint16(n)
		case daemonGroup:
			d.Group, err = addressFrom(v, false)
		case daemonGroup6:
			d.Group, err = addressFrom(v, true)
		case daemonPort:
			n, err = number(v)
			d.Port = uint16(n)
		case daemonTTL:
			n, err = number(v)
			d.TTL = uint8(n)
		}
		return err
	})
	if err == nil && (d.State != Master && d.State != Backup || d.Interface == "") {
		err = fmt.Errorf("%w: sync daemon in state %d on interface %q", errMalformed, d.State, d.Interface)
	}
	return d, err
}

func (c *client) daemons() ([]Daemon, error) {
	var all []Daemon
	err := c.dump(cmdGetDaemon, nil, func() { all = nil }, func(payload []byte) error {
		d, err := decodeDaemon(payload)
		all = append(all, d)
		return err
	})
	slices.SortFunc(all, func(a, b Daemon) int { return cmp.Compare(a.State, b.State) })
	return all, err
}

// Daemons implements Node.
func (k *Kernel) Daemons(ctx context.Context) ([]Daemon, error) {
	var all []Daemon
	if err := k.call(ctx, func(c *client) (err error) { all, err = c.daemons(); return err }); err != nil {
		return nil, fmt.Errorf("looking for sync daemons: %w", err)
	}
	return all, nil
}

// StartDaemon implements Node.
func (k *Kernel) StartDaemon(ctx context.Context, d Daemon) error {
	err := k.command(ctx, cmdNewDaemon, func(m *message) { m.daemon(d) })
	hint := ""
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST):
		hint = ": another one runs here (ipvsadm -L --daemon)"
	case errors.Is(err, unix.ENODEV):
		hint = ": this node has no such interface"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		hint = ": the interface has no address of the group's family"
	case errors.Is(err, unix.EINVAL):
		hint = ": the kernel's sync daemon does not go with real servers of the other family than their service's"
	}
	return fmt.Errorf("sync daemon %s: %w%s", d, err, hint)
}

// Interface implements Node.
func (k *Kernel) Interface(name string) (int, error) {
	n, err := k.cfg.index(name)
	switch {
	case errors.Is(err, unix.ENODEV):
		return 0, fmt.Errorf("interface %s: this node has no such interface", name)
	case err != nil:
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return n, nil
}

// interfaceIndex asks the kernel for the number of an interface, netdevice(7).
func interfaceIndex(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r)
	}
	if err != nil {
		return 0, err
	}
	return int(r.Uint32()), nil
}

// StopDaemon implements Node. Stopping one that does not run succeeds.
func (k *Kernel) StopDaemon(ctx context.Context, s SyncState) error {
	err := k.command(ctx, cmdDelDaemon, func(m *message) { m.daemon(Daemon{State: s}) })
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stopping the sync daemon %s: %w", s, err)
	}
	return nil
}
