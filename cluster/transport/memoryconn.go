package transport

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// memWindow is how many bytes may be under way in one direction before Write blocks.
const memWindow = 256 << 10

// memPipe is one direction of a connection in memory.
type memPipe struct {
	latency time.Duration

	mu      sync.Mutex // guards the rest
	chunks  []memChunk
	size    int
	stalled bool          // cut: nothing arrives
	last    *memChunk     // what the writer's end sent last: nothing comes after it
	err     error         // of both ends, at once
	werr    error         // of the writer, whose end is closed
	rerr    error         // of the reader, whose end is closed: what is written is lost
	change  chan struct{} // closed and replaced at every change
}

type memChunk struct {
	at   time.Time
	data []byte
	err  error // what Read returns behind all data
}

func newMemPipe(latency time.Duration) *memPipe {
	return &memPipe{latency: latency, change: make(chan struct{})}
}

// touch needs p.mu.
func (p *memPipe) touch() {
	close(p.change)
	p.change = make(chan struct{})
}

func (p *memPipe) stall(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalled = cut
	p.touch()
}

// fail ends the pipe at once for both ends.
func (p *memPipe) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
		p.chunks, p.size = nil, 0
		p.touch()
	}
}

// end lets the reader have what is under way and then err; the writer gets werr.
func (p *memPipe) end(err, werr error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		p.last = &memChunk{at: time.Now().Add(p.latency), err: err}
		p.werr = werr
		p.touch()
	}
}

// closeReader ends the reader's end. The writer is not told: that would pass a cut.
func (p *memPipe) closeReader(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rerr == nil {
		p.rerr = err
		p.chunks, p.size = nil, 0
		p.touch()
	}
}

func (p *memPipe) write(b []byte, deadline func() (time.Time, <-chan struct{})) (int, error) {
	done := 0
	for {
		p.mu.Lock()
		limit, moved := deadline()
		switch {
		case p.err != nil:
			p.mu.Unlock()
			return done, p.err
		case p.werr != nil:
			p.mu.Unlock()
			return done, p.werr
		case p.rerr != nil:
			p.mu.Unlock()
			return len(b), nil
		case expired(limit):
			p.mu.Unlock()
			return done, os.ErrDeadlineExceeded
		}
		if n := min(len(b)-done, memWindow-p.size); n > 0 {
			p.chunks = append(p.chunks, memChunk{at: time.Now().Add(p.latency), data: append([]byte(nil), b[done:done+n]...)})
			p.size += n
			done += n
			p.touch()
		}
		change := p.change
		p.mu.Unlock()
		if done == len(b) {
			return done, nil
		}
		sleep(change, moved, limit)
	}
}

func (p *memPipe) read(b []byte, deadline func() (time.Time, <-chan struct{})) (int, error) {
	for {
		p.mu.Lock()
		limit, moved := deadline()
		wait := limit
		switch {
		case p.err != nil:
			p.mu.Unlock()
			return 0, p.err
		case p.rerr != nil:
			p.mu.Unlock()
			return 0, p.rerr
		case expired(limit):
			p.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case p.stalled:
		case len(p.chunks) > 0:
			c := &p.chunks[0]
			if !c.at.After(time.Now()) {
				n := copy(b, c.data)
				c.data = c.data[n:]
				p.size -= n
				if len(c.data) == 0 {
					p.chunks = p.chunks[1:]
				}
				p.touch()
				p.mu.Unlock()
				return n, nil
			}
			wait = earlier(wait, c.at)
		case p.last != nil:
			if !p.last.at.After(time.Now()) {
				err := p.last.err
				p.mu.Unlock()
				return 0, err
			}
			wait = earlier(wait, p.last.at)
		}
		change := p.change
		p.mu.Unlock()
		sleep(change, moved, wait)
	}
}

func expired(t time.Time) bool { return !t.IsZero() && !t.After(time.Now()) }

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// sleep waits for either channel, or until a time that is not zero.
func sleep(change, moved <-chan struct{}, until time.Time) {
	var timer <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-change:
	case <-moved:
	case <-timer:
	}
}

// memConn is one end of a connection.
type memConn struct {
	pair          *memPair
	in, out       *memPipe
	local, remote Addr
	rd, wd        memDeadline
	once          sync.Once
}

// memDeadline is a deadline that can be moved while it is waited for.
type memDeadline struct {
	mu    sync.Mutex // guards the rest
	at    time.Time
	moved chan struct{}
}

func (d *memDeadline) get() (time.Time, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.moved == nil {
		d.moved = make(chan struct{})
	}
	return d.at, d.moved
}

func (d *memDeadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	if d.moved != nil {
		close(d.moved)
	}
	d.moved = make(chan struct{})
}

func (c *memConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	return c.in.read(b, c.rd.get)
}

func (c *memConn) Write(b []byte) (int, error) { return c.out.write(b, c.wd.get) }

// Close ends both directions; the other end still reads what was written.
func (c *memConn) Close() error {
	c.once.Do(func() {
		c.pair.end(c.out == c.pair.ab, io.EOF, net.ErrClosed)
	})
	return nil
}

func (c *memConn) LocalAddr() net.Addr  { return c.local }
func (c *memConn) RemoteAddr() net.Addr { return c.remote }

func (c *memConn) SetDeadline(t time.Time) error {
	c.rd.set(t)
	c.wd.set(t)
	return nil
}

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.rd.set(t)
	return nil
}

func (c *memConn) SetWriteDeadline(t time.Time) error {
	c.wd.set(t)
	return nil
}
