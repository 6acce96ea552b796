package lease

import (
	"testing"
	"testing/synctest"
	"time"
)

// The voter goes on promising: it came after the revocation and has not heard of it.
func TestRule8ALeaseEndsWithItsIncarnation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, v, g := alone(t)
		told := 0
		k.cfg.Changed = func() { told++ }
		playRound(k, v)
		if !k.Live() {
			t.Fatal("there is no lease to begin with")
		}
		told = 0
		k.Admit(0)
		if k.Live() || k.Left() > 0 || told != 1 {
			t.Errorf("live %v, %v left, told %d times", k.Live(), k.Left(), told)
		}
		if d := g.deadline; d > k.cfg.Clock.Boot() {
			t.Errorf("the guard is open until %v, it is %v", d, k.cfg.Clock.Boot())
		}
		for range 8 {
			playRound(k, v)
			time.Sleep(length / 4)
		}
		k.Configure(Voters{Index: 2, IDs: []string{"a/1"}})
		playRound(k, v)
		if k.Live() || g.deadline > k.cfg.Clock.Boot() {
			t.Error("it came back")
		}
		k.Admit(2)
		playRound(k, v)
		if !k.Live() {
			t.Error("the next incarnation has none")
		}
	})
}
