package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// The links are cut for a while, and a person is asked for. When the two hear each other
// again nobody has to be switched off, and whoever says so would be wrong.
func TestNobodyIsAskedForTheOtherOfAPairThatIsBack(t *testing.T) {
	t.Parallel()
	d := beginDuo(t, scenario.Fencing, scenario.Options{Fencing: "  devices:\n    hands: {manual: yes, targets: [director1, director2]}\n"})
	owner := d.owner()
	standby := d.Other(owner)
	asked := func(st cluster.Status) bool {
		for _, n := range st.Nodes {
			if n.Here != nil && len(n.Here.Waiting) > 0 {
				return true
			}
		}
		return false
	}
	since := d.cut()
	d.see(owner, "somebody to be asked for", asked)
	if out, err := standby.Keepbeat("fence", "confirm", standby.Name); err == nil || !strings.Contains(out, "this is "+standby.Name+", and it is not off") {
		t.Errorf("a node that runs was confirmed to be off: %v %s", err, out)
	}
	time.Sleep(aWhile)
	d.Lab.Heal()
	d.settle()
	for _, h := range d.Both() {
		d.see(h, "nobody to be asked for any more", func(st cluster.Status) bool { return !asked(st) })
		if out, err := h.Keepbeat("fence", "confirm", d.Other(h).Name); err == nil {
			t.Errorf("%s was confirmed to be off: %s", d.Other(h).Name, out)
		}
	}
	d.neverSilent(since, "the owner's address while the links were cut")
	if n := d.client.Summary(probe.Now().Add(-time.Second)).Answers; n == 0 {
		t.Error("nobody answers at the end")
	}
}
