package main

import (
	"maps"
	"net/netip"
	"sync"
	"time"
)

// watched is a table of real servers as it is seen from outside: when each came
// and when it went. Zero weight is in the table.
type watched struct {
	want int // servers that make it full

	mu      sync.Mutex // guards the rest
	service bool       // the stand-in has the virtual service
	in      map[netip.AddrPort]int
	full    time.Time // when it first held all; zero: not yet
	gone    map[netip.AddrPort]time.Time
}

func newWatched(want int) *watched {
	return &watched{want: want, in: map[netip.AddrPort]int{}, gone: map[netip.AddrPort]time.Time{}}
}

func (w *watched) put(a netip.AddrPort, weight int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.in[a] = weight
	delete(w.gone, a)
	if w.full.IsZero() && len(w.in) >= w.want {
		w.full = time.Now()
	}
}

func (w *watched) remove(a netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, found := w.in[a]; found {
		delete(w.in, a)
		w.gone[a] = time.Now()
	}
}

// set is what the whole table holds now.
func (w *watched) set(now map[netip.AddrPort]int) {
	w.mu.Lock()
	had := make([]netip.AddrPort, 0, len(w.in))
	for a := range w.in {
		if _, found := now[a]; !found {
			had = append(had, a)
		}
	}
	w.mu.Unlock()
	for _, a := range had {
		w.remove(a)
	}
	for a, weight := range now {
		w.put(a, weight)
	}
}

// filled is when the table first held all servers.
func (w *watched) filled() (time.Time, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.full, len(w.in)
}

// removed are the times from told until each server was out of the table, of
// the first n servers; others are those that went without having failed.
func (w *watched) removed(told time.Time, port uint16, n int) (all []time.Duration, others int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	failed := make(map[netip.AddrPort]bool, n)
	for i := range n {
		failed[netip.AddrPortFrom(serverAddress(i), port)] = true
	}
	for a, at := range w.gone {
		if at.Before(told) {
			continue
		}
		if failed[a] {
			all = append(all, at.Sub(told))
		} else {
			others++
		}
	}
	return all, others
}

// open notes that there is a service, and now says so, with a copy of what is in it.
func (w *watched) open() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.service = true
}

func (w *watched) now() (service bool, servers map[netip.AddrPort]int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.service, maps.Clone(w.in)
}
