package lab

import (
	"errors"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Lateness measures how late processes of this machine get a processor: what
// threads see that want each processor at short intervals, since a process may
// wait for one of them while the other is free. A test that holds a bound of time
// asks it whether the machine itself has spent that time. The zero value is ready.
type Lateness struct {
	mu     sync.Mutex // guards what follows
	stalls []stall
	due    map[int]time.Time // by processor: when its thread wants it next
}

// stall is a time for which a processor was not to be had.
type stall struct {
	at   time.Time // its end
	late time.Duration
}

// Around measures while f runs, and returns what f does: the tests of a package, in its TestMain.
func (l *Lateness) Around(f func() int) (int, error) {
	end, err := l.run()
	if err != nil {
		return 0, err
	}
	defer end()
	return f(), nil
}

// run measures until the function is called that it returns.
func (l *Lateness) run() (end func(), err error) {
	var mask unix.CPUSet
	if err := unix.SchedGetaffinity(0, &mask); err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.due = map[int]time.Time{}
	l.mu.Unlock()
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
		l.mu.Lock()
		l.due = nil
		l.mu.Unlock()
	}
	if err != nil {
		end()
		return nil, err
	}
	return end, nil
}

func (l *Lateness) measure(cpu int, bound chan<- error, stop <-chan struct{}) {
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
		l.mu.Lock()
		l.due[cpu] = begin.Add(step)
		l.mu.Unlock()
		_ = unix.Nanosleep(&pause, nil) // a signal ends it early: that is not late
		now := time.Now()
		if late := now.Sub(begin) - step; late > kept {
			l.mu.Lock()
			l.stalls = append(l.stalls, stall{now, late})
			l.mu.Unlock()
		}
	}
}

// Worst is the longest stall that was over after an instant, or is not over yet.
func (l *Lateness) Worst(since time.Time) (late time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.stalls {
		if s.at.After(since) {
			late = max(late, s.late)
		}
	}
	for _, due := range l.due {
		late = max(late, time.Since(due))
	}
	return late
}
