package ipvs

import (
	"context"
	"encoding/binary"
	"errors"
	"math/bits"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

const fakeFamily = 0x1f

// fakeKernel answers requests of the IPVS family as Linux does. Its reading of
// them is its own, not the code under test.
type fakeKernel struct {
	mu        sync.Mutex // guards all below
	present   bool       // has IPVS
	services  map[Key]*Entry
	done      []string               // verbs and rules of the operations that were done
	refuse    func(op Op) unix.Errno // what to refuse
	interrupt int                    // so many dumps are interrupted
	hang      chan struct{}          // not nil: a send waits for it, as in a kernel that hangs
	mute      bool                   // requests are swallowed
	old       bool                   // knows no types of tunnels
	syncs     []Daemon               // that run
	starts    int                    // of sync daemons
	device    int                    // number of every interface but nosuch; negative: it is not there
	timeouts  [3]uint32              // tcp, tcpfin, udp, in seconds
	sysctls   sysctls                // a directory
	dials     int
	sends     int
}

func newFakeKernel() *fakeKernel {
	return &fakeKernel{present: true, services: map[Key]*Entry{}}
}

func (k *fakeKernel) dial() (conn, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dials++
	return &fakeConn{kernel: k, more: make(chan struct{}, 1)}, nil
}

// text is the whole table as ipvsadm -Sn prints it.
func (k *fakeKernel) text() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Text(k.entries())
}

func (k *fakeKernel) entries() []Entry {
	var all []Entry
	for _, e := range k.services {
		c := Entry{Service: e.Service, Dests: slices.Clone(e.Dests)}
		slices.SortFunc(c.Dests, func(a, b Dest) int { return a.Address.Compare(b.Address) })
		all = append(all, c)
	}
	sortEntries(all)
	return all
}

// clear is `ipvsadm -C`.
func (k *fakeKernel) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.services)
}

func (k *fakeKernel) put(entries ...Entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range entries {
		k.services[e.Service.Key] = &e
	}
}

// take returns the operations done since the last call.
func (k *fakeKernel) take() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.done
	k.done = nil
	return d
}

type fakeConn struct {
	kernel *fakeKernel
	more   chan struct{}

	mu       sync.Mutex // guards all below
	queue    [][]byte
	deadline time.Time
	closed   bool
}

func (c *fakeConn) setDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.mu.Unlock()
	poke(c.more)
	return nil
}

func (c *fakeConn) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func (c *fakeConn) receive() ([]byte, error) {
	for {
		c.mu.Lock()
		closed, deadline := c.closed, c.deadline
		if len(c.queue) > 0 {
			b := c.queue[0]
			c.queue = c.queue[1:]
			c.mu.Unlock()
			return b, nil
		}
		c.mu.Unlock()
		switch {
		case closed:
			return nil, os.ErrClosed
		case !deadline.IsZero() && !time.Now().Before(deadline):
			return nil, os.ErrDeadlineExceeded
		}
		var expire <-chan time.Time
		if !deadline.IsZero() {
			expire = time.After(time.Until(deadline))
		}
		select {
		case <-c.more:
		case <-expire:
		}
	}
}

func (c *fakeConn) answer(kind, flags uint16, seq uint32, payload []byte) {
	b := native.AppendUint32(nil, uint32(16+len(payload)))
	b = native.AppendUint16(b, kind)
	b = native.AppendUint16(b, flags)
	b = native.AppendUint32(b, seq)
	b = native.AppendUint32(b, 4711)
	b = append(b, payload...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	c.mu.Lock()
	c.queue = append(c.queue, b)
	c.mu.Unlock()
	poke(c.more)
}

func (c *fakeConn) send(b []byte) error {
	c.kernel.mu.Lock()
	c.kernel.sends++
	hang, mute := c.kernel.hang, c.kernel.mute
	c.kernel.mu.Unlock()
	if hang != nil {
		<-hang
	}
	if mute {
		return nil
	}
	for len(b) > 0 {
		size := native.Uint32(b)
		c.request(b[:size])
		b = b[size:]
	}
	return nil
}

func tree(b []byte) map[uint16][]byte {
	m := map[uint16][]byte{}
	for len(b) >= 4 {
		size := int(native.Uint16(b))
		m[native.Uint16(b[2:])&0x3fff] = b[4:size]
		b = b[min(len(b), (size+3)/4*4):]
	}
	return m
}

func (c *fakeConn) request(b []byte) {
	kind, flags, seq := native.Uint16(b[4:]), native.Uint16(b[6:]), native.Uint32(b[8:])
	cmd, attrs := b[16], tree(b[20:])
	k := c.kernel
	k.mu.Lock()
	defer k.mu.Unlock()
	ack := func(errno unix.Errno) {
		if errno == 0 && flags&unix.NLM_F_ACK == 0 {
			return
		}
		c.answer(unix.NLMSG_ERROR, unix.NLM_F_CAPPED, seq, append(native.AppendUint32(nil, uint32(-int32(errno))), b[:16]...))
	}
	switch {
	case kind == unix.GENL_ID_CTRL:
		if !k.present || text(attrs[2]) != "IPVS" {
			ack(unix.ENOENT)
			return
		}
		m := &message{b: []byte{1, 2, 0, 0}}
		m.str(2, "IPVS")
		m.u16(1, fakeFamily)
		c.answer(unix.GENL_ID_CTRL, 0, seq, m.b)
		ack(0)
	case kind != fakeFamily:
		ack(0) // as Linux does with family 0
	case !k.present:
		ack(unix.ENOENT)
	case flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP:
		var intr uint16
		if k.interrupt > 0 {
			k.interrupt--
			intr = unix.NLM_F_DUMP_INTR
		}
		c.dump(cmd, attrs, seq, unix.NLM_F_MULTI|intr)
	case cmd == 4:
		e := k.services[fakeKey(tree(attrs[1]))]
		if e == nil {
			ack(unix.ESRCH)
			return
		}
		m := &message{b: []byte{1, 1, 0, 0}}
		s := e.Service
		s.Flags |= 2 // hashed
		m.service(s, true)
		c.answer(fakeFamily, 0, seq, m.b)
		ack(0)
	case cmd == 13:
		m := &message{b: []byte{12, 1, 0, 0}}
		for i, seconds := range k.timeouts {
			m.u32(uint16(4+i), seconds)
		}
		c.answer(fakeFamily, 0, seq, m.b)
		ack(0)
	case cmd >= 9:
		ack(k.doNode(cmd, attrs))
	default:
		ack(k.do(cmd, attrs))
	}
}

func (c *fakeConn) dump(cmd uint8, attrs map[uint16][]byte, seq uint32, flags uint16) {
	k := c.kernel
	switch cmd {
	case 4: // services
		for _, e := range k.entries() {
			s := e.Service
			s.Flags |= 2 // hashed
			m := &message{b: []byte{4, 1, 0, 0}}
			m.service(s, true)
			c.answer(fakeFamily, flags, seq, m.b)
		}
	case 8: // destinations
		e := k.services[fakeKey(tree(attrs[1]))]
		if e == nil {
			break
		}
		for _, d := range e.Dests {
			m := &message{b: []byte{8, 1, 0, 0}}
			m.dest(d, true)
			if k.old && d.Method == IPIP { // without type, port and flags
				m.b = m.b[:len(m.b)-24]
				native.PutUint16(m.b[4:], uint16(len(m.b)-4))
			}
			c.answer(fakeFamily, flags, seq, m.b)
		}
	case 11:
		for _, d := range k.syncs {
			m := &message{b: []byte{9, 1, 0, 0}}
			m.daemon(d)
			c.answer(fakeFamily, flags, seq, m.b)
		}
	}
	c.answer(unix.NLMSG_DONE, flags, seq, []byte{0, 0, 0, 0})
}

func fakeAddr(family uint16, addr, port []byte) netip.AddrPort {
	n := 4
	if family == unix.AF_INET6 {
		n = 16
	}
	a, _ := netip.AddrFromSlice(addr[:n])
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
}

func fakeKey(a map[uint16][]byte) Key {
	family := native.Uint16(a[1])
	k := Key{IPv6: family == unix.AF_INET6}
	if a[5] != nil {
		k.Protocol, k.FWMark = conf.FWM, native.Uint32(a[5])
		return k
	}
	k.Protocol = conf.TCP
	switch native.Uint16(a[2]) {
	case 17:
		k.Protocol = conf.UDP
	case 132:
		k.Protocol = conf.SCTP
	}
	k.Address = fakeAddr(family, a[3], a[4])
	return k
}

func fakeService(a map[uint16][]byte) Service {
	s := Service{Key: fakeKey(a), Scheduler: text(a[6]), Flags: native.Uint32(a[7]), Timeout: native.Uint32(a[8]), PE: text(a[11])}
	if s.IPv6 {
		s.Netmask = int(native.Uint32(a[9]))
	} else {
		s.Netmask = bits.OnesCount32(binary.BigEndian.Uint32(a[9]))
	}
	return s
}

func fakeDest(a map[uint16][]byte, old bool) Dest {
	d := Dest{Address: fakeAddr(native.Uint16(a[11]), a[1], a[2])}
	if a[3] != nil {
		d.Method = [5]Method{Masq, Local, IPIP, Gate, Bypass}[native.Uint32(a[3])]
		d.Weight, d.Upper, d.Lower = native.Uint32(a[4]), native.Uint32(a[5]), native.Uint32(a[6])
	}
	if a[13] != nil && !old {
		d.Tunnel, d.TunnelPort, d.TunnelFlags = a[13][0], binary.BigEndian.Uint16(a[14]), native.Uint16(a[15])
	}
	return d
}

func (k *fakeKernel) do(cmd uint8, attrs map[uint16][]byte) unix.Errno {
	svc := tree(attrs[1])
	key := fakeKey(svc)
	e := k.services[key]
	op := Op{Service: Service{Key: key}}
	switch cmd {
	case 1, 2:
		op.Verb = [3]Verb{1: AddService, 2: EditService}[cmd]
		op.Service = fakeService(svc)
	case 3:
		op.Verb = DeleteService
	case 5, 6, 7:
		op.Verb = [8]Verb{5: AddDest, 6: EditDest, 7: DeleteDest}[cmd]
		op.Dest = fakeDest(tree(attrs[2]), k.old)
	default:
		return unix.EOPNOTSUPP
	}
	if e == nil && cmd != 1 {
		return unix.ESRCH
	}
	if k.refuse != nil {
		if errno := k.refuse(op); errno != 0 {
			return errno
		}
	}
	at := -1
	if e != nil {
		at = slices.IndexFunc(e.Dests, func(d Dest) bool { return d.Address == op.Dest.Address })
	}
	switch {
	case cmd == 1 && e != nil, cmd == 5 && at >= 0:
		return unix.EEXIST
	case (cmd == 6 || cmd == 7) && at < 0:
		return unix.ENOENT
	}
	switch cmd {
	case 1:
		k.services[key] = &Entry{Service: op.Service}
	case 2:
		e.Service = op.Service
	case 3:
		delete(k.services, key)
	case 5:
		e.Dests = append(e.Dests, op.Dest)
	case 6:
		e.Dests[at] = op.Dest
	case 7:
		e.Dests = slices.Delete(e.Dests, at, at+1)
	}
	k.done = append(k.done, op.String())
	return 0
}

// table is a Kernel on the fake one.
func (k *fakeKernel) table(timeout time.Duration, load error) *Kernel {
	return NewKernel(KernelConfig{
		CallTimeout: timeout,
		dial:        k.dial,
		sysctls:     k.sysctls,
		modprobe:    func(context.Context) error { return load },
		index:       k.index,
	})
}

var errNoModule = errors.New("modprobe: FATAL: Module ip_vs not found")
