package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/resources/rtnl"
)

// drops refuses packets to addresses whose owner is another router (Accept_Mode
// false, RFC 9568, 6.1): a table of nftables with a set for each family. IPv6
// neighbour discovery goes through, and so does what the machine sends itself.
type drops struct {
	k *rtnl.Kernel

	mu    sync.Mutex // guards the rest; held while the kernel is asked
	fd    int        // -1: not open
	seq   uint32
	addrs map[netip.Addr]int // how many instances want it dropped
	made  bool
}

const (
	dropTable = "keepbeat-vrrp"
	dropSet4  = "addresses4"
	dropSet6  = "addresses6"
	dropChain = "input"

	// dropElements of a set travel in one attribute, whose length has 16 bits.
	dropElements = 1000
	// dropPriority is before the firewall's own chains, as keepalived has it.
	dropPriority = -1
)

func newDrops(k *rtnl.Kernel) *drops {
	return &drops{k: k, fd: -1, addrs: map[netip.Addr]int{}}
}

// close closes the socket. The table stays: what it refuses stands too.
func (d *drops) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd >= 0 {
		_ = unix.Close(d.fd)
		d.fd = -1
	}
}

// add drops what comes in for all addresses, of which an instance wants fresh
// for the first time. It makes the table anew when somebody has removed it.
func (d *drops) add(all, fresh []netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error = unix.ENOENT
	if d.made {
		err = d.commit(elements(unix.NFT_MSG_NEWSETELEM, all))
	}
	if errors.Is(err, unix.ENOENT) {
		every := slices.AppendSeq(slices.Clone(all), maps.Keys(d.addrs))
		err = d.commit(append(wholeTable(), elements(unix.NFT_MSG_NEWSETELEM, every)...))
	}
	if err != nil {
		return fmt.Errorf("packets to the addresses cannot be refused: nftables: %w", err)
	}
	d.made = true
	for _, a := range fresh {
		d.addrs[a]++
	}
	return nil
}

// remove ends the dropping.
func (d *drops) remove(all []netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var gone []netip.Addr // that nobody wants refused any more
	for _, a := range all {
		if d.addrs[a]--; d.addrs[a] <= 0 {
			delete(d.addrs, a)
			gone = append(gone, a)
		}
	}
	if !d.made || len(gone) == 0 {
		return nil
	}
	if len(d.addrs) == 0 {
		d.made = false
		return d.deleteTable()
	}
	err := d.commit(elements(unix.NFT_MSG_DELSETELEM, gone))
	if errors.Is(err, unix.ENOENT) {
		// Somebody has changed the table: it is made anew with what is left.
		if err = d.deleteTable(); err == nil {
			err = d.commit(append(wholeTable(), elements(unix.NFT_MSG_NEWSETELEM, slices.Collect(maps.Keys(d.addrs)))...))
		}
	}
	if err != nil {
		return fmt.Errorf("packets to the addresses are refused still: nftables: %w", err)
	}
	return nil
}

// destroy removes the table that an earlier run has left.
func (d *drops) destroy() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.deleteTable()
	// A kernel or a container without nftables has no table either.
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

func (d *drops) deleteTable() error {
	err := d.commit([]nftMessage{{unix.NFT_MSG_DELTABLE, 0, nftString(unix.NFTA_TABLE_NAME, dropTable)}})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// commit has the kernel do all of the messages or none.
func (d *drops) commit(all []nftMessage) error {
	if d.fd < 0 {
		if err := d.dial(); err != nil {
			return err
		}
	}
	b := d.frame(nil, unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	first := d.seq
	for n, m := range all {
		flags := m.flags
		if n == len(all)-1 {
			flags |= unix.NLM_F_ACK
		}
		b = d.frame(b, unix.NFNL_SUBSYS_NFTABLES<<8|m.typ, flags, unix.NFPROTO_INET, 0, m.body)
	}
	last := d.seq
	b = d.frame(b, unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	if err := unix.Sendto(d.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	var refused error
	for {
		n, from, err := unix.Recvfrom(d.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			_ = unix.Close(d.fd) // an answer that comes late finds nobody
			d.fd = -1
			return errors.Join(refused, err)
		}
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
			continue
		}
		for m := range rtnl.Messages(buf[:n]) {
			if m.Type != unix.NLMSG_ERROR || len(m.Body) < 4+unix.SizeofNlMsghdr {
				continue
			}
			seq := binary.NativeEndian.Uint32(m.Body[12:])
			if errno := int32(binary.NativeEndian.Uint32(m.Body)); errno != 0 && seq-first <= last-first && refused == nil {
				refused = unix.Errno(-errno)
			}
			if seq == last || seq == first && refused != nil {
				return refused
			}
		}
	}
}

func (d *drops) dial() error {
	err := d.k.Inside(func() (err error) {
		d.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		d.fd = -1
		return err
	}
	tv := unix.Timeval{Sec: 5}
	_ = unix.SetsockoptTimeval(d.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv) // it only stores the value
	return unix.Bind(d.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// frame appends a message of nfnetlink.
func (d *drops) frame(b []byte, typ int, flags int, family byte, resource uint16, body []byte) []byte {
	d.seq++
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+4+len(body)))
	b = binary.NativeEndian.AppendUint16(b, uint16(typ))
	b = binary.NativeEndian.AppendUint16(b, uint16(flags|unix.NLM_F_REQUEST))
	b = binary.NativeEndian.AppendUint32(b, d.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, family, 0)
	b = binary.BigEndian.AppendUint16(b, resource)
	b = append(b, body...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
