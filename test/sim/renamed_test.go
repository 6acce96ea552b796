package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Changes of the files (world.change) to group2, which director2 prefers.
const (
	takenOutOrBack = 4
	renamed        = 18 // and director1 is preferred
)

func threeWithStores(es ...event) schedule {
	return schedule{
		Config: Config{Seed: 1, Directors: 3, Groups: 3, Stores: 2, Profile: conf.ProfileDefault, Log: true},
		Starts: []time.Duration{0, 0, 0}, Events: es, Calm: 40 * sec,
	}
}

// An administrator gives a group another name, nothing fails, and its stop takes its time.
func TestAGroupThatGetsAnotherNameStartsWhenTheOldOneHasStopped(t *testing.T) {
	w := judge(t, threeWithStores(
		event{At: 3 * sec, For: 20 * sec, Do: slow, On: []string{"director2"}, Count: 3000},
		event{At: 4 * sec, Do: apply, On: []string{"director3"}, Count: renamed},
	))
	if want := "10.0.0.2 answers on director1 after"; !strings.Contains(w.transcript.String(), want) {
		t.Errorf("nowhere: %s", want)
	}
}

// Its owner is cut off, and goes on under the lease that others give it.
func TestAGroupThatGetsAnotherNameWhileItsOwnerDoesNotHearOfIt(t *testing.T) {
	judge(t, threeWithStores(
		event{At: 3900 * time.Millisecond, For: 2 * sec, Do: oneWay, On: []string{"director2"}},
		event{At: 4 * sec, Do: apply, On: []string{"director1"}, Count: renamed},
	))
}

// A mistake and its undoing: what is class fenced was not stopped in between.
func TestAGroupOfClassFencedIsTakenOutAndPutBackWhileItsOwnerDies(t *testing.T) {
	for _, back := range []time.Duration{200, 1000, 3000} {
		judge(t, threeWithStores(
			event{At: 3 * sec, For: 20 * sec, Do: slow, On: []string{"director2"}, Count: 5000},
			event{At: 4 * sec, Do: apply, On: []string{"director3"}, Count: takenOutOrBack},
			event{At: 4500 * time.Millisecond, For: 12 * sec, Do: crash, On: []string{"director2"}},
			event{At: 4500*time.Millisecond + back*time.Millisecond, Do: apply, On: []string{"director3"}, Count: takenOutOrBack},
		))
	}
}
