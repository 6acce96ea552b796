package rtnl

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	ifinfoMacvlanMode = 1 // IFLA_MACVLAN_MODE, linux/if_link.h
	// MACVLAN_MODE_VEPA: it does not talk to others on the same device directly. Of
	// a private one the kernel keeps what another machine sends to a
	// group with the same link-layer address from the device below, and from the
	// other macvlans on it: two routers of one virtual address would not hear each other.
	macvlanVEPA = 2
)

// AddMacvlan makes an interface, down, with a link-layer address of its own (6
// raw bytes) on the one with index parent; EEXIST when there is one of that name.
// On an Ethernet device that is itself a macvlan the kernel takes that one's parent.
func AddMacvlan(name string, parent int, mac string) Change {
	b := make([]byte, unix.SizeofIfInfomsg)
	b = appendName(b, unix.IFLA_IFNAME, name)
	b = appendAttr(b, unix.IFLA_LINK, binary.NativeEndian.AppendUint32(nil, uint32(parent)))
	b = appendAttr(b, unix.IFLA_ADDRESS, []byte(mac))
	info := appendAttr(nil, unix.IFLA_INFO_KIND, []byte("macvlan"))
	mode := appendAttr(nil, ifinfoMacvlanMode, binary.NativeEndian.AppendUint32(nil, macvlanVEPA))
	info = appendAttr(info, unix.IFLA_INFO_DATA, mode)
	b = appendAttr(b, unix.IFLA_LINKINFO, info)
	return Change{unix.RTM_NEWLINK, unix.NLM_F_CREATE | unix.NLM_F_EXCL, b}
}

// SetUp sets an interface up, and notes something of it.
func SetUp(index int, alias string) Change {
	b := linkBody(index)
	binary.NativeEndian.PutUint32(b[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(b[12:], unix.IFF_UP) // of the flags, this one changes
	return Change{unix.RTM_NEWLINK, 0, appendAttr(b, unix.IFLA_IFALIAS, []byte(alias))}
}

// RemoveLink removes a virtual interface.
func RemoveLink(index int) Change { return Change{unix.RTM_DELLINK, 0, linkBody(index)} }

// RemoveNamed is RemoveLink for one whose index is not known.
func RemoveNamed(name string) Change {
	return Change{unix.RTM_DELLINK, 0, appendName(linkBody(0), unix.IFLA_IFNAME, name)}
}

func linkBody(index int) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	return b
}
