package ipvs

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// The IPVS family of generic netlink, include/uapi/linux/ip_vs.h.
const (
	familyName    = "IPVS"
	familyVersion = 1

	cmdNewService = 1
	cmdSetService = 2
	cmdDelService = 3
	cmdGetService = 4
	cmdNewDest    = 5
	cmdSetDest    = 6
	cmdDelDest    = 7
	cmdGetDest    = 8

	cmdAttrService = 1
	cmdAttrDest    = 2

	svcAddressFamily = 1
	svcProtocol      = 2
	svcAddress       = 3
	svcPort          = 4
	svcFWMark        = 5
	svcScheduler     = 6
	svcFlags         = 7
	svcTimeout       = 8
	svcNetmask       = 9
	svcPE            = 11

	destAddress       = 1
	destPort          = 2
	destMethod        = 3
	destWeight        = 4
	destUpper         = 5
	destLower         = 6
	destActive        = 7
	destInactive      = 8
	destPersistent    = 9
	destStats         = 10
	destAddressFamily = 11
	destStats64       = 12
	destTunnel        = 13 // Linux 5.3
	destTunnelPort    = 14
	destTunnelFlags   = 15

	statsConnections = 1
	statsPacketsIn   = 2
	statsPacketsOut  = 3
	statsBytesIn     = 4
	statsBytesOut    = 5

	methodMask = 7 // IP_VS_CONN_F_FWD_MASK

	genlHeader = 4
	attrMask   = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
)

var native = binary.NativeEndian

// message is one netlink message being put together.
type message struct{ b []byte }

func newMessage(family uint16, flags uint16, seq uint32, cmd, version uint8) *message {
	m := &message{b: make([]byte, unix.SizeofNlMsghdr+genlHeader, 256)}
	native.PutUint16(m.b[4:], family)
	native.PutUint16(m.b[6:], unix.NLM_F_REQUEST|flags)
	native.PutUint32(m.b[8:], seq)
	m.b[16], m.b[17] = cmd, version
	return m
}

// bytes closes the message: its length is only known now.
func (m *message) bytes() []byte {
	native.PutUint32(m.b, uint32(len(m.b)))
	return m.b
}

func (m *message) attr(kind uint16, value []byte) {
	m.b = native.AppendUint16(m.b, uint16(4+len(value)))
	m.b = native.AppendUint16(m.b, kind)
	m.b = append(m.b, value...)
	for len(m.b)%4 != 0 {
		m.b = append(m.b, 0)
	}
}

func (m *message) u16(kind uint16, v uint16) { m.attr(kind, native.AppendUint16(nil, v)) }
func (m *message) u32(kind uint16, v uint32) { m.attr(kind, native.AppendUint32(nil, v)) }
func (m *message) str(kind uint16, v string) { m.attr(kind, append([]byte(v), 0)) }

func (m *message) nest(kind uint16, fill func()) {
	at := len(m.b)
	m.attr(kind|unix.NLA_F_NESTED, nil)
	fill()
	native.PutUint16(m.b[at:], uint16(len(m.b)-at))
}

// address is always 16 bytes: union nf_inet_addr.
func (m *message) address(kind uint16, a netip.Addr) {
	var raw [16]byte
	copy(raw[:], a.AsSlice())
	m.attr(kind, raw[:])
}

func (m *message) port(kind uint16, p uint16) {
	m.attr(kind, binary.BigEndian.AppendUint16(nil, p))
}

func familyOf(v6 bool) uint16 {
	if v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func (m *message) service(s Service, full bool) {
	m.nest(cmdAttrService, func() {
		m.u16(svcAddressFamily, familyOf(s.IPv6))
		if s.Protocol == conf.FWM {
			m.u32(svcFWMark, s.FWMark)
		} else {
			m.u16(svcProtocol, ipProtocol(s.Protocol))
			m.address(svcAddress, s.Address.Addr())
			m.port(svcPort, s.Address.Port())
		}
		if !full {
			return
		}
		m.str(svcScheduler, s.Scheduler)
		// struct ip_vs_flags: the flags, and which of them are meant: all.
		m.attr(svcFlags, native.AppendUint32(native.AppendUint32(nil, s.Flags), ^uint32(0)))
		m.u32(svcTimeout, s.Timeout)
		if s.IPv6 {
			m.u32(svcNetmask, uint32(s.Netmask)) // a prefix length
		} else {
			// The kernel takes it for an address: network byte order.
			mask := ^uint32(0) << (32 - s.Netmask)
			m.attr(svcNetmask, binary.BigEndian.AppendUint32(nil, mask))
		}
		if s.PE != "" {
			m.str(svcPE, s.PE)
		}
	})
}

func ipProtocol(p conf.Protocol) uint16 {
	switch p {
	case conf.UDP:
		return unix.IPPROTO_UDP
	case conf.SCTP:
		return unix.IPPROTO_SCTP
	default:
		return unix.IPPROTO_TCP
	}
}

func kernelMethod(m Method) uint32 {
	switch m {
	case Masq:
		return 0
	case Local:
		return 1
	case IPIP:
		return 2
	case Bypass:
		return 4
	default:
		return 3
	}
}

func methodFromKernel(flags uint32) Method {
	switch flags & methodMask {
	case 0:
		return Masq
	case 1:
		return Local
	case 2:
		return IPIP
	case 3:
		return Gate
	case 4:
		return Bypass
	default:
		return 0
	}
}

func (m *message) dest(d Dest, full bool) {
	m.nest(cmdAttrDest, func() {
		m.u16(destAddressFamily, familyOf(d.Address.Addr().Is6()))
		m.address(destAddress, d.Address.Addr())
		m.port(destPort, d.Address.Port())
		if !full {
			return
		}
		m.u32(destMethod, kernelMethod(d.Method))
		m.u32(destWeight, d.Weight)
		m.u32(destUpper, d.Upper)
		m.u32(destLower, d.Lower)
		if d.Method == IPIP {
			m.attr(destTunnel, []byte{d.Tunnel})
			m.port(destTunnelPort, d.TunnelPort)
			m.u16(destTunnelFlags, d.TunnelFlags)
		}
	})
}

// encode makes the request for one operation.
func encode(family uint16, flags uint16, seq uint32, op Op) ([]byte, error) {
	var cmd uint8
	service, full := false, true
	switch op.Verb {
	case AddService:
		cmd, service = cmdNewService, true
	case EditService:
		cmd, service = cmdSetService, true
	case DeleteService:
		cmd, service, full = cmdDelService, true, false
	case AddDest:
		cmd = cmdNewDest
	case EditDest:
		cmd = cmdSetDest
	case DeleteDest:
		cmd, full = cmdDelDest, false
	default:
		return nil, fmt.Errorf("ipvs: operation with the invalid verb %d", op.Verb)
	}
	m := newMessage(family, flags, seq, cmd, familyVersion)
	m.service(op.Service, service && full)
	if !service {
		m.dest(op.Dest, full)
	}
	return m.bytes(), nil
}

// The controller of generic netlink, include/uapi/linux/genetlink.h.
const (
	ctrlGetFamily      = 3
	ctrlAttrFamilyID   = 1
	ctrlAttrFamilyName = 2
)

func encodeGetFamily(seq uint32) []byte {
	m := newMessage(unix.GENL_ID_CTRL, unix.NLM_F_ACK, seq, ctrlGetFamily, 1)
	m.str(ctrlAttrFamilyName, familyName)
	return m.bytes()
}

func encodeList(family uint16, seq uint32, cmd uint8, of *Service) []byte {
	m := newMessage(family, unix.NLM_F_DUMP, seq, cmd, familyVersion)
	if of != nil {
		m.service(*of, false)
	}
	return m.bytes()
}
