package netdev

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAnAlarmEndsBySomebodyWhoRingsOrByTime(t *testing.T) {
	a, err := NewAlarm()
	if err != nil {
		t.Fatal(err)
	}
	a.Wait(time.Millisecond)
	a.Wait(0)
	a.Wait(-time.Second)

	a.Ring()
	a.Ring()
	a.Wait(time.Hour) // what was rung before is not lost

	go a.Ring()
	a.Wait(time.Hour)

	began := time.Now()
	const short = 20 * time.Millisecond
	a.Wait(short) // and it rings once only
	if took := time.Since(began); took < short/2 {
		t.Errorf("it ended after %v of %v, and nobody had rung", took, short)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a.Ring() // who comes late does no harm
}

func TestTheThreadThatWaitsGoesBeforeOthers(t *testing.T) {
	a, err := NewAlarm()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	nice := func() int {
		p, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err != nil {
			t.Fatal(err)
		}
		return 20 - p
	}
	runtime.LockOSThread() // for good: the thread ends with the test
	// The policy under which the test itself was begun may have no nice value, as SCHED_IDLE.
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: 1}, 0); err != nil {
		t.Fatal(err)
	}
	before := nice()
	end, err := a.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if got := nice(); got != clockNice {
		t.Errorf("nice %d, want %d", got, clockNice)
	}
	end()
	if got := nice(); got != before {
		t.Errorf("nice %d afterwards, it was %d", got, before)
	}
}
