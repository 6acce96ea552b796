package ipvs

import (
	"net/netip"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Up tells whether a real server of a virtual service is up. A server that was
// never checked is not.
type Up func(v Key, r conf.Real) bool

// Wanted is what the table ought to hold for the virtual services, sorted by
// key. Of two with the same key the first counts.
func Wanted(virtuals []conf.Virtual, up Up) []Entry {
	entries := make([]Entry, 0, len(virtuals))
	seen := make(map[Key]bool, len(virtuals))
	for _, v := range virtuals {
		k := KeyOf(v)
		if seen[k] {
			continue
		}
		seen[k] = true
		entries = append(entries, wantedEntry(v, k, up))
	}
	sortEntries(entries)
	return entries
}

func wantedEntry(v conf.Virtual, k Key, up Up) Entry {
	e := Entry{Service: wantedService(v, k), Dests: make([]Dest, 0, len(v.Reals)+1)}
	index := make(map[netip.AddrPort]int, len(v.Reals)+1)
	put := func(d Dest, replace bool) {
		if i, found := index[d.Address]; found {
			if replace {
				e.Dests[i] = d
			}
			return
		}
		index[d.Address] = len(e.Dests)
		e.Dests = append(e.Dests, d)
	}

	alive := 0
	for _, r := range v.Reals {
		d := destOf(r)
		switch {
		case up(k, r):
			alive++
			put(d, true)
		case v.Quiescent:
			d.Weight = 0
			put(d, false)
		}
	}
	if len(v.Fallbacks) > 0 && alive == 0 {
		// ldirectord(8): the fallback has weight 1, whatever the servers have.
		// It may be one of the real servers, and then stands instead of it.
		d := destOf(v.Fallbacks[0])
		d.Weight, d.Upper, d.Lower = 1, 0, 0
		put(d, true)
	}
	slices.SortFunc(e.Dests, func(a, b Dest) int { return a.Address.Compare(b.Address) })
	return e
}

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
