package netdev

import (
	"testing"
	"time"
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
