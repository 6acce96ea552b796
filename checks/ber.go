package checks

import (
	"errors"
	"fmt"
)

// What LDAP needs of BER (X.690): definite lengths and one-byte tags, to which
// RFC 4511, 5.1 confines it.

// Tags of universal types.
const (
	berBoolean    = 0x01
	berInteger    = 0x02
	berOctets     = 0x04
	berEnumerated = 0x0a
	berSequence   = 0x30
	berSet        = 0x31
)

// berAppend appends a value with its tag and length.
func berAppend[T []byte | string](b []byte, tag byte, value T) []byte {
	b = append(b, tag)
	switch n := len(value); {
	case n < 0x80:
		b = append(b, byte(n))
	case n < 0x100:
		b = append(b, 0x81, byte(n))
	case n < 0x10000:
		b = append(b, 0x82, byte(n>>8), byte(n))
	default:
		b = append(b, 0x84, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(b, value...)
}

// berByte appends a value of one byte.
func berByte(b []byte, tag, value byte) []byte { return append(b, tag, 1, value) }

var errBER = errors.New("not a well-formed LDAP message")

// berLength reads the bytes after the first one of a length; more says how many
// they are.
func berLength(first byte) (n, more int, err error) {
	switch {
	case first < 0x80:
		return int(first), 0, nil
	case first > 0x80 && first <= 0x84: // 0x80 is the indefinite form
		return 0, int(first & 0x7f), nil
	}
	return 0, 0, errBER
}

// berNext takes the first value from p.
func berNext(p []byte) (tag byte, value, rest []byte, err error) {
	if len(p) < 2 {
		return 0, nil, nil, errBER
	}
	n, more, err := berLength(p[1])
	if err != nil || len(p) < 2+more {
		return 0, nil, nil, errBER
	}
	tag, rest = p[0], p[2+more:]
	for _, b := range p[2 : 2+more] {
		n = n<<8 | int(b)
	}
	if n < 0 || n > len(rest) || tag&0x1f == 0x1f { // below 0: four bytes of length where int has 32 bits
		return 0, nil, nil, errBER
	}
	return tag, rest[:n], rest[n:], nil
}

// berWanted takes the first value from p, which has to have a tag.
func berWanted(p []byte, wanted byte) (value, rest []byte, err error) {
	tag, value, rest, err := berNext(p)
	if err == nil && tag != wanted {
		err = fmt.Errorf("%w: tag %#x where %#x belongs", errBER, tag, wanted)
	}
	return value, rest, err
}

// berInt reads an INTEGER or ENUMERATED from its value; LDAP's end at 2147483647.
func berInt(value []byte) (int, error) {
	if len(value) == 0 || len(value) > 4 || value[0]&0x80 != 0 {
		return 0, errBER
	}
	n := 0
	for _, b := range value {
		n = n<<8 | int(b)
	}
	return n, nil
}
