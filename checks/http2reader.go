package checks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/net/http2/hpack"
)

var errH2Flood = fmt.Errorf("HTTP/2: more than %d bytes of headers and control frames", maxHead)

// h2Reader reads the answer of a server on stream h2Stream, with bounded memory:
// all that is not body counts against maxHead, as it arrives and, of headers, as
// it is unpacked. It answers SETTINGS and PING as it meets them.
type h2Reader struct {
	input
	w      io.Writer
	head   int // bytes of frames, without body data, that may still come
	fields int // bytes of header fields, unpacked, that may still come

	unpack  *hpack.Decoder
	field   func(name, value string) // nil, or is told each field of head and trailers
	ans     answer
	status  bool  // :status has come in this header block
	regular bool  // a field without colon has come in it
	bad     error // what was wrong with a field

	started bool  // the server's SETTINGS have come
	body    bool  // the final head has come
	ended   bool  // END_STREAM has come
	noBody  bool  // the answer has none, whatever its Content-Length
	left    int   // body bytes of the DATA frame being read
	padding int   // that follow them
	size    int64 // of the body so far
}

// newH2Reader reads from rw in storage of at least 4096 bytes.
func newH2Reader(rw io.ReadWriter, storage []byte, field func(name, value string)) *h2Reader {
	x := &h2Reader{input: input{r: rw, buf: storage}, w: rw, head: maxHead, fields: maxHead, field: field}
	x.unpack = hpack.NewDecoder(4096, x.emit) // 4096: SETTINGS_HEADER_TABLE_SIZE as it is initially
	x.unpack.SetMaxStringLength(maxHead)
	return x
}

// need returns the next n bytes, at most the size of the buffer, without taking them.
func (x *h2Reader) need(n int) ([]byte, error) {
	for x.hi-x.lo < n {
		if err := x.fill(); err != nil {
			return nil, err
		}
	}
	return x.buf[x.lo : x.lo+n], nil
}

// take hands n bytes to f (nil: nobody) as pieces of at most the size of the buffer.
func (x *h2Reader) take(n int, f func(p []byte) error) error {
	for n > 0 {
		p, err := x.need(min(n, len(x.buf)))
		if err != nil {
			return x.short(err)
		}
		x.lo += len(p)
		n -= len(p)
		if f != nil {
			if err := f(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// short is the error of a connection that ends before the answer does.
func (x *h2Reader) short(err error) error {
	switch {
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		return err
	case x.body:
		return errShortBody
	}
	return errors.New("connection closed in the middle of the header")
}

type h2FrameHeader struct {
	length int
	kind   byte
	flags  byte
	stream uint32
}

func (f h2FrameHeader) has(flag byte) bool { return f.flags&flag != 0 }

// frame reads the next frame's header and charges for all but body data.
func (x *h2Reader) frame() (h2FrameHeader, error) {
	p, err := x.need(h2FrameHead)
	if err != nil {
		if !x.started && err == io.EOF {
			if p = x.buf[x.lo:x.hi]; len(p) > 0 {
				return h2FrameHeader{}, fmt.Errorf("not an HTTP/2 answer: %s", quote(p))
			}
			return h2FrameHeader{}, errors.New("connection closed without an answer")
		}
		return h2FrameHeader{}, x.short(err)
	}
	f := h2FrameHeader{
		length: int(p[0])<<16 | int(p[1])<<8 | int(p[2]),
		kind:   p[3], flags: p[4],
		stream: binary.BigEndian.Uint32(p[5:]) &^ (1 << 31),
	}
	if !x.started {
		switch {
		case string(p[:5]) == "HTTP/":
			return f, errors.New("not an HTTP/2 answer: the server speaks HTTP/1")
		case f.kind != h2Settings || f.has(h2Ack) || f.stream != 0: // RFC 9113, 3.4
			return f, fmt.Errorf("not an HTTP/2 answer: %s", quote(p))
		}
		x.started = true
	}
	x.lo += h2FrameHead
	if f.length > h2MaxFrame {
		return f, fmt.Errorf("HTTP/2: frame of %d bytes, more than the %d that are allowed", f.length, h2MaxFrame)
	}
	x.head -= h2FrameHead
	if f.kind != h2Data {
		x.head -= f.length
	}
	if x.head < 0 {
		return f, errH2Flood
	}
	return f, nil
}

// step reads one frame; of DATA only what precedes the body data.
func (x *h2Reader) step() error {
	f, err := x.frame()
	if err != nil {
		return err
	}
	switch f.kind {
	case h2Data:
		return x.data(f)
	case h2Headers:
		return x.headers(f)
	case h2Settings:
		if f.length%6 != 0 || f.stream != 0 {
			return errors.New("HTTP/2: bad SETTINGS")
		}
		if !f.has(h2Ack) {
			x.say(h2Settings, nil)
		}
	case h2Ping:
		if f.length != 8 || f.stream != 0 {
			return errors.New("HTTP/2: bad PING")
		}
		if p, err := x.need(8); err != nil {
			return x.short(err)
		} else if !f.has(h2Ack) {
			x.say(h2Ping, p)
		}
	case h2Reset, h2GoAway:
		return x.farewell(f)
	case h2PushPromise, h2Continuation: // pushes were declined; header blocks are read whole
		return fmt.Errorf("HTTP/2: frame of type %d out of place", f.kind)
	}
	return x.take(f.length, nil) // RFC 9113, 4.1: unknown types are ignored
}

// say acknowledges. That it cannot be sent shows when the next frame is read.
func (x *h2Reader) say(kind byte, payload []byte) {
	_, _ = x.w.Write(h2Frame(nil, kind, h2Ack, 0, payload))
}

// farewell is RST_STREAM or GOAWAY.
func (x *h2Reader) farewell(f h2FrameHeader) error {
	length, at := 4, 0
	if f.kind == h2GoAway {
		length, at = 8, 4
	}
	if f.length < length {
		return fmt.Errorf("HTTP/2: frame of type %d with %d bytes", f.kind, f.length)
	}
	p, err := x.need(length)
	if err != nil {
		return x.short(err)
	}
	code := h2Error(binary.BigEndian.Uint32(p[at:]))
	switch {
	case f.kind == h2Reset && f.stream == h2Stream:
		return fmt.Errorf("HTTP/2: the server reset the stream: %v", code)
	case f.kind == h2GoAway && (code != 0 || binary.BigEndian.Uint32(p)&^(1<<31) < h2Stream):
		return fmt.Errorf("HTTP/2: the server went away: %v", code)
	}
	return x.take(f.length, nil)
}

// content takes what surrounds the content of DATA and HEADERS, and returns
// the lengths of the content and of the padding after it.
func (x *h2Reader) content(f h2FrameHeader) (n, padding int, err error) {
	if f.stream != h2Stream {
		return 0, 0, fmt.Errorf("HTTP/2: frame of type %d on stream %d, which nobody opened", f.kind, f.stream)
	}
	n = f.length
	before := 0
	if f.has(h2Padded) {
		before = 1
	}
	if f.kind == h2Headers && f.has(h2Priority) {
		before += 5
	}
	if n >= before && f.has(h2Padded) {
		p, err := x.need(1)
		if err != nil {
			return 0, 0, x.short(err)
		}
		padding = int(p[0])
	}
	if n -= before + padding; n < 0 {
		return 0, 0, errors.New("HTTP/2: more padding than frame")
	}
	return n, padding, x.take(before, nil)
}

// headers reads a header block: RFC 9113, 4.3.
func (x *h2Reader) headers(f h2FrameHeader) error {
	n, padding, err := x.content(f)
	if err != nil {
		return err
	}
	if x.body && !f.has(h2EndStream) {
		return errors.New("HTTP/2: trailers that do not end the answer")
	}
	x.status, x.regular = false, false
	for {
		if err := x.take(n, x.fragment); err != nil {
			return err
		}
		if err := x.take(padding, nil); err != nil {
			return err
		}
		if f.has(h2EndHeaders) {
			break
		}
		end := f.flags & h2EndStream
		if f, err = x.frame(); err != nil {
			return err
		}
		if f.kind != h2Continuation || f.stream != h2Stream {
			return errors.New("HTTP/2: a header block that another frame interrupts")
		}
		f.flags = f.flags&h2EndHeaders | end
		n, padding = f.length, 0
	}
	if err := x.unpack.Close(); err != nil {
		return fmt.Errorf("HTTP/2: header: %w", err)
	}
	if !x.body {
		switch code := x.ans.code; {
		case !x.status:
			return errors.New("HTTP/2: header without :status")
		case code == 101: // RFC 9113, 8.6
			return errors.New("HTTP/2: status 101, which it does not have")
		case code < 200 && f.has(h2EndStream):
			return fmt.Errorf("HTTP/2: an answer that ends with status %d", code)
		case code < 200:
			return nil // an interim answer
		}
		x.body = true
	}
	x.ended = f.has(h2EndStream)
	return nil
}

func (x *h2Reader) fragment(p []byte) error {
	if _, err := x.unpack.Write(p); err != nil {
		return fmt.Errorf("HTTP/2: header: %w", err)
	}
	return x.bad
}

// emit takes an unpacked field. After the first error the rest is not looked at.
func (x *h2Reader) emit(f hpack.HeaderField) {
	if x.bad != nil {
		return
	}
	if x.fields -= int(f.Size()); x.fields < 0 {
		x.bad = errHeadTooLong
		x.unpack.SetEmitEnabled(false)
		return
	}
	if !f.IsPseudo() {
		x.regular = true
		switch f.Name {
		case "content-length", "content-encoding", "location":
			if !x.body && x.ans.code >= 200 {
				x.bad = x.ans.set([]byte(f.Name), []byte(f.Value))
			}
		}
		if x.field != nil {
			x.field(f.Name, f.Value)
		}
		return
	}
	code, ok := threeDigits([]byte(f.Value))
	if x.body || x.status || x.regular || f.Name != ":status" || !ok {
		x.bad = fmt.Errorf("HTTP/2: bad field %s: %s", quote([]byte(f.Name)), quote([]byte(f.Value)))
		return
	}
	x.status, x.ans = true, answer{code: code, length: -1}
}

// data reads what precedes the body data of a DATA frame.
func (x *h2Reader) data(f h2FrameHeader) error {
	if !x.body {
		return errors.New("HTTP/2: body without a header")
	}
	n, padding, err := x.content(f)
	if err != nil {
		return err
	}
	if x.head -= f.length - n; x.head < 0 {
		return errH2Flood
	}
	x.left, x.padding, x.ended = n, padding, f.has(h2EndStream)
	return nil
}

// readHead reads up to the end of the final head. noBody: the request was HEAD.
func (x *h2Reader) readHead(noBody bool) (answer, error) {
	for !x.body {
		if err := x.step(); err != nil {
			return x.ans, err
		}
	}
	x.noBody = noBody || x.ans.code == 204 || x.ans.code == 304
	return x.ans, nil
}

// next returns the next piece of the body, valid until the next call, and
// io.EOF after the last, when the trailers have been read, too.
func (x *h2Reader) next() ([]byte, error) {
	for {
		if x.left > 0 {
			if x.lo == x.hi {
				if err := x.fill(); err != nil {
					return nil, x.short(err)
				}
			}
			n := min(x.hi-x.lo, x.left)
			p := x.buf[x.lo : x.lo+n]
			x.lo, x.left, x.size = x.lo+n, x.left-n, x.size+int64(n)
			return p, nil
		}
		if err := x.take(x.padding, nil); err != nil {
			return nil, err
		}
		if x.padding = 0; !x.ended {
			if err := x.step(); err != nil {
				return nil, err
			}
			continue
		}
		if x.ans.length >= 0 && x.size != x.ans.length && !x.noBody {
			return nil, fmt.Errorf("HTTP/2: body of %d bytes, with a Content-Length of %d", x.size, x.ans.length)
		}
		return nil, io.EOF
	}
}
