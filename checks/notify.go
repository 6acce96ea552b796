package checks

// subscriber is one holder of a check. Its callbacks run one after the other
// in a goroutine that exists while there is something to tell. All fields but
// notify are guarded by Scheduler.mu.
type subscriber struct {
	notify  func(Status)
	pending *Status // the latest that was not told yet
	busy    bool    // the goroutine exists
	gone    bool    // cancelled
}

// tell queues a status for a subscriber. What a slow one has not fetched yet is
// replaced, so that it holds up nobody and memory is bounded. s.mu is held.
func (s *Scheduler) tell(sub *subscriber, st Status) {
	if sub.notify == nil || sub.gone || s.ended {
		return
	}
	sub.pending = &st
	if sub.busy {
		return
	}
	sub.busy = true
	s.wg.Go(func() {
		for {
			s.mu.Lock()
			st := sub.pending
			sub.pending = nil
			if st == nil || sub.gone {
				sub.busy = false
				s.mu.Unlock()
				return
			}
			s.mu.Unlock()
			sub.notify(*st)
		}
	})
}
