package ipvs

import (
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

func destOf(r conf.Real) Dest {
	d := Dest{
		Address: plain(r.Address),
		Method:  methodOf(r.Forward),
		Weight:  uint32(max(0, r.Weight)),
		Upper:   r.Upper,
		Lower:   r.Lower,
	}
	if d.Method != IPIP {
		return d
	}
	switch r.Tunnel {
	case conf.TunnelGUE:
		d.Tunnel, d.TunnelPort = tunnelGUE, r.TunnelPort
	case conf.TunnelGRE:
		d.Tunnel = tunnelGRE
	}
	switch {
	case d.Tunnel == tunnelIPIP: // has no header of its own
	case r.TunnelChecksum == conf.ChecksumFull:
		d.TunnelFlags = flagTunnelCsum
	case r.TunnelChecksum == conf.ChecksumRemote:
		d.TunnelFlags = flagTunnelRemcsum
	}
	return d
}

func wantedService(v conf.Virtual, k Key) Service {
	s := Service{Key: k, Scheduler: v.Scheduler, Netmask: v.Netmask, PE: v.Engine}
	if v.OPS {
		s.Flags |= flagOnePacket
	}
	if v.Persistent > 0 {
		s.Flags |= flagPersistent
		s.Timeout = uint32(v.Persistent / time.Second)
	}
	if s.Netmask < 1 || s.Netmask > k.bits() {
		s.Netmask = k.bits() // the kernel refuses 0 for IPv6
	}
	for _, f := range v.Flags {
		s.Flags |= schedFlag(f)
	}
	return s.normal()
}

// schedFlag is the bit of a flag of a scheduler. The kernel knows three bits
// and each scheduler gives them its own meaning (include/uapi/linux/ip_vs.h).
func schedFlag(name string) uint32 {
	switch name {
	case "sh-fallback", "mh-fallback", "flag-1":
		return flagSched1
	case "sh-port", "mh-port", "flag-2":
		return flagSched2
	case "flag-3":
		return flagSched3
	default:
		return 0 // validation has refused it
	}
}
