package ipvs

import (
	"net/netip"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// eventKind is what has happened to a virtual service.
type eventKind uint8

const (
	_           eventKind = iota
	serverUp              // real is up
	serverDown            // real is down
	stillDown             // real has been down for another Email.Every
	quorumMet             // the service has quorum
	quorumLost            // and has it no more
	fallbackOn            // real, a fallback, answers
	fallbackOff           // no fallback answers any more
)

// event is something that the administrator may want to be told.
type event struct {
	kind    eventKind
	at      time.Time
	virtual *conf.Virtual
	real    *conf.Real // of serverUp, serverDown, stillDown, fallbackOn; otherwise nil
	weight  int        // of a server, that it has now or will have when its slow start is over
	sum     int        // of quorumMet and quorumLost: what the servers weigh that serve
	why     string
	found   bool // it was so when the pool started, or what is well was learnt then: nobody need be told
	ending  bool // the pool stops, or the service is dropped: nothing has failed
}

// server is the address of the server that the event is about; invalid: of none.
func (e event) server() netip.AddrPort {
	if e.real == nil {
		return netip.AddrPort{}
	}
	return plain(e.real.Address)
}
