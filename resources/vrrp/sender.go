package vrrp

import (
	"net/netip"
	"slices"

	"github.com/keepbeat/keepbeat/conf"
)

// sender sends the advertisements of an instance. They are encoded once: only
// the priority and the checksum ever change.
type sender struct {
	i      *conf.VRRPInstance
	out    []outgoing
	sealed netip.Addr // the local address that the checksums are for
}

// outgoing is an advertisement as it is sent to somebody.
type outgoing struct {
	to      netip.Addr
	message []byte
}

func newSender(i *conf.VRRPInstance) sender {
	s := sender{i: i}
	message := Encode(i, i.Priority)
	if len(i.Peers) == 0 {
		s.out = []outgoing{{i.Group, message}}
	}
	for _, p := range i.Peers {
		s.out = append(s.out, outgoing{p.Address, slices.Clone(message)})
	}
	return s
}

// send sends to everybody; the error is the last one's. It allocates nothing.
func (s *sender) send(e Endpoint, from netip.Addr, priority uint8) (failed error) {
	for n := range s.out {
		o := &s.out[n]
		if from != s.sealed || o.message[2] != priority {
			o.message[2] = priority
			Seal(o.message, s.i, from, o.to)
		}
		if err := e.Send(o.message, o.to); err != nil {
			failed = err
		}
	}
	s.sealed = from
	return failed
}
