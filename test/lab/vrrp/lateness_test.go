package vrrp

import (
	"errors"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// clock measures how late processes of this machine get a processor, for as long as tests run.
var clock lateness

// lateness is what threads see that want each processor at short intervals: a
// process may wait for one of them while the other is free.
type lateness struct {
	mu     sync.Mutex // guards stalls
	stalls []stall
}

// stall is a time for which a processor was not to be had.
type stall struct {
	at   time.Time // its end
	late time.Duration
}

// run measures until the function is called that it returns.
func (l *lateness) run() (end func(), err error) {
	var mask unix.CPUSet
	if err := unix.SchedGetaffinity(0, &mask); err != nil {
		return nil, err
	}
	stop := make(chan struct{})
	var measuring sync.WaitGroup
	bound := make(chan error)
	for cpu, left := 0, mask.Count(); left > 0; cpu++ {
		if !mask.IsSet(cpu) {
			continue
		}
		left--
		measuring.Go(func() { l.measure(cpu, bound, stop) })
		err = errors.Join(err, <-bound)
	}
	end = func() {
		close(stop)
		measuring.Wait()
	}
	if err != nil {
		end()
		return nil, err
	}
	return end, nil
}

func (l *lateness) measure(cpu int, bound chan<- error, stop <-chan struct{}) {
	const (
		step = 10 * time.Millisecond
		kept = time.Millisecond // less is of no account
	)
	runtime.LockOSThread() // for good: the thread ends with this goroutine
	var one unix.CPUSet
	one.Set(cpu)
	bound <- unix.SchedSetaffinity(0, &one)
	for {
		select {
		case <-stop:
			return
		default:
		}
		begin, pause := time.Now(), unix.NsecToTimespec(int64(step))
		_ = unix.Nanosleep(&pause, nil) // a signal ends it early: that is not late
		now := time.Now()
		if late := now.Sub(begin) - step; late > kept {
			l.mu.Lock()
			l.stalls = append(l.stalls, stall{now, late})
			l.mu.Unlock()
		}
	}
}

// worst is the longest stall since an instant.
func (l *lateness) worst(since time.Time) (late time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.stalls {
		if s.at.After(since) {
			late = max(late, s.late)
		}
	}
	return late
}
