package link

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// prioritised is a Port that is slow: it keeps what waits in an order of its own.
type prioritised interface {
	// offer takes a line datagram and never waits; dropped is how many older ones it cost since the last call.
	offer(c class, b []byte) (dropped uint64, err error)
}

// linePort is a Port on a line that carries bytes slowly.
//
// It hands the line one frame at a time, when the line is free: the kernel would
// take 4096 bytes at once, two seconds at 19200 baud, and what is in its buffer
// can no longer be overtaken by anything newer.
type linePort struct {
	rw       io.ReadWriteCloser
	byteTime time.Duration
	wake     chan struct{} // cap 1: there is something to send
	done     chan struct{} // closed by Close
	closing  sync.Once
	writer   sync.WaitGroup

	// Receive's own.
	in      []byte // of buf, not looked at yet
	buf     [512]byte
	deframe deframer
	flood   flood

	mu     sync.Mutex // guards the rest
	queue  lineQueue
	failed error     // of writing; Receive returns it
	full   time.Time // since when the device has bytes left that it should have sent; zero: it has none
}

// NewLine returns a Port on one end of a null-modem line at a rate in baud, with
// 8 data bits and no parity. Closing it closes the line, which must end a Read
// and a Write that wait.
func NewLine(rw io.ReadWriteCloser, baud int) Port {
	p := &linePort{rw: rw, byteTime: byteTime(baud), wake: make(chan struct{}, 1), done: make(chan struct{})}
	p.queue.byteTime = p.byteTime
	p.flood.rate = 2 * float64(time.Second) / float64(p.byteTime)
	p.writer.Go(p.write)
	return p
}

// byteTime is the time of one byte: a start bit, 8 data bits, a stop bit.
func byteTime(baud int) time.Duration { return 10 * time.Second / time.Duration(baud) }

// offer implements prioritised.
func (p *linePort) offer(c class, b []byte) (dropped uint64, err error) {
	frame := appendFrame(make([]byte, 0, len(b)+16), b)
	p.mu.Lock()
	if err = p.failed; err == nil {
		p.queue.add(time.Now(), c, frame)
	}
	dropped, p.queue.dropped = p.queue.dropped, 0
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return dropped, err
}

// Broadcast implements Port, for a mesh that cannot see what is behind its Port
// (the simulation's wraps it): hellos are those to everybody, and lease messages
// are told apart by their length.
func (p *linePort) Broadcast(b []byte) error {
	c := classBeat
	if len(b) > 0 && b[0] == lineFormDst {
		c = class(len(b)) << 32
	}
	_, err := p.offer(c, b)
	return err
}

// Send implements Port: a line has one other end, whatever its address.
func (p *linePort) Send(b []byte, _ netip.AddrPort) error { return p.Broadcast(b) }

// unsent is a line that can tell how many bytes have not left yet.
type unsent interface{ Unsent() int }

// stuckAfter is how long a device may keep what it was given beyond the time that it takes.
const stuckAfter = 2 * time.Second

var errStuck = errors.New("the device sends nothing of what it is given")

// write is the goroutine that feeds the line.
func (p *linePort) write() {
	timer := time.NewTimer(0)
	timer.Stop()
	defer timer.Stop()
	for {
		frame, wait, err := p.turn(time.Now())
		if frame != nil {
			_, err = p.rw.Write(frame)
		}
		switch {
		case err != nil:
			p.fail(err)
			return
		case frame != nil:
			continue
		}
		var due <-chan time.Time
		if wait > 0 {
			timer.Reset(wait)
			due = timer.C
		}
		select {
		case <-due:
		case <-p.wake:
		case <-p.done:
			return
		}
	}
}

// turn is the queue's next, with an eye on the device: its rate may be a little
// less than it is called, and then its buffer would fill.
func (p *linePort) turn(now time.Time) (frame []byte, wait time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d, ok := p.rw.(unsent); ok && !p.queue.free.After(now) {
		switch left := d.Unsent(); {
		case left <= 0:
			p.full = time.Time{}
		case p.full.IsZero():
			p.full = now
			p.queue.later(now, left)
		case now.Sub(p.full) > stuckAfter:
			return nil, 0, errStuck
		default:
			p.queue.later(now, left)
		}
	}
	frame, wait = p.queue.next(now)
	return frame, wait, nil
}

// fail ends the port: Receive returns why.
func (p *linePort) fail(err error) {
	p.mu.Lock()
	p.failed = err
	p.mu.Unlock()
	_ = p.rw.Close()
}

// Receive implements Port. The sender's address means nothing on a line.
func (p *linePort) Receive(buf []byte) (int, netip.AddrPort, error) {
	for {
		if len(p.in) == 0 {
			n, err := p.rw.Read(p.buf[:])
			if p.in = p.buf[:n]; n == 0 && err != nil {
				return 0, netip.AddrPort{}, p.why(err)
			}
			if err := p.flood.take(n, time.Now()); err != nil {
				return 0, netip.AddrPort{}, err
			}
			continue
		}
		frame, rest, err := p.deframe.next(p.in)
		p.in = rest
		switch {
		case err != nil:
			return 0, netip.AddrPort{}, err
		case len(frame) > len(buf):
			return 0, netip.AddrPort{}, ErrNoise
		case frame != nil:
			return copy(buf, frame), netip.AddrPort{}, nil
		}
	}
}

// why says why the line has ended: what writing has seen, if that was first.
func (p *linePort) why(err error) error {
	select {
	case <-p.done:
		return net.ErrClosed
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return cmp.Or(p.failed, err)
}

// Close implements Port. The writing goroutine has ended when it returns.
func (p *linePort) Close() (err error) {
	p.closing.Do(func() {
		close(p.done)
		err = p.rw.Close()
		p.writer.Wait()
	})
	return err
}

// flood notices a device that brings more than its line can carry, which would
// otherwise cost a processor. A daemon that was stopped finds what the kernel has
// kept meanwhile, 64 KiB and a little, at once.
type flood struct {
	rate   float64 // bytes a second that are allowed
	credit float64
	at     time.Time
}

const floodBurst = 128 << 10

func (f *flood) take(n int, now time.Time) error {
	if f.at.IsZero() {
		f.credit = floodBurst
	} else {
		f.credit = min(floodBurst, f.credit+f.rate*now.Sub(f.at).Seconds())
	}
	f.at = now
	if f.credit -= float64(n); f.credit < 0 {
		return fmt.Errorf("it brings more than twice what its rate allows, %.0f bytes a second: no serial line, or another rate", f.rate)
	}
	return nil
}
