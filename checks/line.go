package checks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// maxTalk is how many bytes a server may say in one check that goes by lines,
// all answers together; a line fits into a buffer (bufSize). Mail servers say
// hundreds of bytes, and the longest lines are capabilities.
const maxTalk = 64 << 10

var (
	errLongLine = fmt.Errorf("the server sent a line of more than %d bytes", bufSize)
	errEndless  = fmt.Errorf("the server sent more than %d bytes", maxTalk)
)

// lineReader reads lines that end with LF or CRLF, with fixed memory and a
// bounded total.
type lineReader struct {
	r      io.Reader
	buf    []byte // fixed storage; buf[lo:hi] is unread
	lo, hi int
	left   int // bytes that may still come
}

func newLineReader(r io.Reader, buf []byte) *lineReader {
	return &lineReader{r: r, buf: buf, left: maxTalk}
}

// line returns the next line without its end, valid until the next call. At the
// end of the stream the error is io.EOF; what came of a line before it is in rest.
func (l *lineReader) line() ([]byte, error) {
	for scanned := 0; ; {
		if i := bytes.IndexByte(l.buf[l.lo+scanned:l.hi], '\n'); i >= 0 {
			p := l.buf[l.lo : l.lo+scanned+i]
			l.lo += len(p) + 1
			return bytes.TrimSuffix(p, []byte{'\r'}), nil
		}
		scanned = l.hi - l.lo
		if l.left == 0 {
			return nil, errEndless
		}
		if scanned == len(l.buf) {
			return nil, errLongLine
		}
		if err := l.fill(); err != nil {
			return nil, err
		}
	}
}

func (l *lineReader) fill() error {
	if l.lo > 0 {
		l.hi = copy(l.buf, l.buf[l.lo:l.hi])
		l.lo = 0
	}
	for range 100 {
		n, err := l.r.Read(l.buf[l.hi:min(len(l.buf), l.hi+l.left)])
		l.hi += n
		l.left -= n
		if n > 0 {
			return nil // an error comes again
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// skip reads n bytes and forgets them.
func (l *lineReader) skip(n int) error {
	for n > 0 {
		if l.lo == l.hi {
			if l.left == 0 {
				return errEndless
			}
			if err := l.fill(); err != nil {
				return err
			}
		}
		k := min(n, l.hi-l.lo)
		l.lo += k
		n -= k
	}
	return nil
}

// rest is what has been received and not been read yet.
func (l *lineReader) rest() []byte { return l.buf[l.lo:l.hi] }

// reply is an answer of SMTP (RFC 5321, 4.2), FTP (RFC 959, 4.2) or NNTP (RFC
// 3977, 3.2).
type reply struct {
	code int
	line []byte // the last one, valid until the next line is read
}

var errNoReply = errors.New("does not begin with a code of three digits")

// reply reads an answer up to its last line. each, unless nil, is handed every
// line's text. A continued answer ends with the line that has its code and no
// hyphen; lines between may be anything, as FTP has it.
func (l *lineReader) reply(each func(text []byte)) (reply, error) {
	r := reply{}
	for first := true; ; first = false {
		line, err := l.line()
		if err != nil {
			return reply{}, err
		}
		r.line = line
		code, more, ok := replyCode(line)
		if first {
			if r.code = code; !ok {
				return r, errNoReply
			}
		}
		if each != nil {
			each(line[min(len(line), 4):])
		}
		if ok && code == r.code && !more {
			return r, nil
		}
	}
}

// replyCode takes the code from a line; more: a hyphen follows it.
func replyCode(l []byte) (code int, more, ok bool) {
	if len(l) < 3 || l[0] < '1' || l[0] > '5' {
		return 0, false, false
	}
	for _, d := range l[:3] {
		if d < '0' || d > '9' {
			return 0, false, false
		}
		code = code*10 + int(d-'0')
	}
	if len(l) == 3 {
		return code, false, true
	}
	return code, l[3] == '-', l[3] == '-' || l[3] == ' '
}
