package checks

// Health is rise and fall: what single results say about a server.
type Health struct {
	Known     bool // there has been a result
	Up        bool
	Fails     int // in a row
	Successes int // in a row
}

// maxStreak keeps the counters from growing for ever.
const maxStreak = 1 << 30

// Next is the health after one more result. The first result decides at once,
// so that a pool starts with known health after one check; later, fall failures
// in a row take an up server down and rise successes in a row bring it up
// again. Values below 1 count as 1.
func (h Health) Next(ok bool, fall, rise int) Health {
	if ok {
		h.Successes, h.Fails = min(h.Successes+1, maxStreak), 0
	} else {
		h.Fails, h.Successes = min(h.Fails+1, maxStreak), 0
	}
	switch {
	case !h.Known:
		h.Known, h.Up = true, ok
	case h.Up && h.Fails >= max(fall, 1):
		h.Up = false
	case !h.Up && h.Successes >= max(rise, 1):
		h.Up = true
	}
	return h
}
