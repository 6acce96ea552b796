package sim

import (
	"time"
)

// duel draws the faults of a pair: episodes in which the two do not hear each
// other, or one of them is gone, with other faults in the middle.
func (s *schedule) duel(d dice, end time.Duration) {
	lost := false
	for at := d.between(0, 3*time.Second); at < end; {
		e := event{At: at, Do: []action{partition, partition, partition, oneWay, power, power, crash, pause, cleanStop, diskLoss, noise, restart}[d.IntN(12)]}
		if d.IntN(3) == 0 {
			e.For = s.Profile.Lease/4 + d.between(0, 3*s.Profile.Lease)
		} else {
			e.For = d.between(time.Second, 15*time.Second)
		}
		s.fill(d, &e)
		if e.Do == diskLoss {
			if lost {
				continue // two lost disks are what no pair survives
			}
			lost = true
		}
		s.Events = append(s.Events, e)
		for range d.IntN(4) {
			s.Events = append(s.Events, s.meanwhile(d, e))
		}
		at += e.For
		if d.IntN(2) == 0 { // the next one finds the pair whole again, or not yet
			at += d.between(0, 2*time.Second)
		} else {
			at += d.between(2*time.Second, 15*time.Second)
		}
	}
}

// meanwhile draws a fault that begins around an episode's beginning, or in it.
func (s *schedule) meanwhile(d dice, e event) event {
	f := event{At: e.At + d.between(0, e.For), For: d.between(50*time.Millisecond, 4*s.Profile.Lease)}
	if d.IntN(2) == 0 {
		f.At = max(0, e.At-s.Profile.Lease+d.between(0, 3*s.Profile.Lease))
	}
	if d.IntN(3) == 0 {
		f.For = d.between(time.Second, 10*time.Second)
	}
	choice := []action{pause, crash, power, partition, oneWay, slow, failStarts, failStops, lostAddress, standby, takeover, apply, diesWriting, diesWriting, confirm}
	if s.fences() {
		choice = append(choice, deviceSlow, deviceFails, deviceMute, diesAsking, deviceSlow)
	}
	if s.pings() {
		choice = append(choice, noTieBreaker, noTieBreaker, noTieBreaker, lostAddress, lostAddress)
		if d.IntN(8) == 0 {
			choice = []action{serviceCut}
		}
	}
	f.Do = choice[d.IntN(len(choice))]
	s.fill(d, &f)
	return f
}
