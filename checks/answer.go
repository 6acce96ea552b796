package checks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Limits on what a server may send. They bound time and memory of a check
// whatever the server is.
const (
	maxHead = 64 << 10 // all header bytes of an answer: interim answers, fields, trailers, what is more than freeChunk
	maxBody = 1 << 20  // body bytes looked at; the rest is not read
	bufSize = 4 << 10
	// freeChunk is what the frame of a chunk may take beside. A chunk has a byte of
	// the body, of which there are few enough; some servers send a page in pieces
	// of ten.
	freeChunk = 16
)

// input is a stream with a buffer of fixed size.
type input struct {
	r      io.Reader
	buf    []byte // buf[lo:hi] is unread
	lo, hi int
}

// fill reads more. The buffer must not be full.
func (in *input) fill() error {
	if in.lo == in.hi {
		in.lo, in.hi = 0, 0
	}
	if in.hi == len(in.buf) {
		in.hi = copy(in.buf, in.buf[in.lo:in.hi])
		in.lo = 0
	}
	for range 100 {
		n, err := in.r.Read(in.buf[in.hi:])
		in.hi += n
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// answer is the head of an HTTP response.
type answer struct {
	code     int
	length   int64 // of the body; -1: not given
	chunked  bool
	encoding string // Content-Encoding other than identity
	location string
}

// answerReader reads one HTTP/1.x response (RFC 9112) with bounded memory.
// It is strict where two readers could disagree about the length and lenient
// elsewhere (bare LF, no reason phrase), since the question is whether a server
// works, not whether it is correct.
type answerReader struct {
	input
	head int    // header bytes that may still come
	line []byte // a line longer than buf holds is put together here

	left  int64 // of the body or of the present chunk; -1: until the server closes
	state bodyState
}

type bodyState uint8

const (
	bodyPlain bodyState = iota + 1
	bodyChunkSize
	bodyChunk
	bodyChunkEnd
	bodyDone
)

func newAnswerReader(r io.Reader, buf []byte) *answerReader {
	return &answerReader{input: input{r: r, buf: buf}, head: maxHead}
}

var errHeadTooLong = fmt.Errorf("header of more than %d bytes", maxHead)

// readLine returns the next line without its end. It is valid until the next call.
func (a *answerReader) readLine() ([]byte, error) {
	a.line = a.line[:0]
	for scanned := 0; ; {
		if i := bytes.IndexByte(a.buf[a.lo+scanned:a.hi], '\n'); i >= 0 {
			i += scanned
			l := a.buf[a.lo : a.lo+i]
			a.lo += i + 1
			if a.head -= i + 1; a.head < 0 {
				return nil, errHeadTooLong
			}
			if len(a.line) > 0 {
				a.line = append(a.line, l...)
				l = a.line
			}
			return bytes.TrimSuffix(l, []byte{'\r'}), nil
		}
		scanned = a.hi - a.lo
		if scanned > a.head {
			return nil, errHeadTooLong
		}
		if scanned == len(a.buf) {
			a.line = append(a.line, a.buf[a.lo:a.hi]...)
			a.head -= scanned
			a.lo, a.hi, scanned = 0, 0, 0
		}
		if err := a.fill(); err != nil {
			return nil, err
		}
	}
}

// readHead reads up to the end of the final head. noBody: the request was HEAD.
func (a *answerReader) readHead(noBody bool) (answer, error) {
	for {
		ans, err := a.readOneHead()
		if err != nil {
			return ans, err
		}
		// RFC 9110, 15.2: any number of interim answers may come first. They
		// all count against maxHead, which ends a flood of them.
		if ans.code >= 100 && ans.code < 200 && ans.code != 101 {
			continue
		}
		switch {
		case noBody || ans.code == 101 || ans.code == 204 || ans.code == 304 || (!ans.chunked && ans.length == 0):
			a.state = bodyDone
		case ans.chunked: // RFC 9112, 6.3: overrides Content-Length
			a.state = bodyChunkSize
		default:
			a.state, a.left = bodyPlain, ans.length
		}
		return ans, nil
	}
}

func (a *answerReader) readOneHead() (answer, error) {
	ans := answer{length: -1}
	line, err := a.readLine()
	if err != nil {
		if err == io.EOF {
			if a.lo != a.hi || len(a.line) > 0 {
				return ans, notHTTP(append(a.line, a.buf[a.lo:a.hi]...))
			}
			return ans, errors.New("connection closed without an answer")
		}
		return ans, err
	}
	if ans.code, err = parseStatusLine(line); err != nil {
		return ans, err
	}
	for {
		line, err := a.readLine()
		if err == io.EOF {
			return ans, errors.New("connection closed in the middle of the header")
		}
		if err != nil {
			return ans, err
		}
		if len(line) == 0 {
			return ans, nil
		}
		if err := ans.field(line); err != nil {
			return ans, err
		}
	}
}

func notHTTP(p []byte) error { return fmt.Errorf("not an HTTP answer: %s", quote(p)) }

// parseStatusLine reads "HTTP/1.1 200 OK".
func parseStatusLine(l []byte) (int, error) {
	const p = "HTTP/1."
	if len(l) < len("HTTP/1.1 200") || string(l[:len(p)]) != p || l[7] < '0' || l[7] > '9' || l[8] != ' ' {
		return 0, notHTTP(l)
	}
	code, ok := threeDigits(l[9:12])
	if !ok || (len(l) > 12 && l[12] != ' ') {
		return 0, notHTTP(l)
	}
	return code, nil
}

// threeDigits reads a status code.
func threeDigits(d []byte) (int, bool) {
	if len(d) != 3 || d[0] < '1' || d[0] > '9' || d[1] < '0' || d[1] > '9' || d[2] < '0' || d[2] > '9' {
		return 0, false
	}
	return int(d[0]-'0')*100 + int(d[1]-'0')*10 + int(d[2]-'0'), true
}

// field takes from a header field what matters here.
func (ans *answer) field(l []byte) error {
	i := bytes.IndexByte(l, ':')
	if i <= 0 {
		return nil // a continuation or rubbish: not ours to judge
	}
	return ans.set(l[:i], bytes.Trim(l[i+1:], " \t"))
}

// set takes a field with its value.
func (ans *answer) set(name, value []byte) error {
	switch {
	case is(name, "content-length"):
		n, err := strconv.ParseUint(string(value), 10, 62)
		if err != nil || value[0] == '+' {
			return fmt.Errorf("bad Content-Length %s", quote(value))
		}
		if ans.length >= 0 && ans.length != int64(n) {
			return fmt.Errorf("two values of Content-Length, %d and %d", ans.length, n)
		}
		ans.length = int64(n)
	case is(name, "transfer-encoding"):
		if is(value, "identity") {
			return nil
		}
		if !is(value, "chunked") {
			return fmt.Errorf("Transfer-Encoding %s, which was not asked for", quote(value))
		}
		ans.chunked = true
	case is(name, "content-encoding"):
		if !is(value, "identity") && len(value) > 0 {
			ans.encoding = quote(value)
		}
	case is(name, "location"):
		ans.location = string(value)
	}
	return nil
}

// is compares without regard to case; lower is in lower case.
func is(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range b {
		c := b[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

var errShortBody = errors.New("connection closed in the middle of the body")

// next returns the next piece of the body, valid until the next call, and
// io.EOF after the last.
func (a *answerReader) next() ([]byte, error) {
	for {
		switch a.state {
		case bodyPlain, bodyChunk:
			if a.left == 0 {
				if a.state == bodyPlain {
					a.state = bodyDone
				} else {
					a.state = bodyChunkEnd
				}
				continue
			}
			if a.lo == a.hi {
				if err := a.fill(); err != nil {
					if a.left < 0 && (err == io.EOF || err == io.ErrUnexpectedEOF) {
						// io.ErrUnexpectedEOF: TLS closed without close_notify,
						// as many servers do.
						a.state = bodyDone
						return nil, io.EOF
					}
					return nil, a.short(err)
				}
			}
			n := a.hi - a.lo
			if a.left >= 0 {
				n = int(min(int64(n), a.left))
				a.left -= int64(n)
			}
			p := a.buf[a.lo : a.lo+n]
			a.lo += n
			return p, nil
		case bodyChunkSize:
			before := a.head
			l, err := a.readLine()
			if err != nil {
				return nil, a.short(err)
			}
			if a.left, err = parseChunkSize(l); err != nil {
				return nil, err
			}
			a.head = min(before, a.head+freeChunk)
			if a.state = bodyChunk; a.left == 0 {
				return nil, a.trailers()
			}
		case bodyChunkEnd:
			before := a.head
			l, err := a.readLine()
			if err != nil {
				return nil, a.short(err)
			}
			a.head = before
			if len(l) != 0 {
				return nil, fmt.Errorf("chunk does not end where it says: %s", quote(l))
			}
			a.state = bodyChunkSize
		default:
			return nil, io.EOF
		}
	}
}

func (a *answerReader) trailers() error {
	for {
		l, err := a.readLine()
		if err != nil {
			return a.short(err)
		}
		if len(l) == 0 {
			a.state = bodyDone
			return io.EOF
		}
	}
}

func (a *answerReader) short(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errShortBody
	}
	return err
}

// parseChunkSize reads "1a3;extension".
func parseChunkSize(l []byte) (int64, error) {
	d := l
	if i := bytes.IndexByte(d, ';'); i >= 0 {
		d = d[:i]
	}
	d = bytes.Trim(d, " \t")
	var n int64
	for _, c := range d {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, fmt.Errorf("bad chunk size %s", quote(l))
		}
		if n >= 1<<58 {
			return 0, fmt.Errorf("bad chunk size %s", quote(l))
		}
		n = n<<4 | int64(c)
	}
	if len(d) == 0 {
		return 0, fmt.Errorf("bad chunk size %s", quote(l))
	}
	return n, nil
}
