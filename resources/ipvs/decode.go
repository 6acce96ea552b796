package ipvs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

var errMalformed = errors.New("malformed answer from the kernel")

// attributes calls f for each attribute of b.
func attributes(b []byte, f func(kind uint16, value []byte) error) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return fmt.Errorf("%w: %d bytes where an attribute begins", errMalformed, len(b))
		}
		size, kind := int(native.Uint16(b)), native.Uint16(b[2:])&attrMask
		if size < 4 || size > len(b) {
			return fmt.Errorf("%w: attribute %d of %d bytes in %d", errMalformed, kind, size, len(b))
		}
		if err := f(kind, b[4:size]); err != nil {
			return err
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return nil
}

// number reads an unsigned integer of the kernel's byte order; which size an
// attribute has depends on the version of the kernel.
func number(b []byte) (uint64, error) {
	switch {
	case len(b) >= 8:
		return native.Uint64(b), nil
	case len(b) >= 4:
		return uint64(native.Uint32(b)), nil
	case len(b) >= 2:
		return uint64(native.Uint16(b)), nil
	case len(b) == 1:
		return uint64(b[0]), nil
	default:
		return 0, fmt.Errorf("%w: empty number", errMalformed)
	}
}

func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

func addressFrom(raw []byte, v6 bool) (netip.Addr, error) {
	want := 4
	if v6 {
		want = 16
	}
	if len(raw) < want {
		return netip.Addr{}, fmt.Errorf("%w: address of %d bytes", errMalformed, len(raw))
	}
	a, _ := netip.AddrFromSlice(raw[:want])
	return a, nil
}

func portFrom(raw []byte) (uint16, error) {
	if len(raw) < 2 {
		return 0, fmt.Errorf("%w: port of %d bytes", errMalformed, len(raw))
	}
	return binary.BigEndian.Uint16(raw), nil
}

func isV6(family uint64) (bool, error) {
	switch family {
	case unix.AF_INET:
		return false, nil
	case unix.AF_INET6:
		return true, nil
	default:
		return false, fmt.Errorf("%w: address family %d", errMalformed, family)
	}
}

// nested finds the attribute of that kind in a message's payload.
func nested(payload []byte, kind uint16) ([]byte, error) {
	if len(payload) < genlHeader {
		return nil, fmt.Errorf("%w: message of %d bytes", errMalformed, len(payload))
	}
	var found []byte
	err := attributes(payload[genlHeader:], func(k uint16, v []byte) error {
		if k == kind {
			found = v
		}
		return nil
	})
	if err == nil && found == nil {
		err = fmt.Errorf("%w: no attribute %d", errMalformed, kind)
	}
	return found, err
}

// decodeService reads a service out of an answer to cmdGetService. It reports
// false for one that cannot be ours.
func decodeService(payload []byte) (Service, bool, error) {
	body, err := nested(payload, cmdAttrService)
	if err != nil {
		return Service{}, false, err
	}
	var s Service
	var family, proto uint64
	var addr, mask []byte
	var port uint16
	err = attributes(body, func(kind uint16, v []byte) (err error) {
		var n uint64
		switch kind {
		case svcAddressFamily:
			family, err = number(v)
		case svcProtocol:
			proto, err = number(v)
		case svcAddress:
			addr = v
		case svcPort:
			port, err = portFrom(v)
		case svcFWMark:
			n, err = number(v)
			s.FWMark = uint32(n)
		case svcScheduler:
			s.Scheduler = text(v)
		case svcFlags: // struct ip_vs_flags; the mask is of no interest
			if len(v) < 4 {
				return fmt.Errorf("%w: flags of %d bytes", errMalformed, len(v))
			}
			s.Flags = native.Uint32(v)
		case svcTimeout:
			n, err = number(v)
			s.Timeout = uint32(n)
		case svcNetmask:
			mask = v
		case svcPE:
			s.PE = text(v)
		}
		return err
	})
	if err != nil {
		return Service{}, false, err
	}
	if s.IPv6, err = isV6(family); err != nil {
		return Service{}, false, err
	}
	if s.Netmask, err = maskFrom(mask, s.IPv6); err != nil {
		return Service{}, false, err
	}
	switch {
	case s.FWMark != 0:
		s.Protocol = conf.FWM
		return s.normal(), true, nil
	case proto == unix.IPPROTO_TCP:
		s.Protocol = conf.TCP
	case proto == unix.IPPROTO_UDP:
		s.Protocol = conf.UDP
	case proto == unix.IPPROTO_SCTP:
		s.Protocol = conf.SCTP
	default:
		return Service{}, false, nil
	}
	a, err := addressFrom(addr, s.IPv6)
	if err != nil {
		return Service{}, false, err
	}
	s.Address = netip.AddrPortFrom(a, port)
	return s.normal(), true, nil
}

func maskFrom(raw []byte, v6 bool) (int, error) {
	if len(raw) < 4 {
		return 0, fmt.Errorf("%w: netmask of %d bytes", errMalformed, len(raw))
	}
	if v6 {
		return int(min(native.Uint32(raw), 128)), nil
	}
	mask := binary.BigEndian.Uint32(raw)
	n := bits.LeadingZeros32(^mask)
	if mask != ^uint32(0)<<(32-n) {
		return -1, nil // with holes: not ours, whatever it is
	}
	return n, nil
}

// decodeDest reads a real server out of an answer to cmdGetDest. v6 is the
// family of its service, for kernels that do not tell the server's own.
func decodeDest(payload []byte, v6 bool) (Dest, Counters, error) {
	body, err := nested(payload, cmdAttrDest)
	if err != nil {
		return Dest{}, Counters{}, err
	}
	var d Dest
	var c Counters
	var addr, stats, stats64 []byte
	var port uint16
	set32 := func(to *uint32, v []byte) error {
		n, err := number(v)
		*to = uint32(n)
		return err
	}
	err = attributes(body, func(kind uint16, v []byte) (err error) {
		var n uint64
		switch kind {
		case destAddress:
			addr = v
		case destPort:
			port, err = portFrom(v)
		case destMethod:
			n, err = number(v)
			d.Method = methodFromKernel(uint32(n))
		case destWeight:
			err = set32(&d.Weight, v)
		case destUpper:
			err = set32(&d.Upper, v)
		case destLower:
			err = set32(&d.Lower, v)
		case destActive:
			err = set32(&c.Active, v)
		case destInactive:
			err = set32(&c.Inactive, v)
		case destPersistent:
			err = set32(&c.Persistent, v)
		case destStats:
			stats = v
		case destStats64:
			stats64 = v
		case destTunnel:
			n, err = number(v)
			d.Tunnel = uint8(n)
		case destTunnelPort:
			d.TunnelPort, err = portFrom(v)
		case destTunnelFlags:
			n, err = number(v)
			d.TunnelFlags = uint16(n)
		case destAddressFamily:
			if n, err = number(v); err == nil && n != 0 {
				v6, err = isV6(n)
			}
		}
		return err
	})
	if err != nil {
		return Dest{}, Counters{}, err
	}
	a, err := addressFrom(addr, v6)
	if err != nil {
		return Dest{}, Counters{}, err
	}
	d.Address = netip.AddrPortFrom(a, port)
	if stats64 != nil { // counters of 32 bits wrap
		stats = stats64
	}
	return d, c, c.readStats(stats)
}

func (c *Counters) readStats(b []byte) error {
	return attributes(b, func(kind uint16, v []byte) (err error) {
		switch kind {
		case statsConnections:
			c.Total, err = number(v)
		case statsPacketsIn:
			c.PacketsIn, err = number(v)
		case statsPacketsOut:
			c.PacketsOut, err = number(v)
		case statsBytesIn:
			c.BytesIn, err = number(v)
		case statsBytesOut:
			c.BytesOut, err = number(v)
		}
		return err
	})
}

func decodeFamily(payload []byte) (uint16, error) {
	id, err := nested(payload, ctrlAttrFamilyID)
	if err != nil {
		return 0, err
	}
	n, err := number(id)
	if err == nil && (n <= unix.GENL_ID_CTRL || n > 0xffff) {
		err = fmt.Errorf("%w: family id %d", errMalformed, n)
	}
	return uint16(n), err
}

// reply is one netlink message from the kernel.
type reply struct {
	kind    uint16 // NLMSG_ERROR, NLMSG_DONE or the family
	flags   uint16
	seq     uint32
	payload []byte
}

// errno of an NLMSG_ERROR or NLMSG_DONE, 0 for an acknowledgement, and the kernel's
// own words where it has some.
func (r reply) errno() (unix.Errno, string, error) {
	if r.kind == unix.NLMSG_DONE && len(r.payload) < 4 {
		return 0, "", nil
	}
	if len(r.payload) < 4 {
		return 0, "", fmt.Errorf("%w: error of %d bytes", errMalformed, len(r.payload))
	}
	n := int32(native.Uint32(r.payload))
	if n >= 0 {
		return 0, "", nil // a dump's DONE may carry a length
	}
	var words string
	if r.kind == unix.NLMSG_ERROR && r.flags&unix.NLM_F_ACK_TLVS != 0 {
		// The echoed header is alone, without its payload, because of NETLINK_CAP_ACK.
		skip := 4 + unix.SizeofNlMsghdr
		if r.flags&unix.NLM_F_CAPPED == 0 && len(r.payload) >= skip {
			skip = 4 + (int(min(native.Uint32(r.payload[4:]), 1<<20))+3)&^3
		}
		if skip <= len(r.payload) {
			// Words that cannot be read are no reason to lose the error.
			_ = attributes(r.payload[skip:], func(kind uint16, v []byte) error {
				if kind == unix.NLMSGERR_ATTR_MSG {
					words = text(v)
				}
				return nil
			})
		}
	}
	return unix.Errno(-int64(n)), words, nil
}

// replies cuts a datagram of the kernel into messages.
func replies(b []byte) ([]reply, error) {
	var out []reply
	for len(b) >= unix.SizeofNlMsghdr {
		size := native.Uint32(b)
		if size < unix.SizeofNlMsghdr || uint64(size) > uint64(len(b)) {
			return nil, fmt.Errorf("%w: message of %d bytes in %d", errMalformed, size, len(b))
		}
		out = append(out, reply{
			kind:    native.Uint16(b[4:]),
			flags:   native.Uint16(b[6:]),
			seq:     native.Uint32(b[8:]),
			payload: b[unix.SizeofNlMsghdr:size],
		})
		b = b[min(uint64(len(b)), (uint64(size)+3)&^3):]
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%w: %d bytes at the end", errMalformed, len(b))
	}
	return out, nil
}
