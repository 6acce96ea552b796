package membership

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/keepbeat/keepbeat/cluster/link"
)

// Meta is what each node tells the others of itself by gossip.
type Meta struct {
	Boot        link.Boot // of the running daemon; Config.Boot, whatever the callback says
	Version     string    // of the program; at most 64 bytes
	SpecVersion uint64    // of the specification it runs; 0: none
	UUID        string    // of its data directory; at most 64 bytes
}

// Encoded: a version byte, flags, boot (8 bytes, big endian), specification
// (uvarint), version and UUID, each a length byte and bytes. Flags and bytes that
// a later version adds are ignored.
const (
	metaVersion = 1
	maxField    = 64
	// flagLeaving comes before a node leaves: memberlist does not tell its event
	// delegate whether a node left or died.
	flagLeaving = 1
)

var errMeta = errors.New("malformed gossip metadata")

// encode fails when a field is too long; memberlist would panic.
func (m Meta) encode(leaving bool) ([]byte, error) {
	for name, s := range map[string]string{"version": m.Version, "uuid": m.UUID} {
		if len(s) > maxField {
			return nil, fmt.Errorf("%s %.16q... is longer than %d bytes", name, s, maxField)
		}
	}
	b := []byte{metaVersion, 0}
	if leaving {
		b[1] |= flagLeaving
	}
	b = binary.BigEndian.AppendUint64(b, uint64(m.Boot))
	b = binary.AppendUvarint(b, m.SpecVersion)
	b = append(append(b, byte(len(m.Version))), m.Version...)
	return append(append(b, byte(len(m.UUID))), m.UUID...), nil
}

func decodeMeta(b []byte) (m Meta, leaving bool, err error) {
	if len(b) < 10 || b[0] != metaVersion {
		return Meta{}, false, errMeta
	}
	leaving = b[1]&flagLeaving != 0
	m.Boot = link.Boot(binary.BigEndian.Uint64(b[2:]))
	b = b[10:]
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return Meta{}, false, errMeta
	}
	m.SpecVersion, b = v, b[n:]
	for _, field := range []*string{&m.Version, &m.UUID} {
		if len(b) < 1 || int(b[0]) > maxField || len(b) < 1+int(b[0]) {
			return Meta{}, false, errMeta
		}
		*field, b = string(b[1:1+b[0]]), b[1+b[0]:]
	}
	return m, leaving, nil
}
