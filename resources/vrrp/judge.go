package vrrp

import (
	"crypto/subtle"
	"net/netip"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Advert is an advertisement that was taken.
type Advert struct {
	Priority uint8
	Interval time.Duration
	From     netip.Addr
	// Others: it has addresses, and none of them is ours. Its VRID is ours by mistake.
	Others bool
}

// judge decides what of that which arrives is taken as an advertisement for an
// instance (RFC 3768, 7.1; RFC 9568, 7.1). It allocates nothing.
type judge struct {
	i         *conf.VRRPInstance
	password  [authSize]byte
	peers     map[netip.Addr]conf.VRRPPeer
	list      []byte       // of addresses, as we send it
	addresses []netip.Addr // the same, sorted
	scratch   []netip.Addr
}

func newJudge(i *conf.VRRPInstance) *judge {
	j := &judge{i: i, password: password(i.Password), peers: map[netip.Addr]conf.VRRPPeer{}, scratch: make([]netip.Addr, 0, maxCount)}
	for _, p := range i.Peers {
		j.peers[p.Address.Unmap().WithZone("")] = p
	}
	m, _ := Decode(Encode(i, i.Priority), i.IPv6)
	j.list = m.list
	j.addresses = m.Addresses(nil, i.IPv6)
	slices.SortFunc(j.addresses, netip.Addr.Compare)
	return j
}

// take returns the advertisement in p, or why there is none. With it come
// remarks: what is wrong with it, though keepalived takes it too.
func (j *judge) take(p Packet, local netip.Addr) (a Advert, remarks Reasons, refused Reason) {
	from := p.From.Unmap().WithZone("")
	m, why := Decode(p.Payload, j.i.IPv6)
	if why == ReasonLength {
		return a, 0, why
	}
	group := len(j.i.Peers) == 0
	if group && p.To.WithZone("") != j.i.Group || !group && p.To.IsMulticast() {
		return a, 0, ReasonDestination
	}
	if group && p.TTL != 255 {
		return a, 0, ReasonTTL
	}
	switch {
	case why != 0:
		return a, 0, why
	case m.Version != j.i.Version:
		return a, 0, ReasonVersion
	case m.Type != typeAdvertisement:
		return a, 0, ReasonType
	case m.VRID != j.i.VRID || m.VRID == 0:
		return a, 0, ReasonVRID
	}
	if refused = j.version(&m); refused != 0 {
		return a, 0, refused
	}
	switch form := m.Checksum(from, p.To.WithZone("")); {
	case form == FormBad:
		return a, 0, ReasonChecksum
	case m.Version == 3 && !j.i.IPv6 && (form == FormPlain) != j.i.ChecksumWithoutPseudo:
		remarks.add(ReasonChecksumForm)
	}
	if !group {
		peer, is := j.peers[from]
		if !is {
			return a, 0, ReasonSource
		}
		if p.TTL < int(peer.MinTTL) || p.TTL > int(peer.MaxTTL) {
			return a, 0, ReasonTTL
		}
	}
	if from == local.Unmap().WithZone("") {
		return a, 0, ReasonOwn
	}
	if m.Version == 3 && m.Interval != j.i.Interval {
		remarks.add(ReasonOtherInterval)
	}
	// A list that differs is no reason to have two masters: keepalived counts it
	// and takes the advertisement.
	a = Advert{Priority: m.Priority, Interval: m.Interval, From: from}
	if !j.sameList(&m) {
		remarks.add(ReasonAddresses)
		j.scratch = m.Addresses(j.scratch[:0], j.i.IPv6)
		a.Others = len(j.scratch) > 0 && !slices.ContainsFunc(j.scratch, j.ours)
	}
	return a, remarks, 0
}

// version judges what only one of the versions has.
func (j *judge) version(m *Message) Reason {
	if m.Version == 3 {
		switch {
		case m.Interval == 0: // it would have every backup take over at once
			return ReasonInterval
		case len(m.list) == 0:
			return ReasonNoAddresses
		}
		return 0
	}
	want := uint8(authNone)
	if j.i.Password != "" {
		want = authPassword
	}
	switch {
	case m.AuthType != want:
		return ReasonAuthType
	case want == authPassword && subtle.ConstantTimeCompare(m.AuthData[:], j.password[:]) == 0:
		return ReasonPassword
	case m.Interval != j.i.Interval:
		return ReasonInterval
	}
	return 0
}

// ours tells whether an address is one of ours.
func (j *judge) ours(a netip.Addr) bool {
	_, is := slices.BinarySearchFunc(j.addresses, a, netip.Addr.Compare)
	return is
}

func (j *judge) sameList(m *Message) bool {
	if string(m.list) == string(j.list) {
		return true
	}
	if len(m.list) != len(j.list) {
		return false
	}
	j.scratch = m.Addresses(j.scratch[:0], j.i.IPv6)
	slices.SortFunc(j.scratch, netip.Addr.Compare)
	return slices.Equal(j.scratch, j.addresses)
}
