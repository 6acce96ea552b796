package checks

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"

	"github.com/keepbeat/keepbeat/conf"
)

// stream is a TCP connection, perhaps with TLS, for a check whose messages say
// their length. It reads maxBody bytes at most, and holds no more than the
// server has really sent, whatever length that announces.
type stream struct {
	conn  *tcpConn
	rw    io.ReadWriter // conn, or TLS over it
	r     *bufio.Reader // over rw
	left  int           // bytes that may still be read
	heard bool          // something has been read
}

// openStream connects to the server of a check; with t it speaks TLS at once.
func openStream(ctx context.Context, c conf.Check, t *tls.Config) (*stream, error) {
	conn, err := dialCheck(ctx, c)
	if err != nil {
		return nil, err
	}
	s := &stream{conn: conn, rw: conn, r: bufio.NewReaderSize(conn, 1024), left: maxBody}
	if t == nil {
		err = conn.connected()
	} else {
		err = s.startTLS(t)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

// startTLS goes on with TLS.
func (s *stream) startTLS(t *tls.Config) error {
	if s.r.Buffered() > 0 { // somebody between could have put it there
		return errors.New("the server sent more before TLS began than was asked for")
	}
	tc, err := handshake(s.conn, t)
	if err != nil {
		return err
	}
	s.rw = tc
	s.r.Reset(tc)
	return nil
}

func (s *stream) write(p []byte) error {
	if _, err := s.rw.Write(p); err != nil {
		if isTimeout(err) {
			return timeoutError{"", s.conn.timeout}
		}
		return plainError(err)
	}
	return nil
}

// errTooMuch is what a server gets that sends without end.
var errTooMuch = fmt.Errorf("an answer of more than %d bytes", maxBody)

// read reads n bytes, which the caller may keep.
func (s *stream) read(n int) ([]byte, error) {
	if n < 0 || n > s.left {
		return nil, errTooMuch
	}
	s.left -= n
	var b bytes.Buffer
	if _, err := io.CopyN(&b, s.r, int64(n)); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			if !s.heard && b.Len() == 0 {
				return nil, errors.New("connection closed without an answer")
			}
			return nil, errors.New("connection closed in the middle of an answer")
		}
		return nil, s.conn.answerError(err)
	}
	s.heard = s.heard || n > 0
	return b.Bytes(), nil
}

// more is true while something that was sent waits to be read.
func (s *stream) more() bool { return s.r.Buffered() > 0 }

// end says goodbye with p, and leaves it to the server to close first for a
// moment. Whether that works does not matter: the verdict is there.
func (s *stream) end(p []byte) {
	if s.write(p) == nil {
		s.conn.awaitClose()
	}
}

// Close closes the connection.
func (s *stream) Close() error { return s.conn.Close() }
