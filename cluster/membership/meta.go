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

// Encoded: a version byte, boot (8 bytes, big endian), specification (uvarint),
// version and UUID, each a length byte and bytes. What a later version adds
// behind that is ignored.
const (
	metaVersion = 1
	maxField    = 64
)

var errMeta = errors.New("malformed gossip metadata")

// encode fails when a field is too long; memberlist would panic.
func (m Meta) encode() ([]byte, error) {
	for name, s := range map[string]string{"version": m.Version, "uuid": m.UUID} {
		if len(s) > maxField {
			return nil, fmt.Errorf("%s %.16q... is longer than %d bytes", name, s, maxField)
		}
	}
	b := []byte{metaVersion}
	b = binary.BigEndian.AppendUint64(b, uint64(m.Boot))
	b = binary.AppendUvarint(b, m.SpecVersion)
	b = append(append(b, byte(len(m.Version))), m.Version...)
	return append(append(b, byte(len(m.UUID))), m.UUID...), nil
}

func decodeMeta(b []byte) (Meta, error) {
	if len(b) < 9 || b[0] != metaVersion {
		return Meta{}, errMeta
	}
	m := Meta{Boot: link.Boot(binary.BigEndian.Uint64(b[1:]))}
	b = b[9:]
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return Meta{}, errMeta
	}
	m.SpecVersion, b = v, b[n:]
	for _, field := range []*string{&m.Version, &m.UUID} {
		if len(b) < 1 || int(b[0]) > maxField || len(b) < 1+int(b[0]) {
			return Meta{}, errMeta
		}
		*field, b = string(b[1:1+b[0]]), b[1+b[0]:]
	}
	return m, nil
}
