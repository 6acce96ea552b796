package transport

import (
	"errors"
	"io"
	"net"
	"sync"

	"github.com/quic-go/quic-go"
)

// stream makes a QUIC stream a net.Conn.
type stream struct {
	*quic.Stream
	local, remote Addr

	writing sync.Mutex // held while a Write is running: Close may not end the stream under it
	once    sync.Once
}

func newStream(s *quic.Stream, local, remote string) *stream {
	return &stream{Stream: s, local: Addr(local), remote: Addr(remote)}
}

func (s *stream) LocalAddr() net.Addr  { return s.local }
func (s *stream) RemoteAddr() net.Addr { return s.remote }

func (s *stream) Write(b []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.Stream.Write(b)
}

// Read returns io.EOF also for a stream whose connection was closed on purpose:
// readers of streams expect it, and would log anything else as a failure.
func (s *stream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	if err != nil && err != io.EOF {
		var app *quic.ApplicationError
		var idle *quic.IdleTimeoutError
		if errors.As(err, &app) || errors.As(err, &idle) {
			err = io.EOF
		}
	}
	return n, err
}

// Close ends both directions. What was written before is still delivered.
func (s *stream) Close() error {
	s.once.Do(func() {
		s.CancelRead(0)
		if s.writing.TryLock() {
			_ = s.Stream.Close()
			s.writing.Unlock()
		} else { // another goroutine is stuck in Write
			s.CancelWrite(0)
		}
	})
	return nil
}

// abort drops a stream that was never taken into use.
func (s *stream) abort() {
	s.once.Do(func() {
		s.CancelRead(streamRefused)
		s.CancelWrite(streamRefused)
	})
}
