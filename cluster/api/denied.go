package api

import (
	"sync"
	"time"
)

// denied bounds what the log is told of users who try what they may not: anybody
// may connect when there are two groups, and nobody is to fill the disk that way.
type denied struct {
	mu   sync.Mutex
	told map[int]time.Time // by uid
}

const (
	deniedAgain = time.Minute // how often the log is told of one user
	deniedUsers = 100         // in that time; of more it is not told
)

// say says whether the log is to be told of a user now.
func (d *denied) say(uid int, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for u, at := range d.told {
		if now.Sub(at) >= deniedAgain {
			delete(d.told, u)
		}
	}
	if _, known := d.told[uid]; known || len(d.told) >= deniedUsers {
		return false
	}
	if d.told == nil {
		d.told = map[int]time.Time{}
	}
	d.told[uid] = now
	return true
}
