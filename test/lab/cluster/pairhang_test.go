package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// Both have died, and so has the tie-breaker. One is back, and an operator has told it to
// go on alone; while it waits for the tie-breaker it hangs. That it has heard nothing
// meanwhile does not mean that the other one is back.
func TestAWordIsKeptThroughAHang(t *testing.T) {
	t.Parallel()
	d := beginDuo(t, scenario.Ping, scenario.Options{})
	d.bothDie()
	d.Gateway.Die()
	one := d.Director1
	d.Revive(one)
	d.phase(one, "waiting", "wait_for_all")
	d.mustConfirm(one)
	d.phase(one, "surviving", "tie-breaker does not answer")
	d.stop(one)
	time.Sleep(3 * lease / 4) // more than the quarter that is taken for a hang, less than the watchdogs bear
	d.wake(one)
	d.phase(one, "surviving", "tie-breaker does not answer")
	d.Gateway.Revive()
	d.client.WaitAnswer(one.Name, probe.Now(), limit)
	if log := d.Daemons[one.Name].Log(); strings.Contains(log, "the confirmation is void") {
		t.Errorf("the operator's word was dropped:\n%s", log)
	}
}
