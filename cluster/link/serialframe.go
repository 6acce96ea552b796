package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// On a serial line a datagram travels as a frame, docs/protocol.md, "Serial lines":
//
//	0, COBS(line datagram, CRC-32), 0
//
// COBS leaves no 0 inside, so a 0 is a boundary whatever came before it: after
// noise the very next frame is read again. It costs one byte in 254 at the worst,
// where byte stuffing may double a frame, and the budget of a slow line counts on
// the worst.

// ErrNoise is returned by a Port that received something which is no frame.
// Receive may be called again.
var ErrNoise = errors.New("noise on the line: a frame is damaged")

const (
	crcLen = 4
	// maxFrame is the longest frame without its delimiters.
	maxFrame = maxDatagram + crcLen + (maxDatagram+crcLen)/254 + 1
)

// appendFrame appends the frame of a line datagram, both delimiters with it.
func appendFrame(b, data []byte) []byte {
	sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(data))
	b = append(b, 0)
	code := len(b) // where the length of the run goes
	b = append(b, 0)
	for _, part := range [2][]byte{data, sum} {
		for _, c := range part {
			if len(b)-code == 0xff { // a full run: 254 bytes, no 0 after them
				b[code] = 0xff
				code = len(b)
				b = append(b, 0)
			}
			if c != 0 {
				b = append(b, c)
				continue
			}
			b[code] = byte(len(b) - code)
			code = len(b)
			b = append(b, 0)
		}
	}
	b[code] = byte(len(b) - code)
	return append(b, 0)
}

// deframer finds frames in what a line brings. Its memory is bounded whatever that is.
type deframer struct {
	buf  [maxFrame]byte
	n    int
	over bool // longer than any frame: wait for the next boundary
}

// next takes bytes up to the end of a frame and returns its line datagram, which
// is valid until the next call. frame is nil when in ends first; then rest is
// empty. ErrNoise: what stood before rest is no frame.
func (d *deframer) next(in []byte) (frame, rest []byte, err error) {
	for len(in) > 0 {
		end := bytes.IndexByte(in, 0)
		part := in
		if end >= 0 {
			part = in[:end]
		}
		if d.over = d.over || d.n+len(part) > len(d.buf); !d.over {
			d.n += copy(d.buf[d.n:], part)
		}
		if end < 0 {
			return nil, nil, nil
		}
		in = in[end+1:]
		raw, over := d.buf[:d.n], d.over
		d.n, d.over = 0, false
		switch {
		case over:
			return nil, in, ErrNoise
		case len(raw) == 0: // between two frames
			continue
		}
		if frame = unframe(raw); frame == nil {
			return nil, in, ErrNoise
		}
		return frame, in, nil
	}
	return nil, nil, nil
}

// unframe undoes COBS in place and checks the sum; nil: it is no frame.
func unframe(raw []byte) []byte {
	n := 0
	for i := 0; i < len(raw); {
		code := int(raw[i])
		if code == 0 || i+code > len(raw) {
			return nil
		}
		n += copy(raw[n:], raw[i+1:i+code])
		i += code
		if code < 0xff && i < len(raw) {
			raw[n] = 0
			n++
		}
	}
	if n <= crcLen {
		return nil
	}
	data, sum := raw[:n-crcLen], raw[n-crcLen:n]
	if binary.BigEndian.Uint32(sum) != crc32.ChecksumIEEE(data) {
		return nil
	}
	return data
}

// A line datagram is a datagram without what both ends know: "KB", the version
// and the cluster, and a destination of 0. 6 or 10 bytes are a tenth of a lease
// message or hello.
const (
	lineForm    = 0x10 // form 1, no destination
	lineFormDst = 0x11 // form 1, with destination
	lineHeader  = 1 + 1 + 4 + 8 + 8
)

// squeeze appends the line datagram of a datagram.
func squeeze(b, datagram []byte) []byte {
	form := byte(lineFormDst)
	if binary.BigEndian.Uint32(datagram[12:]) == 0 {
		form = lineForm
	}
	b = append(b, form, datagram[3])
	b = append(b, datagram[8:12]...)
	if form == lineFormDst {
		b = append(b, datagram[12:16]...)
	}
	return append(b, datagram[16:]...)
}

// expand makes the datagram of a line datagram, of n bytes in buf, in place; 0: it is none.
func expand(buf []byte, n int, cluster uint32) int {
	if n < lineHeader || buf[0] != lineForm && buf[0] != lineFormDst {
		return 0
	}
	head, dst := lineHeader, uint32(0)
	if buf[0] == lineFormDst {
		if head += 4; n < head {
			return 0
		}
		dst = binary.BigEndian.Uint32(buf[6:])
	}
	size := headerLen + n - head
	if size > len(buf) {
		return 0
	}
	h := header{
		cluster: cluster, key: buf[1], src: binary.BigEndian.Uint32(buf[2:]), dst: dst,
		boot: Boot(binary.BigEndian.Uint64(buf[head-16:])), seq: binary.BigEndian.Uint64(buf[head-8:]),
	}
	copy(buf[headerLen:size], buf[head:n])
	h.put(buf[:headerLen])
	return size
}
