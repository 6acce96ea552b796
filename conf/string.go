package conf

import "strconv"

func utoa[T ~uint16 | ~uint32](n T) string { return strconv.FormatUint(uint64(n), 10) }

func enumString(names []string, i uint8) string {
	if int(i) < len(names) && names[i] != "" {
		return names[i]
	}
	return "invalid(" + strconv.Itoa(int(i)) + ")"
}

func (r Role) String() string { return enumString([]string{"", "director", "witness"}, uint8(r)) }
func (l LinkType) String() string {
	return enumString([]string{"", "bcast", "mcast", "ucast", "serial"}, uint8(l))
}
func (q Quorum) String() string {
	return enumString([]string{"", "witness", "fencing", "ping", "unsafe"}, uint8(q))
}
func (g GuardMode) String() string { return enumString([]string{"", "on", "off"}, uint8(g)) }
func (c Class) String() string {
	return enumString([]string{"", "guarded", "fenced", "shared"}, uint8(c))
}
func (p Protocol) String() string {
	return enumString([]string{"", "tcp", "udp", "fwm", "sctp"}, uint8(p))
}
func (f Forward) String() string { return enumString([]string{"", "gate", "masq", "ipip"}, uint8(f)) }
func (c CheckType) String() string {
	return enumString([]string{"", "negotiate", "connect", "ping", "external", "on", "off", "file"}, uint8(c))
}
func (t Tunnel) String() string { return enumString([]string{"ipip", "gue", "gre"}, uint8(t)) }
func (c Checksum) String() string {
	return enumString([]string{"nocsum", "csum", "remcsum"}, uint8(c))
}
func (c Conflict) String() string {
	return enumString([]string{"", "yield", "keep", "fence"}, uint8(c))
}
func (a FenceAction) String() string {
	return enumString([]string{"", "off", "reboot", "on"}, uint8(a))
}
func (t FenceType) String() string {
	return enumString([]string{"", "agent", "external", "script", "manual", "watchdog"}, uint8(t))
}
