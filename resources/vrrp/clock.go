package vrrp

import (
	"container/heap"
	"context"
	"time"
)

// dueHeap is the instances in the order in which something is due. An instance
// that has been given more time stays where it is, and is put right when its
// turn comes: a backup gets more time with each advertisement, and its timer
// almost never runs out.
type dueHeap []*instance

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(a, b int) bool { return h[a].at.Before(h[b].at) }
func (h dueHeap) Swap(a, b int) {
	h[a], h[b] = h[b], h[a]
	h[a].place, h[b].place = a, b
}
func (h *dueHeap) Push(x any) {
	i := x.(*instance)
	i.place = len(*h)
	*h = append(*h, i)
}
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	i := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	i.place = -1
	return i
}

// schedule puts an instance where its next time is. The clock is woken if it
// would sleep too long.
func (r *Router) schedule(i *instance) {
	next := i.next()
	switch {
	case next.IsZero():
		return // what is in the heap yet finds nothing to do
	case i.place < 0:
		i.at = next
		heap.Push(&r.due, i)
	case next.Before(i.at):
		i.at = next
		heap.Fix(&r.due, i.place)
	}
	if !r.sleeping.IsZero() && next.Before(r.sleeping) {
		r.sleeping = time.Time{}
		r.alarm.Ring()
	}
}

// longest is how long the clock sleeps at most.
const longest = time.Hour

// Alarm is what the clock sleeps by.
type Alarm interface {
	// Begin is called by the goroutine that is going to wait, and end when it will
	// no more. An error says why it may be woken late; it works all the same.
	Begin() (end func(), err error)
	// Wait returns after d, or when somebody has rung since it last returned.
	Wait(d time.Duration)
	// Ring ends Wait; it does not wait.
	Ring()
}

// timerAlarm is an Alarm of Go's timers.
type timerAlarm struct {
	timer *time.Timer
	bell  chan struct{}
}

func newTimerAlarm() *timerAlarm {
	return &timerAlarm{bell: make(chan struct{}, 1)}
}

func (a *timerAlarm) Begin() (end func(), err error) { return func() {}, nil }

func (a *timerAlarm) Wait(d time.Duration) {
	if a.timer == nil {
		a.timer = time.NewTimer(d)
	} else {
		a.timer.Reset(d)
	}
	select {
	case <-a.bell:
	case <-a.timer.C:
	}
}

func (a *timerAlarm) Ring() {
	select {
	case a.bell <- struct{}{}:
	default:
	}
}

// clock does what is due when it is due, until ctx ends.
func (r *Router) clock(ctx context.Context) {
	defer context.AfterFunc(ctx, r.alarm.Ring)()
	end, err := r.alarm.Begin()
	if err != nil {
		r.cfg.Logger.Warn("advertisements may be late while the machine is busy", "err", err)
	}
	defer end()
	for {
		idle := r.tick()
		if ctx.Err() != nil {
			return // what was due until then has been done
		}
		r.alarm.Wait(idle)
	}
}

// tick does what is due, and returns how long there is nothing to do.
func (r *Router) tick() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		now := r.cfg.Host.Now()
		r.sleeping = now.Add(longest)
		if len(r.due) == 0 {
			return longest
		}
		i := r.due[0]
		if i.at.After(now) {
			r.sleeping = i.at
			return i.at.Sub(now)
		}
		r.sleeping = time.Time{}
		i.tick(now)
		if next := i.next(); next.IsZero() {
			heap.Remove(&r.due, i.place)
		} else {
			i.at = next
			heap.Fix(&r.due, i.place)
		}
	}
}
