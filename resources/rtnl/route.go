package rtnl

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Route is a route that somebody asks for; its family is that of To.
type Route struct {
	To       netip.Prefix
	Via      netip.Addr // invalid: none. May be of the other family
	Source   netip.Addr // the machine's own connections leave from it; invalid: the kernel chooses
	Index    int        // of the interface; 0: found by Via
	Table    uint32     // 0: main
	Metric   uint32     // 0: the kernel's own
	MTU      uint32
	OnLink   bool
	Scope    uint8 // RT_SCOPE_*; 0: what follows from the rest, as with ip(8)
	Type     uint8 // RTN_*
	Protocol uint8 // RTPROT_*: who added it
}

// AddRoute adds a route; EEXIST when there is one with its network, table and metric.
func AddRoute(r Route) Change {
	return Change{unix.RTM_NEWROUTE, unix.NLM_F_CREATE | unix.NLM_F_EXCL, r.encode()}
}

// RemoveRoute removes the route that is like r in everything; ESRCH when there is none.
func RemoveRoute(r Route) Change { return Change{unix.RTM_DELROUTE, 0, r.encode()} }

func (r Route) encode() []byte {
	scope := r.Scope
	if scope == 0 && !r.Via.IsValid() && r.To.Addr().Is4() && r.Type == unix.RTN_UNICAST {
		scope = unix.RT_SCOPE_LINK
	}
	table := r.Table
	if table == 0 {
		table = unix.RT_TABLE_MAIN
	}
	b := []byte{familyOf(r.To.Addr()), byte(r.To.Bits()), 0, 0, tableByte(table), r.Protocol, scope, r.Type, 0, 0, 0, 0}
	if r.OnLink {
		binary.NativeEndian.PutUint32(b[8:], unix.RTNH_F_ONLINK)
	}
	if r.To.Bits() > 0 {
		b = appendIP(b, unix.RTA_DST, r.To.Masked().Addr())
	}
	switch {
	case r.Via.IsValid() && r.Via.BitLen() != r.To.Addr().BitLen():
		via := binary.NativeEndian.AppendUint16(nil, uint16(familyOf(r.Via)))
		b = appendAttr(b, unix.RTA_VIA, append(via, r.Via.AsSlice()...))
	case r.Via.IsValid():
		b = appendIP(b, unix.RTA_GATEWAY, r.Via.WithZone(""))
	}
	if r.Source.IsValid() {
		b = appendIP(b, unix.RTA_PREFSRC, r.Source)
	}
	b = appendNumber(b, unix.RTA_OIF, uint32(r.Index))
	b = appendNumber(b, unix.RTA_TABLE, table)
	b = appendNumber(b, unix.RTA_PRIORITY, r.Metric)
	if r.MTU != 0 {
		b = appendAttr(b, unix.RTA_METRICS, appendNumber(nil, unix.RTAX_MTU, r.MTU))
	}
	return b
}

// Rule is a rule of policy routing (ip-rule(8)).
type Rule struct {
	IPv6     bool
	From, To netip.Prefix // invalid: all
	IIF, OIF string
	FWMark   uint32 // 0: any
	Table    uint32
	Priority uint32 // 0: before all that are there but the first
	Prohibit bool
	Protocol uint8 // who added it (Linux 4.17)
}

// AddRule adds a rule; EEXIST when it is there.
func AddRule(r Rule) Change {
	return Change{unix.RTM_NEWRULE, unix.NLM_F_CREATE | unix.NLM_F_EXCL, r.encode()}
}

// RemoveRule removes the first rule that is like r; ENOENT when there is none.
func RemoveRule(r Rule) Change { return Change{unix.RTM_DELRULE, 0, r.encode()} }

func (r Rule) encode() []byte {
	family, action := byte(unix.AF_INET), byte(unix.FR_ACT_TO_TBL)
	if r.IPv6 {
		family = unix.AF_INET6
	}
	if r.Prohibit {
		action = unix.FR_ACT_PROHIBIT
	}
	b := []byte{family, byte(max(0, r.To.Bits())), byte(max(0, r.From.Bits())), 0, tableByte(r.Table), 0, 0, action, 0, 0, 0, 0}
	if r.To.IsValid() {
		b = appendIP(b, unix.FRA_DST, r.To.Masked().Addr())
	}
	if r.From.IsValid() {
		b = appendIP(b, unix.FRA_SRC, r.From.Masked().Addr())
	}
	if r.IIF != "" {
		b = appendName(b, unix.FRA_IIFNAME, r.IIF)
	}
	if r.OIF != "" {
		b = appendName(b, unix.FRA_OIFNAME, r.OIF)
	}
	b = appendNumber(b, unix.FRA_FWMARK, r.FWMark)
	b = appendNumber(b, unix.FRA_TABLE, r.Table)
	b = appendNumber(b, unix.FRA_PRIORITY, r.Priority)
	if r.Protocol != 0 {
		b = appendAttr(b, unix.FRA_PROTOCOL, []byte{r.Protocol})
	}
	return b
}

func familyOf(a netip.Addr) byte {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// tableByte is the table in the header, which has room for small numbers only.
func tableByte(table uint32) byte {
	if table > 255 {
		return unix.RT_TABLE_UNSPEC
	}
	return byte(table)
}

// appendNumber appends an attribute unless it is 0.
func appendNumber(b []byte, typ uint16, n uint32) []byte {
	if n == 0 {
		return b
	}
	var v [4]byte
	binary.NativeEndian.PutUint32(v[:], n)
	return appendAttr(b, typ, v[:])
}
