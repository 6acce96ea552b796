package netdev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/resources/rtnl"
)

// drops refuses packets to addresses whose owner is another router (Accept_Mode
// false, RFC 9568, 6.1): a table of nftables with a set for each family. IPv6
// neighbour discovery goes through, and so does what the machine sends itself.
type drops struct {
	k    *rtnl.Kernel
	log  *slog.Logger
	tear chan struct{} // rung when mend has something to do
	wg   sync.WaitGroup

	mu     sync.Mutex // guards the rest; held while the kernel is asked
	fd     int        // -1: not open
	port   uint32     // of fd
	events *os.File   // what others do to tables; nil: not watched yet
	others int        // descriptor of events
	deaf   string     // why nobody listened the last time that it was said
	seq    uint32
	addrs  map[netip.Addr]int // how many instances want it dropped
	made   bool
	stale  bool // the table is not as it should be: others have changed it, or a change has failed
}

const (
	dropTable = "keepbeat-vrrp"
	dropSet4  = "addresses4"
	dropSet6  = "addresses6"
	dropChain = "input"

	// dropElements of a set travel in one attribute, whose length has 16 bits.
	dropElements = 1000
	// dropMessages with so many elements each go in one datagram, which has to fit
	// the usual buffer of a socket (net.core.wmem_default, 208 KiB).
	dropMessages = 4
	// dropPriority is before the firewall's own chains, as keepalived has it.
	dropPriority = -1
)

func newDrops(k *rtnl.Kernel, log *slog.Logger, tear chan struct{}) *drops {
	return &drops{k: k, log: log, tear: tear, fd: -1, addrs: map[netip.Addr]int{}}
}

// close closes the sockets. The table stays: what it refuses stands too.
func (d *drops) close() {
	d.mu.Lock()
	events := d.events
	if d.fd >= 0 {
		_ = unix.Close(d.fd)
		d.fd = -1
	}
	d.mu.Unlock()
	if events != nil {
		_ = events.Close()
	}
	d.wg.Wait()
}

// add drops what comes in for all addresses, of which an instance wants fresh
// for the first time. It makes the table anew when somebody has removed it.
func (d *drops) add(all, fresh []netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range fresh {
		d.addrs[a]++
	}
	var err error = unix.ENOENT
	if d.made && !d.stale {
		err = d.commitAll(nil, elements(unix.NFT_MSG_NEWSETELEM, all))
	}
	if errors.Is(err, unix.ENOENT) {
		err = d.rebuild()
	}
	if err != nil {
		for _, a := range fresh {
			if d.addrs[a]--; d.addrs[a] == 0 {
				delete(d.addrs, a)
			}
		}
		d.spoilt() // a part of it may be there
		return fmt.Errorf("packets to the addresses cannot be refused: nftables: %w", err)
	}
	return nil
}

// rebuild makes the table as it should be, whatever is there.
func (d *drops) rebuild() error {
	if d.fd < 0 {
		if err := d.dial(); err != nil {
			return err
		}
	}
	d.watch()
	d.made = true
	name := nftString(unix.NFTA_TABLE_NAME, dropTable)
	// It is made, if only for what removes it not to fail.
	head := append([]nftMessage{{unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, name}, {unix.NFT_MSG_DELTABLE, 0, name}}, wholeTable()...)
	err := d.commitAll(head, elements(unix.NFT_MSG_NEWSETELEM, slices.Collect(maps.Keys(d.addrs))))
	d.stale = err != nil
	return err
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
	var err error = unix.ENOENT
	if len(d.addrs) > 0 && !d.stale {
		err = d.commitAll(nil, elements(unix.NFT_MSG_DELSETELEM, gone))
	}
	if errors.Is(err, unix.ENOENT) {
		err = d.right()
	}
	if err != nil {
		d.spoilt()
		return fmt.Errorf("packets to the addresses are refused still: nftables: %w", err)
	}
	return nil
}

// right makes the table as it should be, or removes it.
func (d *drops) right() error {
	if len(d.addrs) > 0 {
		return d.rebuild()
	}
	err := d.deleteTable()
	d.made, d.stale = err != nil, err != nil
	return err
}

// spoilt has the table made anew.
func (d *drops) spoilt() {
	d.stale = true
	ring(d.tear)
}

// mend makes the table anew if it is not as it should be.
func (d *drops) mend() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.made || !d.stale {
		return nil
	}
	if err := d.right(); err != nil {
		d.spoilt()
		return err
	}
	d.log.Warn("the packet filter of virtual addresses was not as it should be, and is made anew", "table", dropTable)
	return nil
}

// watch begins to listen for what others do to the table. Where it cannot, it is
// tried again when the table is made the next time.
func (d *drops) watch() {
	if d.events != nil {
		return
	}
	fd := -1
	err := d.k.Inside(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
		return err
	})
	if err == nil {
		if err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}); err != nil {
			_ = unix.Close(fd)
		}
	}
	if err != nil {
		d.unheard(err)
		return
	}
	events := os.NewFile(uintptr(fd), "nftables")
	d.events, d.others = events, fd
	d.ignoreOwn()
	d.wg.Go(func() { d.listen(events) })
}

// ignoreOwn keeps what the kernel tells of our own changes from the socket: it
// would be thousands of elements. All messages of a datagram are of one change.
func (d *drops) ignoreOwn() {
	const (
		portOffset = 12 // of nlmsg_pid
		all        = 1 << 18
	)
	// What a filter loads it takes for big-endian.
	own := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, d.port))
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: portOffset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: own},
		{Code: unix.BPF_RET | unix.BPF_K},
		{Code: unix.BPF_RET | unix.BPF_K, K: all},
	}
	// Without it the port is looked at all the same.
	_ = unix.SetsockoptSockFprog(d.others, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

// unheard says once of an error that others' changes are not seen. The caller holds mu.
func (d *drops) unheard(err error) {
	if text := err.Error(); text != d.deaf {
		d.deaf = text
		d.log.Error("changes of the packet filter of virtual addresses cannot be seen: packets to addresses of `accept: no` are taken here once others remove it, as `nft flush ruleset` does, until a virtual router becomes master; after that use `systemctl restart keepbeat`",
			"table", dropTable, "err", err)
	}
}

// listen waits for what becomes of the table, until the file is closed.
func (d *drops) listen(events *os.File) {
	rc, err := events.SyscallConn()
	if err != nil {
		return // closed
	}
	buf := make([]byte, 64<<10)
	var failed error                    // for good
	_ = rc.Read(func(fd uintptr) bool { // its own error says that the file is closed
		d.mu.Lock() // what we are doing ourselves is done, and known by its port
		defer d.mu.Unlock()
		err := rtnl.Receive(int(fd), buf, func(m rtnl.Message) {
			if m.Port != d.port && takesFrom(m) {
				d.spoilt()
			}
		})
		if errors.Is(err, unix.ENOBUFS) { // it may have been said there
			d.spoilt()
			err = rtnl.Receive(int(fd), buf, func(rtnl.Message) {})
		}
		if errors.Is(err, unix.ENOBUFS) {
			err = nil
		}
		failed = err
		return failed != nil
	})
	if failed == nil {
		return
	}
	d.mu.Lock()
	d.events = nil
	d.unheard(failed)
	d.mu.Unlock()
	_ = events.Close()
}

// takesFrom says of a message of nf_tables whether something of our table is gone.
func takesFrom(m rtnl.Message) bool {
	switch m.Type {
	case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE, unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELCHAIN,
		unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELRULE, unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELSET,
		unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELSETELEM:
		// The name of the table is the first attribute of them all.
		const header = 4 // struct nfgenmsg
		return len(m.Body) > header && m.Body[0] == unix.NFPROTO_INET &&
			bytes.HasPrefix(m.Body[header:], nftString(unix.NFTA_TABLE_NAME, dropTable))
	}
	return false
}

// destroy removes the table that an earlier run has left.
func (d *drops) destroy() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.deleteTable()
}

func (d *drops) deleteTable() error {
	err := d.commit([]nftMessage{{unix.NFT_MSG_DELTABLE, 0, nftString(unix.NFTA_TABLE_NAME, dropTable)}})
	switch {
	case errors.Is(err, unix.ENOENT),
		// A kernel or a container without nftables has no table either.
		errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return nil
	}
	return err
}

// commitAll is commit for head, and elements of sets after that, of which there may be thousands.
func (d *drops) commitAll(head, elements []nftMessage) error {
	if head != nil {
		if err := d.commit(head); err != nil {
			return err
		}
	}
	for some := range slices.Chunk(elements, dropMessages) {
		if err := d.commit(some); err != nil {
			return err
		}
	}
	return nil
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
		_ = unix.Close(d.fd)
		d.fd = -1
		return err
	}
	buf := make([]byte, 64<<10)
	var refused error
	for {
		n, kernel, err := rtnl.ReceiveFrom(d.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			_ = unix.Close(d.fd) // an answer that comes late finds nobody
			d.fd = -1
			return errors.Join(refused, err)
		}
		if !kernel {
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
	if err := unix.Bind(d.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	own, err := unix.Getsockname(d.fd)
	if sa, ok := own.(*unix.SockaddrNetlink); ok {
		d.port = sa.Pid
	}
	if d.events != nil {
		d.ignoreOwn()
	}
	return err
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
