package vrrp

import "time"

// Turning says whether the clock turns: nothing is overdue by more than late. A
// hang that holds the lock keeps it from returning, which says the same.
func (r *Router) Turning(late time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed || len(r.due) == 0 || r.cfg.Host.Now().Sub(r.due[0].at) <= late
}
