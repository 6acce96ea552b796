// Package checksum guards small files against flipped bits: what a node has
// promised, who it is, which history it belongs to. JSON with another digit in it still parses.
package checksum

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Of is the CRC-32C of b as it is written: eight hexadecimal digits.
func Of(b []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(b, castagnoli)) }

const (
	key  = `,"sum":"`
	tail = len(key) + 8 + len(`"}`)
)

// ErrWrong says that a checksum is not that of what it stands in.
var ErrWrong = errors.New("its checksum is wrong")

// Seal puts the checksum of a JSON object with at least one member into it, as its last member, "sum".
func Seal(object []byte) []byte {
	return fmt.Appendf(bytes.TrimSuffix(bytes.Clone(object), []byte("}")), `%s%s"}`, key, Of(object))
}

// Open returns what Seal was given. sealed is false of an object without a
// checksum, which is returned as it is: a file of an earlier version, if the caller's
// decoder knows all of its members. A damaged "sum" is a member that it does not know.
func Open(b []byte) (object []byte, sealed bool, err error) {
	b = bytes.TrimSpace(b)
	at := len(b) - tail
	if at < 0 || !strings.EqualFold(string(b[at:at+len(key)]), key) {
		return b, false, nil
	}
	object = append(bytes.Clone(b[:at]), '}')
	if !bytes.Equal(b, Seal(object)) {
		return nil, true, ErrWrong
	}
	return object, true, nil
}
