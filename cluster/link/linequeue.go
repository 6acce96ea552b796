package link

import (
	"slices"
	"time"
)

// class tells what waits for a slow line apart: messages of one class replace
// one another in the sender's and the receiver's eyes, those of others do not.
type class uint64

const (
	classBeat   class = 1 // a hello of the beat
	classPrompt class = 2 // a hello between the beats
)

// classOf is the class of a lease message: its destination and its first two
// bytes, which are version and kind.
func classOf(dst uint32, payload []byte) class {
	c := class(dst) << 32
	for i, b := range payload[:min(2, len(payload))] {
		c |= class(b) << (16 + 8*i)
	}
	return c
}

// maxWaiting bounds the lease messages that wait for a line.
const maxWaiting = 16

// lineQueue decides what a slow line carries next. It is pure.
//
// Lease messages go first, the newest of its class before older ones and the
// classes in turn, so that renewals do not starve acknowledgements. What is old
// is dropped: there is a newer one, or nobody waits for it any more. A hello
// waits for lease messages, but not for ever: hellos are few (beatsPerHello), and
// without them the line would be called down while it carries leases.
type lineQueue struct {
	byteTime time.Duration // one byte on the line

	hello   [2]waiting // of the beat and prompt: the newest of each
	leases  []waiting  // in order of arrival
	served  []class    // of lease messages, the latest last
	free    time.Time  // when the line has sent all that it was given
	dropped uint64
}

// waiting is a frame that waits for the line; nil data: none.
type waiting struct {
	data  []byte
	class class
	at    time.Time
}

// stale is the age at which a lease message is dropped: the time of 400 bytes,
// four messages, 0.2 s at 19200 baud.
func (q *lineQueue) stale() time.Duration { return max(400*q.byteTime, 50*time.Millisecond) }

// patience is how long a hello waits for lease messages: two of them.
func (q *lineQueue) patience() time.Duration { return 200 * q.byteTime }

// add takes a frame, which may cost an older one.
func (q *lineQueue) add(now time.Time, c class, data []byte) {
	w := waiting{data, c, now}
	if c == classBeat || c == classPrompt {
		slot := &q.hello[c-classBeat]
		if slot.data != nil {
			q.dropped++
		}
		*slot = w
		return
	}
	if len(q.leases) == maxWaiting {
		q.leases = slices.Delete(q.leases, 0, 1)
		q.dropped++
	}
	q.leases = append(q.leases, w)
}

// next returns the frame to be sent now, or after what time to ask again; both
// zero: nothing waits.
func (q *lineQueue) next(now time.Time) (data []byte, wait time.Duration) {
	for len(q.leases) > 0 && now.Sub(q.leases[0].at) > q.stale() {
		q.leases = slices.Delete(q.leases, 0, 1)
		q.dropped++
	}
	h := &q.hello[0]
	if p := &q.hello[1]; h.data == nil || p.data != nil && p.at.Before(h.at) {
		h = p
	}
	switch wait = q.free.Sub(now); {
	case h.data == nil && len(q.leases) == 0:
		return nil, 0
	case wait > 0:
		return nil, wait
	case h.data != nil && (len(q.leases) == 0 || now.Sub(h.at) >= q.patience()):
		data, h.data = h.data, nil
	default:
		data = q.lease()
	}
	q.free = now.Add(time.Duration(len(data)) * q.byteTime)
	return data, 0
}

// lease takes the newest message of the class that was served longest ago.
func (q *lineQueue) lease() []byte {
	best := -1
	turn := func(c class) int { return slices.Index(q.served, c) } // -1: never, or long ago
	for i, w := range q.leases {
		if best < 0 || turn(w.class) <= turn(q.leases[best].class) {
			best = i
		}
	}
	w := q.leases[best]
	q.leases = slices.Delete(q.leases, best, best+1)
	q.served = append(slices.DeleteFunc(q.served, func(c class) bool { return c == w.class }), w.class)
	if len(q.served) > maxWaiting {
		q.served = slices.Delete(q.served, 0, 1)
	}
	return w.data
}

// later puts off what waits: the device has not yet sent so many bytes.
func (q *lineQueue) later(now time.Time, unsent int) {
	q.free = now.Add(time.Duration(unsent) * q.byteTime)
}
