package linktest

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// LineNoise is what happens to the bytes of one direction of a Cable.
type LineNoise struct {
	Cut  bool
	Loss float64 // probability that a byte vanishes, 0 to 1
	Flip float64 // probability that a bit of a byte is flipped
	Add  float64 // probability that a random byte stands before a byte
}

// Cable is a null-modem cable between two serial devices at a rate: a byte takes
// its ten bits. It fits testing/synctest; link.NewLine makes a port of an end.
type Cable struct {
	byteTime time.Duration

	mu   sync.Mutex // guards the rest and both ends
	rng  *rand.Rand
	ends [2]*CableEnd
}

// CableEnd is a serial device. A Write takes what fits its buffer of 4096 bytes,
// as the kernel's, and the line sends it at its rate.
type CableEnd struct {
	c     *Cable
	other *CableEnd
	wake  chan struct{} // cap 1: look at the queue
	done  chan struct{}

	// Guarded by Cable.mu.
	noise  LineNoise // of what arrives here
	queue  []cableByte
	last   time.Time // arrival of the last byte in the queue
	closed bool
	sent   int // bytes that were written here
}

type cableByte struct {
	at time.Time
	b  byte
}

const cableBuffer = 4096

// NewCable makes a cable whose noise follows from the seed.
func NewCable(baud int, seed uint64) *Cable {
	c := &Cable{byteTime: 10 * time.Second / time.Duration(baud), rng: rand.New(rand.NewPCG(seed, 2))}
	c.ends[0], c.ends[1] = &CableEnd{closed: true}, &CableEnd{closed: true}
	return c
}

// Open opens one end, 0 or 1; one that is open is closed.
func (c *Cable) Open(end int) *CableEnd {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.ends[end]
	old.close()
	e := &CableEnd{c: c, noise: old.noise, sent: old.sent, wake: make(chan struct{}, 1), done: make(chan struct{})}
	c.ends[end] = e
	c.ends[0].other, c.ends[1].other = c.ends[1], c.ends[0]
	return e
}

// Noise sets what happens to the bytes that arrive at an end.
func (c *Cable) Noise(end int, n LineNoise) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends[end].noise = n
}

// Sent is how many bytes were written at an end.
func (c *Cable) Sent(end int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ends[end].sent
}

// Write implements io.Writer.
func (e *CableEnd) Write(b []byte) (int, error) {
	c := e.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.closed {
		return 0, net.ErrClosed
	}
	e.sent += len(b)
	to, now := e.other, time.Now()
	for _, x := range b {
		at := to.last
		if at.Before(now) {
			at = now
		}
		if to.last = at.Add(c.byteTime); to.closed || to.noise.Cut || len(to.queue) >= cableBuffer {
			continue
		}
		n, roll := to.noise, c.rng.Float64
		if n.Add > 0 && roll() < n.Add {
			to.queue = append(to.queue, cableByte{to.last, byte(c.rng.Uint32())})
		}
		if n.Loss > 0 && roll() < n.Loss {
			continue
		}
		if n.Flip > 0 && roll() < n.Flip {
			x ^= 1 << c.rng.IntN(8)
		}
		to.queue = append(to.queue, cableByte{to.last, x})
	}
	if !to.closed {
		select {
		case to.wake <- struct{}{}:
		default:
		}
	}
	return len(b), nil
}

// Read implements io.Reader.
func (e *CableEnd) Read(b []byte) (int, error) {
	for {
		e.c.mu.Lock()
		if e.closed {
			e.c.mu.Unlock()
			return 0, io.EOF
		}
		n, now := 0, time.Now()
		for n < min(len(b), len(e.queue)) && !e.queue[n].at.After(now) {
			b[n] = e.queue[n].b
			n++
		}
		e.queue = e.queue[n:]
		var due <-chan time.Time
		if n == 0 && len(e.queue) > 0 {
			// Some bytes at a time, as a UART's FIFO tells of them.
			due = time.After(e.queue[min(len(e.queue), 14)-1].at.Sub(now))
		}
		e.c.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		select {
		case <-due:
		case <-e.wake:
		case <-e.done:
		}
	}
}

// Close implements io.Closer.
func (e *CableEnd) Close() error {
	e.c.mu.Lock()
	defer e.c.mu.Unlock()
	e.close()
	return nil
}

// close needs c.mu.
func (e *CableEnd) close() {
	if !e.closed {
		e.closed, e.queue = true, nil
		close(e.done)
	}
}
