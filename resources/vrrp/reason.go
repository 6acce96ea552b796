package vrrp

// Reason is why an advertisement was refused, or what was remarked about one that was taken.
type Reason uint8

// Reasons, in the order in which they are looked for. The zero value says that
// there is nothing to say.
const (
	_                   Reason = iota
	ReasonLength               // shorter than its header says, or longer than padding explains
	ReasonDestination          // sent to the group, though the instance has peers, or the reverse
	ReasonTTL                  // not 255 (RFC 9568, 7.1), or not in the bounds of the peer
	ReasonVersion              // the other version
	ReasonType                 // anything but an advertisement
	ReasonVRID                 // another virtual router's, or 0
	ReasonAuthType             // a password where none is configured, none where one is, or AH
	ReasonPassword             // the wrong one
	ReasonInterval             // version 2: another than ours (RFC 3768, 7.1); version 3: 0
	ReasonNoAddresses          // version 3: none at all (RFC 9568, 5.2.5)
	ReasonChecksum             // of neither form
	ReasonSource               // from an address that is no unicast peer
	ReasonOwn                  // from our own address: it came back to us, or somebody else has it
	reasonTaken                // the following are about advertisements that were taken
	ReasonAddresses            // another list of addresses than ours
	ReasonChecksumForm         // version 3 over IPv4: the checksum is of the other form than ours
	ReasonOtherInterval        // version 3: the master has another interval than we would have
	ReasonRival                // we are master, and it is one too, of lower priority
	reasons
)

var reasonNames = [reasons]string{
	ReasonLength: "length", ReasonDestination: "destination", ReasonTTL: "ttl", ReasonVersion: "version",
	ReasonType: "type", ReasonVRID: "vrid", ReasonAuthType: "authentication type", ReasonPassword: "password",
	ReasonInterval: "interval", ReasonNoAddresses: "empty address list", ReasonChecksum: "checksum", ReasonSource: "source", ReasonOwn: "own address",
	ReasonAddresses: "address list", ReasonChecksumForm: "checksum form", ReasonOtherInterval: "other interval",
	ReasonRival: "rival of lower priority",
}

func (r Reason) String() string {
	if r >= reasons || reasonNames[r] == "" {
		return "no reason"
	}
	return reasonNames[r]
}

// Refused tells whether the advertisement was thrown away.
func (r Reason) Refused() bool { return r > 0 && r < reasonTaken }

// MarshalText writes the reason as String does.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Reasons is a set of reasons.
type Reasons uint32

// Has tells whether r is in the set.
func (s Reasons) Has(r Reason) bool { return s&(1<<r) != 0 }

func (s *Reasons) add(r Reason) { *s |= 1 << r }
