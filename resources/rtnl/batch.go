package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Change is something that the kernel is asked to do.
type Change struct {
	typ, flags uint16
	body       []byte
}

// AddAddress puts an address on its interface; EEXIST when it stands there.
func AddAddress(a Address) Change {
	return Change{unix.RTM_NEWADDR, unix.NLM_F_CREATE | unix.NLM_F_EXCL, a.Encode(false)}
}

// RemoveAddress takes an address from its interface; EADDRNOTAVAIL when it is not there.
func RemoveAddress(a Address) Change { return Change{unix.RTM_DELADDR, 0, a.Encode(true)} }

// AddAddresses is AddAddress for many.
func AddAddresses(all []Address) []Change {
	return encodeAll(all, Change{unix.RTM_NEWADDR, unix.NLM_F_CREATE | unix.NLM_F_EXCL, nil}, false)
}

// RemoveAddresses is RemoveAddress for many.
func RemoveAddresses(all []Address) []Change {
	return encodeAll(all, Change{unix.RTM_DELADDR, 0, nil}, true)
}

// encodeAll encodes all of them into one piece of memory.
func encodeAll(all []Address, like Change, remove bool) []Change {
	changes := make([]Change, len(all))
	room := make([]byte, 0, len(all)*addressSize/2)
	for n := range all {
		from := len(room)
		room = all[n].append(room, remove)
		like.body = room[from:len(room):len(room)]
		changes[n] = like
	}
	return changes
}

const (
	// batchChanges go to the kernel in one call. It spends up to 100 µs on an
	// address, and a kernel without preemption leaves the processor to nobody
	// until the call is over; larger batches are hardly faster.
	batchChanges = 8

	// netlink attributes of a refusal, linux/netlink.h.
	nlmFlagCapped   = 0x100 // NLM_F_CAPPED
	nlmFlagAckTLVs  = 0x200 // NLM_F_ACK_TLVS
	nlmErrAttrWords = 1     // NLMSGERR_ATTR_MSG
)

// batch is a socket for changes that come by the thousand: many in a datagram.
type batch struct {
	mu  sync.Mutex // guards the rest; held for one datagram and its answers
	fd  int        // -1: not open
	seq uint32
	out []byte
	in  []byte
}

// Refusal is what the kernel says of a change that it does not do.
type Refusal struct {
	Errno unix.Errno
	Words string // the kernel's own, "Nexthop has invalid gateway"; may be empty
}

func (r *Refusal) Error() string {
	if r.Words == "" {
		return r.Errno.Error()
	}
	return fmt.Sprintf("%v (%s)", r.Errno, r.Words)
}

func (r *Refusal) Unwrap() error { return r.Errno }

// Apply makes changes in their order, a batch at a time, and calls refused for
// each that the kernel did not do, with its index; errors.Is finds the errno. An
// error means that the kernel could not be asked: of the rest nothing is known.
func (k *Kernel) Apply(changes []Change, refused func(i int, err error)) error {
	for first := 0; first < len(changes); first += batchChanges {
		some := changes[first:min(first+batchChanges, len(changes))]
		if err := k.batch.exchange(k, some, func(i int, err error) { refused(first+i, err) }); err != nil {
			return err
		}
		runtime.Gosched()
	}
	return nil
}

// Do makes one change.
func (k *Kernel) Do(c Change) error {
	var no error
	if err := k.Apply([]Change{c}, func(_ int, err error) { no = err }); err != nil {
		return err
	}
	return no
}

func (b *batch) open(k *Kernel) error {
	err := k.Inside(func() (err error) {
		b.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		return err
	})
	if err == nil {
		err = unix.Bind(b.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err != nil {
		b.close()
		return fmt.Errorf("netlink socket: %w", err)
	}
	tv := unix.Timeval{Sec: requestSeconds}
	_ = unix.SetsockoptTimeval(b.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv) // it only stores the value
	// Short answers with the kernel's words in them; kernels before 4.12 have neither.
	_ = unix.SetsockoptInt(b.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(b.fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	if b.in == nil {
		b.in = make([]byte, 32<<10)
	}
	return nil
}

func (b *batch) close() {
	if b.fd >= 0 {
		_ = unix.Close(b.fd)
		b.fd = -1
	}
}

// exchange sends one datagram and takes its answers.
func (b *batch) exchange(k *Kernel, changes []Change, refused func(int, error)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fd < 0 {
		if err := b.open(k); err != nil {
			return err
		}
	}
	b.out = b.out[:0]
	first := b.seq + 1
	for _, c := range changes {
		b.seq++
		b.out = binary.NativeEndian.AppendUint32(b.out, uint32(unix.SizeofNlMsghdr+len(c.body)))
		b.out = binary.NativeEndian.AppendUint16(b.out, c.typ)
		b.out = binary.NativeEndian.AppendUint16(b.out, c.flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
		b.out = binary.NativeEndian.AppendUint32(b.out, b.seq)
		b.out = binary.NativeEndian.AppendUint32(b.out, 0)
		b.out = append(b.out, c.body...)
		for len(b.out)%4 != 0 {
			b.out = append(b.out, 0)
		}
	}
	err := unix.Sendto(b.fd, b.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for left := len(changes); err == nil && left > 0; {
		var n int
		var kernel bool
		n, kernel, err = ReceiveFrom(b.fd, b.in, 0)
		if err == unix.EINTR {
			err = nil
			continue
		}
		if err != nil || !kernel {
			continue // only the kernel answers
		}
		for m := range Messages(b.in[:n]) {
			i, no, ok := answer(m, first)
			if !ok || i >= len(changes) {
				continue
			}
			left--
			if no != nil {
				refused(i, no)
			}
		}
	}
	if err != nil {
		b.close() // an answer that comes late finds nobody
		if errors.Is(err, unix.EAGAIN) {
			err = fmt.Errorf("the kernel has not answered within %d s", requestSeconds)
		}
		return fmt.Errorf("netlink: %w", err)
	}
	return nil
}

// answer reads an acknowledgement of the message first+i.
func answer(m Message, first uint32) (i int, no error, ok bool) {
	if m.Type != unix.NLMSG_ERROR || len(m.Body) < 4+unix.SizeofNlMsghdr {
		return 0, nil, false
	}
	i = int(binary.NativeEndian.Uint32(m.Body[12:]) - first)
	errno := int32(binary.NativeEndian.Uint32(m.Body))
	if errno == 0 {
		return i, nil, true
	}
	r := &Refusal{Errno: unix.Errno(-errno)}
	rest := m.Body[4:]
	size := unix.SizeofNlMsghdr
	if m.Flags&nlmFlagCapped == 0 { // the whole message comes back
		size = int(min(uint32(len(rest)), (binary.NativeEndian.Uint32(rest)+3)&^3))
	}
	if m.Flags&nlmFlagAckTLVs != 0 {
		for typ, v := range attributes(rest[size:]) {
			if typ == nlmErrAttrWords {
				r.Words = cString(v)
			}
		}
	}
	return i, r, true
}
