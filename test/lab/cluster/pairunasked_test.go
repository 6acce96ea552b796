package cluster

import (
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// TestAPairThatCannotAskForAnAddressSaysSo: by the rule ping it takes nothing then.
func TestAPairThatCannotAskForAnAddressSaysSo(t *testing.T) {
	t.Parallel()
	d := beginDuo(t, scenario.Ping, scenario.Options{
		Groups: "  web:\n    prefer: [director1, director2]\n    resources:\n      - vip: " + scenario.VIP + "/24/eth0\n      - vip: 10.0.2.200/24/eth2\n",
	})
	owner := d.owner()
	standby := d.Other(owner)
	standby.Run("ip", "link", "set", "eth2", "down")
	since := owner.Die()
	const unasked = "does not take addresses of which it cannot ask who has them: vip 10.0.2.200/32: eth2: the interface is down"
	d.see(standby, "status to say why nothing is taken", func(st cluster.Status) bool {
		return strings.Contains(strings.Join(st.Trouble, "\n"), unasked)
	})
	standby.Run("ip", "link", "set", "eth2", "up")
	// What the log knows of the interface may be a moment old when the dead owner's
	// group is taken: then nobody has it for an epoch.
	d.active(standby, since)
	d.see(standby, "status to say it no longer", func(st cluster.Status) bool {
		return !strings.Contains(strings.Join(st.Trouble, "\n"), "cannot ask")
	})
}
