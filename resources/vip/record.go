package vip

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/resources/rtnl"
)

const recordVersion = 1

// mark is written into IFA_PROTO of every address we add: it tells after a
// crash, without the journal, ours from what the machine's own network
// configuration added. Kernels before 5.18 do not keep it.
const mark = 107

// record is what the journal keeps of a started address.
type record struct {
	Version   int          `json:"version"`
	Address   netip.Prefix `json:"address"` // with its prefix, 10.0.0.5/24
	Interface string       `json:"interface"`
	Label     string       `json:"label,omitempty"`
	Broadcast netip.Addr   `json:"broadcast,omitzero"`
	Loopback  []kept       `json:"loopback,omitempty"` // what stood on lo, to be put back
}

// kept is an address that was on lo.
type kept struct {
	Address   netip.Prefix `json:"address"`
	Peer      netip.Addr   `json:"peer,omitzero"`
	Broadcast netip.Addr   `json:"broadcast,omitzero"`
	Label     string       `json:"label,omitempty"`
	Scope     uint8        `json:"scope"`
	Flags     uint32       `json:"flags,omitempty"`
	Proto     uint8        `json:"proto,omitempty"`
	Valid     uint32       `json:"valid_lft"`
	Preferred uint32       `json:"preferred_lft"`
}

func keep(a rtnl.Address) kept {
	return kept{a.Prefix, a.Peer, a.Broadcast, a.Label, a.Scope, a.Flags & rtnl.Settable, a.Proto, a.Valid, a.Preferred}
}

func (k kept) address(index int) rtnl.Address {
	return rtnl.Address{Index: index, Prefix: k.Address, Peer: k.Peer, Broadcast: k.Broadcast, Label: k.Label,
		Scope: k.Scope, Flags: k.Flags, Proto: k.Proto, Valid: k.Valid, Preferred: k.Preferred}
}

// address is what stands on the interface while the resource is started.
//
// An IPv6 address is added without duplicate address detection, which would
// cost a second and more, and with a preferred lifetime of 0: the kernel puts
// the newest address first, so without that the director's own connections
// (checks, heartbeats) would leave from the VIP and break when it moves. Replies
// and sockets bound to it are not affected. In IPv4 the routes name the source.
func (r record) address(index int) rtnl.Address {
	a := rtnl.Address{Index: index, Prefix: r.Address, Broadcast: r.Broadcast, Label: r.Label, Proto: mark, Valid: rtnl.Forever, Preferred: rtnl.Forever}
	if r.Address.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
		a.Preferred = 0
	}
	return a
}

// parseRecord reads a record of the journal.
func parseRecord(b []byte) (record, error) {
	var r record
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return record{}, fmt.Errorf("vip: record of the journal: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return record{}, fmt.Errorf("vip: record of the journal: data after the end")
	}
	a := r.Address.Addr()
	switch {
	case r.Version != recordVersion:
		return record{}, fmt.Errorf("vip: record of the journal has version %d, this program knows %d", r.Version, recordVersion)
	case !validHost(r.Address):
		return record{}, fmt.Errorf("vip: record of the journal: %q is not an address with prefix", r.Address)
	case !validName(r.Interface):
		return record{}, fmt.Errorf("vip %s: record of the journal: %q cannot be the name of an interface", r.Address, r.Interface)
	case !validLabel(a, r.Label) || !validBroadcast(a, r.Broadcast):
		return record{}, fmt.Errorf("vip %s: record of the journal: label %q or broadcast %s is not possible", r.Address, r.Label, r.Broadcast)
	}
	for _, k := range r.Loopback {
		if !validHost(k.Address) || k.Address.Addr() != a || !validLabel(a, k.Label) || !validBroadcast(a, k.Broadcast) ||
			k.Peer.IsValid() && k.Peer.BitLen() != a.BitLen() || k.Peer.Zone() != "" ||
			k.Flags&^rtnl.Settable != 0 || k.Valid == 0 || k.Preferred > k.Valid {
			return record{}, fmt.Errorf("vip %s: record of the journal: what stood on lo (%s) is not possible", r.Address, k.Address)
		}
	}
	return r, nil
}

func validHost(p netip.Prefix) bool {
	a := p.Addr()
	return p.IsValid() && a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsMulticast()
}

func validLabel(a netip.Addr, s string) bool {
	return s == "" || a.Is4() && validName(s)
}

func validBroadcast(a, brd netip.Addr) bool {
	return !brd.IsValid() || a.Is4() && brd.Is4()
}
