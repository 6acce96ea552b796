package vrrp

// Cleared is closed when what the last Update took away is gone from the
// kernel; nil, which is never ready, before the first.
func (r *Router) Cleared() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cleared
}
