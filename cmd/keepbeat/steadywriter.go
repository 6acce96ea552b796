package main

import (
	"bytes"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// steadyQueue (bytes) is kept for a reader that is slow: some thousand lines.
	steadyQueue = 1 << 20
	// steadyPiece (bytes) is what a pipe or a socket that is ready to be written
	// to takes without waiting (pipe(7), PIPE_BUF).
	steadyPiece = 4096
	// steadyFlush bounds what an end waits for the reader.
	steadyFlush = time.Second
)

// steadyWriter writes to a file and never waits for whoever reads it: a journal
// that hangs, or a terminal that was stopped, must not keep the daemon from its
// heartbeats. What is not taken at once is queued; what does not fit into the
// queue is lost, and counted. Write is called with whole lines.
type steadyWriter struct {
	f *os.File
	// lost makes the line that says how many lines have been lost.
	lost func(lines int) []byte

	mu      sync.Mutex // guards the rest; never held across a write that may wait
	queue   []byte
	missing int           // lines that were lost since the last of the queue
	idle    chan struct{} // closed when the queue is empty; nil: it is
}

// Write never fails: nobody could be told of it.
func (s *steadyWriter) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := b
	for s.idle == nil && len(rest) > 0 && ready(s.f) {
		n, err := s.f.Write(rest[:min(len(rest), steadyPiece)])
		rest = rest[n:]
		if err != nil {
			return len(b), nil
		}
	}
	switch {
	case len(rest) == 0:
		return len(b), nil
	case s.missing > 0 || len(s.queue)+len(rest) > steadyQueue:
		s.missing += bytes.Count(b, []byte("\n"))
		return len(b), nil
	}
	s.queue = append(s.queue, rest...)
	if s.idle == nil {
		s.idle = make(chan struct{})
		go s.drain()
	}
	return len(b), nil
}

// drain writes the queue, and waits for the reader as long as it takes.
func (s *steadyWriter) drain() {
	for {
		s.mu.Lock()
		b := s.queue
		s.queue = nil
		if s.missing > 0 {
			b = append(b, s.lost(s.missing)...)
			s.missing = 0
		}
		if len(b) == 0 {
			close(s.idle)
			s.idle = nil
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		_, _ = s.f.Write(b) // nobody could be told of it
	}
}

// Flush waits until all has been written, not for ever.
func (s *steadyWriter) Flush() {
	s.mu.Lock()
	idle := s.idle
	s.mu.Unlock()
	if idle == nil {
		return
	}
	select {
	case <-idle:
	case <-time.After(steadyFlush):
	}
}

// ready tells whether a write of steadyPiece would not wait. A file on a disk always says so.
func ready(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = raw.Control(func(fd uintptr) {
		n, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0) // with EINTR it is queued
	})
	return err == nil && n > 0
}
