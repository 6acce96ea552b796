package link

import "sync"

// windowSize is how many sequence numbers back a datagram may arrive. A link
// that is slower than the other by less than this many datagrams of the sender
// (to all its peers together) still counts as a copy and not as a replay.
const windowSize = 4096

// verdict says what the window knows of a sequence number.
type verdict uint8

const (
	_         verdict = iota
	fresh             // not seen yet
	duplicate         // seen, on other links: the copy that redundancy makes
	replayed          // seen on this very link
	tooOld            // before the window
)

// window remembers which sequence numbers of one boot arrived, and on which links.
type window struct {
	mu    sync.Mutex // guards top and links
	top   uint64
	links [windowSize]uint16 // bit set of links, by sequence modulo size; 0: not seen
}

// newWindow refuses seq and everything before it.
func newWindow(seq uint64) *window {
	w := &window{top: seq}
	for i := range w.links {
		w.links[i] = 1<<15 | 1<<14 // no link has both: New allows 14
	}
	return w
}

// check says what the number is, and changes nothing but the note that a seen
// one has now been seen on this link too (which only tells duplicates from
// replays in the counters, so that it may be done before authentication).
func (w *window) check(seq uint64, link int) verdict {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.look(seq, link)
}

// mark takes the number after the datagram has been authenticated: fresh is returned once.
func (w *window) mark(seq uint64, link int) verdict {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.look(seq, link)
	if v != fresh {
		return v
	}
	if seq > w.top {
		if seq-w.top >= windowSize {
			clear(w.links[:])
		} else {
			for s := w.top + 1; s < seq; s++ {
				w.links[s%windowSize] = 0
			}
		}
		w.top = seq
	}
	w.links[seq%windowSize] = 1 << link
	return fresh
}

func (w *window) look(seq uint64, link int) verdict {
	switch {
	case seq > w.top:
		return fresh
	case w.top-seq >= windowSize:
		return tooOld
	}
	seen := &w.links[seq%windowSize]
	switch {
	case *seen == 0:
		return fresh
	case *seen&(1<<link) == 0:
		*seen |= 1 << link
		return duplicate
	}
	return replayed
}
