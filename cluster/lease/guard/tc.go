package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// link is what the guard needs to know of an interface.
type link struct {
	index    int
	name     string
	arphrd   uint16
	loopback bool
}

func (l link) framing() framing {
	if l.arphrd == unix.ARPHRD_ETHER {
		return framedEthernet
	}
	return framedOther
}

// filter is one tc filter, ours or another's.
type filter struct {
	handle, chain uint32
	prio, proto   uint16
	kind          string
	name          string // bpf filters have one
	prog          ebpf.ProgramID
	direct        bool // bpf: the program's return value is the verdict
}

func (f filter) String() string {
	s := fmt.Sprintf("pref %d %s handle %#x", f.prio, f.kind, f.handle)
	if f.name != "" {
		s += " " + f.name
	}
	return s
}

// parent is tc's number for the hook of a direction.
func (d direction) parent() uint32 {
	if d == egress {
		return netlink.HANDLE_MIN_EGRESS
	}
	return netlink.HANDLE_MIN_INGRESS
}

// tc talks to the kernel about links, queueing disciplines and filters of one
// network namespace. It reads with its own parser, because the library's gives
// up on the whole list when it does not understand one filter of somebody else.
type tc struct {
	ns      netns.NsHandle
	handle  *netlink.Handle
	sockets map[int]*nl.SocketHandle
}

// netlinkTimeout is how long one answer of the kernel may take; it holds rtnl for seconds when devices are slow.
const netlinkTimeout = 20 // seconds

// openTC opens the sockets in the namespace of the calling thread.
func openTC() (*tc, error) {
	ns, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("opening this network namespace: %w", err)
	}
	t := &tc{ns: ns}
	if t.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		t.close()
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	s, err := nl.GetNetlinkSocketAt(ns, ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.close()
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	t.sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
	tv := &unix.Timeval{Sec: netlinkTimeout}
	_ = s.SetSendTimeout(tv) // these two store a number
	_ = s.SetReceiveTimeout(tv)
	return t, nil
}

func (t *tc) close() {
	if t.handle != nil {
		t.handle.Close()
	}
	for _, s := range t.sockets {
		s.Socket.Close()
	}
	_ = t.ns.Close()
}

// request sends one request and returns the answers. A dump that changes under
// our eyes is repeated.
func (t *tc) request(kind int, flags int, msg nl.NetlinkRequestData, answer uint16) ([][]byte, error) {
	var err error
	for range 5 {
		req := nl.NewNetlinkRequest(kind, flags)
		req.Sockets = t.sockets
		req.AddData(msg)
		var out [][]byte
		out, err = req.Execute(unix.NETLINK_ROUTE, answer)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			return out, err
		}
	}
	return nil, err
}

// links lists every interface of the namespace but the loopback.
func (t *tc) links() ([]link, error) {
	msgs, err := t.request(unix.RTM_GETLINK, unix.NLM_F_DUMP, nl.NewIfInfomsg(unix.AF_UNSPEC), unix.RTM_NEWLINK)
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	var out []link
	for _, m := range msgs {
		if l, ok := parseLink(m); ok && !l.loopback {
			out = append(out, l)
		}
	}
	return out, nil
}

// link returns one interface, false when it is gone.
func (t *tc) link(index int) (link, bool, error) {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	msgs, err := t.request(unix.RTM_GETLINK, 0, msg, unix.RTM_NEWLINK)
	if gone(err) {
		return link{}, false, nil
	}
	if err != nil {
		return link{}, false, fmt.Errorf("looking up interface %d: %w", index, err)
	}
	for _, m := range msgs {
		if l, ok := parseLink(m); ok && l.index == index {
			return l, true, nil
		}
	}
	return link{}, false, nil
}

// filters lists the filters of one side of an interface in the order in which
// they run: those of chain 0, where packets begin. Other chains are only reached from it.
func (t *tc) filters(ifindex int, d direction) ([]filter, error) {
	all, err := t.filtersOfAllChains(ifindex, d)
	return slices.DeleteFunc(all, func(f filter) bool { return f.chain != 0 }), err
}

func (t *tc) filtersOfAllChains(ifindex int, d direction) ([]filter, error) {
	msgs, err := t.request(unix.RTM_GETTFILTER, unix.NLM_F_DUMP,
		&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(ifindex), Parent: d.parent()}, unix.RTM_NEWTFILTER)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing %s filters: %w", d, err)
	}
	var out []filter
	for _, m := range msgs {
		// A handle of 0 is the head of a list, not a filter.
		if f, ok := parseFilter(m); ok && f.handle != 0 {
			out = append(out, f)
		}
	}
	return out, nil
}

// clsactKind returns the kind of the queueing discipline that stands where
// clsact would: "clsact", "ingress", or "" for none.
func (t *tc) clsactKind(ifindex int) (string, error) {
	msgs, err := t.request(unix.RTM_GETQDISC, unix.NLM_F_DUMP,
		&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(ifindex)}, unix.RTM_NEWQDISC)
	if err != nil {
		return "", fmt.Errorf("listing queueing disciplines: %w", err)
	}
	for _, m := range msgs {
		if len(m) < nl.SizeofTcMsg || int(int32(binary.NativeEndian.Uint32(m[4:]))) != ifindex ||
			binary.NativeEndian.Uint32(m[12:]) != netlink.HANDLE_CLSACT {
			continue
		}
		kind := ""
		attrs(m[nl.SizeofTcMsg:], func(typ uint16, v []byte) {
			if typ == nl.TCA_KIND {
				kind = cString(v)
			}
		})
		return kind, nil
	}
	return "", nil
}

func clsact(ifindex int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

// addClsact makes the clsact of an interface; made is false when there was one.
func (t *tc) addClsact(ifindex int) (made bool, err error) {
	err = t.handle.QdiscAdd(clsact(ifindex))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EEXIST):
		kind, err := t.clsactKind(ifindex)
		if err != nil {
			return false, err
		}
		if kind != "" && kind != "clsact" {
			return false, fmt.Errorf("there is a queueing discipline %q, which leaves the way out unguarded; "+
				"replace it by clsact, which takes the same filters: tc qdisc del dev ... %s", kind, kind)
		}
		return false, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		return false, fmt.Errorf("%w: it has no clsact queueing discipline (CONFIG_NET_SCH_INGRESS): %w", ErrUnsupported, err)
	}
	return false, fmt.Errorf("adding clsact: %w", err)
}

// delClsact removes it, with whatever is in it.
func (t *tc) delClsact(ifindex int) error {
	if err := t.handle.QdiscDel(clsact(ifindex)); err != nil && !gone(err) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("removing clsact: %w", err)
	}
	return nil
}

func (f filter) netlink(ifindex int, d direction, fd int) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex, Parent: d.parent(), Handle: f.handle, Priority: f.prio, Protocol: f.proto,
		},
		Fd: fd, Name: f.name, DirectAction: true,
	}
}

// addFilter adds a filter of ours; the kernel chooses the handle. Within one
// preference a new filter stands before the older ones.
func (t *tc) addFilter(ifindex int, d direction, f filter, fd int) error {
	f.handle = 0
	err := t.handle.FilterAdd(f.netlink(ifindex, d, fd))
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: it has no bpf classifier (CONFIG_NET_CLS_BPF): %w", ErrUnsupported, err)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("its filters are in a block shared between interfaces, where the guard cannot stand; "+
			"give it a clsact of its own: %w", err)
	}
	return err
}

// replaceFilter puts another program into a filter of ours, with no packet in between unjudged.
func (t *tc) replaceFilter(ifindex int, d direction, f filter, fd int) error {
	return t.handle.FilterReplace(f.netlink(ifindex, d, fd))
}

func (t *tc) delFilter(ifindex int, d direction, f filter) error {
	if err := t.handle.FilterDel(f.netlink(ifindex, d, -1)); err != nil && !gone(err) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("removing %s filter %s: %w", d, f, err)
	}
	return nil
}

// gone tells that the interface or the thing on it is not there any more.
func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOENT)
}

// parseLink reads an ifinfomsg and its attributes.
func parseLink(b []byte) (link, bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return link{}, false
	}
	l := link{
		arphrd:   binary.NativeEndian.Uint16(b[2:]),
		index:    int(int32(binary.NativeEndian.Uint32(b[4:]))),
		loopback: binary.NativeEndian.Uint32(b[8:])&unix.IFF_LOOPBACK != 0,
	}
	attrs(b[unix.SizeofIfInfomsg:], func(typ uint16, v []byte) {
		if typ == unix.IFLA_IFNAME {
			l.name = cString(v)
		}
	})
	return l, l.index > 0
}

// parseFilter reads a tcmsg of a filter and its attributes.
func parseFilter(b []byte) (filter, bool) {
	if len(b) < nl.SizeofTcMsg {
		return filter{}, false
	}
	info := binary.NativeEndian.Uint32(b[16:])
	f := filter{
		handle: binary.NativeEndian.Uint32(b[8:]),
		prio:   uint16(info >> 16),
		proto:  nl.Swap16(uint16(info)),
	}
	var options []byte
	attrs(b[nl.SizeofTcMsg:], func(typ uint16, v []byte) {
		switch typ {
		case nl.TCA_KIND:
			f.kind = cString(v)
		case nl.TCA_CHAIN:
			f.chain = word(v)
		case nl.TCA_OPTIONS:
			options = v
		}
	})
	if f.kind != "bpf" {
		return f, true
	}
	attrs(options, func(typ uint16, v []byte) {
		switch typ {
		case nl.TCA_BPF_NAME:
			f.name = cString(v)
		case nl.TCA_BPF_ID:
			f.prog = ebpf.ProgramID(word(v))
		case nl.TCA_BPF_FLAGS:
			f.direct = word(v)&nl.TCA_BPF_FLAG_ACT_DIRECT != 0
		}
	})
	return f, true
}

// attrs calls f for each netlink attribute in b and stops at the first that is not whole.
func attrs(b []byte, f func(typ uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

func word(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(v)
}

func cString(v []byte) string {
	s, _, _ := strings.Cut(string(v), "\x00")
	return s
}
